"""Multilevel training in depth, and training with a regulariser."""

import numpy as np
import optree
import pytest

import cutnn as ct
from cutnn import nn, optim, train
from tests.train.tiny import STAR, arrays, assert_same, made_data, made_net, made_set, made_time_net, run

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")
STEPS = 8  # of an epoch: 120 images in batches of 16

NETS = {
    **{
        f"{structure}, {integrator}": (nn.ResNet, {"structure": structure, "integrator": integrator})
        for structure in ("general", "antisymmetric", "parabolic")
        for integrator in ("euler", "midpoint", "rk4", "leapfrog")
    },
    "shared": (nn.HamiltonianNet, {"hidden": 6}),
    "shared, reversible": (nn.HamiltonianNet, {"reversible": True}),
    "two-block": (nn.HamiltonianNet, {"form": "two-block"}),
    "H1, midpoint": (nn.HamiltonianNet, {"form": "H1", "integrator": "midpoint"}),
    "H2": (nn.HamiltonianNet, {"form": "H2"}),
}


def made(name, depth=2, dtype=np.float32):
    kind, options = NETS[name]
    net = kind(STAR, 4, depth=depth, h=0.5 / depth, dtype=dtype, seed=0, **options)
    return nn.Sequential(net, nn.TLinear(STAR, 4, 3, dtype=dtype, seed=1))


@pytest.mark.filterwarnings("ignore::cutnn.nn.StabilityWarning")
@pytest.mark.parametrize("name", NETS)
def test_a_refined_network_goes_on_where_the_coarse_one_was(name):
    model = made(name)
    optimizer = optim.Adam(model, lr=optim.cosine(1e-2, 3 * STEPS))
    seen = []
    result = run(
        model,
        optimizer=optimizer,
        refine={1: 2, 2: 2},
        callbacks=[lambda r: seen.append((len(r.final[0]), r.final[0].h, optimizer.model is r.final))],
    )
    assert seen == [(2, 0.25, True), (4, 0.125, True), (8, 0.0625, True)]
    assert len(model[0]) == 2 and optimizer.steps == 3 * STEPS
    rate = optim.cosine(1e-2, 3 * STEPS)
    assert result.history["lr"] == [rate(0), rate(STEPS), rate(2 * STEPS)]
    losses = result.history["validation_loss"]
    assert losses[0] > losses[1] > losses[2]
    start = train.evaluate(model, nn.TubalCrossEntropy(STAR), made_set().validation).loss
    refined = train.evaluate(nn.prolong(model), nn.TubalCrossEntropy(STAR), made_set().validation).loss
    assert start == losses[0] and abs(refined - start) < 0.1 * start


@pytest.mark.parametrize("make", ["momentum", "adam"])
def test_refined_training_is_what_its_parts_do(make):
    """Against a loop of one's own: an epoch, prolong model and moments, another epoch."""
    rule = {
        "momentum": lambda m, lr: optim.SGD(m, lr=lr, momentum=0.9),
        "adam": lambda m, lr: optim.AdamW(m, lr=lr, weight_decay=0.1),
    }[make]
    lr, loss, split = optim.step_decay(1e-2, every=5, factor=0.7), nn.TubalCrossEntropy(STAR), made_data()
    model = made_time_net(np.float64)
    result = run(
        model,
        optimizer=rule(model, lr),
        epochs=2,
        shuffle=False,
        refine={1: 3},
        dataset=made_set(validation=None),
    )
    model = made_time_net(np.float64)
    optimizer = rule(model, lr)
    for epoch in (1, 2):
        for start in range(0, 120, 16):
            X, labels = split.batch(slice(start, start + 16), np.float64)
            optimizer.step(ct.grad(lambda m, X=X, labels=labels: loss(m(X), labels))(model))
        if epoch == 1:
            model, state = nn.prolong(model, 3), optimizer.state()
            moments = prolonged(state, made_time_net(np.float64), 3)
            optimizer = rule(model, lr)
            optimizer.restore({"steps": state["steps"], **moments})
    assert_same(result.final, model)


def prolonged(state, coarse, factor):
    """Each flat moment of an optimizer's state, prolonged in the shape of the coarse model."""
    leaves, tree = optree.tree_flatten(coarse, namespace="cutnn")
    ends = np.cumsum([leaf.size for leaf in leaves])
    moments = {}
    for name, moment in state.items():
        if name != "steps":
            parts = [
                part.reshape(leaf.shape)
                for part, leaf in zip(np.split(moment, ends[:-1]), leaves, strict=True)
            ]
            finer = nn.prolong(tree.unflatten(parts), factor)
            moments[name] = np.concatenate([leaf.ravel() for leaf in arrays(finer)])
    return moments


def test_the_best_model_may_be_a_coarse_one(tmp_path):
    class Ruin(optim.Adam):
        def step(self, grads):
            super().step(grads)
            if self.steps > STEPS:
                self.model[1].weight[...] = 0

    def ruined(**options):
        model = made_time_net()
        optimizer = Ruin(model, lr=1e-2)
        return run(model, optimizer=optimizer, refine={1: 2}, checkpoint=tmp_path, **options)

    result = ruined()
    again = ruined(resume=True)
    for r in (result, again):
        assert r.best_epoch == 1 and len(r.model[0]) == 2 and len(r.final[0]) == 4
    assert_same(again.model, result.model)
    assert_same(again.final, result.final)
    assert_same(train.load_model(tmp_path / "model.safetensors", made_time_net()), result.model)


@pytest.mark.parametrize(
    ("refine", "message"),
    [
        ({0: 2}, "0: 2 is no such pair in 3 epochs"),
        ({3: 2}, "from 1 to the last but one"),
        ({1: 1}, "a factor from 2 on"),
        ({1: 2}, "ResNet or HamiltonianNet; there is none"),
    ],
)
def test_refinements_that_cannot_be_made_are_refused(refine, message):
    with pytest.raises(ValueError, match=message):
        run(made_net(), refine=refine)


def test_an_unstable_network_is_warned_of_before_training():
    net = nn.HamiltonianNet(STAR, 4, depth=2, h=50.0, seed=0)
    model = nn.Sequential(net, nn.TLinear(STAR, 4, 3, seed=1))
    with pytest.warns(nn.StabilityWarning):
        run(model, optimizer=optim.SGD(model, lr=0.0), epochs=1)


# ------------------------------------------------------------------------------------------------ regularisers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_regularizer_is_trained_on_and_told_apart_from_the_loss(dtype):
    regularizer, loss, split = (
        nn.Tikhonov(0.3) + nn.Smoothness(0.1),
        nn.TubalCrossEntropy(STAR),
        made_data(40),
    )
    model = made_time_net(dtype)
    result = run(
        model,
        dataset=made_set(split),
        optimizer=optim.SGD(model, lr=0.1),
        epochs=2,
        shuffle=False,
        regularizer=regularizer,
    )
    assert result.history.columns[:4] == ["epoch", "train_loss", "regularizer", "train_accuracy"]
    twin = made_time_net(dtype)
    optimizer = optim.SGD(twin, lr=0.1)
    for row in result.history:
        losses, penalties = [], []
        for start in (0, 16, 32):
            X, labels = split.batch(slice(start, start + 16), dtype)
            losses.append(float(loss(twin(X), labels)) * len(labels))
            penalties.append(float(regularizer(twin)))
            optimizer.step(ct.grad(lambda m, X=X, labels=labels: loss(m(X), labels) + regularizer(m))(twin))
        assert row["train_loss"] == pytest.approx(sum(losses) / 40, rel=1e-6)
        assert row["regularizer"] == pytest.approx(sum(penalties) / 3, rel=1e-6)
    assert {str(leaf.dtype) for leaf in arrays(model)} == {np.dtype(dtype).name}
    for mine, theirs in zip(arrays(model), arrays(twin), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def test_on_another_device_regularizer_and_refinement_are_the_same(pretend_device, tmp_path):
    results = []
    for place in ("cpu", "pretend"):
        model = ct.to_device(made_time_net(), place)
        results.append(
            run(
                model,
                dataset=made_set(made_data(70)),
                optimizer=optim.SGD(model, lr=0.01),
                epochs=2,
                batch_size=1,
                regularizer=nn.Tikhonov(1e-2),
                refine={1: 2},
                checkpoint=tmp_path / place,
                save_every=0.01,
            )
        )
    here, there = results
    assert ct.device_of(there.final[0][3].weight) == "pretend"
    for column in ("train_loss", "regularizer", "validation_loss"):
        assert there.history[column] == pytest.approx(here.history[column], rel=1e-5)


def test_a_regularizer_that_is_nought_changes_nothing():
    with_it, without = run(regularizer=lambda model: 0.0), run()
    assert_same(with_it.final, without.final)
    assert with_it.history["regularizer"] == [0.0] * 3
    assert with_it.history["train_loss"] == without.history["train_loss"]


def test_a_regularizer_that_is_not_finite_stops_the_training_before_the_step():
    model = made_net()
    before = arrays(model)
    with pytest.warns(RuntimeWarning, match=r"the regularizer is inf at step 1 of epoch 1 \(step 1 of all\)"):
        result = run(model, regularizer=lambda model: ct.sum(model[0].bias) + np.float32(np.inf))
    assert "before training" in result.stopped
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_regularizer_that_is_no_number_is_refused_after_one_call():
    calls = []
    with pytest.raises(ValueError, match=r"a regularizer gives one number, not an array \(6, 5, 1\)"):
        run(regularizer=lambda model: calls.append(1) or model[0].bias)
    assert len(calls) == 1
    with pytest.raises(ValueError, match="Smoothness is over the steps"):
        run(regularizer=nn.Smoothness(1.0))
