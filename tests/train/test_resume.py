"""Runs that are killed and go on: the same bits as a run that never stopped."""

import os
import signal
import threading

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra, nn, optim, train
from tests.train.killing import (
    BUILD,
    STEPS,
    Deadly,
    Killed,
    assert_same_run,
    deadly_set,
    killed,
    resumed,
    started,
    with_adam,
    with_momentum,
)
from tests.train.tiny import (
    STAR,
    assert_same,
    made_data,
    made_learned_net,
    made_net,
    made_set,
    made_time_net,
    run,
)

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk", "pythons_own_ctrl_c")


def to_complex(X):
    return ct.astype(X, ct.complex64)


def to_real(Y):
    return ct.real(Y)


def complex_net():
    net = nn.HamiltonianNet(algebra.fft(6), 4, depth=2, dtype=np.complex64, seed=0)
    return nn.Sequential(to_complex, net, to_real, nn.TLinear(STAR, 4, 3, seed=1))


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
    "adam, learned M": (with_adam(made_learned_net), {"loss": nn.TubalCrossEntropy(algebra.identity(6))}),
    "momentum, learned M": (
        with_momentum(made_learned_net),
        {"loss": nn.TubalCrossEntropy(algebra.identity(6))},
    ),
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


@pytest.mark.parametrize("shuffle", [True, "fixed"])
def test_without_a_seed_an_epoch_goes_on_with_the_images_that_it_has_not_seen(tmp_path, shuffle):
    options = {"epochs": 2, "seed": None, "shuffle": shuffle, "save_every": 0}
    first, second = (deadly_set(at) for at in (13, 0))
    with pytest.raises(Killed):
        run(dataset=first, checkpoint=tmp_path, **options)
    resumed(BUILD, tmp_path, dataset=second, **options)
    visits = first.train.visits[1:] + second.train.visits[1:]  # the first of each was its trial
    epochs = [sum(visits[:STEPS], []), sum(visits[STEPS:], [])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(120))] * 2
    assert (epochs[0] == epochs[1]) == (shuffle == "fixed")


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
        return model, optim.SGD(model, lr=0.5)

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


def test_what_cannot_be_read_stays_for_who_can_read_it_unless_a_run_is_to_start_anew(tmp_path):
    newer = tmp_path / "checkpoint-000099-000000.safetensors"
    newer.write_bytes(b"of a version to come, or on a disk that failed for a moment")
    with pytest.warns(RuntimeWarning, match="checkpoint-000099.* not a file that cutnn wrote"):
        resumed(BUILD, tmp_path)
    assert newer.exists()
    run(checkpoint=tmp_path)
    assert not newer.exists()


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
