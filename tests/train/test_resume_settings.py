"""A run goes on under its own settings only; when checkpoints are written, and what a full disk costs."""

import dataclasses
import time

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra, nn, optim, train
from cutnn.train import _folder, _settings
from tests.train.killing import (
    BUILD,
    Deadly,
    Killed,
    assert_same_run,
    killed,
    resumed,
    with_adam,
    with_momentum,
)
from tests.train.tiny import STAR, assert_same, made_data, made_net, made_set, made_time_net, run

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


class OtherLoss(nn.TubalCrossEntropy):
    """A loss of another name."""


# ---------------------------------------------------------------------------------------------- other settings


OTHERS = {
    "epochs was 2 or more, and is 1": {"epochs": 1},
    "batch_size was 16, and is 8": {"batch_size": 8},
    "seed was 42, and is 43": {"seed": 43},
    "seed was 42, and is a PCG64 in state": {"seed": np.random.default_rng(42)},
    "shuffle was True, and is fixed": {"shuffle": "fixed"},
    "samples of train was 120, and is 100": {"dataset": made_set(made_data(100))},
    "samples of validation was 60, and is None": {"dataset": made_set(validation=None)},
    r"regularizer was None, and is Tikhonov\(alpha=0.1\)": {"regularizer": nn.Tikhonov(0.1)},
    "loss was .*TubalCrossEntropy.*, and is .*OtherLoss": {"loss": OtherLoss(STAR)},
    r"refine was {1: 2}, and is {}": {"refine": None},
    r"refine was {1: 2}, and is {1: 3}": {"refine": {1: 3}},
}


@pytest.mark.parametrize("message", OTHERS)
def test_other_settings_are_refused_by_name(tmp_path, message):
    build = with_adam(made_time_net)
    options = {"epochs": 3, "refine": {1: 2}}
    killed(build, tmp_path, 12, save_every=0, **options)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = options | OTHERS[message]
    if other["epochs"] == 1:
        other["refine"] = None
    with pytest.raises(train.ResumeError, match=message):
        resumed(build, tmp_path, **other)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def other_model(make, **options):
    def build():
        model = make(**options)
        return model, optim.Adam(model, lr=1e-2)

    return build


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (with_momentum(made_time_net), "optimizer was Adam, and is SGD"),
        (with_adam(made_time_net, lr=1e-3), "optimizer.lr was 0.01, and is 0.001"),
        (with_adam(made_time_net, lr=lambda step: 1e-2), "optimizer.lr was 0.01, and is a schedule"),
        (with_adam(made_time_net, betas=(0.8, 0.9)), r"betas was \[0.9, 0.999\], and is \[0.8, 0.9\]"),
        (with_adam(made_time_net, weight_decay=0.1), "optimizer.weight_decay was 0.0, and is 0.1"),
        (with_adam(made_time_net, clip=1.0), "optimizer.clip was None, and is 1.0"),
        (other_model(made_time_net, depth=3), "model was Sequential, 294 parameters, and is Sequential, 396"),
        (other_model(made_time_net, activation=ct.sin), "model was .*tanh.*, and is .*sin"),
        (other_model(made_time_net, dtype=np.float64), "model was .*float32.*, and is .*float64"),
        (with_adam(made_net), "model was .*"),
    ],
)
def test_another_model_or_optimizer_is_refused_by_name(tmp_path, build, message):
    killed(with_adam(made_time_net), tmp_path, 12, save_every=0)
    with pytest.raises(train.ResumeError, match=message):
        resumed(build, tmp_path)


class Scaled:
    """A loss without a repr; what it logs is no setting of it."""

    def __init__(self, scale, loss=None):
        self.scale, self.loss, self.log, self._calls = scale, loss or nn.TubalCrossEntropy(STAR), [], 0

    def __call__(self, Y, labels):
        self._calls += 1
        self.log.append(self.scale)
        return self.scale * self.loss(Y, labels)


@dataclasses.dataclass(frozen=True)
class Weighted:
    weights: np.ndarray

    def __call__(self, Y, labels):
        return ct.sum(Y * Y) * self.weights[-1]


def scaled(scale):
    return lambda Y, labels: scale * ct.sum(Y * Y)


def pulled(scale):
    def penalty(model):
        return scale * ct.sum(model.weight**2)

    return nn.Blocks({-1: penalty})


many = np.linspace(0, 1, 3000, dtype=np.float32)


@pytest.mark.parametrize(
    ("name", "then", "now", "message"),
    [
        ("loss", lambda: Scaled(1.0), lambda: Scaled(2.0), r"Scaled object.*scale=1.0.*scale=2.0"),
        ("loss", lambda: Scaled(1.0), lambda: Scaled(1.0, Scaled(2.0)), "loss=Tubal.*scale=2.0"),
        ("loss", lambda: scaled(1.0), lambda: scaled(2.0), r"lambda>>\(scale=1.0\), and is .*scale=2.0"),
        ("loss", lambda: Weighted(many), lambda: Weighted(many + (many == many[1500])), "loss was"),
        ("loss", lambda: Weighted(np.ones(2)), lambda: Weighted(np.ones(2) + 1e-12), "1.000000000001"),
        ("regularizer", lambda: pulled(0.1), lambda: pulled(0.2), "penalty>.scale=0.1.*scale=0.2"),
    ],
)
def test_settings_that_a_repr_leaves_out_are_told_apart(tmp_path, name, then, now, message):
    killed(BUILD, tmp_path, 12, save_every=0, **{name: then()})
    with pytest.raises(train.ResumeError, match=message):
        resumed(BUILD, tmp_path, **{name: now()})
    resumed(BUILD, tmp_path, **{name: then()})


def test_built_in_losses_and_regularizers_are_told_by_their_repr():
    told = [nn.TubalCrossEntropy(STAR), nn.Blocks({0: nn.Smoothness(0.1), -1: nn.Tikhonov(0.1)})]
    told += [nn.Tikhonov(0.1) + nn.Smoothness(0.2), nn.CrossEntropy(), made_net()]
    assert [_settings._words(x) for x in told] == [repr(x) for x in told]


def test_another_schedule_is_told_by_the_learning_rates_it_gave(tmp_path):
    def build(steps):
        return with_adam(made_net, lr=optim.cosine(1e-2, steps))

    killed(build(24), tmp_path, 5, save_every=0)
    with pytest.raises(train.ResumeError, match=r"optimizer.lr was 0\.0098\d* at step 2, and is 0\.0099\d*"):
        resumed(build(32), tmp_path, epochs=4)
    resumed(build(24), tmp_path)


def test_another_matrix_is_refused(tmp_path):
    def build(seed):
        star = algebra.from_matrix(np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0])
        return with_adam(lambda: nn.Sequential(nn.TLinear(star, 4, 3, seed=0)))

    killed(build(0), tmp_path, 12, save_every=0)
    with pytest.raises(train.ResumeError, match="another transform"):
        resumed(build(1), tmp_path)


def test_a_checkpoint_of_a_loop_of_ones_own_is_not_a_run(tmp_path):
    train.save_checkpoint(tmp_path, {"model": made_net()}, epoch=1)
    with pytest.raises(train.ResumeError, match=r"checkpoint-000001.* was not written by train\.fit"):
        resumed(BUILD, tmp_path)
    train.save_checkpoint(tmp_path, {"model": made_net()}, {"fit": 0}, epoch=1)
    with pytest.raises(train.ResumeError, match=r"was not written by this version of train\.fit"):
        resumed(BUILD, tmp_path)


def test_a_refused_checkpoint_leaves_the_model_as_it_was(tmp_path):
    class Other(optim.Adam):
        def state(self):
            return {**super().state(), "more": np.zeros(1)}

    Other.__name__ = "Adam"
    killed(BUILD, tmp_path, 12, save_every=0)
    model = made_net()
    with pytest.raises(train.ResumeError, match="optimizer is of another structure: it lacks more"):
        run(model, optimizer=Other(model, lr=1e-2), checkpoint=tmp_path, resume=True)
    assert_same(model, made_net())


# ------------------------------------------------------------------------------------------------ when it saves


class Slow(Deadly):
    """A split whose every batch takes seven seconds on a clock that is a list of one number."""

    def __init__(self, split, clock, at=0):
        super().__init__(split, at)
        self.clock = clock

    def batch(self, indices, *dtype):
        self.clock[0] += 7.0
        return super().batch(indices, *dtype)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(30, [(0, 5), (1, 0), (1, 5), (2, 0)]), (float("inf"), [(1, 0), (2, 0)])]
)
def test_checkpoints_lie_at_the_ends_of_epochs_and_every_so_many_seconds_between(
    tmp_path, monkeypatch, seconds, expected
):
    clock, saved, save = [0.0], [], _folder.save_checkpoint

    def noted(*args, **options):
        saved.append((options["epoch"], options["step"]))
        save(*args, **options)

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(_folder, "save_checkpoint", noted)
    dataset = made_set(Slow(made_data(), clock))
    run(dataset=dataset, epochs=2, checkpoint=tmp_path, save_every=seconds, progress=False)
    assert saved == expected
    names = [f"checkpoint-{epoch:06d}-{step:06d}.safetensors" for epoch, step in expected[-3:]]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == names


@pytest.mark.parametrize(("seconds", "gaps"), [(30, {10 + 203}), (0, {10 + 7})])
def test_checkpoints_that_take_long_are_written_less_often_unless_after_every_step(
    tmp_path, monkeypatch, seconds, gaps
):
    clock, saved = [0.0], []

    def slow(*args, **options):
        saved.append(clock[0])
        clock[0] += 10.0

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(_folder, "save_checkpoint", slow)
    dataset = made_set(Slow(made_data(2000), clock))
    run(dataset=dataset, epochs=1, checkpoint=tmp_path, save_every=seconds, progress=False)
    assert set(np.diff(saved[:-1])) == gaps


def test_the_seconds_of_an_epoch_are_those_of_all_its_processes(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for at in (5, 0):
        dataset = made_set(Slow(made_data(), clock, at))
        options = {"dataset": dataset, "checkpoint": tmp_path, "save_every": 0, "resume": True, "epochs": 2}
        if at:
            with pytest.raises(Killed):
                run(**options)
        else:
            assert run(**options).history["seconds"] == [8 * 7.0] * 2


def test_a_disk_that_is_full_costs_a_warning_and_training_goes_on(tmp_path, monkeypatch):
    whole = run()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_folder, "save_checkpoint", full)
        with pytest.warns(RuntimeWarning, match="No space left on device; the training goes on"):
            result = run(checkpoint=tmp_path)
    assert_same_run(result, whole)
    assert_same_run(resumed(BUILD, tmp_path), whole)


def test_a_folder_that_is_gone_costs_a_warning(tmp_path):
    def remove(result):
        for path in (tmp_path / "run").iterdir():
            path.unlink()
        (tmp_path / "run").rmdir()
        (tmp_path / "run").write_text("a file now")

    with pytest.warns(RuntimeWarning, match="the training goes on"):
        result = run(
            checkpoint=tmp_path / "run", callbacks=[lambda r: remove(r) if len(r.history) == 1 else None]
        )
    assert len(result.history) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, "resume=True goes on from the folder that checkpoint= names"),
        ({"keep": 0}, "at least 1"),
        ({"save_every": -1}, "save_every is a number of seconds from 0, not -1"),
        ({"save_every": float("nan")}, "save_every"),
    ],
)
def test_settings_of_checkpoints_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)
