"""CUDA graphs of steps: the order of what is asked of CuPy, on a fake of it, and the real thing where a GPU is."""

from __future__ import annotations

import contextlib
import types

import numpy as np
import optree
import pytest

import cutnn as ct
from cutnn import algebra, device, nn, optim
from cutnn.device import host_numbers, record_call, recording
from cutnn.recording import CaptureError, _capture, _cuda

# ------------------------------------------------------------------------------------------------ a fake of CuPy


class FakeArray(np.ndarray):
    """An array of the fake; while a stream is captured what it computes is thrown away, as it is on a GPU."""

    __cuda_array_interface__ = {"version": 3}
    device = "cuda:0"

    def __getitem__(self, key):
        return super().__getitem__(
            (key, ...) if isinstance(key, int) else key
        )  # CuPy gives views, not numbers

    def set(self, host):
        assert not Fake.now.capturing
        Fake.now.log.append("numbers")
        self[...] = host


class Fake:
    """What of CuPy a graph needs, and a log of it."""

    now: Fake

    def __init__(self):
        Fake.now = self
        self.log, self.capturing, self.fault = [], False, None
        self.current = Stream("outer")
        self.cuda = types.SimpleNamespace(
            MemoryPool=lambda: types.SimpleNamespace(malloc="private"),
            Stream=lambda non_blocking: Stream("side"),
            get_current_stream=lambda: self.current,
            using_allocator=self.allocator,
        )

    @contextlib.contextmanager
    def allocator(self, malloc):
        self.log.append(f"memory from {malloc}")
        yield
        self.log.append("memory as before")

    def empty(self, shape, dtype):
        return np.zeros(shape, dtype).view(FakeArray)


class Stream:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        Fake.now.current, self.before = self, Fake.now.current

    def __exit__(self, *_):
        Fake.now.current = self.before

    def record(self):
        return self.name

    def wait_event(self, event):
        Fake.now.log.append(f"{self.name} waits for {event}")

    def synchronize(self):
        Fake.now.log.append("synchronize")

    def begin_capture(self):
        Fake.now.log.append("begin")
        Fake.now.capturing = True

    def end_capture(self):
        Fake.now.log.append("end")
        Fake.now.capturing = False
        if Fake.now.fault:
            raise Fake.now.fault
        return types.SimpleNamespace(launch=lambda stream: Fake.now.log.append(f"launch on {stream.name}"))


class FakeBLAS:
    def __init__(self, cupy, stream):
        assert stream.name == "side"

    def matmul(self, x1, x2):
        Fake.now.log.append("product")
        return (np.asarray(x1) @ np.asarray(x2)).view(FakeArray)


@pytest.fixture
def fake(monkeypatch):
    cupy = Fake()
    monkeypatch.setattr(device, "_import_cupy", lambda: cupy)
    monkeypatch.setattr(_cuda, "CuBLAS", FakeBLAS)
    monkeypatch.setattr(_capture, "namespace", lambda *arrays: cupy)
    monkeypatch.setitem(device._OWNER, FakeArray, np)
    return cupy


def there(x):
    return np.asarray(x, dtype=float).view(FakeArray)


class Counter:
    """Counts as an optimizer does."""

    steps = 0

    def count(self):
        self.steps += 1
        return (float(self.steps), 0.5)

    def step(self, x):
        record_call(self.update, [x], [x], host=[(self, "steps")])

    def update(self, x, out):
        self.numbers = host_numbers(self.count)


def test_a_step_is_run_then_captured_then_launched(fake):
    counter, runs = Counter(), []

    def step(x):
        runs.append(fake.capturing)
        counter.step(x)
        return ct.matmul(x, x)

    run = ct.capture(step)
    x = there([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(run(x), x @ x)
    assert runs == [False, True] and counter.steps == 1
    begin, end = fake.log.index("begin"), fake.log.index("end")
    assert fake.log[:3] == ["side waits for outer", "memory from private", "product"]
    assert fake.log[begin - 1] == "synchronize" and fake.log[begin + 1 : end] == ["product"]
    assert fake.log[-1] == "outer waits for side" and recording.recorder is None
    array, *_ = counter.numbers
    fake.log.clear()
    run(there([[0.0, 1.0], [1.0, 0.0]]))
    assert fake.log == ["numbers", "launch on outer"] and counter.steps == 2 and runs == [False, True]
    assert array.shape == () and array == 2.0  # what the kernels of the graph read
    graph = run.recordings[0]
    np.testing.assert_array_equal(graph._inputs[0], [[0.0, 1.0], [1.0, 0.0]])


def test_what_cuda_refuses_is_named_and_the_stream_ended(fake):
    def step(x):
        if fake.capturing:
            raise NotImplementedError("calling cuSOLVER API during stream capture is currently unsupported")
        return x

    with pytest.raises(CaptureError, match="cuSOLVER API.*factorisations"):
        ct.capture(step)(there([1.0]))
    assert recording.recorder is None and not fake.capturing
    fake.fault = RuntimeError("cudaErrorStreamCaptureInvalidated")
    with pytest.raises(CaptureError, match="Invalidated"):
        ct.capture(lambda x: x)(there([1.0]))


def test_looks_at_values_are_left_out(fake):
    def look(x):
        raise AssertionError("the GPU would be waited for")

    def step(x):
        record_call(look, [x], [])
        return x

    ct.capture(step)(there([1.0]))


def test_forms_tell_devices_apart():
    x = there([1.0])
    assert _capture._form(np.asarray(x)) != _capture._form(x)


# ----------------------------------------------------------------------------------------------------- a real GPU


def training(captured, network, optimizer):
    star = algebra.dct(6)
    body = {
        "t-linear": lambda: nn.TLinear(star, 5, 5, activation=ct.tanh, seed=0),
        "Hamiltonian": lambda: nn.HamiltonianNet(
            star, 5, depth=3, h=0.25, activation=ct.tanh, reversible=True, seed=0
        ),
    }[network]()
    model = ct.to_device(nn.Sequential(body, nn.TLinear(star, 5, 3, seed=1)), "cuda:0")
    made = {
        "SGD": lambda: optim.SGD(model, lr=0.1, momentum=0.9),
        "Adam": lambda: optim.Adam(model, lr=optim.cosine(1e-2, 30), weight_decay=1e-3),
        "AdamW": lambda: optim.AdamW(model, lr=1e-2, clip=0.1),
    }[optimizer]()
    rng = np.random.default_rng(0)
    data = ct.to_device(rng.standard_normal((40, 6, 5)).astype(np.float32), "cuda:0")
    classes = ct.to_device(rng.integers(0, 3, 40), "cuda:0")
    loss = nn.TubalCrossEntropy(star)

    def step(indices):
        X = ct.permute_dims(ct.take(data, indices, axis=0), (1, 2, 0))
        labels = ct.take(classes, indices, axis=0)
        value, gradient = ct.value_and_grad(lambda model: loss(model(X), labels))(model)
        made.step(gradient)
        return value

    return model, made, ct.capture(step) if captured else step


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("network", ["t-linear", "Hamiltonian"])
def test_twenty_steps_on_the_gpu(network, optimizer):
    (model, made, plain), (other, theirs, run) = (training(c, network, optimizer) for c in (False, True))
    rng = np.random.default_rng(1)
    for _ in range(20):
        indices = ct.to_device(rng.permutation(40)[:7], "cuda:0")
        np.testing.assert_allclose(ct.to_host(run(indices)), ct.to_host(plain(indices)), rtol=1e-4)
    assert made.steps == theirs.steps == 20 and len(run.recordings) == 1
    leaves = (optree.tree_leaves(ct.to_host(m), namespace="cutnn") for m in (model, other))
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_products_while_capturing(dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 4, 5)) + 1j * rng.standard_normal((3, 4, 5))).astype(dtype)
    y = (rng.standard_normal((5, 6)) + 1j * rng.standard_normal((5, 6))).astype(dtype)

    def step(x, y):
        return ct.matmul(x, y), ct.matmul(x.mT, x), ct.matmul(y.mT, x.mT)

    run = ct.capture(step)
    for k in (1, 2, 3):
        given = ct.to_device((k * x, y), "cuda:0")
        for ours, theirs in zip(ct.to_host(run(*given)), step(k * x, y), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_a_choice_by_value_is_refused_on_the_gpu():
    x = ct.to_device(np.ones(3), "cuda:0")
    with pytest.raises(CaptureError, match="CUDA graph"):
        ct.capture(lambda x: x if float(x.sum()) > 0 else -x)(x)
    np.testing.assert_array_equal(ct.to_host(x + 1), np.full(3, 2.0))  # the GPU goes on
