"""Factorisations of a tensor, from tensor to tensors: t-SVD, t-QR, t-pinv, and an iteration of robust PCA.

Peers that lack a function have it built of what they have: `mprod-package` and `tred` have the t-SVD, of which the
pseudoinverse and an iteration of robust PCA are a few lines. The loop is what people write in NumPy: a face at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.case import Case, Peer, Target, Unavailable, Work
from bench.libraries import cutnn_work, torch_work
from bench.nets import dct_matrix
from bench.ours import ours

ITERATIONS = 3
PENALTY, RELAXATION = 10.0, 1.6
RTOL = 1e-12


def tensor(rows: int, columns: int, n: int) -> np.ndarray:
    """A float64 tensor (n, rows, columns) of low tubal rank, a few large entries, and noise."""
    rng = np.random.default_rng(0)
    low = rng.standard_normal((n, rows, 5)) @ rng.standard_normal((n, 5, columns))
    low += 0.01 * rng.standard_normal(low.shape)
    return low + 10 * rng.standard_normal(low.shape) * (rng.random(low.shape) < 0.05)


def cutnn(operation: str, transform: str, **shape: int) -> Work:
    import cutnn as ct
    from cutnn import algebra

    A = ct.to_device(tensor(**shape))
    star = getattr(algebra, transform)(shape["n"])

    def robust_pca() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", algebra.lowrank.ConvergenceWarning
            )  # these iterations are the work
            return algebra.lowrank.robust_pca(
                star, A, max_iterations=ITERATIONS, schedule="fixed", penalty=PENALTY
            )

    match operation:
        case "svd":
            return cutnn_work(lambda: star.svd(A), lambda: [star.svd(A).S])
        case "qr":
            return cutnn_work(lambda: star.qr(A), lambda: [abs(star.forward(star.qr(A).R))])
        case "pinv":
            return cutnn_work(lambda: star.pinv(A), lambda: [star.pinv(A)])
        case _:
            return cutnn_work(robust_pca, lambda: [robust_pca().low_rank])


# ------------------------------------------------------------------------------------------ peers, faces first


def loop(operation: str, transform: str, **shape: int) -> Work:
    """NumPy, a face at a time; the t-product by all n complex faces, as is usual."""
    A = tensor(**shape)
    return Work(*_looped(np, operation, transform, A))


def cupy_loop(operation: str, transform: str, **shape: int) -> Work:
    """CuPy, a face at a time."""
    import cupy

    call, answer = _looped(cupy, operation, transform, cupy.asarray(tensor(**shape)))
    wait = cupy.cuda.Device().synchronize
    return Work(call, lambda: [cupy.asnumpy(a) for a in answer()], wait=lambda result: wait())


def _looped(xp: Any, operation: str, transform: str, A: Any) -> tuple[Any, Any]:
    forward, inverse = _transforms(xp, transform, len(A))

    def stacked(function: Callable[..., Any], faces: Any) -> list[Any]:
        results = [function(face) for face in faces]
        if isinstance(results[0], tuple):
            return [xp.stack(parts) for parts in zip(*results, strict=True)]
        return [xp.stack(results)]

    def svd(faces: Any) -> Any:
        return stacked(lambda face: tuple(xp.linalg.svd(face, full_matrices=False)), faces)

    qr: Any = lambda faces: stacked(lambda face: tuple(xp.linalg.qr(face)), faces)  # noqa: E731
    pinv: Any = lambda faces: stacked(lambda face: xp.linalg.pinv(face, RTOL), faces)  # noqa: E731
    return _work(xp, operation, A, forward, inverse, svd, qr, pinv)


def pytorch(operation: str, transform: str, device: str, **shape: int) -> Work:
    """PyTorch's batched calls."""
    import torch

    A = torch.tensor(tensor(**shape), device=device)
    forward, inverse = _transforms(torch, transform, shape["n"], device=device)

    def svd(faces: Any) -> Any:
        return torch.linalg.svd(faces, full_matrices=False)

    def pinv(faces: Any) -> Any:
        return [torch.linalg.pinv(faces, rtol=RTOL)]

    work = _work(torch, operation, A, forward, inverse, svd, torch.linalg.qr, pinv)
    return torch_work(*map(torch.inference_mode(), work), device)


def _transforms(
    xp: Any, transform: str, n: int, **place: str
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    if transform == "fft":
        return lambda A: xp.fft.fft(A, n, 0), lambda A: xp.fft.ifft(A, n, 0).real
    M = xp.asarray(dct_matrix(n), **place)
    return (
        lambda A: (M @ A.reshape(n, -1)).reshape(A.shape),
        lambda A: (M.T @ A.reshape(n, -1)).reshape(A.shape),
    )


def _work(
    xp: Any, operation: str, A: Any, forward: Any, inverse: Any, svd: Any, qr: Any, pinv: Any
) -> tuple[Callable[[], Any], Callable[[], list[Any]]]:
    """The operation by these functions of faces, and its answer."""

    def t_svd() -> Any:
        U, s, Vh = svd(forward(A))
        return inverse(U), inverse(s[..., None])[..., 0], inverse(Vh)

    def t_qr() -> Any:
        Q, R = qr(forward(A))
        return inverse(Q), inverse(R)

    def t_pinv() -> Any:
        return inverse(pinv(forward(A))[0])

    def threshold(X: Any, t: float) -> Any:
        U, s, Vh = svd(forward(X))
        return inverse((U * xp.clip(s - t, 0, None)[..., None, :]) @ Vh)

    def largest() -> Any:
        return svd(forward(A))[1].max()

    match operation:
        case "svd":
            return t_svd, lambda: [t_svd()[1]]
        case "qr":
            return t_qr, lambda: [abs(forward(t_qr()[1]))]
        case "pinv":
            return t_pinv, lambda: [t_pinv()]
        case _:
            pca = _robust_pca(xp, A, max(A.shape[-2:]), threshold, largest)
            return pca, lambda: [pca()]


def _robust_pca(xp: Any, A: Any, side: int, threshold: Any, largest: Any) -> Callable[[], Any]:
    """L after the iterations of `cutnn.algebra._admm`, which says what they are."""

    def call() -> Any:
        scale = largest()
        X = A / scale
        weight = side**-0.5
        E = U = xp.zeros_like(X)
        for _ in range(ITERATIONS):
            L = threshold(X - E + U, 1 / PENALTY)
            V = RELAXATION * (X - L) + (1 - RELAXATION) * E + U
            E = V - xp.clip(V, -weight / PENALTY, weight / PENALTY)
            U = V - E
        return L * scale

    return call


# ------------------------------------------------------------------------------------------- peers, tubes last


def mprod(operation: str, transform: str, **shape: int) -> Work:
    from mprod import generate_dct
    from mprod.decompositions import svdm

    forward, inverse = generate_dct(shape["n"]) if transform == "dct" else _half_spectra(shape["n"])

    def svd(A: Any) -> Any:
        U, s, V = svdm(A, forward, inverse, hats=True)
        return U, s, V.transpose(1, 0, 2)

    return _tubes_last(operation, tensor(**shape), forward, inverse, svd, lambda A: svdm(A, forward, inverse))


def tred(operation: str, transform: str, **shape: int) -> Work:
    from tred import generate_dctii_m_transform_pair, tsvdm

    dct = transform == "dct"
    forward, inverse = generate_dctii_m_transform_pair(shape["n"]) if dct else _half_spectra(shape["n"])

    def svd(A: Any, hats: bool = True) -> Any:
        return tsvdm(A, forward, inverse, keep_hats=hats, full_frontal_slices=False, svals_matrix_form=True)

    def faces(A: Any) -> Any:
        U, s, V = svd(A)
        return U, s, V.transpose(1, 0, 2)

    return _tubes_last(operation, tensor(**shape), forward, inverse, faces, lambda A: svd(A, hats=False))


def _tubes_last(operation: str, A: np.ndarray, forward: Any, inverse: Any, svd: Any, t_svd: Any) -> Work:
    """The operation by the t-SVD of a package; `svd` gives U, s, Vh in the transform domain, as (l, k, n), (k, n)."""
    A = np.ascontiguousarray(A.transpose(1, 2, 0))

    def faces(X: Any) -> Any:
        U, s, Vh = svd(X)
        return U.transpose(2, 0, 1), s.T, Vh.transpose(2, 0, 1)

    def tensor_of(faces: Any) -> Any:
        return inverse(np.ascontiguousarray(faces.transpose(1, 2, 0)))

    def t_pinv() -> Any:
        U, s, Vh = faces(A)
        return tensor_of((Vh.swapaxes(-1, -2) / s[:, None, :]) @ U.swapaxes(-1, -2))

    def threshold(X: Any, t: float) -> Any:
        U, s, Vh = faces(X)
        return tensor_of((U * np.maximum(s - t, 0)[:, None, :]) @ Vh)

    match operation:
        case "qr":
            raise Unavailable("has no t-QR")
        case "svd":
            return Work(lambda: t_svd(A), lambda: [np.asarray(t_svd(A)[1]).T])
        case "pinv":
            return Work(t_pinv, lambda: [t_pinv().transpose(2, 0, 1)])
        case _:
            pca = _robust_pca(np, A, max(A.shape[:2]), threshold, lambda: faces(A)[1].max())
            return Work(pca, lambda: [pca().transpose(2, 0, 1)])


def _half_spectra(n: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """For packages that bring no Fourier transform but take any pair of functions."""
    from scipy.fft import irfft, rfft

    return lambda X: rfft(X, axis=-1), lambda X: irfft(X, n=n, axis=-1)


def _operations(operation: str, **size: Any) -> int:
    return ITERATIONS if operation == "robust PCA" else 1


def _sizes() -> dict[str, dict[str, Any]]:
    every = (("svd", "dct"), ("svd", "fft"), ("qr", "dct"), ("pinv", "dct"), ("robust PCA", "dct"))
    some = (
        every[:1] + every[2:4]
    )  # the larger faces; fewer of them than of 100 × 100 × 198 and 256 × 256 × 64, which
    sizes = {}  # take ten minutes and more
    for rows, columns, n, operations in ((64, 64, 64, every), (100, 100, 32, some), (256, 256, 8, some)):
        for operation, transform in operations:
            name = {"dct": "DCT", "fft": "t-product"}[transform]
            label = f"{operation}, {rows}×{columns}, {n} faces, {name}"
            sizes[label] = {"operation": operation, "transform": transform}
            sizes[label] |= {"rows": rows, "columns": columns, "n": n}
    return sizes


def _for_a_gpu() -> dict[str, dict[str, Any]]:
    """Thousands of small faces, and tens of large ones."""
    return {
        f"{operation}, {side}×{side}, {n} faces, DCT": {"operation": operation, "transform": "dct"}
        | {"rows": side, "columns": side, "n": n}
        for side, n in ((16, 4096), (512, 32))
        for operation in ("svd", "qr", "pinv")
    }


CASE = Case(
    name="factorisations",
    title="Factorisations of float64 tensors, from tensor to tensors; robust PCA by the iteration",
    sizes=_sizes(),
    cuda_sizes=_for_a_gpu(),
    peers={
        **ours(cutnn),
        "NumPy loop": Peer("numpy", loop, devices=("cpu",)),
        "CuPy loop": Peer("cupy", cupy_loop, devices=("cuda",)),
        "PyTorch, batched": Peer("torch", pytorch),
        "mprod-package": Peer("mprod-package", mprod, devices=("cpu",)),
        "tred": Peer("tred", tred, devices=("cpu",)),
    },
    targets={
        "*": [
            Target("NumPy loop", 1.0, "not slower than a NumPy loop"),
            Target("PyTorch, batched", 1.0, "not slower than PyTorch's batched calls"),
            Target("mprod-package", 3.0, "at least 3× faster than mprod-package"),
            Target("tred", 3.0, "at least 3× faster than tred"),
            Target("PyTorch, batched", 1.0, "not slower than PyTorch's batched calls", device="cuda"),
            Target("CuPy loop", 10.0, "at least 10× faster than a CuPy loop", device="cuda"),
        ],
    },
    operations=_operations,
    quick_sizes=5,
    quick_rounds=3,
    rounds=5,
    seconds=45,
    tolerance=1e-6,
)
