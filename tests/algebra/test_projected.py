"""Projected algebras: every function is that of the faces, on tensors in the range and outside; from data; layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cutnn as ct
from cutnn import algebra, nn, optim, train
from tests.algebra.catalogue import PROJECTED, draw, near, orthonormal, projector
from tests.gradcheck import check

every_projected = pytest.mark.parametrize("name", PROJECTED)
DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def of_faces(star: algebra.StarAlgebra) -> algebra.StarAlgebra:
    """The algebra of the transforms: M = I in the place of each Q."""
    return algebra.product(
        *(algebra.identity(t.faces) if t.faces < t.n else algebra.StarAlgebra(t) for t in star.transforms)
    )


def to_faces(star: algebra.StarAlgebra, A: Any) -> Any:
    """Qᴴ applied along the projected axes, and nothing along the others."""
    for k, t in enumerate(star.transforms):
        if t.faces < t.n:
            A = along(t.matrix(), A, k - len(star.shape) - 2)
    return A


def from_faces(star: algebra.StarAlgebra, A: Any) -> Any:
    for k, t in enumerate(star.transforms):
        if t.faces < t.n:
            A = along(t.inverse_matrix(), A, k - len(star.shape) - 2)
    return A


def along(matrix: Any, A: Any, axis: int) -> Any:
    """A matrix applied along an axis, which counts from the end."""
    return np.moveaxis(np.tensordot(matrix, A, axes=(1, axis)), 0, axis)


def range_of(star: algebra.StarAlgebra, A: Any) -> Any:
    return from_faces(star, to_faces(star, A))


def outside(
    star: algebra.StarAlgebra, rows: int, columns: int, seed: int, dtype: Any, batch: Any = ()
) -> Any:
    """A tensor of any tubes; of a square one the faces of its transform are far from singular."""
    A = draw((*batch, *star.shape, rows, columns), dtype, seed)
    return (
        (A + 4 * star.eye(rows)).astype(np.result_type(A.dtype, star.eye(1).dtype)) if rows == columns else A
    )


TENSORS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, int], ...]]] = {
    "product": (lambda star, A, B: star(A, B), ((3, 2), (2, 4))),
    "chain": (lambda star, A, B, C: star(A, B, C), ((3, 2), (2, 4), (4, 1))),
    "transpose": (lambda star, A: star.transpose(A), ((3, 2),)),
    "inv": (lambda star, A: star.inv(A), ((3, 3),)),
    "solve": (lambda star, A, B: star.solve(A, B), ((3, 3), (3, 2))),
    "lstsq": (lambda star, A, B: star.lstsq(A, B), ((4, 3), (4, 2))),
    "pinv": (lambda star, A: star.pinv(A), ((3, 2),)),
    "apply": (lambda star, A: star.apply(ct.exp, A), ((2, 2),)),
    "exp": (lambda star, A: star.exp(A / 9), ((2, 2),)),
    "no power": (lambda star, A: star.power(A, 0), ((2, 2),)),
    "power": (lambda star, A: star.power(A, 3), ((2, 2),)),
    "polar": (lambda star, A: star.polar(A), ((3, 2),)),
    "cholesky": (lambda star, A: star.cholesky(star(A, star.transpose(A))), ((3, 3),)),
    "qr": (lambda star, A: star.qr(A), ((3, 2),)),
    "low rank": (lambda star, A: star.low_rank(A, rank=2), ((3, 4),)),
    "lu": (lambda star, A: star.lu(A), ((3, 3),)),
    "svd": (lambda star, A: three(star, star.svd(A, rank=1)), ((3, 4),)),
    "svd_energy": (lambda star, A: three(star, star.svd_energy(A, 0.8)), ((3, 4),)),
    "singular tubes": (lambda star, A: star.svd(A).S[..., None], ((3, 4),)),
    "compress": (lambda star, A: star.compress(A, 0.8).decompress(), ((3, 4),)),
    "trace": (lambda star, A: star.trace(A)[..., None, None], ((3, 3),)),
    "det": (lambda star, A: star.det(A)[..., None, None], ((3, 3),)),
    "sqrt": (lambda star, A: star.sqrt(star.exp(A / 9)), ((2, 2),)),
    "log": (lambda star, A: star.log(star.exp(A / 9)), ((2, 2),)),
    "root": (lambda star, A: star.power(star(A, star.transpose(A)), 0.3), ((3, 3),)),
    "eigenvalues": (lambda star, A: star.eigh(star(A, star.transpose(A))).w[..., None], ((3, 3),)),
    "ridge": (lambda star, A, B: star.lstsq(A, B, ridge=0.3), ((4, 3), (4, 2))),
    "threshold": (lambda star, A: star.singular_value_threshold(A, 0.3), ((3, 4),)),
}
NUMBERS: dict[str, Callable[..., Any]] = {
    "spectral_norm": lambda star, A: star.spectral_norm(A),
    "nuclear_norm": lambda star, A: star.nuclear_norm(A),
    "multirank": lambda star, A: star.multirank(A),
    "tubal_rank": lambda star, A: star.tubal_rank(A),
    "implicit_rank": lambda star, A: star.implicit_rank(A),
    "average_rank": lambda star, A: star.average_rank(A),
    "cond": lambda star, A: star.cond(A),
    "kept": lambda star, A: star.svd_energy(A, 0.8).multirank,
    "error": lambda star, A: star.svd_energy(A, 0.8).compression.relative_error,
    "storage": lambda star, A: star.compress(A, 0.8).implicit_rank,
}


def three(star: algebra.StarAlgebra, factors: Any) -> Any:
    return star(factors[0], star.diagonal(factors[1]), factors[2])


def needs_unitary(star: algebra.StarAlgebra, function: str) -> None:
    if function in ("threshold", "nuclear_norm") and any(t.scale is None for t in star.transforms):
        pytest.skip("defined for unitary M alone")


# ------------------------------------------------------------------------------------------ every function


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("function", TENSORS)
@every_projected
def test_tensors_are_those_of_the_faces(name: str, function: str, dtype: Any) -> None:
    """Also of arguments outside of the range; and they are in it themselves."""
    star = PROJECTED[name]
    needs_unitary(star, function)
    f, sizes = TENSORS[function]
    args = [outside(star, *size, seed, dtype, (2,)) for seed, size in enumerate(sizes)]
    results = f(star, *args)
    expected = f(of_faces(star), *(to_faces(star, A) for A in args))
    for got, faces in zip(*((x if isinstance(x, tuple) else (x,)) for x in (results, expected)), strict=True):
        near(got, from_faces(star, faces).astype(got.dtype), 1e4)
        near(got, range_of(star, got).astype(got.dtype))
        assert got.dtype == np.float64 or dtype == np.complex128 or not star.real_products


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("function", NUMBERS)
@every_projected
def test_numbers_are_those_of_the_faces(name: str, function: str, dtype: Any) -> None:
    star = PROJECTED[name]
    needs_unitary(star, function)
    A = outside(star, 3, 4, 0, dtype, (2,))
    np.testing.assert_allclose(
        NUMBERS[function](star, A), NUMBERS[function](of_faces(star), to_faces(star, A)), rtol=1e-10
    )


# ------------------------------------------------------------------------------------- in the range, and outside


@every_projected
@settings(max_examples=10)
@given(
    batch=hnp.array_shapes(min_dims=0, max_dims=2, max_side=2),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
    rows=st.integers(1, 3),
)
def test_inverse_of_forward_is_the_projector(name: str, batch: Any, dtype: Any, seed: int, rows: int) -> None:
    star = PROJECTED[name]
    A = draw((*batch, *star.shape, rows, 2), dtype, seed)
    projection = star.inverse(star.forward(A))
    assert projection.dtype == (dtype if star.real_products else np.result_type(dtype, np.complex64))
    expected = np.kron(projector(star), np.eye(rows)) @ star.unfold(A)
    near(
        star.unfold(projection),
        (expected if projection.dtype.kind == "c" else expected.real).astype(projection.dtype),
    )
    near(star.inverse(star.forward(projection)), projection)
    near(star(A, star.eye(2, dtype=dtype)), projection)
    near(star.transpose(star.transpose(A)), projection, 1000)
    assert np.all(star.norm(projection) <= star.norm(A) * (1 + 1e-5))
    near(star(A, star.transpose(A)), star(projection, star.transpose(projection)), 1000)
    A_hat = star.forward(A)
    near(star.forward(star.inverse(A_hat)), A_hat)


def test_the_identity_is_Q_times_one() -> None:
    Q = orthonormal(5, 3)
    star = algebra.projected(Q)
    near(star.eye(1).ravel(), Q @ np.ones(3))
    near(star.to_matrix(star.eye(2)), np.kron(Q @ Q.T, np.eye(2)))
    assert np.linalg.matrix_rank(star.to_matrix(star.eye(2))) == 6  # no inverse of 10 x 10


@pytest.mark.parametrize("complex_", [False, True])
def test_truncations_are_the_nearest_in_the_range(complex_: bool) -> None:
    """‖A - A_k‖² = ‖A - P A‖² + what is dropped of the faces; no other of the range is nearer."""
    star = algebra.projected(orthonormal(6, 4, np.complex128 if complex_ else np.float64))
    A = draw((6, 5, 4))
    values = np.linalg.svd(star.forward(A), compute_uv=False)
    beyond = star.norm(A - star.inverse(star.forward(A))) ** 2
    for k in (1, 2, 3):
        approximation = three(star, star.svd(A, rank=k))
        error = star.norm(A - approximation) ** 2
        np.testing.assert_allclose(error, beyond + np.sum(values[:, k:] ** 2))
        for seed in range(5):
            other = star(star.random(5, k, seed=seed), star.random(k, 4, seed=seed + 9))
            best = star(other, star.pinv(other), A)
            assert star.norm(A - best) ** 2 >= error
    held = star.svd_energy(A, count=6)
    dropped = np.sort(values.ravel())[::-1][6:]
    np.testing.assert_allclose(star.norm(A - three(star, held)) ** 2, beyond + np.sum(dropped**2))
    assert held.multirank.shape == (4,)


def test_solutions_are_of_the_projection() -> None:
    star = PROJECTED["projected 5 to 3"]
    A, B = outside(star, 2, 2, 0, np.float64), draw((5, 2, 3))
    X = star.solve(A, B)
    near(star(A, X), range_of(star, B), 1000)
    assert np.abs(star(A, X) - B).max() > 0.1
    singular = star.inverse(np.stack([np.eye(2), np.ones((2, 2)), np.eye(2)]))
    with pytest.raises(
        np.linalg.LinAlgError, match=r"A is singular to working precision: face 1 of its trans"
    ):
        star.inv(singular)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@every_projected
def test_gradients(name: str, dtype: Any) -> None:
    star = PROJECTED[name]
    A, B = outside(star, 2, 2, 0, dtype), outside(star, 2, 1, 1, dtype)
    check(lambda A, B: star(A, B, star.transpose(B)), A, B, rtol=1e-5)
    check(lambda A, B: star.solve(A, B), A, B, rtol=1e-5)
    check(lambda A: three(star, star.svd(A, rank=1)), A, rtol=1e-4, order=1)
    check(lambda A: star.inverse(star.forward(A) ** 2), A)


def test_more_faces_than_there_are_entries_are_not_a_projection() -> None:
    Q = orthonormal(4, 4)
    star = algebra.projected(Q)
    A, B = draw((4, 2, 3)), draw((4, 3, 2))
    near(star(A, B), algebra.from_matrix(Q.T)(A, B))
    assert star.face_shape == star.shape and star.transpose(A).base is not None


def test_transforms_of_another_shape_are_refused() -> None:
    star = PROJECTED["projected 5 to 3"]
    assert star.shape == (5,) and star.face_shape == star.half_shape == (3,)
    with pytest.raises(ValueError, match=r"a transform has shape \(\.\.\., 3, l, m\), not \(5, 2, 2\)"):
        star.inverse(np.zeros((5, 2, 2)))
    mixed = PROJECTED["projected 3 to 2, fft 4"]
    assert mixed.face_shape == (2, 4) and mixed.half_shape == (2, 3)
    with pytest.raises(
        ValueError, match=r"\(\.\.\., 2, 4, l, m\), or \(\.\.\., 2, 3, l, m\) from real tensors"
    ):
        mixed.inverse(np.zeros((3, 4, 2, 2)))


# ------------------------------------------------------------------------------------------------ making them


def test_Q_that_is_not_orthonormal_is_refused() -> None:
    Q = orthonormal(5, 3)
    with pytest.raises(
        ValueError, match=r"columns of Q, 5 x 3, are not orthonormal: QᴴQ differs from I by 3;"
    ):
        algebra.projected(2 * Q)
    with pytest.raises(
        ValueError, match=r"Q has shape \(3, 5\); expected \(n, q\), 1 <= q <= n; give its transpose"
    ):
        algebra.projected(Q.T)
    for wrong in (np.zeros((3, 0)), np.zeros(3)):
        with pytest.raises(ValueError, match=r"expected \(n, q\), 1 <= q <= n$"):
            algebra.projected(wrong)
    with pytest.raises(ValueError, match=r"projected: non-finite numbers, the first is Q\[1, 2\] = inf"):
        algebra.projected(np.where(Q == Q[1, 2], np.inf, Q))
    with pytest.raises(TypeError, match="expected real or complex numbers"):
        algebra.projected(np.array([["a"]]))


def test_Q_of_single_precision_is_made_orthonormal() -> None:
    Q = orthonormal(50, 10).astype(np.float32)
    M = algebra.projected(Q).transforms[0].matrix()
    assert np.abs(M @ M.T - np.eye(10)).max() < 1e-14 and np.abs(M.T - Q).max() < 1e-6
    again = algebra.projected(M.T).transforms[0].matrix()
    np.testing.assert_array_equal(again, M)
    with pytest.raises(ValueError, match="not orthonormal"):
        algebra.projected(Q.astype(np.float64))  # of doubles more is expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_faces_from_data_are_the_leading_singular_vectors(dtype: Any) -> None:
    X = draw((2, 6, 3, 5), dtype) * (2.0 ** -np.arange(6))[:, None, None]
    X = X.astype(dtype)
    whole, part = algebra.from_data(X), algebra.from_data(X, faces=2)
    near(part.transforms[0].matrix(), whole.transforms[0].matrix()[:2])
    unfolding = np.moveaxis(X, 1, 0).reshape(6, -1)
    squares = np.linalg.svd(unfolding.astype(np.result_type(dtype, np.float64)), compute_uv=False) ** 2
    lost = star_norm(X - part.inverse(part.forward(X)))
    np.testing.assert_allclose(lost**2, squares[2:].sum(), rtol=1e-4)
    shares = np.cumsum(squares) / squares.sum()
    for q in range(1, 6):
        assert algebra.from_data(X, energy=float(shares[q - 1]) - 1e-6).face_shape == (q,)
        assert algebra.from_data(X, energy=float(shares[q - 1]) + 1e-6).face_shape == (q + 1,)
    assert repr(part) == "from_data(6, faces=2)" and algebra.from_data(X, faces=6) == whole


def star_norm(A: Any) -> Any:
    return np.linalg.norm(A.ravel().astype(np.complex128))


def test_faces_of_several_axes() -> None:
    X = draw((4, 5, 3, 2))
    star = algebra.from_data(X, tubes=2, faces=(2, 3))
    assert star.face_shape == (2, 3) and star.forward(X).shape == (2, 3, 3, 2)
    assert algebra.from_data(X, tubes=2, faces=3).face_shape == (3, 3)
    assert algebra.from_data(X, tubes=2, energy=1.0) == algebra.from_data(X, tubes=2)
    constant = np.ones((4, 5, 3, 2))
    assert algebra.from_data(constant, tubes=2, energy=0.999).face_shape == (1, 1)
    assert algebra.from_data(0 * constant, tubes=2, energy=0.999).face_shape == (1, 1)


def test_wrong_numbers_of_faces_are_explained() -> None:
    X = draw((4, 5, 3, 2))
    for wrong in (0, 5):
        with pytest.raises(
            ValueError, match=rf"faces of tube axis 0 are an integer from 1 to n = 4, not {wrong}"
        ):
            algebra.from_data(X, tubes=2, faces=wrong)
    with pytest.raises(TypeError, match=r"faces of tube axis 1 are an integer from 1 to n = 5, not 1.5"):
        algebra.from_data(X, tubes=2, faces=(1, 1.5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"faces has 3 numbers; expected one for each of 2 tube axes"):
        algebra.from_data(X, tubes=2, faces=(1, 2, 3))
    for energy in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="a fraction above 0, up to 1"):
            algebra.from_data(X, energy=energy)
    with pytest.raises(TypeError, match="give faces=2 or energy=0.5, not both"):
        algebra.from_data(X, faces=2, energy=0.5)


# ------------------------------------------------------------------------------------------------------ layers


def test_layers_that_hold_their_faces_have_fewer_parameters() -> None:
    star = algebra.projected(orthonormal(8, 2))
    layer, same = (nn.TLinear(star, 5, 3, ct.tanh, seed=0, domain=d) for d in ("transform", "spatial"))
    assert layer.weight.shape == (2, 3, 5) and layer.bias.shape == (2, 3, 1)
    assert same.weight.shape == (8, 3, 5)
    X = draw((8, 5, 6), np.float32)
    np.testing.assert_allclose(
        layer(X), ct.tanh(star(same.weight, X) + star(same.bias, star.eye(1, np.float32))), atol=1e-5
    )
    assert layer(X).dtype == np.float32


@pytest.mark.parametrize("domain", ["transform", "spatial"])
@every_projected
def test_layers_are_trained(name: str, domain: str) -> None:
    star = PROJECTED[name]
    if not star.real_products:
        pytest.skip("activations are of real tensors")
    X, target = star.random(4, 20, seed=0, dtype=np.float32), star.random(2, 20, seed=1, dtype=np.float32)
    model = nn.Sequential(
        nn.TLinear(star, 4, 6, ct.tanh, seed=0, domain=domain), nn.TLinear(star, 6, 2, seed=1, domain=domain)
    )

    def loss(model: Any) -> Any:
        return nn.MeanSquaredError()(model(X), target)

    optimizer, before = optim.Adam(model, lr=3e-2), loss(model)
    for _ in range(20):
        optimizer.step(ct.grad(loss)(model))
    assert loss(model) < 0.9 * before


@pytest.mark.parametrize("name", ["projected 5 to 3", "projected 3 to 2, fft 4"])
def test_networks_in_time(name: str) -> None:
    star = PROJECTED[name]
    X = draw((*star.shape, 3, 2))
    for options in ({"reversible": True}, {}):
        net = nn.HamiltonianNet(star, width=3, depth=3, h=0.25, seed=0, dtype=np.float64, **options)
        check(lambda X: net(X), X, order=1)  # noqa: B023
    plain = nn.HamiltonianNet(star, width=3, depth=3, h=0.25, seed=0, dtype=np.float64)
    reversible = nn.HamiltonianNet(star, width=3, depth=3, h=0.25, seed=0, dtype=np.float64, reversible=True)
    near(reversible(X), plain(X))
    for a, b in zip(
        *(ct.grad(lambda net: ct.sum(net(X) ** 2))(net).steps for net in (plain, reversible)), strict=True
    ):
        near(a.weight, b.weight, 1000)


def test_models_are_saved_with_their_wide_matrix(tmp_path: Any) -> None:
    pytest.importorskip("safetensors")
    star = algebra.projected(orthonormal(8, 2))
    model, other = (
        nn.Sequential(nn.TLinear(star, 5, 3, ct.tanh, seed=k, domain="transform")) for k in (0, 1)
    )
    train.save_model(tmp_path / "model.safetensors", model)
    X = draw((8, 5, 6), np.float32)
    near(train.load_model(tmp_path / "model.safetensors", other)(X), model(X))


def test_linear_autoencoders_count_the_faces_of_their_code() -> None:
    star = algebra.projected(orthonormal(6, 2))
    X = star(star.random(5, 2, seed=0), star.random(2, 30, seed=1))
    model = nn.t_svdm(star, X, rank=2)
    assert model.latent == 4 and nn.t_svdmii(star, X, count=4).latent == 4
    near(model(X), X, 1000)


# ----------------------------------------------------------------------------------------------------- low rank


def test_tensors_of_few_faces_are_completed_from_fewer_entries() -> None:
    """The range and the rank together: a tenth of the entries suffices, which no other M could do with."""
    star = algebra.projected(orthonormal(20, 3))
    X = star(star.random(20, 1, seed=0), star.random(1, 20, seed=1))
    seen = np.random.default_rng(0).random(X.shape) < 0.1
    found = algebra.lowrank.complete(star, X, seen)
    assert star.norm(found.low_rank - X) < 1e-4 * star.norm(X)
    corrupted = X + 3 * (np.random.default_rng(1).random(X.shape) < 0.05)
    assert star.norm(algebra.lowrank.robust_pca(star, corrupted).low_rank - X) < 1e-4 * star.norm(X)


@pytest.mark.parametrize("kind", ["TensorPCA", "TensorSVD"])
@pytest.mark.parametrize("name", ["projected 5 to 3", "projected 3 to 2, fft 4"])
def test_estimators_are_those_of_the_faces(name: str, kind: str) -> None:
    pytest.importorskip("sklearn")
    from cutnn import estimators

    star, make = PROJECTED[name], getattr(estimators, kind)
    A = draw((*star.shape, 4, 30))
    samples, faces = (np.moveaxis(x, (-1, -2), (0, 1)) for x in (A, to_faces(star, A)))
    model, same = make(5, algebra=star).fit(samples), make(5, algebra=of_faces(star)).fit(faces)
    np.testing.assert_allclose(model.singular_values_, same.singular_values_)
    np.testing.assert_array_equal(model.multirank_, same.multirank_)
    np.testing.assert_allclose(np.abs(model.transform(samples)), np.abs(same.transform(faces)), atol=1e-12)
    inside = np.moveaxis(range_of(star, A), (-1, -2), (0, 1))
    whole = make(algebra=star).fit(inside)
    np.testing.assert_allclose(whole.inverse_transform(whole.transform(inside)), inside, atol=1e-12)


def test_a_tubal_head_over_a_projected_algebra() -> None:
    star = algebra.projected(orthonormal(8, 3))
    loss, Y, labels = nn.TubalCrossEntropy(star), star.random(4, 10, seed=0), np.arange(10) % 4
    assert loss.predict(Y).shape == (10,)
    check(lambda Y: loss(Y, labels), Y)


# ----------------------------------------------------------------------------------------------------- devices


@every_projected
def test_projections_stay_on_the_device(name: str, pretend_device: Any) -> None:
    star = PROJECTED[name]
    A, B = outside(star, 2, 2, 0, np.float64), outside(star, 2, 3, 1, np.float64)
    there = [ct.to_device(T, "pretend") for T in (A, B)]
    near(ct.to_host(star(*there)), star(A, B))
    near(ct.to_host(star.transpose(there[0])), star.transpose(A))
    near(ct.to_host(star.solve(*there)), star.solve(A, B))
