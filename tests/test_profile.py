"""What a profile counts, by hand for small programs; that it times each thing once, and leaves all as it was."""

from __future__ import annotations

import csv
import ctypes
import importlib
import io
import threading
import weakref
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import cutnn as ct
from cutnn import _launches, algebra, device, nn, optim
from cutnn.array import _define, fused
from cutnn.tape import derivatives
from cutnn.tape.operations import known, placed, unwatched
from cutnn.tape.record import append
from tests import pretend

module = importlib.import_module("cutnn._profiler")

X = np.random.default_rng(0).standard_normal((4, 3, 3))


def calls(p):
    return {(row.operation, row.phase): row.calls for row in p.rows}


def row_of(p, operation, phase="forward"):
    (row,) = [row for row in p.rows if (row.operation, row.phase) == (operation, phase)]
    return row


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; calling it with seconds moves it on."""
    now = [0.0]

    def move(seconds):
        now[0] += seconds

    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    return move


# ------------------------------------------------------------------------------------------------- counting


def test_plain_arrays():
    with ct.profile() as p:
        ct.tanh(X)
        ct.tanh(X)
        ct.add(X, 1.0)
    assert calls(p) == {("tanh", "forward"): 2, ("add", "forward"): 1}
    assert row_of(p, "tanh").bytes == 4 * X.nbytes
    assert row_of(p, "add").bytes == 2 * X.nbytes


def test_forward_and_backward():
    B = np.ones((4, 3, 2))
    with ct.profile() as p:
        ct.grad(lambda A: ct.sum(ct.tanh(A @ B)))(X)
    assert calls(p) == {
        ("matmul", "forward"): 1,
        ("tanh", "forward"): 1,
        ("sum", "forward"): 1,
        ("backward pass", "backward"): 1,
        ("sum", "backward"): 1,
        ("broadcast_to", "backward"): 1,  # what the rule of the sum calls
        ("tanh", "backward"): 1,
        ("matmul", "backward"): 1,
    }
    assert row_of(p, "matmul").bytes == X.nbytes + B.nbytes + 4 * 3 * 2 * 8
    assert row_of(p, "matmul", "backward").bytes == 4 * 3 * 2 * 8 + B.nbytes + X.nbytes


def test_flops_of_products():
    A, B = np.ones((5, 4, 3)), np.ones((5, 3, 2))
    with ct.profile() as p:
        ct.grad(lambda A, B: ct.sum(A @ B), argnums=(0, 1))(A, B)
    assert row_of(p, "matmul").flops == 2 * 5 * 4 * 3 * 2
    assert row_of(p, "matmul", "backward").flops == 2 * (2 * 5 * 4 * 3 * 2)
    assert row_of(p, "matmul", "backward").calls == 2
    with ct.profile() as p:
        ct.matmul(A + 0j, B + 0j)
    assert row_of(p, "matmul").flops == 8 * 5 * 4 * 3 * 2
    with ct.profile() as p:
        ct.tensordot(A, np.ones((3, 4, 7)), axes=((1, 2), (1, 0)))
    assert row_of(p, "tensordot").flops == 2 * 5 * (4 * 3) * 7
    assert row_of(p, "tensordot").rate == row_of(p, "tensordot").flops / row_of(p, "tensordot").time


@pytest.mark.parametrize("shape", [(4, 3), (3,)])
def test_flops_of_products_of_one_matrix_with_a_batch(shape):
    """A single matrix for the batch, whose gradient is a sum: the same operations, however they are made."""
    matrix, batch = np.ones(shape if len(shape) == 2 else (1, *shape)), np.ones((50, 3, 2))
    with ct.profile() as p:
        ct.grad(lambda M: ct.sum(M @ batch))(matrix)
    work = 2 * 50 * matrix.shape[0] * 3 * 2
    assert row_of(p, "matmul").flops == work
    assert sum(row.flops or 0 for row in p.rows if row.phase == "backward") == work


def test_flops_are_not_those_of_a_users_function_of_the_same_name():
    @ct.primitive(x=lambda g: g)
    def matmul(x):
        return x + 1

    @ct.primitive(x=lambda g: g)
    def tensordot(x):
        return x + 1

    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(matmul(tensordot(x))))(X)
    assert all(row.flops is None for row in p.rows)


def test_rules_that_are_methods_go_by_the_name_of_their_object():
    """As those of a kernel that is made for its shapes, with a record of its own."""

    class Kernel:
        __name__ = "twice"

        def pull(self, g):
            return 2 * g

    def twice(x):
        return append(x.tape, ((x.slot, Kernel().pull, ()),), 2 * x.value)

    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(twice(x)))(X)
    assert row_of(p, "twice", "backward").calls == 1


def test_names_may_depend_on_the_arguments():
    class Kernel:
        def __init__(self, name):
            self.name = name

        def run(self, x):
            return x + 1

    placed(Kernel, "run", name=lambda kernel, x: kernel.name)
    with ct.profile() as p:
        Kernel("first").run(X), Kernel("second").run(X), Kernel("first").run(X)
    assert calls(p) == {("first", "forward"): 2, ("second", "forward"): 1}


def test_transforms_of_an_algebra():
    star = algebra.dct(4)
    with ct.profile() as p:
        ct.grad(lambda A: ct.sum(star(A, X)))(X)
    assert row_of(p, "mode_product").calls == 3
    assert row_of(p, "mode_product").flops == 3 * (2 * 4 * X.size)
    assert row_of(p, "mode_product", "backward").calls == 2  # of A's transform, and of the result's
    assert row_of(p, "mode_product", "backward").flops == 2 * (2 * 4 * X.size)


def test_products_inside_an_operation_count_to_it():
    @ct.primitive(x=lambda g, x: ct.matmul(g, x))
    def square_of(x):
        return ct.matmul(x, x)

    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(ct.matmul(square_of(x), x)))(X)
    work = 2 * 4 * 3**3
    assert (row_of(p, "square_of").flops, row_of(p, "square_of", "backward").flops) == (work, work)
    assert (row_of(p, "matmul").flops, row_of(p, "matmul").calls) == (work, 1)
    assert (row_of(p, "matmul", "backward").flops, row_of(p, "matmul", "backward").calls) == (2 * work, 2)


def test_products_that_a_checkpoint_computes_again_are_their_own():
    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(ct.checkpoint(lambda x: ct.matmul(x, X))(x)))(X)
    work = 2 * 4 * 3**3
    assert (row_of(p, "matmul").flops, row_of(p, "matmul").calls) == (work, 1)
    assert (row_of(p, "matmul", "backward").flops, row_of(p, "matmul", "backward").calls) == (2 * work, 2)


def test_an_operation_in_itself_is_one_call():
    star = algebra.dct(4)
    A = np.swapaxes(X, -1, -2)  # a transposed weight: the mode product calls itself
    with ct.profile() as p:
        star.forward(A)
    assert calls(p) == {("mode_product", "forward"): 1}
    assert row_of(p, "mode_product").bytes == 2 * X.nbytes + 4 * 4 * 8
    assert row_of(p, "mode_product").flops == 2 * 4 * X.size
    assert row_of(p, "mode_product").total == row_of(p, "mode_product").time


def test_views_move_nothing():
    with ct.profile() as p:
        ct.reshape(X, (-1,))
        ct.permute_dims(X, (2, 1, 0))
        ct.broadcast_to(X[:1], (7, 3, 3))
        ct.take(X, np.array([0, 2]), axis=0)
    moved = {row.operation: row.bytes for row in p.rows}
    assert moved["reshape"] == moved["permute_dims"] == moved["broadcast_to"] == 0
    assert moved["take"] == X.nbytes + 2 * 8 + X.nbytes // 2


def test_a_broadcast_array_counts_the_memory_that_it_covers():
    with ct.profile() as p:
        ct.exp(np.broadcast_to(np.ones(3), (100, 3)))
        ct.exp(np.zeros((0, 3)))
    assert row_of(p, "exp").bytes == 3 * 8 + 300 * 8


def test_the_gradient_of_indexing_moves_what_is_written():
    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(x[1]))(X)
    assert row_of(p, "getitem", "backward").bytes == 0
    assert row_of(p, "put", "backward").bytes == 8 + X.nbytes  # of a cotangent that is one number, broadcast


def test_an_array_that_is_given_twice_is_read_once():
    with ct.profile() as p:
        ct.multiply(X, X)
        ct.concat([X, X])
    assert row_of(p, "multiply").bytes == 2 * X.nbytes
    assert row_of(p, "concat").bytes == 3 * X.nbytes


FUNCTIONS = {
    "where": lambda x: ct.where(x > 0, x, 0.0),
    "clip": lambda x: ct.clip(x, 0.0, 1.0),
    "relu": ct.relu,
    "softmax": ct.softmax,
    "concat": lambda x: ct.concat([x, x]),
    "unstack": ct.unstack,
    "argmax": ct.argmax,
    "equal": lambda x: ct.equal(x, 0.0),
    "sort": ct.sort,
    "tensordot": lambda x: ct.tensordot(x, x[0], axes=1),
    "matmul": lambda x: ct.matmul(x, x),
    "einsum": lambda x: ct.einsum("aij,ajk->aik", x, x),
    "fft": ct.fft.fft,
    "rfftn": ct.fft.rfftn,
    "svd": lambda x: ct.linalg.svd(x, full_matrices=False),
    "inv": ct.linalg.inv,
    "solve": lambda x: ct.linalg.solve(x, x),
    "matrix_power": lambda x: ct.linalg.matrix_power(x, 3),
    "vector_norm": ct.linalg.vector_norm,
    "matrix_norm": ct.linalg.matrix_norm,
    "matrix_log": lambda x: ct.linalg.logm(ct.linalg.expm(x)),
    "astype": lambda x: ct.astype(x, ct.float32),
    "floor_divide": lambda x: ct.floor_divide(2.0, x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_plain_arrays_are_counted_by_their_name(name):
    with ct.profile() as p:
        FUNCTIONS[name](X)
    assert row_of(p, name).calls == 1


def test_names_are_one_for_each_operation():
    """Two functions of one name are one operation, plain and traced; a matrix logarithm is not `log`."""
    places = {}
    for made in known():
        function = made.function
        if made.name is None and function.__module__.partition(".")[0] == "cutnn":
            places.setdefault(function.__name__.lstrip("_"), set()).add(function.__module__)
    shared = {name for name, modules in places.items() if len(modules) > 1}
    assert shared <= {"where", "fftn", "rfft", "irfft", "zeros_like", "ones_like"}


ELEMENTWISE = {"tanh": ct.tanh, "sin": ct.sin, "square": ct.square, "relu": ct.relu, "exp": ct.exp}


@given(st.lists(st.sampled_from(sorted(ELEMENTWISE)), min_size=1, max_size=12))
def test_a_chain_counts_each_link_forward_and_backward(names):
    def chain(x):
        for name in names:
            x = ELEMENTWISE[name](0.1 * x)
        return ct.sum(x)

    plain = ct.grad(chain)(X)
    with ct.profile() as p:
        gradient = ct.grad(chain)(X)
    np.testing.assert_array_equal(gradient, plain)
    count = Counter(names)
    forward = {row.operation: row.calls for row in p.rows if row.phase == "forward"}
    assert forward == {**count, "multiply": len(names), "sum": 1}
    of_rules = {row.operation: row.calls for row in p.rows if row.phase == "backward"}
    assert {name: of_rules[name] for name in count} == count


# ------------------------------------------------------------------------------------------ second order etc.


def test_second_order():
    x = np.array([0.3, 0.4])
    with ct.profile() as p:
        second = ct.grad(lambda x: ct.sum(ct.grad(lambda x: ct.sum(ct.sin(x)))(x)))(x)
    np.testing.assert_allclose(second, -np.sin(x))
    counted = calls(p)
    assert counted["sin", "forward"] == 1
    assert counted["sum", "forward"] == 2
    # The inner rule of sin calls cos and multiplies, traced by the outer tape; the outer pass has the rules of these,
    # and that of cos calls sin.
    assert counted["sin", "backward"] == 2
    assert counted["cos", "backward"] == 2
    assert counted["multiply", "backward"] == 2
    assert counted["backward pass", "backward"] == 2
    assert ("cos", "forward") not in counted


def test_pullbacks_that_are_called_twice():
    _, pull = ct.vjp(ct.tanh, X)
    with ct.profile() as p:
        pull(X)
        pull(X)
    assert calls(p) == {("tanh", "backward"): 2, ("backward pass", "backward"): 2}


def test_checkpoint_computes_again_in_the_backward_pass():
    def block(x):
        return ct.tanh(ct.sin(x))

    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(ct.checkpoint(block)(x)))(X)
    counted = calls(p)
    assert counted["tanh", "forward"] == counted["sin", "forward"] == 1
    assert counted["tanh", "backward"] == counted["sin", "backward"] == 2
    assert counted["block", "backward"] == 1
    row = row_of(p, "block", "backward")
    assert row.total >= row.time + row_of(p, "tanh", "backward").time


def test_custom_vjp_has_its_name():
    @ct.custom_vjp
    def half(x):
        return ct.divide(x, 2)

    half.defvjp(lambda x: (ct.divide(x, 2), None), lambda _, g: (ct.multiply(g, 0.5),))
    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(half(x)))(X)
    counted = calls(p)
    assert counted["divide", "forward"] == counted["half", "backward"] == counted["multiply", "backward"] == 1


def bend(x):
    """An activation of this test's own, whose chains no other test has used up the kernels of."""
    return ct.tanh(x)


@pytest.mark.parametrize("reversible", [False, True])
def test_reversible_networks(reversible):
    depth, star = 3, algebra.dct(4)
    net = nn.HamiltonianNet(
        star, width=3, depth=depth, activation=bend, reversible=reversible, dtype=np.float64, seed=0
    )
    plain = ct.grad(lambda net: ct.sum(net(X) ** 2))(net)
    with ct.profile() as p:
        gradient = ct.grad(lambda net: ct.sum(net(X) ** 2))(net)
    np.testing.assert_array_equal(gradient[0].weight, plain[0].weight)
    counted = calls(p)
    tanh = "bend and move" if fused.is_on() else "tanh"
    assert counted[tanh, "forward"] == 2 * depth
    # Each step is run backward, and forward again on a tape of its own, and has its rules.
    assert counted[tanh, "backward"] == (6 if reversible else 2) * depth
    assert (("reversible", "backward") in counted) == reversible


def test_optimizers():
    model = nn.Sequential(nn.TLinear(algebra.dct(4), 3, 3, dtype=np.float64, seed=0))
    adam, sgd = optim.Adam(model), optim.SGD(model, lr=0.1)
    grads = ct.grad(lambda model: ct.sum(model(X) ** 2))(model)
    adam.step(grads)  # the first one also calls the rule on symbols, to fuse it
    sgd.step(grads)
    with ct.profile() as p:
        adam.step(grads)
        adam.step(grads)
        sgd.step(grads)
    assert calls(p) == {("Adam", "optimizer"): 2, ("SGD", "optimizer"): 1}
    size = 8 * (4 * 3 * 3 + 4 * 3)
    assert row_of(p, "Adam", "optimizer").bytes == 2 * 7 * size  # g; w, m and v there and back
    assert row_of(p, "SGD", "optimizer").bytes == 3 * size
    assert adam.steps == 3


def test_what_an_optimizer_calls_belongs_to_it():
    weights = np.ones(3)
    with ct.profile() as p:
        optim.SGD(weights, lr=lambda step: float(ct.exp(np.zeros(())))).step(np.ones(3))
        ct.exp(weights)
    assert calls(p) == {("SGD", "optimizer"): 1, ("exp", "optimizer"): 1, ("exp", "forward"): 1}
    np.testing.assert_array_equal(weights, 0.0)


# ---------------------------------------------------------------------------------------------------- times


def make(clock):
    """Two operations, one of which calls the other: 3 s of its own and 1 s; their rules take 5 s and 2 s."""

    def pull_inner(g):
        clock(2.0)
        return g

    @ct.primitive(x=pull_inner)
    def inner(x):
        clock(1.0)
        return x + 1

    def pull_outer(g):
        clock(5.0)
        return inner(g)

    @ct.primitive(x=pull_outer)
    def outer(x):
        clock(3.0)
        return inner(x)

    return inner, outer


def test_time_is_counted_once(clock):
    inner, outer = make(clock)
    with ct.profile() as p:
        outer(X)
        clock(10.0)
        inner(X)
    assert (row_of(p, "outer").time, row_of(p, "outer").total, row_of(p, "outer").calls) == (3.0, 4.0, 1)
    assert (row_of(p, "inner").time, row_of(p, "inner").total, row_of(p, "inner").calls) == (2.0, 2.0, 2)
    assert (p.wall, p.outside, p.own) == (15.0, 10.0, 0.0)
    assert row_of(p, "outer").share == 3 / 15
    assert [row.operation for row in p.rows] == ["outer", "inner"]
    # Of bytes too: what the inner operation moves is not the outer one's.
    assert row_of(p, "outer").bytes == 0
    assert row_of(p, "inner").bytes == 4 * X.nbytes


def test_time_of_a_backward_pass(clock):
    inner, outer = make(clock)
    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(outer(inner(x))))(X)
    assert (row_of(p, "outer").time, row_of(p, "outer").total) == (3.0, 4.0)
    assert (row_of(p, "inner").time, row_of(p, "inner").total) == (2.0, 2.0)
    backward = row_of(p, "outer", "backward")
    assert (backward.time, backward.total) == (5.0, 6.0)
    backward = row_of(p, "inner", "backward")  # once as a function, in the rule of the other, once as a rule
    assert (backward.time, backward.total, backward.calls) == (3.0, 3.0, 2)
    whole = row_of(p, "backward pass", "backward")
    assert (whole.time, whole.total) == (0.0, 8.0)
    assert p.wall == 13.0 and p.outside == 0.0


def test_an_operation_in_itself_has_its_time_once(clock):
    @ct.primitive(x=lambda g: g)
    def nest(x, depth):
        clock(1.0)
        return x if depth == 0 else middle(x, depth)

    @ct.primitive(x=lambda g: g)
    def middle(x, depth):
        clock(10.0)
        return nest(x, depth - 1)

    with ct.profile() as p:
        nest(X, 2)
    assert (row_of(p, "nest").time, row_of(p, "nest").total, row_of(p, "nest").calls) == (3.0, 23.0, 1)
    assert (row_of(p, "middle").time, row_of(p, "middle").total, row_of(p, "middle").calls) == (20.0, 22.0, 1)


def test_what_the_profile_takes_is_taken_off(clock, monkeypatch):
    inner, outer = make(clock)
    traffic = module._traffic

    def slow(*args):
        clock(100.0)
        return traffic(*args)

    monkeypatch.setattr(module, "_traffic", slow)
    with ct.profile() as p:
        outer(X)
    assert (row_of(p, "outer").time, row_of(p, "outer").total) == (3.0, 4.0)
    assert (p.own, p.wall, p.outside) == (200.0, 204.0, 0.0)


def test_what_events_take_is_taken_off(clock, monkeypatch):
    events = device.EventClock(pretend.PretendArray, lambda: clock(7.0), lambda a, b: 0.0)
    monkeypatch.setattr(module, "event_clock", lambda: events)
    inner, outer = make(clock)
    with ct.profile() as p:
        outer(X)
    assert (row_of(p, "outer").time, row_of(p, "outer").total, p.own) == (3.0, 4.0, 14.0)


def test_real_times_add_up():
    with ct.profile() as p:
        for _ in range(20):
            ct.grad(lambda x: ct.sum(ct.tanh(x @ x) * x))(X)
    times = [row.time for row in p.rows]
    assert min(times) > 0
    assert sum(times) + p.outside + p.own == pytest.approx(p.wall)
    assert all(row.total >= row.time for row in p.rows)
    assert sum(row.share for row in p.rows) < 1


# --------------------------------------------------------------------------------------- all is as it was


def places():
    """What stands now in the places that a profile exchanges."""
    ct.tanh(X), ct.add(X, X), ct.add(X, 1.0)
    held = [
        derivatives.backward,
        optim.Optimizer.step,
        importlib.import_module("cutnn.array._products")._product,
    ]
    for function in (ct.relu, ct.tanh, ct.add, ct.argmax, ct.einsum, ct.where, algebra._modes.mode_product):
        for cell in function.__closure__ or ():
            held.append(
                dict(cell.cell_contents) if isinstance(cell.cell_contents, dict) else cell.cell_contents
            )
    return held


def test_all_is_as_it_was():
    before = places()
    with ct.profile():
        inside = places()
    assert places() == before
    assert sum(a is not b for a, b in zip(before, inside, strict=True) if not isinstance(a, dict)) >= 6
    assert before[3:] and any(np.tanh in cell.values() for cell in before if isinstance(cell, dict))


def test_all_is_as_it_was_after_an_exception(capsys):
    before = places()

    @ct.primitive(x=lambda g: 1 / 0)
    def fails_backward(x):
        return x + 1

    @ct.primitive(x=lambda g: g)
    def fails(x):
        raise KeyError("here")

    p = ct.profile(show=True)
    with pytest.raises(ZeroDivisionError), p:
        ct.grad(lambda x: ct.sum(fails_backward(x)))(X)
    assert places() == before
    with pytest.raises(KeyError, match="here"), p:
        fails(X)
    assert places() == before
    assert calls(p)["fails_backward", "backward"] == calls(p)["fails", "forward"] == 1
    assert capsys.readouterr().out == ""
    with p:
        ct.tanh(X)
    assert row_of(p, "tanh").calls == 1 and p.runs == 3


def test_phases_end_with_an_exception():
    @ct.primitive(x=lambda g: 1 / 0)
    def fails_backward(x):
        return x + 1

    with ct.profile() as p:
        with pytest.raises(ZeroDivisionError):
            ct.grad(lambda x: ct.sum(fails_backward(x)))(X)
        ct.tanh(X)
    assert calls(p)["tanh", "forward"] == 1


def test_errors_of_functions_are_those_without_a_profile():
    def error(f):
        with pytest.raises(Exception) as caught:
            f()
        return type(caught.value), str(caught.value)

    faults = [
        lambda: ct.reshape(X, (5, 5)),
        lambda: ct.matmul(X, np.ones((2, 2))),
        lambda: ct.relu(X, X),
        lambda: ct.grad(lambda x: ct.sum(ct.linalg.svd(x, full_matrices=False, wrong=1)[0]))(X),
        lambda: ct.grad(lambda x: ct.at_set(x, 0, "a"))(X),
        lambda: ct.concat([X, np.ones(2)]),
        lambda: ct.tanh(object()),
    ]
    plain = [error(f) for f in faults]
    with ct.profile():
        assert [error(f) for f in faults] == plain


def test_profiles_do_not_nest():
    with ct.profile() as p:
        with pytest.raises(RuntimeError, match="do not nest"), ct.profile():
            pass
        ct.tanh(X)
    assert calls(p) == {("tanh", "forward"): 1}


def test_memory_is_freed_as_the_backward_pass_goes():
    held = []

    def rule_of_first(g):
        assert held[0]() is None  # what the second operation had saved
        return g

    @ct.primitive(x=rule_of_first)
    def first(x):
        result = x + 1
        held.append(weakref.ref(result))
        return result

    @ct.primitive(x=lambda g, x: g * x)
    def second(x):
        return x * x / 2

    with ct.profile():
        ct.grad(lambda x: ct.sum(second(first(x))))(X)
    assert len(held) == 1


def test_primitives_made_in_a_loop_are_not_kept():
    def made():
        @ct.primitive(x=lambda g: g)
        def passing(x):
            return x

        return passing

    with ct.profile() as p:
        made()(X)  # made while a profile is active, and counted
    assert calls(p) == {("passing", "forward"): 1}
    import gc

    gc.collect()
    before = len(known())
    for _ in range(10):
        made()
    gc.collect()
    assert len(known()) == before


def test_an_operation_that_outlives_the_profile_is_whole():
    with ct.profile():

        @ct.primitive(x=lambda g: 2 * g)
        def double(x):
            return 2 * x

        double(X)
    assert not hasattr(double.__wrapped__, "__wrapped__")
    cells = {name: cell for name, cell in zip(double.__code__.co_freevars, double.__closure__, strict=True)}
    assert cells["forward"].cell_contents is double.__wrapped__


# --------------------------------------------------------------------------------------------------- threads


def test_other_threads_are_not_counted():
    def work():
        ct.grad(lambda x: ct.sum(ct.tanh(x)))(X)

    with ct.profile() as p:
        other = threading.Thread(target=work)
        other.start()
        other.join()
        ct.sin(X)
    assert calls(p) == {("sin", "forward"): 1}


def test_each_thread_has_its_own():
    both = threading.Barrier(2)
    found = {}

    def work(name, function, times):
        both.wait()
        with ct.profile() as p:
            both.wait()
            for _ in range(times):
                ct.grad(lambda x: ct.sum(function(x)))(X)
            if name == "first":
                both.wait()  # the other ends earlier, and this one goes on counting
                ct.grad(lambda x: ct.sum(function(x)))(X)
        if name == "second":
            both.wait()
        found[name] = calls(p)

    before = places()
    threads = [
        threading.Thread(target=work, args=("first", ct.tanh, 30)),
        threading.Thread(target=work, args=("second", ct.sin, 50)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["first"]["tanh", "forward"] == found["first"]["tanh", "backward"] == 31
    assert found["second"]["sin", "forward"] == found["second"]["sin", "backward"] == 50
    assert ("sin", "forward") not in found["first"] and ("tanh", "forward") not in found["second"]
    assert places() == before


def test_a_profile_that_ends_while_another_thread_looks_a_function_up():
    functions = _define._Functions("tanh")

    def ends_meanwhile(function):
        functions.watch(unwatched)
        return lambda x: function(x)

    functions.watch(ends_meanwhile)
    functions.learn(np.ndarray, X)
    assert functions.known == {}
    functions.learn(np.ndarray, X)
    assert functions.known == {np.ndarray: np.tanh}


# ------------------------------------------------------------------------------------------ another library


def test_another_library(pretend_device):
    x = pretend_device.asarray(X)
    with ct.profile() as p:
        gradient = ct.grad(lambda x: ct.sum(ct.tanh(x @ x)))(x)
    np.testing.assert_allclose(gradient.get(), ct.grad(lambda x: ct.sum(ct.tanh(x @ x)))(X))
    assert row_of(p, "matmul").bytes == 2 * X.nbytes
    assert row_of(p, "matmul", "backward").flops == 2 * row_of(p, "matmul").flops == 2 * 2 * 4 * 27


def test_time_on_a_gpu_is_between_events(pretend_device, monkeypatch):
    """The queue of a pretend GPU is its own clock: an event notes it, and the time is read at the end."""
    queue, read, waits = [0.0], [], []
    marks = iter(range(1000))

    def seconds(a, b):
        read.append((a, b))
        return b[1] - a[1]

    events = device.EventClock(pretend.PretendArray, lambda: (next(marks), queue[0]), seconds)
    monkeypatch.setattr(module, "event_clock", lambda: events)
    monkeypatch.setattr(module, "synchronize", lambda: waits.append(len(read)))

    def slow(seconds):
        queue[0] += seconds

    inner, outer = make(slow)
    x = pretend_device.asarray(X)
    with ct.profile() as p:
        outer(x)
        inner(x)
        ct.tanh(X)  # on the host, by its clock
        assert not read
    assert waits == [0, 0]  # before and after, not for an operation
    assert len(read) == 3
    assert (row_of(p, "outer").time, row_of(p, "outer").total, row_of(p, "outer").calls) == (3.0, 4.0, 1)
    assert (row_of(p, "inner").time, row_of(p, "inner").total, row_of(p, "inner").calls) == (2.0, 2.0, 2)
    assert 0 < row_of(p, "tanh").time < 1

    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(outer(inner(x))))(x)
    assert row_of(p, "inner", "backward").time == 3.0 and row_of(p, "inner", "backward").calls == 2
    assert row_of(p, "outer", "backward").total == 6.0
    assert row_of(p, "backward pass", "backward").total == 8.0

    @ct.primitive(x=lambda g: g)
    def hidden(x):
        inner(on_gpu)
        return x

    on_gpu = x
    with ct.profile() as p:
        hidden(X)  # nothing that it was given is on the GPU, and what it did is
    assert (row_of(p, "hidden").time, row_of(p, "hidden").total) == (0.0, 1.0)


def test_events_of_many_operations_are_read_between_operations(pretend_device, monkeypatch):
    queue, waits = [0.0], []

    def synchronize():
        recorder = getattr(module._here, "recorder", None)
        waits.append(recorder is not None and recorder.frame is not None)

    def slow(seconds):
        queue[0] += seconds

    events = device.EventClock(pretend.PretendArray, lambda: queue[0], lambda a, b: b - a)
    monkeypatch.setattr(module, "event_clock", lambda: events)
    monkeypatch.setattr(module, "synchronize", synchronize)
    monkeypatch.setattr(module, "_PENDING", 2)
    _, outer = make(slow)
    x = pretend_device.asarray(X)
    with ct.profile() as p:
        for _ in range(10):
            outer(x)
    assert len(waits) == 2 + 5 and not any(waits)
    assert (row_of(p, "outer").time, row_of(p, "outer").total) == (30.0, 40.0)


def test_nothing_is_timed_in_a_captured_queue(pretend_device, monkeypatch):
    events = device.EventClock(pretend.PretendArray, lambda: None, lambda a, b: 1 / 0)
    monkeypatch.setattr(module, "event_clock", lambda: events)
    with ct.profile() as p:
        ct.tanh(pretend_device.asarray(X))
    assert (row_of(p, "tanh").calls, row_of(p, "tanh").time) == (1, 0.0)


class Cupti:
    """What counts of CUPTI: the callback, called by `launch` on entering and on leaving a function."""

    def __init__(self, refuses=(), knows=_launches._LAUNCHES):
        self.refuses, self.knows, self.enabled, self.callback = refuses, knows, [], None

    def cuptiSubscribe(self, subscriber, callback, data):
        if "subscribe" not in self.refuses:
            self.callback = callback
        return "subscribe" in self.refuses

    def cuptiEnableCallback(self, on, subscriber, domain, what):
        assert (on, domain) == (1, 1)
        self.enabled += [what] * (what in self.knows)
        return what not in self.knows

    def cuptiUnsubscribe(self, subscriber):
        self.callback = None

    def launch(self, what=307):
        if self.callback is not None and what in self.enabled:
            for site in (0, 1):
                self.callback(None, 1, what, ctypes.pointer(ctypes.c_int(site)))


@pytest.fixture
def cupti(monkeypatch):
    library = Cupti()
    monkeypatch.setattr(_launches, "_cupti", lambda: library)
    return library


def on_a_pretend_gpu(monkeypatch):
    events = device.EventClock(pretend.PretendArray, lambda: 0.0, lambda a, b: 0.0)
    monkeypatch.setattr(module, "event_clock", lambda: events)


def test_kernels_are_counted_once(pretend_device, monkeypatch, cupti):
    on_a_pretend_gpu(monkeypatch)

    @ct.primitive(x=lambda g: (cupti.launch(), cupti.launch(514), g)[2])
    def inner(x):
        cupti.launch()
        return x + 1

    @ct.primitive(x=lambda g: g)
    def outer(x):
        for what in (652, 653, 12):  # the last is no launch
            cupti.launch(what)
        return inner(x)

    x = pretend_device.asarray(X)
    with ct.profile() as p:
        ct.grad(lambda x: ct.sum(outer(x) + inner(x)))(x)
        cupti.launch()
    assert row_of(p, "outer").kernels == 2
    assert row_of(p, "inner").kernels == 2
    assert row_of(p, "inner", "backward").kernels == 2
    assert row_of(p, "outer", "backward").kernels == row_of(p, "sum").kernels == 0
    assert "kernels" in str(p)
    assert cupti.callback is None
    cupti.launch()


def test_kernels_are_those_of_the_own_thread(pretend_device, monkeypatch, cupti):
    on_a_pretend_gpu(monkeypatch)

    @ct.primitive(x=lambda g: g)
    def waits(x):
        other = threading.Thread(target=cupti.launch)
        other.start()
        other.join()
        return x + 1

    with ct.profile() as p:
        waits(pretend_device.asarray(X))
    assert row_of(p, "waits").kernels == 0


@pytest.mark.parametrize("library", [None, Cupti(refuses=["subscribe"]), Cupti(knows=())])
def test_kernels_that_cannot_be_counted_are_not_known(pretend_device, monkeypatch, library):
    on_a_pretend_gpu(monkeypatch)
    monkeypatch.setattr(_launches, "_cupti", lambda: library)
    with ct.profile() as p:
        ct.tanh(pretend_device.asarray(X))
    assert row_of(p, "tanh").kernels is None and "kernels" not in str(p)
    assert library is None or library.callback is None


def test_a_driver_that_knows_some_launches_counts_those(pretend_device, monkeypatch):
    on_a_pretend_gpu(monkeypatch)
    older = Cupti(knows=(307,))
    monkeypatch.setattr(_launches, "_cupti", lambda: older)
    with ct.profile() as p:
        ct.tanh(pretend_device.asarray(X))
    assert row_of(p, "tanh").kernels == 0


def test_cupti_is_looked_for_in_wheels_first(tmp_path, monkeypatch):
    (tmp_path / "nvidia" / "cu13" / "lib").mkdir(parents=True)
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libcupti.so.13"
    library.write_text("no library")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_launches.importlib.util, "find_spec", lambda name: Spec([str(tmp_path / name)]))
    assert list(_launches._names()) == [str(library), "libcupti.so.13", "libcupti.so.12", "libcupti.so"]


class Spec:
    def __init__(self, places):
        self.submodule_search_locations = places


@pytest.mark.gpu
def test_on_a_gpu():
    x = ct.to_device(np.ones((64, 512, 512), dtype=np.float32), "cuda:0")
    step = ct.grad(lambda x: ct.sum(ct.tanh(x @ x)))
    step(x)
    with ct.profile() as p:
        step(x)
    product = row_of(p, "matmul")
    assert product.flops == 2 * 64 * 512**3
    assert 1e11 < product.rate < 1e16
    assert product.kernels is None or product.kernels >= 1
    assert sum(row.time for row in p.rows) <= 1.05 * p.wall


# -------------------------------------------------------------------------------------------- what is shown


def test_groups():
    with ct.profile() as p:
        ct.tanh(X)
        ct.tanh(X)
        ct.tanh(np.ones(5, dtype=np.float32))
    shapes = {row.shapes: row.calls for row in p.group(by="shape")}
    assert shapes == {"4×3×3 float64": 2, "5 float32": 1}
    (row,) = p.group(by="phase")
    assert (row.operation, row.phase, row.calls) == ("", "forward", 3)
    assert row.time == pytest.approx(row_of(p, "tanh").time)


def test_order():
    with ct.profile() as p:
        for _ in range(5):
            ct.sin(X[0])
        ct.tanh(X)
    assert [row.operation for row in p.group(sort="calls")] == ["sin", "tanh"]
    assert [row.operation for row in p.group(sort="bytes")] == ["sin", "tanh"]
    assert [row.operation for row in p.group(sort="operation")] == ["sin", "tanh"]
    times = [row.time for row in p.rows]
    assert times == sorted(times, reverse=True)
    p.group(sort="flops"), p.group(sort="bandwidth"), p.group(sort="rate")
    with pytest.raises(ValueError, match="sort is one of .*'calls'.*not 'speed'"):
        p.group(sort="speed")
    with pytest.raises(ValueError, match="by is .* not 'line'"):
        ct.profile(by="line")


def test_table(clock, capsys):
    inner, outer = make(clock)
    with ct.profile(show=True) as p:
        outer(X)
        clock(1.0)
        ct.matmul(X, X)
    assert capsys.readouterr().out == f"{p}\n"
    head, first, second, third, rule, outside, whole, foot = str(p).splitlines()
    assert head.split() == "operation pass calls ms % total ms MB GB/s".split()  # no column without a number
    assert first.split() == "outer forward 1 3000.000 60.0 4000.000".split()
    assert second.split()[:5] == "inner forward 1 1000.000 20.0".split()
    assert third.split()[:3] == "matmul forward 1".split()
    assert set(rule) == {"-"} and len(rule) >= len(head)
    assert outside.split() == "outside of operations 1000.000 20.0".split()
    assert whole.split() == "all 5000.000 100.0".split()
    assert foot.startswith("entered once; the profile itself took 0.000 ms more")
    short = p.table(limit=1).splitlines()
    assert short[2].split() == "2 more 1000.000 20.0".split()
    assert "4×3×3 float64" in p.table(by="shape")


def test_rates_have_a_column():
    with ct.profile() as p:
        ct.matmul(X, X)
    head, line, *_ = str(p).splitlines()
    assert head.split()[-1] == "GFLOP/s" and "shapes" not in head and "kernels" not in head
    row = row_of(p, "matmul")
    assert line.split()[-1] == f"{row.flops / row.time / 1e9:.1f}"
    assert line.split()[-2] == f"{row.bytes / row.time / 1e9:.1f}"


def test_columns(tmp_path):
    with ct.profile() as p:
        ct.matmul(X, X)
        ct.tanh(X)
    columns = p.to_dict()
    assert list(columns) == [
        "operation", "phase", "shapes", "calls", "time", "share", "total", "bytes", "flops", "kernels",
    ]  # fmt: skip
    assert sorted(columns["operation"]) == ["matmul", "tanh"]
    text = p.to_csv(tmp_path / "profile.csv", sort="operation")
    assert (tmp_path / "profile.csv").read_text() == text
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["operation"], first["flops"], second["flops"]) == ("matmul", str(2 * 4 * 27), "")
    assert float(second["time"]) == row_of(p, "tanh").time


def test_entered_again_it_adds():
    p = ct.profile()
    for _ in range(3):
        with p:
            ct.tanh(X)
    assert p.runs == 3 and row_of(p, "tanh").calls == 3 and row_of(p, "tanh").bytes == 6 * X.nbytes
    assert "entered 3 times" in str(p)


def test_a_look_before_the_block_ends():
    with ct.profile() as p:
        ct.tanh(X)
        assert row_of(p, "tanh").share == 1.0


def test_an_empty_block():
    with ct.profile() as p:
        pass
    assert p.rows == [] and "outside of operations" in str(p)
