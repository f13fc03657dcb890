"""Training: steps against PyTorch, the best model, history, files, interruption, bad input."""

import csv
import io
import types

import numpy as np
import optree
import pytest

import cutnn as ct
from cutnn import algebra, data, nn, optim, train
from cutnn.train import _storage

STAR = algebra.dct(6)


def made_data(images=120, seed=0, classes=3):
    """Images (N, 4, 6) of noise around one picture a class; easy to learn."""
    rng = np.random.default_rng(seed)
    pictures = np.random.default_rng(1).uniform(60, 190, (classes, 4, 6))
    labels = np.arange(images) % classes
    noisy = (pictures[labels] + rng.normal(0, 20, (images, 4, 6))).clip(0, 255).astype(np.uint8)
    return data.Split(noisy, labels, mean=0.5, std=0.3)


def made_set(train_split=None, validation="made"):
    split = made_data(60, seed=1) if isinstance(validation, str) else validation
    return types.SimpleNamespace(train=made_data() if train_split is None else train_split, validation=split)


def made_net(dtype=np.float32, **options):
    return nn.Sequential(
        nn.TLinear(STAR, 4, 5, ct.tanh, dtype=dtype, seed=0, **options),
        nn.TLinear(STAR, 5, 3, dtype=dtype, seed=1, **options),
    )


def run(model=None, loss=None, dataset=None, **options):
    model = model or made_net()
    options = {"epochs": 3, "batch_size": 16, "optimizer": optim.Adam(model, lr=1e-2), **options}
    return train.fit(model, loss or nn.TubalCrossEntropy(STAR), dataset or made_set(), **options)


def arrays(model):
    return [leaf.copy() for leaf in optree.tree_leaves(model, namespace="cutnn")]


def assert_same(model, other):
    for a, b in zip(arrays(model), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)


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


def test_double_precision_models_get_double_precision_batches():
    result = run(made_net(np.float64), epochs=1)
    assert result.model[0].weight.dtype == np.float64


def test_a_callback_that_returns_true_stops_the_run():
    result = run(callbacks=[lambda r: len(r.history) == 2, lambda r: None], epochs=5)
    assert len(result.history) == 2
    assert "callback" in result.stopped and not result.interrupted


# ---------------------------------------------------------------------------------------------- what breaks


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_best_model():
    model, kept = made_net(), []

    def ruin(result):
        if len(result.history) == 2:
            kept.extend(arrays(result.model))
            model[1].bias[...] = np.nan

    with pytest.warns(RuntimeWarning, match=r"nan at step 1 of epoch 3 \(step 17 of all\)"):
        result = run(model, epochs=5, callbacks=[ruin])
    assert len(result.history) == 2 and result.best_epoch in (1, 2)
    assert f"keeps the model of epoch {result.best_epoch}" in result.stopped
    for mine, then in zip(arrays(result.model), kept, strict=True):
        np.testing.assert_array_equal(mine, then)


def test_a_loss_that_is_not_finite_at_once_keeps_the_start():
    model = made_net()
    model[1].bias[0, 0] = np.inf
    before = arrays(model)
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning, match="step 1 of epoch 1"):
        result = run(model)
    assert len(result.history) == 0 and result.best_epoch == 0 and "before training" in result.stopped
    for mine, then, now in zip(arrays(result.model), before, arrays(model), strict=True):
        np.testing.assert_array_equal(mine, then)
        np.testing.assert_array_equal(now, then)  # the bad step was not made


def test_a_validation_loss_that_is_not_finite_stops_training():
    class Broken(nn.TubalCrossEntropy):
        def with_prediction(self, Y, labels):
            value, classes = super().with_prediction(Y, labels)
            return value * (np.nan if len(labels) == 60 else 1.0), classes

    with pytest.warns(RuntimeWarning, match="the validation loss is nan after epoch 1"):
        result = run(loss=Broken(STAR))
    assert len(result.history) == 1 and result.best_epoch == 0


def test_ctrl_c_keeps_history_and_best_model(tmp_path):
    calls = []

    class Interrupted(nn.TubalCrossEntropy):
        def with_prediction(self, Y, labels):
            calls.append(len(labels))
            if len(calls) == 21:  # in the third epoch of 8 training batches and one of validation
                raise KeyboardInterrupt
            return super().with_prediction(Y, labels)

    result = run(loss=Interrupted(STAR), epochs=9, checkpoint=tmp_path)
    assert result.interrupted and result.stopped == "interrupted in epoch 3"
    assert len(result.history) == 2 and result.best_epoch >= 1
    assert_same(result.model, train.load_model(tmp_path / "model.safetensors", made_net()))
    with open(tmp_path / "history.csv") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_the_progress_bar_is_drawn_on_a_terminal_only(monkeypatch):
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        run(epochs=2)
        assert ("epoch 2/2" in stream.getvalue() and ", validation" in stream.getvalue()) == drawn
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    run(epochs=1, progress=False)
    assert terminal.getvalue() == ""


# ------------------------------------------------------------------------------------------------------ files


def test_a_checkpoint_holds_history_and_best_model(tmp_path):
    result = run(checkpoint=tmp_path / "new" / "run")
    folder = tmp_path / "new" / "run"
    assert sorted(path.name for path in folder.iterdir()) == ["history.csv", "model.safetensors"]
    assert_same(result.model, train.load_model(folder / "model.safetensors", made_net()))
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_loss"]) for row in rows] == result.history["validation_loss"]
    assert list(rows[0]) == result.history.columns


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: made_net(np.float64),
        lambda seed: nn.Sequential(
            nn.TLinear(algebra.fft(3), 2, 4, dtype=np.complex64, seed=seed),
            ct.tanh,
            nn.Unfold(),
            nn.Dense(12, 2),
        ),
        lambda seed: nn.TLinear(algebra.product(algebra.dct(2), algebra.fft(3)), 2, 2, bias=False, seed=seed),
        lambda seed: nn.Dense(3, 2, seed=seed),
    ],
)
def test_models_come_back_from_their_files(tmp_path, make):
    model = make(0)
    path = tmp_path / "model.safetensors"
    train.save_model(path, model)
    again = train.load_model(path, make(1))
    assert_same(again, model)
    assert [a.dtype for a in arrays(again)] == [a.dtype for a in arrays(model)]
    optim.SGD(again, lr=0.1)  # its arrays can be updated in place


def test_a_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    train.save_model(path, nn.TLinear(algebra.dct(6), 3, 2))
    with pytest.raises(ValueError, match=r"another transform than the model's star\.matrix"):
        train.load_model(path, nn.TLinear(algebra.random_orthogonal(6, seed=0), 3, 2))
    with pytest.raises(
        ValueError, match=r"weight is float32 of shape \(6, 2, 3\), the model's float32 of shape"
    ):
        train.load_model(path, nn.TLinear(algebra.dct(6), 4, 2))
    with pytest.raises(ValueError, match="this model has"):
        train.load_model(path, nn.TLinear(algebra.dct(6), 3, 2, bias=False))
    with pytest.raises(FileNotFoundError):
        train.load_model(tmp_path / "none", made_net())


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), _storage.atomic(path) as temporary:
        with open(temporary, "w") as file:
            file.write("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    model = made_net()
    before = arrays(model)
    with pytest.raises(OSError, match=r"cannot write to .*file.*give checkpoint= a folder"):
        run(model, checkpoint=tmp_path / "file" / "run")
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_disk_that_fails_later_costs_a_warning(tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train.History, "to_csv", full)
    with pytest.warns(RuntimeWarning, match="No space left on device; the training goes on"):
        result = run(checkpoint=tmp_path)
    assert len(result.history) == 3


def test_history_rows_have_the_same_columns():
    history = train.History()
    history.append(epoch=1, train_loss=2.0)
    with pytest.raises(ValueError, match="the columns are epoch, train_loss"):
        history.append(epoch=2)
    with pytest.raises(KeyError, match="no column 'loss'; it has epoch, train_loss"):
        history["loss"]
    assert history[0] == {"epoch": 1, "train_loss": 2.0} and len(history) == 1
    assert list(history) == [history[0]] and "train_loss 2" in repr(history)


# ---------------------------------------------------------------------------------------------------- devices


class DescentAnywhere(optim.SGD):
    """Plain descent without a kernel."""

    def _on_gpu(self, group, gradients, scale, numbers):
        for g, p in zip(gradients, group.flats, strict=True):
            p -= numbers[0] * g


def test_training_on_another_device_gives_the_same(pretend_device, tmp_path):
    results = []
    for place in ("cpu", "pretend"):
        model = ct.to_device(made_net(), place)
        results.append(run(model, optimizer=DescentAnywhere(model, lr=0.5), checkpoint=tmp_path / place))
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
        result = run(model, Broken(STAR), optimizer=DescentAnywhere(model, lr=0.5), batch_size=1)
    assert len(calls) == 64 and result.best_epoch == 0


# -------------------------------------------------------------------------------------------------- bad input


def bad_labels(label):
    split = made_data()
    labels = split.labels.copy()
    labels[-1] = label
    return data.Split(split.images, labels, split.mean, split.std)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"dataset": made_set(data.Split(np.zeros((9, 4, 7), np.uint8), np.arange(9)))},
            ValueError,
            r"dct\(6\)",
        ),
        (
            {"dataset": made_set(bad_labels(3))},
            ValueError,
            r"labels lie in 0\.\.3, and the model has 3 classes",
        ),
        ({"dataset": made_set(bad_labels(-1))}, ValueError, r"labels lie in -1\.\.2"),
        ({"dataset": made_set(validation=bad_labels(3))}, ValueError, r"labels lie in 0\.\.3"),
        (
            {"dataset": made_set(validation=made_data(0))},
            ValueError,
            "the validation split of the data is empty",
        ),
        ({"dataset": made_set(made_data(0))}, ValueError, "the train split of the data is empty"),
        ({"dataset": types.SimpleNamespace(train=None, validation=None)}, ValueError, "no train split"),
        ({"epochs": 0}, ValueError, "at least 1"),
        ({"batch_size": 0}, ValueError, "at least 1"),
        ({"shuffle": "often"}, ValueError, "'often'"),
        ({"optimizer": optim.SGD(made_net(), lr=0.1)}, ValueError, "another model"),
        ({"loss": nn.CrossEntropy()}, ValueError, "Unfold"),
    ],
)
def test_what_does_not_fit_is_said_before_training(options, error, message):
    model = made_net()
    before = arrays(model)
    with pytest.raises(error, match=message):
        run(model, **options)
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_note_says_which_data_did_not_fit():
    with pytest.raises(ValueError) as caught:
        run(dataset=made_set(validation=data.Split(np.zeros((9, 4, 7), np.uint8), np.arange(9) % 3)))
    assert any("one image of the validation data" in note for note in caught.value.__notes__)


def test_an_empty_split_cannot_be_evaluated():
    with pytest.raises(ValueError, match="empty"):
        train.evaluate(made_net(), nn.TubalCrossEntropy(STAR), made_data(0))
