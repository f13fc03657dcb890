"""Runs that are killed and go on: the same bits as a run that never stopped."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra, nn, optim, train
from cutnn.train import _folder
from tests.train.test_fit import DescentAnywhere
from tests.train.tiny import STAR, assert_same, made_data, made_net, made_set, made_time_net, run

STEPS = 8  # of an epoch: 120 images in batches of 16


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda number: None)


class OtherLoss(nn.TubalCrossEntropy):
    """A loss of another name."""


class Killed(BaseException):
    """What ends a run at once, with nothing written after it."""


class Deadly:
    """A split that raises at its batch number `at`, counted from 1, the trial included."""

    def __init__(self, split, at, error=Killed):
        self.split, self.at, self.error, self.asked = split, at, error, 0
        self.labels = split.labels

    def __len__(self):
        return len(self.split)

    def batch(self, indices, *dtype):
        self.asked += 1
        if self.asked == self.at:
            raise self.error
        return self.split.batch(indices, *dtype)


def deadly_set(at, error=Killed, validation="made"):
    return made_set(Deadly(made_data(), at, error), validation)


def started(build, **options):
    model, optimizer = build()
    return run(model, optimizer=optimizer, **options)


def killed(build, folder, *batches, **options):
    """Runs that go on from one another and are killed, each when it asks for a batch of that number."""
    for at in batches:
        with pytest.raises(Killed):
            started(build, dataset=deadly_set(at), checkpoint=folder, resume=True, **options)


def resumed(build, folder, **options):
    return started(build, checkpoint=folder, resume=True, **options)


def assert_same_run(result, whole):
    assert result.history.columns == whole.history.columns
    for column in whole.history.columns:
        if column != "seconds":
            assert result.history[column] == whole.history[column], column
    assert (result.best_epoch, result.stopped) == (whole.best_epoch, whole.stopped)
    assert_same(result.model, whole.model)
    assert_same(result.final, whole.final)


def to_complex(X):
    return ct.astype(X, ct.complex64)


def to_real(Y):
    return ct.real(Y)


def complex_net():
    net = nn.HamiltonianNet(algebra.fft(6), 4, depth=2, dtype=np.complex64, seed=0)
    return nn.Sequential(to_complex, net, to_real, nn.TLinear(STAR, 4, 3, seed=1))


def with_adam(make, lr=1e-2, **options):
    def build():
        model = make()
        return model, optim.Adam(model, lr=lr, **options)

    return build


def with_momentum(make, **options):
    def build():
        model = make()
        return model, optim.SGD(model, lr=0.1, momentum=0.9, **options)

    return build


def with_schedule(make):
    def build():
        model = make()
        lr = optim.warmup(optim.cosine(2e-2, 4 * STEPS), 5)
        return model, optim.AdamW(model, lr=lr, weight_decay=0.1, clip=0.5)

    return build


def double_time_net():
    return made_time_net(np.float64)


CASES = {
    "momentum": (with_momentum(made_net), {}),
    "nesterov, the same order": (with_momentum(made_net, nesterov=True), {"shuffle": "fixed"}),
    "plain, no order": (lambda: (model := made_net(), optim.SGD(model, lr=0.1)), {"shuffle": False}),
    "adam": (with_adam(made_time_net), {"seed": 7}),
    "adam, double": (with_adam(double_time_net, weight_decay=1e-3), {"shuffle": "fixed"}),
    "adam, complex": (with_adam(complex_net), {}),
    "adamw, schedule": (with_schedule(made_time_net), {"shuffle": "fixed"}),
    "adamw, schedule, double": (with_schedule(double_time_net), {}),
    "regularizer": (with_adam(made_time_net), {"regularizer": nn.Tikhonov(1e-2)}),
    "refined": (with_schedule(made_time_net), {"refine": {1: 2, 3: 3}}),
    "refined, momentum": (
        with_momentum(double_time_net),
        {"refine": {2: 2}, "regularizer": nn.Smoothness(1e-3)},
    ),
    "refined, complex": (with_adam(complex_net), {"refine": {1: 2}, "shuffle": False}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_killed_run_ends_with_the_bits_of_one_never_interrupted(name, tmp_path):
    build, options = CASES[name]
    options = {"epochs": 4, **options}
    whole = started(build, **options)
    killed(build, tmp_path, 2, 5, 10, 9, 4, save_every=0, **options)
    result = resumed(build, tmp_path, **options)
    assert_same_run(result, whole)
    assert_same(train.load_model(tmp_path / "model.safetensors", whole.model), whole.model)


BUILD = with_adam(made_net)


def test_without_validation_it_is_the_same(tmp_path):
    whole = started(BUILD, dataset=made_set(validation=None))
    with pytest.raises(Killed):
        started(BUILD, dataset=deadly_set(13, validation=None), checkpoint=tmp_path, save_every=0)
    assert_same_run(resumed(BUILD, tmp_path, dataset=made_set(validation=None)), whole)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_inside_any_write_loses_nothing(tmp_path, monkeypatch, after):
    """The rename of each file of a run in turn is the last thing that happens."""
    whole, replace, renamed = run(epochs=2), os.replace, []

    def deadly(*paths):
        renamed.append(paths)
        if len(renamed) == at and not after:
            raise Killed
        replace(*paths)
        if len(renamed) == at and after:
            raise Killed

    monkeypatch.setattr(os, "replace", deadly)
    for at in range(1, 8):  # the model at the start; model, history and checkpoint of each epoch
        renamed.clear()
        with pytest.raises(Killed):
            run(epochs=2, checkpoint=tmp_path / str(at))
        at = 0
        assert_same_run(resumed(BUILD, tmp_path / str(len(renamed)), epochs=2), whole)
    assert whole.best_epoch == 2


@pytest.mark.parametrize("batch", [2, 5, 9, 10, 16])
def test_the_epochs_ends_are_enough_where_nothing_lies_in_between(tmp_path, batch):
    whole = run()
    killed(BUILD, tmp_path, batch)
    assert_same_run(resumed(BUILD, tmp_path), whole)


def test_a_generator_goes_on_where_it_was(tmp_path):
    for make in (np.random.PCG64, np.random.MT19937):
        ours, theirs = (np.random.Generator(make(3)) for _ in range(2))
        whole = run(seed=ours)
        with pytest.raises(Killed):
            run(dataset=deadly_set(13), seed=np.random.Generator(make(3)), checkpoint=tmp_path, save_every=0)
        assert_same_run(resumed(BUILD, tmp_path, seed=theirs), whole)
        assert ours.random() == theirs.random()


def test_a_callback_may_draw_from_the_generator_and_change_the_optimizer(tmp_path):
    def attempt(dataset=None, **options):
        rng, (model, optimizer) = np.random.default_rng(3), BUILD()

        def callback(result):
            optimizer.lr *= rng.uniform(0.5, 1.0)
            optimizer.betas = (0.8, 0.95)

        return run(model, dataset=dataset, optimizer=optimizer, seed=rng, callbacks=[callback], **options)

    whole = attempt()
    for batch in (12, 7):
        with pytest.raises(Killed):
            attempt(deadly_set(batch), checkpoint=tmp_path, save_every=0, resume=True)
    assert_same_run(attempt(checkpoint=tmp_path, resume=True), whole)
    assert len(set(whole.history["lr"])) == 3


def test_a_run_goes_on_on_another_device(pretend_device, tmp_path, monkeypatch):
    def build():
        model = ct.to_device(made_net(), "pretend")
        return model, DescentAnywhere(model, lr=0.5)

    whole = started(build)
    calls, batch = [], type(made_data()).batch

    def deadly(split, *args):
        calls.append(split)
        if len(calls) == 14:  # two trials, eight steps and a validation come before
            raise Killed
        return batch(split, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(type(made_data()), "batch", deadly)
        started(build, checkpoint=tmp_path, save_every=0)
    assert train.latest_checkpoint(tmp_path).step == 2
    result = resumed(build, tmp_path)
    assert ct.device_of(result.model[0].weight) == ct.device_of(result.final[0].weight) == "pretend"
    for model in (whole, result):
        model.model, model.final = ct.to_host(model.model), ct.to_host(model.final)
    assert_same_run(result, whole)


# ------------------------------------------------------------------------------------------------------ Ctrl-C


@pytest.mark.parametrize("batch", [2, 5, 10, 13])
def test_ctrl_c_writes_a_checkpoint_of_the_last_step(tmp_path, batch):
    whole = run()
    result = run(dataset=deadly_set(batch, KeyboardInterrupt), checkpoint=tmp_path)
    epoch, step = divmod(batch - 2, STEPS)
    assert result.interrupted and result.stopped == f"interrupted in epoch {epoch + 1}"
    found = train.latest_checkpoint(tmp_path)
    assert (found.epoch, found.step) == (epoch, step)
    assert_same(found.tree("model", made_net()), result.final)
    assert_same_run(resumed(BUILD, tmp_path), whole)


class Adam(optim.Adam):
    """Adam during whose third step Ctrl-C comes, as a signal or out of the step itself."""

    raised = False

    def step(self, grads):
        if self.steps == 2 and not self.raised:
            signal.raise_signal(signal.SIGINT)
        super().step(grads)
        if self.steps == 3 and self.raised:
            raise KeyboardInterrupt


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(tmp_path):
    whole, model = run(), made_net()
    optimizer = Adam(model, lr=1e-2)
    result = run(model, optimizer=optimizer, checkpoint=tmp_path)
    assert result.interrupted and optimizer.steps == 3
    assert train.latest_checkpoint(tmp_path).step == 3
    assert_same_run(resumed(BUILD, tmp_path), whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_step_that_broke_is_not_saved(tmp_path):
    whole, model = run(), made_net()
    optimizer = Adam(model, lr=1e-2)
    optimizer.raised = True
    result = run(model, optimizer=optimizer, checkpoint=tmp_path)
    assert result.interrupted and train.latest_checkpoint(tmp_path) is None
    assert_same_run(resumed(BUILD, tmp_path), whole)


def test_ctrl_c_elsewhere_comes_at_once():
    class Interrupted(Deadly):
        def batch(self, indices, *dtype):
            if self.asked == 3:
                signal.raise_signal(signal.SIGINT)
                raise AssertionError("after Ctrl-C")
            return super().batch(indices, *dtype)

    result = run(dataset=made_set(Interrupted(made_data(), 0)))
    assert result.interrupted and len(result.history) == 0


def test_ctrl_c_between_an_epoch_and_its_callbacks_lets_them_come_later(tmp_path, monkeypatch):
    seen = []

    def interrupted(self, path):
        raise KeyboardInterrupt

    def stops(result):
        seen.append(len(result.history))
        return len(result.history) == 2

    whole = run(callbacks=[stops])
    with monkeypatch.context() as patch:
        patch.setattr(train.History, "to_csv", interrupted)
        with pytest.raises(KeyboardInterrupt):  # the second, while the end is written
            run(checkpoint=tmp_path, callbacks=[stops])
    assert seen == [1, 2] and train.latest_checkpoint(tmp_path).epoch == 1
    assert_same_run(resumed(BUILD, tmp_path, callbacks=[stops]), whole)
    assert seen == [1, 2, 1, 2]


def test_training_in_a_thread_and_beside_another_handler_leaves_signals_alone():
    results = []
    thread = threading.Thread(target=lambda: results.append(run(epochs=1)))
    thread.start()
    thread.join()
    assert len(results[0].history) == 1
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        model = made_net()
        result = run(model, optimizer=Adam(model, lr=1e-2), epochs=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert came == [1] and not result.interrupted


# ------------------------------------------------------------------------------------- what a run goes on from


def test_a_finished_run_is_read_back_without_training(tmp_path):
    whole = run(checkpoint=tmp_path)
    before = {path: path.stat() for path in tmp_path.iterdir()}
    model, dataset = made_net(), deadly_set(2)  # the trial is allowed
    result = run(model, dataset=dataset, checkpoint=tmp_path, resume=True, callbacks=[lambda r: 1 / 0])
    assert_same_run(result, whole)
    assert result.final is model and result.history["seconds"] == whole.history["seconds"]
    assert {path: path.stat() for path in tmp_path.iterdir()} == before


def test_more_epochs_go_further(tmp_path):
    run(epochs=2, checkpoint=tmp_path)
    assert_same_run(resumed(BUILD, tmp_path, epochs=4), run(epochs=4))
    refined = {"refine": {2: 2}, "epochs": 3}
    build = with_adam(made_time_net)
    started(build, epochs=2, checkpoint=tmp_path / "refined")
    assert_same_run(resumed(build, tmp_path / "refined", **refined), started(build, **refined))


def test_what_a_callback_stopped_stays_stopped_unless_more_is_asked_for(tmp_path):
    def stops(result):
        return len(result.history) == 2

    whole = run(checkpoint=tmp_path, callbacks=[stops])
    assert "callback" in whole.stopped
    assert_same_run(resumed(BUILD, tmp_path), whole)
    assert_same_run(resumed(BUILD, tmp_path, epochs=4), run(epochs=4))


def test_a_run_that_met_a_bad_number_meets_it_again(tmp_path):
    order = np.random.default_rng(42)
    earlier, later = order.permutation(120), order.permutation(120)
    bad = later[48]  # the first of the fourth batch of the second epoch
    assert bad not in earlier[::16]

    class Broken(Deadly):
        def batch(self, indices, *dtype):
            X, labels = super().batch(indices, *dtype)
            return (X * np.float32(np.nan) if indices[0] == bad else X), labels

    results = []
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="the loss is nan at step 4 of epoch 2") as warned:
            results.append(resumed(BUILD, tmp_path, dataset=made_set(Broken(made_data(), 0))))
        assert len(warned) == 1
    assert_same_run(*results)


def test_a_damaged_checkpoint_costs_a_warning_and_some_steps(tmp_path):
    whole = run()
    killed(BUILD, tmp_path, 15, save_every=0)
    newest = train.latest_checkpoint(tmp_path).path
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match=rf"{newest.name}.*checksum") as warned:
        result = resumed(BUILD, tmp_path)
    assert len(warned) == 1
    assert_same_run(result, whole)


def test_where_no_checkpoint_is_good_a_run_begins_anew(tmp_path):
    killed(BUILD, tmp_path, 15, save_every=0)
    for path in tmp_path.glob("checkpoint-*"):
        path.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="passed over") as warned:
        result = resumed(BUILD, tmp_path)
    assert len(warned) == 3
    assert_same_run(result, run())


def test_a_new_run_replaces_the_checkpoints_of_an_earlier_one(tmp_path):
    run(epochs=5, checkpoint=tmp_path)
    killed(BUILD, tmp_path / "unused", 2)
    (tmp_path / ".checkpoint-000004-000003.safetensors.0123456789abcdef").write_bytes(b"half of a")
    (tmp_path / "mine.safetensors").write_bytes(b"")
    with pytest.raises(Killed):
        run(dataset=deadly_set(4), checkpoint=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "history.csv",
        "mine.safetensors",
        "model.safetensors",
        "unused",
    ]
    assert_same_run(resumed(BUILD, tmp_path), run())


def test_half_written_files_of_a_kill_are_cleared_away(tmp_path):
    killed(BUILD, tmp_path, 12)
    half = tmp_path / ".checkpoint-000001-000003.safetensors.0123456789abcdef"
    half.write_bytes(b"half of a")
    resumed(BUILD, tmp_path)
    assert not half.exists()


# ---------------------------------------------------------------------------------------------- other settings


def smaller_set():
    return made_set(made_data(100))


OTHERS = {
    "epochs was 2 or more, and is 1": {"epochs": 1},
    "batch_size was 16, and is 8": {"batch_size": 8},
    "seed was 42, and is 43": {"seed": 43},
    "seed was 42, and is a PCG64 in state": {"seed": np.random.default_rng(42)},
    "shuffle was True, and is fixed": {"shuffle": "fixed"},
    "samples of train was 120, and is 100": {"dataset": smaller_set()},
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
    with pytest.raises(ValueError, match=message):
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
    with pytest.raises(ValueError, match=message):
        resumed(build, tmp_path)


def test_another_schedule_is_told_by_the_learning_rates_it_gave(tmp_path):
    def build(steps):
        return with_adam(made_net, lr=optim.cosine(1e-2, steps))

    killed(build(24), tmp_path, 5, save_every=0)
    with pytest.raises(ValueError, match=r"optimizer.lr was 0\.0098\d* at step 2, and is 0\.0099\d*"):
        resumed(build(32), tmp_path, epochs=4)
    resumed(build(24), tmp_path)


def test_another_matrix_is_refused(tmp_path):
    def build(seed):
        star = algebra.from_matrix(np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0])
        return with_adam(lambda: nn.Sequential(nn.TLinear(star, 4, 3, seed=0)))

    killed(build(0), tmp_path, 12, save_every=0)
    with pytest.raises(ValueError, match="another transform"):
        resumed(build(1), tmp_path)


def test_a_checkpoint_of_a_loop_of_ones_own_is_not_a_run(tmp_path):
    train.save_checkpoint(tmp_path, {"model": made_net()}, epoch=1)
    with pytest.raises(ValueError, match=r"checkpoint-000001.* was not written by train\.fit"):
        resumed(BUILD, tmp_path)


# ------------------------------------------------------------------------------------------------ when it saves


def test_checkpoints_lie_at_the_ends_of_epochs_and_every_so_many_seconds_between(tmp_path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Slow(Deadly):
        def batch(self, indices, *dtype):
            now[0] += 7.0
            return super().batch(indices, *dtype)

    save = _folder.save_checkpoint
    monkeypatch.setattr(
        _folder, "save_checkpoint", lambda *a, **k: saved.append((k["epoch"], k["step"])) or save(*a, **k)
    )
    for seconds, expected in ((30, [(0, 5), (1, 0), (1, 5), (2, 0)]), (float("inf"), [(1, 0), (2, 0)])):
        saved.clear()
        dataset = made_set(Slow(made_data(), 0))
        run(dataset=dataset, epochs=2, checkpoint=tmp_path, save_every=seconds, progress=False)
        assert saved == expected
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == [
        "checkpoint-000001-000000.safetensors",
        "checkpoint-000002-000000.safetensors",
    ]


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
