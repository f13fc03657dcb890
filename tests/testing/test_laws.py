"""Every fault breaks the law made for it (that the laws hold is tested in tests/algebra/test_star.py); messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import cutnn as ct
from cutnn import algebra, testing
from cutnn.algebra import StarAlgebra, Transform
from cutnn.tape import primitive, raw, stop_gradient
from cutnn.testing import LAWS, LawError, _algebra, check_algebra, strategies
from tests.algebra.catalogue import ALGEBRAS, EVERY, invertible

SKEW = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])  # M⁻¹, Mᵀ and M differ
COMPLEX = invertible(3, complex_=True)


@given(star=strategies.algebras())
@settings(max_examples=settings().max_examples // 3, suppress_health_check=[HealthCheck.nested_given])
def test_laws_hold_in_random_algebras(star: StarAlgebra) -> None:
    check_algebra(star, laws=["round trip", "identity", "inverse", "unitary factors", "dtypes"], examples=2)


# ------------------------------------------------------------------------------------------ faulty transforms


def mode(A: Any, M: Any, axis: int) -> Any:
    return np.moveaxis(np.tensordot(M, A, axes=(1, axis % A.ndim)), 0, axis)


@primitive(A=lambda g, M, axis: adjoint_forgotten(g, M, axis))
def adjoint_forgotten(A: Any, M: Any, axis: int) -> Any:
    return mode(A, M, axis)


@primitive(A=lambda g, M, axis: conjugated(g, M.conj().T, axis))  # inside, rules have no conjugates
def conjugated(A: Any, M: Any, axis: int) -> Any:
    return mode(A, M, axis)


@primitive(A=lambda g, M, axis: 2 * right(g, M.T, axis))
def doubled(A: Any, M: Any, axis: int) -> Any:
    return mode(A, M, axis)


@primitive(A=lambda g, M, axis: right(g, M.T, axis))
def right(A: Any, M: Any, axis: int) -> Any:
    return mode(A, M, axis)


@primitive(A=lambda g, M, axis: mode(raw(g), M.T, axis))
def differentiable_once(A: Any, M: Any, axis: int) -> Any:
    return mode(A, M, axis)


class Mine(Transform):
    """A transform of a user, right as it stands; each fault replaces one of its parts."""

    def __init__(self, M: Any = SKEW, **options: Any) -> None:
        super().__init__("mine", len(M), M, **options)

    def forward(self, A: Any, axis: int) -> Any:
        if not self.real and A.dtype.kind != "c":
            A = ct.astype(A, np.result_type(A.dtype, np.complex64))
        return right(A, self.matrix(A.dtype), axis)


class InverseIsTheTranspose(Mine):
    def inverse(self, A_hat: Any, axis: int) -> Any:
        return right(A_hat, self.matrix(A_hat.dtype).T, axis)


class InverseIsNotScaled(Mine):
    def inverse(self, A_hat: Any, axis: int) -> Any:
        return self.n * super().inverse(A_hat, axis)


class InverseIsConjugated(Mine):
    def inverse(self, A_hat: Any, axis: int) -> Any:
        return ct.conj(super().inverse(A_hat, axis))


class AnotherMatrix(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return ct.flip(super().forward(A, axis), axis=axis)

    def inverse(self, A_hat: Any, axis: int) -> Any:
        return super().inverse(ct.flip(A_hat, axis=axis), axis)


class WrongInverseMatrix(Mine):
    def inverse_matrix(self, dtype: Any = None) -> Any:
        return super().matrix(dtype).T


class WrongScale(Mine):
    def __init__(self) -> None:
        super().__init__(algebra.dct(3).transforms[0].matrix(), scale=1.0)
        self.matrix(), self.inverse_matrix()
        self.scale = 3.0


class ScaleOfAMatrixThatHasNone(Mine):
    def __init__(self) -> None:
        super().__init__(scale=1.0)  # Transform refuses it, in the first law that needs M⁻¹


class Magnitudes(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return ct.abs(super().forward(A, axis))


class Clipped(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return ct.clip(super().forward(A, axis), -5, 5) if A.dtype.kind == "f" else super().forward(A, axis)


class WrongUnit(Mine):
    def identity_tube(self) -> Any:
        return np.eye(1, self.n)[0]


class NoReflection(Mine):
    def reflect(self, A: Any, axis: int) -> Any:
        return A


class FrontAxis(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return super().forward(A, axis if A.ndim == 3 else 0)


class Squeezed(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        A_hat = super().forward(A, axis)
        return A_hat[0] if A_hat.ndim > 3 and A_hat.shape[0] == 1 else A_hat


class DoubleLeak(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return right(A, self.matrix(), axis)


class RoundedMatrix(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return right(A, (self.matrix() / 3).astype("float32").astype(A.dtype) * 3, axis)


class ComplexLeak(Mine):
    def inverse(self, A_hat: Any, axis: int) -> Any:
        return super().inverse(ct.astype(A_hat, np.result_type(A_hat.dtype, np.complex64)), axis)


class RealPart(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return super().forward(ct.real(A), axis)


class InPlace(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        A_hat = super().forward(A, axis)
        if isinstance(A, np.ndarray):
            A[...] = 0
        return A_hat


class AnyLayout(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        if isinstance(A, np.ndarray):
            A = A.ravel(order="K").reshape(A.shape)
        return super().forward(A, axis)


class AdjointForgotten(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return adjoint_forgotten(A, self.matrix(A.dtype), axis)


class AdjointOfTheInverseForgotten(Mine):
    def inverse(self, A_hat: Any, axis: int) -> Any:
        return adjoint_forgotten(A_hat, self.inverse_matrix(A_hat.dtype), axis)


class GradientConjugated(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return conjugated(A + 0j, self.matrix(A.dtype), axis)


class GradientDoubled(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return doubled(A, self.matrix(A.dtype), axis)


class GradientStopped(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return super().forward(stop_gradient(A), axis)


class DifferentiableOnce(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return differentiable_once(A, self.matrix(A.dtype), axis)


class Raises(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        if A.shape[-1] > 1:
            raise RuntimeError("one column only")
        return super().forward(A, axis)


def changed(method: str, change: Callable[..., Any]) -> type[StarAlgebra]:
    """An algebra with a method whose result is changed, by a function of the result, the algebra and the arguments."""
    own = getattr(StarAlgebra, method)
    wrong = lambda self, *args, **options: change(own(self, *args, **options), self, *args, **options)  # noqa: E731
    return type(f"wrong_{method}", (StarAlgebra,), {method: wrong})


def replaced(**changes: Callable[[Any], Any]) -> Callable[..., Any]:
    """Fields of a named tuple through functions."""
    return lambda factors, *_, **__: factors._replace(
        **{name: change(getattr(factors, name)) for name, change in changes.items()}
    )


def times(factor: Any) -> Callable[..., Any]:
    return lambda result, *_, **__: factor * result


def flipped(axis: int) -> Callable[..., Any]:
    return lambda A, *_, **__: ct.flip(A, axis=axis)


def transposed(A: Any, *_: Any, **__: Any) -> Any:
    return ct.matrix_transpose(A)


def half_constant(A: Any, *_: Any, **__: Any) -> Any:
    return (A + stop_gradient(A)) / 2


FAULTS_OF_ALGEBRAS = [
    (changed("transpose", lambda _, star, A: ct.matrix_transpose(A)), "transpose of faces"),
    (changed("transpose", lambda _, star, A: ct.matrix_transpose(A)), "adjoint"),
    (changed("transpose", times(2)), "transpose twice"),
    (changed("norm", lambda _, star, A: ct.linalg.vector_norm(A, axis=(-2, -1))), "norm"),
    (changed("svd", replaced(U=flipped(-1), S=flipped(-1), Vh=flipped(-2))), "singular values"),
    (changed("unfold", lambda _, star, A: StarAlgebra.unfold(star, ct.flip(A, axis=-3))), "folding"),
    (changed("qr", replaced(Q=times(2), R=times(0.5))), "t-QR"),
    (changed("qr", replaced(R=times(2))), "t-QR"),
    (changed("qr", lambda f, star, A: type(f)(star.polar(A).U, star.polar(A).P)), "t-QR"),
    (changed("lu", replaced(P=times(2), L=times(0.5))), "t-LU"),
    (changed("lu", replaced(P=times(-1), L=times(-1))), "t-LU"),
    (changed("lu", replaced(L=times(2), U=times(0.5))), "t-LU"),
    (changed("lu", replaced(U=transposed)), "t-LU"),
    (changed("cholesky", times(2)), "t-Cholesky"),
    (changed("cholesky", times(-1)), "t-Cholesky"),
    (changed("cholesky", lambda _, star, A: star.sqrt(A)), "t-Cholesky"),
    (changed("eigh", replaced(w=times(2))), "eigenvalues of A = Aᴴ"),
    (changed("eigh", replaced(V=times(2))), "eigenvalues of A = Aᴴ"),
    (changed("eigh", replaced(w=flipped(-1), V=flipped(-1))), "eigenvalues of A = Aᴴ"),
    (changed("eig", replaced(w=flipped(-1))), "eigenvalues"),
    (changed("eig", replaced(V=times(2))), "eigenvalues"),
    (changed("eig", replaced(w=times(0), V=times(0))), "eigenvalues"),
    (changed("polar", replaced(U=times(2), P=times(0.5))), "polar factors"),
    (changed("polar", replaced(U=times(-1), P=times(-1))), "polar factors"),
    (changed("polar", replaced(P=transposed)), "polar factors"),
    (changed("lstsq", times(1.01)), "least squares"),
    (
        changed("lstsq", lambda X, star, A, B, ridge=0.0, rtol=None: star.pinv(A, rtol=rtol) @ B),
        "least squares",
    ),
    (
        changed(
            "lstsq",
            lambda X, star, A, B, ridge=0.0, rtol=None: X if ridge == 0 else star.lstsq(A, B, rtol=rtol),
        ),
        "least squares",
    ),
    (changed("low_rank", lambda X, star, A, rank: A), "Eckart-Young"),
    (changed("low_rank", times(0.5)), "Eckart-Young"),
    (
        changed(
            "svd",
            lambda f, star, A, rank=None: (
                f if rank is None else type(f)(*(StarAlgebra.svd(star, A).U[..., -rank:], f.S, f.Vh))
            ),
        ),
        "Eckart-Young",
    ),
    (changed("svd_energy", lambda f, star, A, energy: StarAlgebra.svd_energy(star, A, 0.3)), "energy"),
    (changed("svd_energy", lambda f, star, A, energy: StarAlgebra.svd_energy(star, A, 1.0)), "energy"),
    (changed("svd_energy", replaced(S=times(2))), "energy"),
    (changed("svd_energy", replaced(multirank=times(2))), "energy"),
    (changed("compress", lambda _, star, A, energy: StarAlgebra.compress(star, A, 0.3)), "energy"),
    (changed("svd_randomized", replaced(S=times(2))), "randomised SVD"),
    (changed("svd_randomized", replaced(U=flipped(-1), S=flipped(-1), Vh=flipped(-2))), "randomised SVD"),
    (changed("power", lambda X, star, A, p: A if p == 0 else X), "powers"),
    (changed("power", lambda X, star, A, p: StarAlgebra.power(star, A, abs(p))), "powers"),
    (changed("power", lambda X, star, A, p: A @ A @ A if p == 3 else X), "powers"),
    (changed("exp", lambda _, star, A: star.apply(ct.exp, A)), "exponential and roots"),
    (changed("log", times(-1)), "exponential and roots"),
    (changed("sqrt", times(-1)), "exponential and roots"),
    (changed("power", lambda X, star, A, p: A), "exponential and roots"),
    (changed("exp", lambda _, star, A: ct.linalg.expm(A)), "functions of block matrices"),
    (changed("det", lambda _, star, A: ct.linalg.det(A)), "functions of block matrices"),
    (changed("trace", times(2)), "functions of block matrices"),
    (changed("trace", lambda _, star, A: ct.sum(A, axis=(-2, -1))), "trace and determinant"),
    (changed("det", lambda _, star, A: ct.linalg.det(A)), "trace and determinant"),
    (changed("det", times(2)), "trace and determinant"),
    (changed("spectral_norm", times(0.5)), "spectral norm"),
    (
        changed("spectral_norm", lambda _, star, A: ct.linalg.vector_norm(A, axis=(-3, -2, -1))),
        "spectral norm",
    ),
    (changed("nuclear_norm", times(0.5)), "nuclear norm"),
    (changed("nuclear_norm", times(2)), "nuclear norm"),
    (changed("nuclear_norm", lambda _, star, A: star.spectral_norm(A)), "nuclear norm"),
    (changed("singular_value_threshold", times(0.5)), "threshold of singular values"),
    (changed("singular_value_threshold", lambda X, star, A, tau: A), "threshold of singular values"),
    (
        changed("singular_value_threshold", lambda X, star, A, tau: A - tau * star.polar(A).U),
        "threshold of singular values",
    ),
    (changed("multirank", lambda r, star, A, rtol: r[..., ::-1]), "ranks"),
    (changed("tubal_rank", lambda r, star, A, rtol: star.multirank(A, rtol).min(axis=-1)), "ranks"),
    (changed("implicit_rank", times(2)), "ranks"),
    (changed("average_rank", times(2)), "ranks"),
    (changed("cond", times(2)), "condition number"),
    *[(changed(f, half_constant), "gradients of functions") for f in ("sqrt", "log", "exp", "det", "pinv")],
    *[(changed(f, half_constant), "gradients of factors") for f in ("cholesky", "low_rank", "nuclear_norm")],
    (changed("qr", replaced(R=half_constant)), "gradients of factors"),
    (changed("polar", replaced(U=half_constant)), "gradients of factors"),
]

FAULTS: list[tuple[Callable[[], Transform], str]] = [
    (InverseIsTheTranspose, "round trip"),
    (InverseIsTheTranspose, "associativity"),
    (InverseIsTheTranspose, "inverse"),
    (InverseIsTheTranspose, "block matrix"),
    (InverseIsNotScaled, "round trip"),
    (InverseIsNotScaled, "identity"),
    (InverseIsNotScaled, "tubal functions"),
    (InverseIsNotScaled, "unitary factors"),
    (InverseIsNotScaled, "t-SVDM"),
    (InverseIsNotScaled, "Moore-Penrose"),
    (InverseIsNotScaled, "solution"),
    (InverseIsConjugated, "round trip"),
    (AnotherMatrix, "matrix of the transform"),
    (WrongInverseMatrix, "inverse matrix"),
    (WrongScale, "inverse matrix"),
    (WrongScale, "adjoint"),
    (ScaleOfAMatrixThatHasNone, "round trip"),
    (Magnitudes, "linearity"),
    (Magnitudes, "distributivity"),
    (Clipped, "linearity"),
    (Clipped, "scalars"),
    (WrongUnit, "identity"),
    (lambda: NoReflection(COMPLEX), "transpose of a product"),
    (lambda: NoReflection(COMPLEX), "transpose of faces"),
    (FrontAxis, "batches"),
    (Squeezed, "round trip"),
    (DoubleLeak, "dtypes"),
    (RoundedMatrix, "round trip"),
    (ComplexLeak, "dtypes"),
    (RealPart, "mixed operands"),
    (InPlace, "operands as they were"),
    (AnyLayout, "operands as they were"),
    (AdjointForgotten, "gradients of the transform"),
    (AdjointForgotten, "gradients of the product"),
    (AdjointForgotten, "gradient of the inverse"),
    (AdjointOfTheInverseForgotten, "gradients of the product"),
    (lambda: GradientConjugated(COMPLEX), "gradients of the transform"),
    (lambda: GradientConjugated(COMPLEX), "gradients of the product"),
    (GradientDoubled, "gradients of the product"),
    (GradientDoubled, "second derivatives"),
    (GradientStopped, "gradients of the product"),
    (DifferentiableOnce, "second derivatives"),
    (Raises, "linearity"),
    (InverseIsTheTranspose, "t-QR"),
    (InverseIsTheTranspose, "exponential and roots"),
    (lambda: NoReflection(COMPLEX), "polar factors"),
    (lambda: NoReflection(COMPLEX), "t-Cholesky"),
    (lambda: NoReflection(COMPLEX), "least squares"),
    (WrongScale, "nuclear norm"),
    (WrongScale, "threshold of singular values"),
    (WrongInverseMatrix, "functions of block matrices"),
    (GradientDoubled, "gradients of functions"),
    (GradientDoubled, "gradients of factors"),
    (DifferentiableOnce, "gradients of functions"),
]


@pytest.mark.parametrize("M", [SKEW, COMPLEX])
def test_the_transform_without_fault_passes(M: Any) -> None:
    check_algebra(StarAlgebra(Mine(M)), examples=4)


@pytest.fixture
def unshrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first counterexample will do: the smallest takes most of the time."""
    monkeypatch.setattr(_algebra, "_smallest", lambda star, outcome, *_: outcome.broken)


@pytest.mark.parametrize(("make", "law"), FAULTS)
def test_a_fault_breaks_its_law(make: Callable[[], Transform], law: str, unshrunk: None) -> None:
    with pytest.raises(LawError) as caught:
        check_algebra(StarAlgebra(make()), laws=[law], examples=10)
    message = str(caught.value)
    assert f"\n{law}: {LAWS[law].formula}\n" in message and f"Look here: {LAWS[law].look}." in message


@pytest.mark.parametrize(("kind", "law"), FAULTS_OF_ALGEBRAS)
def test_a_fault_of_an_algebra_breaks_its_law(kind: type[StarAlgebra], law: str, unshrunk: None) -> None:
    with pytest.raises(LawError, match=f"\n{law}: "):
        check_algebra(kind(*algebra.fft(4).transforms), laws=[law], examples=20)


def test_every_law_has_a_fault_that_breaks_it() -> None:
    assert {law for _, law in [*FAULTS, *FAULTS_OF_ALGEBRAS]} == set(LAWS) - {"devices"}  # tested below


# ---------------------------------------------------------------------------------------- messages and reports


def test_the_message_is_short_and_says_all() -> None:
    with pytest.raises(LawError) as caught:
        check_algebra(StarAlgebra(InverseIsNotScaled()), examples=8)
    lines = str(caught.value).splitlines()
    assert lines[:5] == [
        "mine(3) breaks a law.",
        "round trip: M⁻¹ (M a) = a for every tube",
        "  A = np.array([0, 0, 1]).reshape(3, 1, 1)",
        "  left = np.array([0, 0, 3]).reshape(3, 1, 1)",
        "  right = np.array([0, 0, 1]).reshape(3, 1, 1)",
    ]
    assert lines[5].startswith("  error 2 at (2, 0, 0); allowed ") and lines[5].endswith(")")
    assert lines[6] == "  In general left is 3 times right, which is n."
    assert lines[7].startswith("  Look here: `inverse` of a transform does not undo its `forward`")
    assert "identity" in lines[8] and lines[8].startswith("Also broken: block matrix, associativity")
    assert "matrix of the transform" in lines[9] and lines[9].startswith("Hold: ")
    table = str(caught.value.report)
    assert table.startswith("mine(3): ") and "laws are broken" in table and "BROKEN" in table
    eval(lines[2].removeprefix("  A = "))  # it can be pasted


def test_the_table_of_a_report() -> None:
    report = check_algebra(algebra.dct(3), laws=["identity", "norm"], examples=4)
    head, names, identity, norm, foot = str(report).splitlines()
    assert head.startswith("dct(3): 2 laws hold, 8 examples in ") and names.split()[:2] == ["law", "examples"]
    assert identity.split()[:2] == ["identity", "4"] and identity.endswith(LAWS["identity"].formula)
    assert norm.startswith("norm ") and "64 eps" in foot
    assert repr(report) == str(report)


def test_the_same_seed_gives_the_same_examples() -> None:
    worst = [
        check_algebra(algebra.fft(4), laws=["adjoint"], examples=5, seed=s).rows[0].worst for s in (0, 0, 1)
    ]
    assert worst[0] == worst[1] != worst[2]
    check_algebra(algebra.fft(4), laws=["identity"], examples=3, seed=None)


def test_laws_of_ones_own() -> None:
    def commute(star: Any, A: Any, B: Any) -> Any:
        return star(A, B), star(B, A)

    tubes = testing.Law("tubes commute", "a ★ b = b ★ a", commute, operands="11 11")
    report = check_algebra(algebra.fft(4), laws=["identity", tubes], examples=5)
    assert [row.law.name for row in report.rows] == ["identity", "tubes commute"]
    tensors = testing.Law("tensors commute", "A ★ B = B ★ A", commute, operands="22 22")
    with pytest.raises(LawError, match="tensors commute: A ★ B = B ★ A") as caught:
        check_algebra(algebra.fft(2), laws=[tensors])
    assert str(caught.value).count("np.array") + str(caught.value).count("np.zeros") == 4
    with pytest.raises(LawError, match=r"raised ZeroDivisionError: division by zero"):
        check_algebra(
            algebra.fft(2), laws=[testing.Law("bad", "1 / 0", lambda star, A: 1 / 0, operands="lm")]
        )
    with pytest.raises(LawError, match=r"shapes \(2, 1, 1\) and \(1, 2, 1, 1\) differ"):
        wrong = testing.Law("shape", "A = A", lambda star, A: (A, A[None]), operands="11")
        check_algebra(algebra.fft(2), laws=[wrong])


def test_infinite_and_missing_numbers_break_a_law() -> None:
    for value in (np.nan, np.inf):
        law = testing.Law("finite", "A = A", lambda star, A, v=value: (A * v, A), operands="lm")
        with pytest.raises(LawError, match="finite: A = A"), np.errstate(invalid="ignore"):
            check_algebra(algebra.dct(2), laws=[law])


def test_what_is_no_algebra_is_refused() -> None:
    with pytest.raises(TypeError, match=r"not a Mine; algebra.StarAlgebra\(transform\) makes one"):
        check_algebra(Mine())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected an algebra, not a ndarray"):
        check_algebra(SKEW)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown law 'commutativity'; valid are round trip, "):
        check_algebra(algebra.dct(2), laws=["commutativity"])
    with pytest.raises(ValueError, match="examples=0; expected 1 or more"):
        check_algebra(algebra.dct(2), examples=0)


class Host(Mine):
    def forward(self, A: Any, axis: int) -> Any:
        return mode(ct.to_host(A), self.matrix(A.dtype), axis)


def test_another_device(pretend_device: Any) -> None:
    for name in ("fft 4", "complex projected 4 to 2"):
        check_algebra(EVERY[name], examples=2, device="pretend")
    with pytest.raises(LawError, match="devices: results live where their operands do"):
        check_algebra(StarAlgebra(Host()), laws=["devices"], examples=3, device="pretend")


def test_size_bounds_every_product() -> None:
    for star in ALGEBRAS.values():
        A, B, C = star.random(3, 2, seed=0), star.random(2, 3, seed=1), star.random(3, 1, seed=2)
        assert np.abs(star(A, B, C)).max() <= testing.size(star, A, B, C)
