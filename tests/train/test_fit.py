"""Training: steps against PyTorch, the best model, history, other devices."""

import types

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra, nn, optim, train
from tests.train.tiny import (
    STAR,
    arrays,
    assert_same,
    made_data,
    made_learned_net,
    made_net,
    made_set,
    made_time_net,
    run,
)

# ------------------------------------------------------------------------------------------- against PyTorch


def pytorch_net(torch, model, dtype, head):
    """The same network in the tubes-last layout, (rows, samples, n), with weights (out, in, n)."""
    M = torch.tensor(model[0].star.transforms[0].matrix(), dtype=dtype)

    def tubes_last(w):
        return torch.tensor(np.moveaxis(w, 0, -1).copy(), dtype=dtype, requires_grad=True)

    first = [tubes_last(model[0].weight), tubes_last(model[0].bias)]
    if head == "tubal":
        last = [tubes_last(model[1].weight), tubes_last(model[1].bias)]
    else:
        last = [torch.tensor(w, dtype=dtype, requires_grad=True) for w in (model[2].weight, model[2].bias)]

    def product(A, B):
        return torch.einsum("ijn,jkn->ikn", A @ M.T, B @ M.T) @ M

    def loss(X, labels):
        Y = torch.tanh(product(first[0], X) + first[1])
        if head == "tubal":
            Y = product(last[0], Y) + last[1]
            L = torch.log_softmax(Y @ M.T, dim=0)
            scores = -(L**2).sum(dim=-1) / (2 * L.shape[-1])
            return -scores[labels, torch.arange(len(labels))].mean()
        unfolded = Y.permute(2, 0, 1).reshape(-1, Y.shape[1])
        return torch.nn.functional.cross_entropy((last[0] @ unfolded + last[1]).T, labels)

    return loss, [*first, *last]


@pytest.mark.parametrize("head", ["tubal", "dense"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_twenty_steps_follow_pytorch(dtype, tolerance, head):
    torch = pytest.importorskip("torch")
    star = algebra.dct(28)
    layers = [nn.TLinear(star, 28, 28, ct.tanh, dtype=dtype, seed=0)]
    if head == "tubal":
        layers += [nn.TLinear(star, 28, 10, dtype=dtype, seed=1)]
    else:
        layers += [nn.Unfold(), nn.Dense(784, 10, dtype=dtype, seed=1)]
    model = nn.Sequential(*layers)
    loss = nn.TubalCrossEntropy(star) if head == "tubal" else nn.CrossEntropy()
    reference, weights = pytorch_net(torch, model, torch.float64, head)
    optimizer = optim.Adam(model, lr=1e-3, weight_decay=1e-4)
    theirs = torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(20):
        X, labels = rng.normal(size=(28, 28, 32)).astype(dtype), rng.integers(0, 10, 32)
        value, gradient = ct.value_and_grad(lambda m, X=X, labels=labels: loss(m(X), labels))(model)
        expected = reference(torch.tensor(np.moveaxis(X, 0, -1).copy()).double(), torch.tensor(labels))
        assert float(value) == pytest.approx(expected.item(), rel=tolerance)
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        optimizer.step(gradient)
    for mine, w in zip(arrays(model), weights, strict=True):
        w = w.detach().numpy()
        w = np.moveaxis(w, -1, 0) if w.ndim == 3 else w
        assert np.linalg.norm(mine - w) <= tolerance * np.linalg.norm(w)


# ------------------------------------------------------------------------------------------------- the result


def test_a_network_learns_and_the_best_epoch_is_kept():
    seen = []
    model = made_net()
    result = run(model, epochs=6, callbacks=[lambda r: seen.append((arrays(model), arrays(r.model)))])
    accuracy = result.history["validation_accuracy"]
    assert max(accuracy) > 0.9 > accuracy[0] - 0.1
    assert result.best_epoch == int(np.argmax(accuracy)) + 1
    assert len(result.history) == len(seen) == 6
    for mine, then in zip(arrays(result.model), seen[result.best_epoch - 1][0], strict=True):
        np.testing.assert_array_equal(mine, then)
    found = train.evaluate(result.model, nn.TubalCrossEntropy(STAR), made_set().validation)
    assert found.accuracy == max(accuracy)
    assert result.stopped is None and not result.interrupted


def test_training_loss_and_accuracy_are_means_over_the_batches_of_an_epoch():
    split = made_data(23)
    model, loss = made_net(), nn.TubalCrossEntropy(STAR)
    result = run(made_net(), loss, made_set(split, None), epochs=1, batch_size=8, shuffle=False)
    optimizer, total, right = optim.Adam(model, lr=1e-2), 0.0, 0
    for start in (0, 8, 16):
        X, labels = split.batch(slice(start, min(start + 8, 23)))
        (value, Y), gradient = ct.value_and_grad(
            lambda m, X=X, y=labels: (loss(m(X), y), m(X)), has_aux=True
        )(model)
        total += float(value) * len(labels)
        right += int(np.sum(loss.predict(Y) == labels))
        optimizer.step(gradient)
    assert result.history["train_loss"] == [pytest.approx(total / 23, rel=1e-6)]
    assert result.history["train_accuracy"] == [right / 23]
    assert_same(result.model, model)


def test_evaluate_does_not_depend_on_the_batch_size():
    model, loss, split = made_net(np.float64), nn.TubalCrossEntropy(STAR), made_data(23)
    X, labels = split.batch(slice(None), np.float64)
    for size in (1, 7, 23, 1000):
        found = train.evaluate(model, loss, split, size)
        assert found.loss == pytest.approx(float(loss(model(X), labels)), rel=1e-12)
        assert found.accuracy == np.mean(loss.predict(model(X)) == labels)


def test_a_seed_fixes_the_run_and_shuffling_is_a_choice():
    results = {
        name: run(**options)
        for name, options in {
            "one": {"seed": 5},
            "again": {"seed": 5},
            "other": {"seed": 6},
            "fixed": {"seed": 5, "shuffle": "fixed"},
            "none": {"seed": 5, "shuffle": False},
        }.items()
    }
    losses = {name: tuple(r.history["train_loss"]) for name, r in results.items()}
    assert losses["one"] == losses["again"]
    assert_same(results["one"].model, results["again"].model)
    assert len({losses[name] for name in ("one", "other", "fixed", "none")}) == 4


class Numbers:
    """A split of a given length that notes which of its images were asked for."""

    def __init__(self, split):
        self.split, self.visits = split, []

    def __len__(self):
        return len(self.split)

    def batch(self, indices):
        self.visits.append(list(indices))
        return self.split.batch(indices)


@pytest.mark.parametrize(("shuffle", "orders"), [(True, 3), ("fixed", 1), (False, 1)])
def test_every_epoch_visits_every_image_once(shuffle, orders):
    split = Numbers(made_data(20))
    run(dataset=types.SimpleNamespace(train=split, validation=None), batch_size=8, shuffle=shuffle)
    visits = split.visits[1:]  # the first was the trial
    assert [len(indices) for indices in visits] == [8, 8, 4] * 3
    epochs = [sum(visits[k : k + 3], []) for k in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == orders
    assert (epochs[0] == list(range(20))) == (shuffle is False)


def test_a_loss_that_does_not_predict_has_no_accuracy_and_the_smallest_loss_wins():
    class Pictures:
        """A split whose target is the image."""

        def __init__(self, split):
            self.split = split

        def __len__(self):
            return len(self.split)

        def batch(self, indices):
            X, _ = self.split.batch(indices)
            return X, X

    model = nn.Sequential(nn.TLinear(STAR, 4, 2, ct.tanh, seed=0), nn.TLinear(STAR, 2, 4, seed=1))
    dataset = types.SimpleNamespace(train=Pictures(made_data()), validation=Pictures(made_data(30, seed=1)))
    result = run(model, nn.MeanSquaredError(), dataset, epochs=4)
    assert result.history.columns == ["epoch", "train_loss", "validation_loss", "lr", "seconds"]
    assert result.best_epoch == int(np.argmin(result.history["validation_loss"])) + 1
    assert result.history["train_loss"][-1] < result.history["train_loss"][0]


def test_a_loss_that_only_predicts_gives_the_same_history():
    class Plain:
        """The tubal loss without its shortcut."""

        loss = nn.TubalCrossEntropy(STAR)

        def __call__(self, Y, labels):
            return self.loss(Y, labels)

        def predict(self, Y):
            return self.loss.predict(Y)

    plain, direct = run(loss=Plain()).history, run().history
    for column in direct.columns[:-1]:
        assert plain[column] == pytest.approx(direct[column], rel=1e-6)


def test_without_validation_the_smallest_training_loss_wins():
    result = run(dataset=made_set(validation=None))
    assert result.history.columns == ["epoch", "train_loss", "train_accuracy", "lr", "seconds"]
    assert result.best_epoch == int(np.argmin(result.history["train_loss"])) + 1


def test_batches_of_one_image_are_trained_on():
    result = run(dataset=made_set(made_data(5), made_data(1)), batch_size=1, epochs=2)
    assert len(result.history) == 2


def test_the_history_has_the_learning_rate_of_each_epoch():
    model = made_net()
    optimizer = optim.SGD(model, lr=optim.step_decay(0.1, every=8, factor=0.5))
    result = run(model, optimizer=optimizer, batch_size=15)  # 8 steps an epoch
    assert result.history["lr"] == pytest.approx([0.1, 0.05, 0.025])


@pytest.mark.parametrize(
    "loss", [nn.TubalCrossEntropy(STAR), nn.CrossEntropy(), nn.TubalCrossEntropy(STAR, "likelihood")]
)
def test_a_step_of_single_precision_has_nothing_double(loss):
    model = made_net()
    if isinstance(loss, nn.CrossEntropy):
        model = nn.Sequential(*model, nn.Unfold(), nn.Dense(18, 3, seed=2))
    optimizer = optim.AdamW(model, lr=optim.cosine(1e-2, 10), clip=0.1)
    X, labels = made_data().batch(slice(0, 16))
    (value, classes), gradients = ct.value_and_grad(
        lambda m: loss.with_prediction(m(X), labels), has_aux=True
    )(model)
    optimizer.step(gradients)
    moments = [m for name, m in optimizer.state().items() if name != "steps"]
    floats = [X, model(X), value, *arrays(gradients), *arrays(model), *moments]
    assert {str(x.dtype) for x in floats} == {"float32"} and classes.dtype == np.int64


def test_double_precision_models_get_double_precision_batches():
    result = run(made_net(np.float64), epochs=1)
    assert result.model[0].weight.dtype == np.float64


def test_a_callback_that_returns_true_stops_the_run():
    result = run(callbacks=[lambda r: len(r.history) == 2, lambda r: None], epochs=5)
    assert len(result.history) == 2
    assert "callback" in result.stopped and not result.interrupted


# ---------------------------------------------------------------------------------------------------- devices


def test_training_on_another_device_gives_the_same(pretend_device, tmp_path):
    results = []
    for place in ("cpu", "pretend"):
        model = ct.to_device(made_net(), place)
        results.append(run(model, optimizer=optim.SGD(model, lr=0.5), checkpoint=tmp_path / place))
    here, there = results
    assert ct.device_of(there.model[0].weight) == "pretend"
    assert here.best_epoch == there.best_epoch
    for column in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert there.history[column] == pytest.approx(here.history[column], rel=1e-5)
    again = train.load_model(tmp_path / "pretend" / "model.safetensors", ct.to_device(made_net(), "pretend"))
    assert ct.device_of(again[0].weight) == "pretend"
    assert_same(ct.to_host(again), ct.to_host(there.model))


def test_on_another_device_the_step_of_a_bad_loss_is_found_later(pretend_device):
    model = ct.to_device(made_net(), "pretend")
    calls = []

    class Broken(nn.TubalCrossEntropy):
        def with_prediction(self, Y, labels):
            value, classes = super().with_prediction(Y, labels)
            calls.append(value)
            return value * (np.nan if len(calls) == 8 else 1.0), classes

    with pytest.warns(RuntimeWarning, match=r"nan at step 8 of epoch 1 \(step 8 of all\)"):
        result = run(model, Broken(STAR), optimizer=optim.SGD(model, lr=0.5), batch_size=1)
    assert len(calls) == 64 and result.best_epoch == 0


@pytest.mark.parametrize("model", [made_net, made_time_net, made_learned_net])
def test_a_captured_run_is_the_plain_one(model):
    """To the same bits, with a short last batch, a regulariser, a schedule and a clipped gradient."""
    runs = []
    for captured in (False, True):
        net = model()
        loss = nn.TubalCrossEntropy(algebra.identity(6) if model is made_learned_net else STAR)
        optimizer = optim.AdamW(net, lr=optim.cosine(1e-2, 20), clip=0.5)
        runs.append(run(net, loss, optimizer=optimizer, regularizer=nn.Tikhonov(1e-3), capture=captured))
    plain, captured = runs
    for row, other in zip(plain.history, captured.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    assert_same(plain.model, captured.model)
    assert_same(plain.final, captured.final)


def test_a_captured_run_goes_on_from_a_checkpoint_and_refines(tmp_path):
    def at(folder, epochs, captured, resume=False):
        return run(
            made_time_net(),
            epochs=epochs,
            refine={1: 2},
            checkpoint=tmp_path / folder,
            capture=captured,
            resume=resume,
        )

    whole = at("plain", 4, False)
    at("captured", 3, True)
    captured = at("captured", 4, True, resume=True)
    assert len(captured.final[0]) == 2 * 2
    assert_same(whole.final, captured.final)
    assert_same(whole.model, captured.model)


def test_a_loss_that_is_not_finite_stops_a_captured_run_before_its_update():
    results = []
    for captured in (False, True):
        net = made_net()
        optimizer = optim.SGD(net, lr=1e30)
        with pytest.warns(RuntimeWarning), np.errstate(all="ignore"):
            results.append(run(net, optimizer=optimizer, capture=captured))
    assert results[0].stopped == results[1].stopped and "not finite" not in results[0].stopped
    assert_same(results[0].final, results[1].final)
