"""Linear algebra: values by their laws, gradients by differences and PyTorch, degenerate points by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cutnn as ct
from cutnn import linalg
from cutnn.tape import NotDifferentiableError
from tests.array.against_torch import compare
from tests.gradcheck import check

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
SQUARE, TALL, WIDE = (2, 4, 4), (2, 5, 3), (3, 5)


def draw(shape: Any, dtype: Any = np.float64, seed: int = 0) -> Any:
    rng = np.random.default_rng((seed, *shape))
    z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (z if np.dtype(dtype).kind == "c" else z.real).astype(dtype)


def adjoint(x: Any) -> Any:
    return ct.conj(x.mT)


def definite(x: Any) -> Any:
    h = x @ adjoint(x)
    return h + linalg.matrix_power(h, 0)


def with_values(f: Any, u: Any, s: Any, vh: Any) -> Any:
    """u diag(f(s)) vh, what a function of singular values or eigenvalues is made of."""
    return (u * f(s)[..., None, :]) @ vh


def curve(s: Any) -> Any:
    return s * s * s / (1 + s * s)


def svd_and_back(x: Any) -> Any:
    u, s, vh = linalg.svd(x, full_matrices=False)
    return with_values(curve, u, s, vh)


def eigh_and_back(x: Any) -> Any:
    w, v = linalg.eigh(x + adjoint(x))
    return with_values(curve, v, w, adjoint(v))


# name: function, the same of the module torch, shapes of the arguments
FUNCTIONS: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
    "matmul": (ct.matmul, lambda t: t.matmul, (SQUARE, (2, 4, 3))),
    "matmul broadcast": (ct.matmul, lambda t: t.matmul, ((4, 1, 2, 3), (5, 3, 2))),
    "matmul one matrix left": (ct.matmul, lambda t: t.matmul, ((2, 3), (4, 3, 2))),
    "matmul one matrix left, few columns": (ct.matmul, lambda t: t.matmul, ((12, 11), (4, 2, 11, 1))),
    "matmul one matrix right": (ct.matmul, lambda t: t.matmul, ((4, 2, 3), (3, 2))),
    "matmul vectors": (ct.matmul, lambda t: t.matmul, ((3,), (3,))),
    "matmul vector left": (ct.matmul, lambda t: t.matmul, ((3,), (4, 3, 2))),
    "matmul vector right": (ct.matmul, lambda t: t.matmul, ((4, 2, 3), (3,))),
    "matrix_transpose": (ct.matrix_transpose, lambda t: lambda x: x.mT, (TALL,)),
    "vecdot": (ct.vecdot, lambda t: t.linalg.vecdot, (TALL, (5, 3))),
    "vecdot of an axis": (
        lambda x, y: ct.vecdot(x, y, axis=-2),
        lambda t: lambda x, y: t.linalg.vecdot(x, y, dim=-2),
        (TALL, (5, 1)),
    ),
    "tensordot": (ct.tensordot, lambda t: t.tensordot, ((2, 3, 4), (3, 4, 2))),
    "tensordot of axes": (
        lambda x, y: ct.tensordot(x, y, axes=((2, 0), (1, -1))),
        lambda t: lambda x, y: t.tensordot(x, y, dims=((2, 0), (1, 2))),
        ((2, 3, 4), (5, 4, 2)),
    ),
    "tensordot of none": (
        lambda x, y: ct.tensordot(x, y, axes=0),
        lambda t: lambda x, y: t.tensordot(x, y, dims=0),
        ((2, 3), (2,)),
    ),
    "outer": (linalg.outer, lambda t: t.outer, ((3,), (4,))),
    "cross": (linalg.cross, lambda t: t.linalg.cross, (TALL, (1, 5, 3))),
    "cross of an axis": (
        lambda x, y: linalg.cross(x, y, axis=-2),
        lambda t: lambda x, y: t.linalg.cross(x, y, dim=-2),
        ((3, 2), (3, 2)),
    ),
    "matrix_power": (
        lambda x: linalg.matrix_power(x, 5),
        lambda t: lambda x: t.linalg.matrix_power(x, 5),
        (SQUARE,),
    ),
    "matrix_power below 0": (
        lambda x: linalg.matrix_power(x, -2),
        lambda t: lambda x: t.linalg.matrix_power(x, -2),
        (SQUARE,),
    ),
    "diagonal": (
        lambda x: linalg.diagonal(x, offset=-2),
        lambda t: lambda x: t.diagonal(x, -2, -2, -1),
        (TALL,),
    ),
    "trace": (
        lambda x: linalg.trace(x, offset=1),
        lambda t: lambda x: t.diagonal(x, 1, -2, -1).sum(-1),
        (TALL,),
    ),
    "inv": (linalg.inv, lambda t: t.linalg.inv, (SQUARE,)),
    "solve": (linalg.solve, lambda t: t.linalg.solve, (SQUARE, (2, 4, 3))),
    "solve broadcast": (linalg.solve, lambda t: t.linalg.solve, ((3, 1, 4, 4), (2, 4, 2))),
    "solve of a vector": (
        linalg.solve,
        lambda t: lambda x, y: t.linalg.solve(x, y[:, None])[..., 0],
        (SQUARE, (4,)),
    ),
    "det": (linalg.det, lambda t: t.linalg.det, (SQUARE,)),
    "slogdet": (
        lambda x: linalg.slogdet(x).logabsdet * linalg.slogdet(x).sign,
        lambda t: lambda x: t.linalg.slogdet(x)[1] * t.linalg.slogdet(x)[0],
        (SQUARE,),
    ),
    "logabsdet": (lambda x: linalg.slogdet(x)[1], lambda t: lambda x: t.linalg.slogdet(x)[1], (SQUARE,)),
    "pinv": (linalg.pinv, lambda t: t.linalg.pinv, (SQUARE,)),
    "pinv tall": (linalg.pinv, lambda t: t.linalg.pinv, (TALL,)),
    "pinv wide": (linalg.pinv, lambda t: t.linalg.pinv, (WIDE,)),
    "cholesky": (
        lambda x: linalg.cholesky(definite(x)),
        lambda t: lambda x: t.linalg.cholesky(x @ x.mH + t.eye(4, dtype=x.dtype)),
        (SQUARE,),
    ),
    "cholesky upper": (
        lambda x: linalg.cholesky(definite(x), upper=True),
        lambda t: lambda x: t.linalg.cholesky(x @ x.mH + t.eye(4, dtype=x.dtype), upper=True),
        (SQUARE,),
    ),
    "q": (lambda x: linalg.qr(x).Q, lambda t: lambda x: t.linalg.qr(x)[0], (SQUARE,)),
    "r": (lambda x: linalg.qr(x).R, lambda t: lambda x: t.linalg.qr(x)[1], (SQUARE,)),
    "q tall": (lambda x: linalg.qr(x).Q, lambda t: lambda x: t.linalg.qr(x)[0], (TALL,)),
    "r tall": (lambda x: linalg.qr(x).R, lambda t: lambda x: t.linalg.qr(x)[1], (TALL,)),
    "q wide": (lambda x: linalg.qr(x).Q, lambda t: lambda x: t.linalg.qr(x)[0], (WIDE,)),
    "r wide": (lambda x: linalg.qr(x).R, lambda t: lambda x: t.linalg.qr(x)[1], (WIDE,)),
    "q and r wide": (
        lambda x: linalg.qr(x)[0] @ (linalg.qr(x)[1] ** 2),
        lambda t: lambda x: t.linalg.qr(x)[0] @ (t.linalg.qr(x)[1] ** 2),
        (WIDE,),
    ),
    "qr complete": (
        lambda x: linalg.qr(x, mode="complete").Q,
        lambda t: lambda x: t.linalg.qr(x, mode="complete")[0],
        (WIDE,),
    ),
    "eigh": (eigh_and_back, lambda t: lambda x: _torch_eigh(t, x), (SQUARE,)),
    "eigvalsh": (
        lambda x: linalg.eigvalsh(x + adjoint(x)),
        lambda t: lambda x: t.linalg.eigvalsh(x + x.mH),
        (SQUARE,),
    ),
    "eigvals": (
        lambda x: ct.sum(ct.abs(linalg.eigvals(x)), axis=-1),
        lambda t: lambda x: t.linalg.eigvals(x).abs().sum(-1),
        (SQUARE,),
    ),
    "eig": (
        lambda x: ct.abs(linalg.eig(x)[1]) @ ct.abs(linalg.eig(x)[0])[..., None],
        lambda t: lambda x: t.linalg.eig(x)[1].abs() @ t.linalg.eig(x)[0].abs()[..., None],
        (SQUARE,),
    ),
    "svdvals": (linalg.svdvals, lambda t: t.linalg.svdvals, (WIDE,)),
    "svd full, values only": (lambda x: linalg.svd(x).S, lambda t: t.linalg.svdvals, (TALL,)),
    "svd full, square": (
        lambda x: with_values(curve, *linalg.svd(x)),
        lambda t: lambda x: with_values(curve, *t.linalg.svd(x)),
        (SQUARE,),
    ),
}
for _name, _shape in (("square", SQUARE), ("tall", TALL), ("wide", WIDE)):
    FUNCTIONS[f"svd {_name}"] = (
        svd_and_back,
        lambda t: lambda x: with_values(curve, *t.linalg.svd(x, full_matrices=False)),
        (_shape,),
    )
    FUNCTIONS[f"u of svd {_name}"] = (
        lambda x: ct.abs(linalg.svd(x, full_matrices=False).U),
        lambda t: lambda x: t.linalg.svd(x, full_matrices=False)[0].abs(),
        (_shape,),
    )
    FUNCTIONS[f"vh of svd {_name}"] = (
        lambda x: ct.abs(linalg.svd(x, full_matrices=False).Vh),
        lambda t: lambda x: t.linalg.svd(x, full_matrices=False)[2].abs(),
        (_shape,),
    )
for _ord in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf):
    FUNCTIONS[f"matrix_norm {_ord}"] = (
        lambda x, o=_ord: linalg.matrix_norm(x, ord=o),
        lambda t, o=_ord: lambda x: t.linalg.matrix_norm(x, ord=o),
        (TALL,),
    )
for _p in (2, 1, 3, 0.5, 1.5, 4, -1, math.inf, -math.inf):
    FUNCTIONS[f"vector_norm {_p}"] = (
        lambda x, p=_p: linalg.vector_norm(x, axis=(0, -1), keepdims=True, ord=p),
        lambda t, p=_p: lambda x: t.linalg.vector_norm(x, dim=(0, -1), keepdim=True, ord=p),
        (TALL,),
    )
FUNCTIONS["vector_norm of all"] = (linalg.vector_norm, lambda t: t.linalg.vector_norm, (TALL,))


def _torch_eigh(t: Any, x: Any) -> Any:
    w, v = t.linalg.eigh(x + x.mH)
    return with_values(curve, v, w, v.mH)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", FUNCTIONS)
class TestGradients:
    def test_are_those_of_finite_differences(self, name: str, dtype: Any) -> None:
        f, _, shapes = FUNCTIONS[name]
        check(f, *[draw(shape, dtype, i) for i, shape in enumerate(shapes)], rtol=1e-5)

    def test_are_those_of_torch(self, name: str, dtype: Any) -> None:
        torch = pytest.importorskip("torch")
        f, torch_f, shapes = FUNCTIONS[name]
        compare(f, torch_f(torch), *[draw(shape, dtype, i) for i, shape in enumerate(shapes)])

    def test_of_single_precision_stay_single(self, name: str, dtype: Any) -> None:
        f, _, shapes = FUNCTIONS[name]
        double = [draw(shape, dtype, i) for i, shape in enumerate(shapes)]
        single = [x.astype(_single(dtype)) for x in double]

        def loss(*xs: Any) -> Any:
            return ct.sum(ct.real(f(*xs) * (0.5 + 0.5j)))

        argnums = tuple(range(len(shapes)))
        for g, expected in zip(ct.grad(loss, argnums)(*single), ct.grad(loss, argnums)(*double), strict=True):
            assert g.dtype == _single(dtype)
            np.testing.assert_allclose(g, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def _single(dtype: Any) -> Any:
    return np.complex64 if np.dtype(dtype).kind == "c" else np.float32


def tolerance(dtype: Any) -> float:
    return 2e-4 if np.dtype(dtype) in (np.float32, np.complex64) else 1e-9


def close(x: Any, y: Any, scale: float = 1.0) -> None:
    assert x.dtype.char in "fdFD"
    np.testing.assert_allclose(
        x, y, rtol=0, atol=tolerance(x.dtype) * max(scale, float(np.max(np.abs(y), initial=1)))
    )


batches = hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)
dtypes = st.sampled_from(DTYPES)
sides = st.integers(1, 6)


class TestLaws:
    @given(
        hnp.mutually_broadcastable_shapes(signature="(m?,n),(n,p?)->(m?,p?)", max_side=4, max_dims=2),
        dtypes,
        dtypes,
    )
    def test_matmul_is_that_of_numpy_and_its_gradients_fit(
        self, shapes: Any, dtype1: Any, dtype2: Any
    ) -> None:
        x1, x2 = draw(shapes.input_shapes[0], dtype1), draw(shapes.input_shapes[1], dtype2, 1)
        product, pullback = ct.vjp(ct.matmul, x1, x2)
        np.testing.assert_array_equal(product, np.matmul(x1, x2), strict=True)
        g = draw(product.shape, product.dtype, 2)
        g1, g2 = pullback(g)
        assert (g1.shape, g1.dtype, g2.shape, g2.dtype) == (x1.shape, x1.dtype, x2.shape, x2.dtype)
        # <g, x1 x2> is linear in each factor, so the gradient of one with the factor gives it back.
        inner = np.vdot(g, product).real
        size = 1 + np.abs(g).sum() * np.abs(x1).max() * np.abs(x2).max() * x1.shape[-1]
        for gradient, x in ((g1, x1), (g2, x2)):
            assert abs(np.vdot(gradient, x).real - inner) <= 1e-5 * size

    @given(batches, sides, sides, dtypes)
    def test_decompositions_give_the_matrix_back(
        self, batch: Any, rows: int, columns: int, dtype: Any
    ) -> None:
        x = draw((*batch, rows, columns), dtype)
        u, s, vh = linalg.svd(x, full_matrices=False)
        q, r = linalg.qr(x)
        close((u * s[..., None, :]) @ vh, x)
        close(q @ r, x)
        h = x @ adjoint(x)
        w, v = linalg.eigh(h)
        close(v @ (w[..., None] * adjoint(v)), h)
        lower = linalg.cholesky(h + np.eye(rows, dtype=x.dtype))
        close(lower @ adjoint(lower), h + np.eye(rows))
        upper = linalg.cholesky(h + np.eye(rows, dtype=x.dtype), upper=True)
        close(adjoint(upper), lower)
        w, v = linalg.eig(h)
        assert (w.dtype, v.dtype) == (np.result_type(dtype, np.complex64),) * 2
        close(h @ v, v * w[..., None, :], scale=100)

    @given(batches, sides, sides, dtypes)
    def test_inverses(self, batch: Any, rows: int, columns: int, dtype: Any) -> None:
        x = draw((*batch, rows, columns), dtype)
        p = linalg.pinv(x)
        size = float(np.max(np.abs(p)))
        close(x @ p @ x, x, scale=10 * size)
        close(p @ x @ p, p, scale=10 * size**2)
        h = definite(x)
        b = draw((rows, 2), dtype, 1)
        close(h @ linalg.solve(h, b), np.broadcast_to(b, (*batch, rows, 2)), scale=100)
        close(linalg.solve(h, b[:, 0]), linalg.solve(h, b)[..., 0])
        close(linalg.inv(h) @ h, np.broadcast_to(np.eye(rows), h.shape), scale=100)
        sign, logarithm = linalg.slogdet(h)
        close(np.asarray(sign * np.exp(logarithm) / linalg.det(h)), np.ones(batch))

    @given(batches, sides, sides, dtypes)
    def test_transposed_and_diagonal_are_views_of_one_another(
        self, batch: Any, rows: int, columns: int, dtype: Any
    ) -> None:
        x = draw((*batch, rows, columns), dtype)
        assert np.shares_memory(ct.matrix_transpose(x), x)
        np.testing.assert_array_equal(linalg.diagonal(ct.matrix_transpose(x)), linalg.diagonal(x))
        np.testing.assert_allclose(linalg.trace(x), np.trace(x, axis1=-2, axis2=-1), rtol=1e-5)
        assert (linalg.matrix_rank(x) == min(rows, columns)).all()

    @given(
        batches, sides, sides, dtypes, st.sampled_from([0, 0.5, 1, 2, 3, math.inf, -math.inf]), st.booleans()
    )
    def test_a_norm_is_the_same_traced(
        self, batch: Any, rows: int, columns: int, dtype: Any, ord: Any, keepdims: bool
    ) -> None:
        x = draw((*batch, rows, columns), dtype)
        for axis in (None, 0, -1, (-2, -1)):
            expected = np.linalg.vector_norm(x, axis=axis, ord=ord, keepdims=keepdims)
            value, _ = ct.vjp(lambda x, a=axis: linalg.vector_norm(x, axis=a, ord=ord, keepdims=keepdims), x)
            np.testing.assert_allclose(value, expected, rtol=1e-5)
            assert np.shape(value) == np.shape(expected) and value.dtype == expected.dtype
        for kind in ("fro", "nuc", 1, 2, -2, math.inf):
            value, _ = ct.vjp(lambda x, o=kind: linalg.matrix_norm(x, ord=o, keepdims=keepdims), x)
            np.testing.assert_allclose(
                value, np.linalg.matrix_norm(x, ord=kind, keepdims=keepdims), rtol=1e-5
            )


EYE, ZERO = np.eye(4), np.zeros((4, 4))
DEGENERATE = {
    "zero": ZERO,
    "identity": EYE,
    "rank 1": np.ones((4, 4)),
    "rank 2": np.diag([2.0, 1.0, 0.0, 0.0]),
    "rank 3": np.diag([1.0, 1.0, 1.0, 0.0]),
    "wide, equal values": np.eye(3, 5),
}


class TestDegeneratePoints:
    @pytest.mark.parametrize("where", DEGENERATE)
    @pytest.mark.parametrize(
        "f",
        [
            linalg.svdvals,
            linalg.pinv,
            lambda x: linalg.matrix_norm(x),
            lambda x: linalg.matrix_norm(x, ord="nuc"),
            lambda x: linalg.matrix_norm(x, ord=2),
            lambda x: linalg.matrix_norm(x, ord=-2),
            linalg.vector_norm,
            lambda x: linalg.vector_norm(x, ord=0.5),
            lambda x: linalg.vector_norm(x, ord=1.5),
            lambda x: linalg.vector_norm(x, axis=-1, ord=math.inf),
            svd_and_back,
            lambda x: linalg.svd(x, full_matrices=False).U @ linalg.svd(x, full_matrices=False).Vh,
            lambda x: eigh_and_back(x @ x.mT),
            lambda x: linalg.slogdet(x @ x.mT)[1],
        ],
    )
    def test_gradients_of_two_orders_are_finite(self, f: Any, where: str) -> None:
        x = DEGENERATE[where]
        weights = draw(x.shape)

        def loss(x: Any) -> Any:
            y = f(x)
            return ct.sum(y * np.arange(1.0, np.size(ct.stop_gradient(y)) + 1).reshape(y.shape))

        def slope(x: Any) -> Any:
            return ct.sum(ct.grad(loss)(x) * weights)

        assert np.isfinite(ct.grad(loss)(x)).all()
        assert np.isfinite(ct.grad(slope)(x)).all()

    @pytest.mark.parametrize("ord", ["fro", "nuc", 1, 2, math.inf])
    def test_the_gradient_of_a_norm_at_zero_is_zero(self, ord: Any) -> None:
        assert (ct.grad(lambda x: linalg.matrix_norm(x, ord=ord))(ZERO) == 0).all()
        assert (ct.grad(linalg.vector_norm)(ZERO) == 0).all()

    def test_nuclear_norm(self) -> None:
        """Its gradient U @ Vh, of the rank of x, at equal and at zero singular values."""
        nuclear = ct.grad(lambda x: linalg.matrix_norm(x, ord="nuc"))
        np.testing.assert_allclose(nuclear(EYE), EYE, atol=1e-15)
        np.testing.assert_allclose(
            nuclear(np.diag([5.0, 2.0, 2.0, 0.0])), np.diag([1.0, 1.0, 1.0, 0.0]), atol=1e-15
        )

    def test_polar_factor_at_equal_singular_values_is_exact(self) -> None:
        def polar(x: Any) -> Any:
            u, _, vh = linalg.svd(x, full_matrices=False)
            return u @ vh

        _, pullback = ct.vjp(polar, EYE)
        g = draw((4, 4))
        np.testing.assert_allclose(pullback(g)[0], (g - g.T) / 2, atol=1e-12)

    @pytest.mark.parametrize("dtype", [np.float64, np.complex128])
    @pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
    def test_det_of_a_singular_matrix(self, rank: int, dtype: Any) -> None:
        check(linalg.det, draw((2, 4, rank), dtype) @ draw((2, rank, 4), dtype))

    def test_det_at_the_identity(self) -> None:
        check(linalg.det, EYE, order=3)

    def test_pinv_along_a_path_of_constant_rank(self) -> None:
        check(lambda a, b: linalg.pinv(a @ b), draw((4, 2)), draw((2, 3)))

    def test_eigenvalues_that_are_equal(self) -> None:
        check(lambda x: ct.sum(ct.exp(linalg.eigvalsh(x + x.mT))), EYE, order=1)

    def test_an_ill_conditioned_inverse_is_not_used_for_det(self) -> None:
        x = np.diag([1.0, 1e-9, 1.0, 1.0])
        np.testing.assert_allclose(
            ct.grad(linalg.det)(x), np.diag([1e-9, 1.0, 1e-9, 1e-9]), rtol=1e-9, atol=1e-20
        )


class TestRefusals:
    def test_svd_of_a_vector(self) -> None:
        with pytest.raises(np.linalg.LinAlgError, match="1-dim"):
            linalg.svd(np.ones(3))

    def test_defective_matrices_have_no_gradient_of_eigenvalues(self) -> None:
        defective = np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        loss = lambda x: ct.sum(ct.abs(linalg.eigvals(x)))  # noqa: E731
        assert np.isfinite(ct.grad(loss)(np.diag([2.0, 2.0, 1.0]))).all()
        with pytest.raises(
            np.linalg.LinAlgError, match="eig: the eigenvectors of the matrix are linearly dependent"
        ):
            ct.grad(loss)(defective)
        with pytest.raises(np.linalg.LinAlgError, match=r"eig: .* of matrix \(1, 0\) of the batch"):
            ct.grad(loss)(np.stack([EYE[:3, :3], defective])[:, None])

    def test_vectors_beyond_the_square_have_no_gradient(self) -> None:
        x = draw((4, 2))
        with pytest.raises(NotDifferentiableError, match="svd .*4 by 2.*full_matrices=False"):
            ct.grad(lambda x: ct.sum(linalg.svd(x).U))(x)
        with pytest.raises(NotDifferentiableError, match="qr .*4 by 2.*mode='reduced'"):
            ct.grad(lambda x: ct.sum(linalg.qr(x, mode="complete").R))(x)

    def test_shapes_that_do_not_fit_are_named(self) -> None:
        for f in (ct.matmul, lambda x, y: ct.vjp(ct.matmul, x, y)):
            with pytest.raises(ValueError, match=r"matmul.*\(2, 3\) and \(4, 5\)"):
                f(np.ones((2, 3)), np.ones((4, 5)))
        with pytest.raises(ValueError, match=r"tensordot.*\(2, 3\).*\(4, 5\)"):
            ct.grad(lambda x: ct.sum(ct.tensordot(x, np.ones((4, 5)), axes=1)))(np.ones((2, 3)))
        with pytest.raises(ValueError, match=r"outer.*\(2, 3\)"):
            linalg.outer(np.ones((2, 3)), np.ones(2))
        with pytest.raises(ValueError, match=r"matrix_transpose.*\(3,\)"):
            ct.matrix_transpose(np.ones(3))

    def test_what_is_no_matrix_or_no_norm(self) -> None:
        with pytest.raises(TypeError, match="matmul: expected two arrays.* a float"):
            ct.grad(lambda x: ct.sum(x @ 2.0))(np.ones((2, 2)))
        with pytest.raises(ValueError, match="at least one axis"):
            ct.grad(lambda x: ct.sum(ct.matmul(x, np.ones((2, 2)))))(1.0)
        with pytest.raises(ValueError, match="matrix_norm: ord is 7"):
            ct.grad(lambda x: linalg.matrix_norm(x, ord=7))(np.ones((2, 2)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_on_another_device_all_stays_there(name: str, pretend_device: Any) -> None:
    f, _, shapes = FUNCTIONS[name]
    xs = [draw(shape, np.float64, i) for i, shape in enumerate(shapes)]
    value, pullback = ct.vjp(f, *xs)
    there, pullback_there = ct.vjp(f, *ct.to_device(xs, "pretend"))
    np.testing.assert_array_equal(there.get(), value)
    for g, g_there in zip(pullback(value), pullback_there(there), strict=True):
        np.testing.assert_array_equal(g_there.get(), g)


class TestOutputs:
    def test_keep_the_names_of_the_standard_when_traced(self) -> None:
        def loss(x: Any) -> Any:
            u, s, vh = (r := linalg.svd(x))
            assert (r.U, r.S, r.Vh) == (u, s, vh)
            eigen, triangular, logarithm = linalg.eigh(x @ x.mT), linalg.qr(x), linalg.slogdet(x)
            assert eigen.eigenvalues.shape == (3,) and eigen.eigenvectors.shape == (3, 3)
            assert triangular.Q.shape == triangular.R.shape == (3, 3)
            return logarithm.logabsdet + logarithm.sign

        x = draw((3, 3))
        np.testing.assert_allclose(ct.grad(loss)(x), np.linalg.inv(x).T)

    def test_matrix_rank_and_the_sign_of_a_real_determinant_have_no_gradient(self) -> None:
        assert (ct.grad(lambda x: ct.sum(x) * linalg.matrix_rank(x))(EYE) == 4).all()
        assert (ct.grad(lambda x: ct.sum(0 * x) + linalg.slogdet(x).sign)(EYE) == 0).all()

    def test_every_function_of_the_standard_is_there(self) -> None:
        standard = """cholesky cross det diagonal eigh eigvalsh inv matmul matrix_norm matrix_power
        matrix_rank
            matrix_transpose outer pinv qr slogdet solve svd svdvals tensordot trace vecdot vector_norm"""
        for name in standard.split():
            assert name in linalg.__all__ and callable(getattr(linalg, name))
        for name in ("matmul", "matrix_transpose", "tensordot", "vecdot"):
            assert getattr(ct, name) is getattr(linalg, name)
