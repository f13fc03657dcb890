"""Principal components and compressed codes of tensors, as scikit-learn's estimators. Needs scikit-learn.

Samples come first here, as everywhere in scikit-learn: X is (samples, features, n), each sample a matrix of tubes, or
(samples, features, n3, n4, ...) for several tube axes. (samples, features) are matrices, and the estimators then PCA
and the truncated SVD.

A component belongs to one face of the transform domain: it is u ⊗ m, of a singular vector u, (features,), of that
face and a row m, (n,), of the transform. Of all faces the best are taken, as the t-SVDMII does.

Source: Mor, Cohen, Valdés-Mas, Kviatcovsky, Elinav, Avron, Dimensionality reduction of longitudinal 'omics data using
modern tensor factorizations, PLOS Computational Biology 18 (2022), the method TCAM; Kilmer, Horesh, Avron, Newman,
Tensor-tensor algebra for optimal representation and compression of multiway data, PNAS 118 (2021).
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from cutnn import algebra as algebras
from cutnn import array as ct
from cutnn.algebra import StarAlgebra
from cutnn.algebra._faces import Faces, Spectrum, like
from cutnn.device import namespace, to_host
from cutnn.tape import Traced, raw, vjp

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"cutnn.estimators needs scikit-learn 1.6 or newer ({error}): pip install 'cutnn[estimators]'"
    ) from error

__all__ = ["TensorPCA", "TensorSVD"]

_FLOATS = [np.float64, np.float32]
_BY_NAME = {
    make.__name__: make
    for make in (
        algebras.dct,
        algebras.dst,
        algebras.fft,
        algebras.haar,
        algebras.hadamard,
        algebras.hartley,
        algebras.identity,
    )
}


class _TensorProjection(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What the estimators share: samples, as lateral slices, by their coordinates along kept singular vectors.

    A real tensor's transform is n real matrices, if √2 Re and -√2 Im are taken of one of each pair of conjugate faces.
    The coordinates of samples are those of Ûᴴ X̂, face by face, (n, r, samples), and `_order` says which of the n r
    are the scores, and in what order.
    """

    _centre: bool

    def __init__(
        self, n_components: int | float | None = None, *, algebra: StarAlgebra | str = "dct"
    ) -> None:
        self.n_components = n_components
        self.algebra = algebra

    # ------------------------------------------------------------------------------------------- the methods

    def fit(self, X: Any, y: Any = None) -> Any:
        """Find the components of X, (samples, features, *tubes); y is ignored. Returns the estimator itself."""
        self._fit(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """The scores of X, (samples, n_components_), as `fit` and then `transform` give them, at the cost of `fit`."""
        return self._fit(X)

    def transform(self, X: Any) -> Any:
        """The scores of samples X, (samples, features, *tubes): (samples, n_components_).

        It is differentiable. Raises ValueError where X does not fit the samples of `fit` or is not finite.
        """
        check_is_fitted(self)
        return self._scores(self._centred(self._checked(X)))

    def inverse_transform(self, X: Any) -> Any:
        """The samples, (samples, features, *tubes), of scores X, (samples, n_components_); differentiable."""
        check_is_fitted(self)
        if not _is_array_of_cutnn(X):
            X = check_array(X, dtype=_FLOATS, estimator=self, input_name="X")
        if len(X.shape) != 2 or X.shape[1] != self.n_components_:
            raise ValueError(
                f"{self._name}.inverse_transform: the scores have shape {tuple(X.shape)}; "
                f"expected (samples, {self.n_components_}), as transform gives them"
            )
        return self._uncentred(self._synthesis(X))

    @property
    def components_(self) -> Any:
        """The tensors that samples are sums of, (n_components_, features, *tubes), made when asked for."""
        check_is_fitted(self)
        return self._synthesis(self._unit_scores())

    @property
    def dual_components_(self) -> Any:
        """The tensors whose inner products with samples are the scores, of the shape of `components_`.

        They are the components themselves if M is a multiple of a unitary matrix. For another M the two are
        biorthogonal, ⟨dual j, component i⟩ = δij.
        """
        check_is_fitted(self)
        eye = self._unit_scores()
        shape = (eye.shape[0], self.n_features_in_, *self.star_.shape)
        return vjp(self._scores, namespace(eye).zeros(shape, dtype=eye.dtype))[1](eye)[0]

    # ------------------------------------------------------------------------------------------ the formulas

    def _fit(self, X: Any) -> Any:
        """Set all that `fit` finds, and give the scores of X."""
        X = self._checked(X, fitting=True)
        if self._centre:
            self.mean_ = ct.mean(X, axis=0)
        A = _slices(self._centred(X))
        self.star_ = star = _resolve(self._name, self.algebra, A)
        share, count = self._wanted(A)
        faces = Faces(star, A)
        vectors, multirank = self._vectors(A, faces, share, count)
        basis = _aligned(vectors, faces)

        coordinates = _coordinates(basis, faces)
        energies = to_host(ct.sum(coordinates**2, axis=-1)) / _scale(star)
        number = _faces_of_coordinates(faces)
        held = np.arange(energies.shape[-1]) < multirank.ravel()[number][:, None]
        order = np.argsort(-np.where(held, energies, -1), axis=None, kind="stable")[: int(held.sum())]
        order = order[: self._length(energies.ravel()[order], share, count)]
        face, column = np.unravel_index(order, energies.shape)

        width = int(column.max()) + 1
        self._basis = [u[..., :width].copy() for u in basis]
        self._order = face * width + column
        self.n_components_ = len(order)
        self.multirank_ = np.bincount(number[face], minlength=len(number)).reshape(star.face_shape)
        self.singular_values_ = np.sqrt(energies.ravel()[order])
        self._describe(energies.ravel()[order], _energy(faces) / _scale(star), len(X))
        return _chosen(star, coordinates, order)

    def _scores(self, X: Any) -> Any:
        """The scores of samples without mean."""
        return _chosen(self.star_, _coordinates(self._basis, Faces(self.star_, _slices(X))), self._order)

    def _synthesis(self, scores: Any) -> Any:
        """The samples without mean of scores, which other coordinates are 0 beside."""
        star, spectrum = self.star_, _spectrum(self.star_)
        faces, width = spectrum.times.sum(), self._basis[0].shape[-1]
        place = np.full(faces * width, self.n_components_)
        place[self._order] = np.arange(self.n_components_)
        rows = ct.concat([scores.T, ct.zeros_like(scores.T[:1])], axis=0)
        coordinates = ct.reshape(ct.take(rows, like(place, rows), axis=0), (faces, width, -1))
        parts = _from_coordinates(coordinates * math.sqrt(_scale(star)), spectrum)
        Z = [basis @ part for basis, part in zip(self._basis, parts, strict=True)]
        return _samples(spectrum.tensor(spectrum.joined(Z)))

    def _unit_scores(self) -> Any:
        """The scores of the components themselves, in the library and the precision of the fit."""
        basis = self._basis[0]
        eye = np.eye(self.n_components_, dtype=np.finfo(basis.dtype).dtype)
        return like(eye, basis)

    def _centred(self, X: Any) -> Any:
        return X - self.mean_ if self._centre else X

    def _uncentred(self, X: Any) -> Any:
        return X + self.mean_ if self._centre else X

    # ------------------------------------------------------------------------- what the estimators differ in

    def _vectors(
        self, A: Any, faces: Faces, share: float | None, count: int | None
    ) -> tuple[list[Any], np.ndarray]:
        """Left singular vectors of the parts of the faces of A, and how many each face of the spectrum has."""
        raise NotImplementedError

    def _length(self, energies: np.ndarray, share: float | None, count: int | None) -> int:
        """How many of their components, of falling energies, are kept."""
        raise NotImplementedError

    def _describe(self, energies: np.ndarray, total: float, samples: int) -> None:
        """Set what fit tells of the energies of the components, and of all of X."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ checks

    def _checked(self, X: Any, fitting: bool = False) -> Any:
        """X as finite real floats, of the shape that `fit` saw."""
        least = 2 if fitting and self._centre else 1
        if _is_array_of_cutnn(X):
            X = self._checked_array(X, fitting, least)
        else:
            X = validate_data(self, X, reset=fitting, allow_nd=True, dtype=_FLOATS, ensure_min_samples=least)
        if not fitting and tuple(X.shape[2:]) != self.star_.shape:
            raise ValueError(
                f"{self._name}: X has shape {tuple(X.shape)}; expected "
                f"({', '.join(map(str, ('samples', self.n_features_in_, *self.star_.shape)))}), as fit saw it"
            )
        return X

    def _checked_array(self, X: Any, fitting: bool, least: int) -> Any:
        """What `validate_data` checks, of an array that scikit-learn cannot read."""
        if X.ndim < 2 or X.dtype.kind not in "fiub" or X.shape[0] < least or 0 in X.shape:
            raise ValueError(
                f"{self._name}: X is of {X.dtype}, {tuple(X.shape)}; expected real numbers, "
                f"(samples, features, *tubes), with {least} samples or more"
            )
        if not bool(namespace(raw(X)).isfinite(raw(X)).all()):
            raise ValueError(f"{self._name}: X has entries that are not finite, NaN or infinite")
        if fitting:
            self.n_features_in_ = X.shape[1]
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {self._name} is expecting {self.n_features_in_} features as input"
            )
        return X if X.dtype in _FLOATS else ct.astype(X, np.float64)

    def _wanted(self, A: Any) -> tuple[float | None, int | None]:
        """The share of the energy, or the number of components, that n_components asks for."""
        wanted, most = self.n_components, math.prod(self.star_.face_shape) * min(A.shape[-2:])
        if wanted is None:
            return None, most
        if isinstance(wanted, numbers.Integral) and not isinstance(wanted, bool) and 1 <= wanted <= most:
            return None, int(wanted)
        if isinstance(wanted, numbers.Real) and not isinstance(wanted, numbers.Integral) and 0 < wanted <= 1:
            return float(wanted), None
        raise ValueError(
            f"{self._name}: n_components is {wanted!r}; expected a number of components, 1 to {most}, which is "
            "the number of faces times min(samples, features), a share of the energy, above 0.0 and up to 1.0, or None "
            "for all"
        )

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class TensorPCA(_TensorProjection):
    """Principal components of tensors: the TCAM of Mor et al. (2022).

    X is (samples, features, *tubes). Its mean is removed, each face of its transform has its singular triplets, and
    those of all faces are pooled in the order of falling variance. A sample is then `mean_` plus the sum of
    `components_` times its scores. Of matrices, (samples, features), it is PCA.

    Parameters
    ----------
    n_components : how many components, up to the number of faces times min(samples, features); or a share of the
        variance, 0.9 say, for as few as reach it; None for all.
    algebra : the algebra of the tubes, a `StarAlgebra`, or a name: "dct", "dst", "fft", "haar", "hadamard", "hartley",
        "identity", or "data" for the M that suits the centred samples (`algebra.from_data`). With several tube axes
        each has the transform of that name.

    For M = c · unitary the components are orthonormal, scores are inner products of samples with them, and the
    variance is that of X. For another M the variance is that of the transform, by the mean of the squared singular
    values of M, components are those of the synthesis, and the scores inner products with `dual_components_`. In a
    projected algebra all this is of the projection of X.

    Scores of one face are uncorrelated; those of two faces need not be, as faces are factored apart. In the Fourier
    algebra the singular vector u of a face of a conjugate pair gives two real components, √2 Re and √2 Im of u ⊗ m,
    where the phase of u, which is free, is the one that leaves their two scores uncorrelated, and the variance of
    the first largest. They hold the variance of the pair, 2 σ², in two parts, are ordered by their own, and one may
    be kept without the other. Of two triplets of such a face the complex scores are uncorrelated, not the real ones.

    Signs: of every singular vector the entry of the largest real part, in magnitude, has it positive.

    Attributes
    ----------
    components_, dual_components_ : (n_components_, features, *tubes), made when asked for.
    mean_ : (features, *tubes).
    explained_variance_ : of each score, over samples - 1. explained_variance_ratio_ : its share of that of X.
    singular_values_ : the norms of the scores of X.
    multirank_ : how many components each face has. star_ : the algebra. n_components_, n_features_in_.

    X is what scikit-learn takes, or a CuPy array: scores, components and the mean are then CuPy's too; statistics are
    NumPy's. `transform` and `inverse_transform` are differentiable. Raises ValueError for n_components out of range,
    for an algebra that does not fit the tubes or has complex products, and for samples that are not finite or real.

    >>> import numpy as np
    >>> from cutnn.estimators import TensorPCA
    >>> X = np.cumsum(np.random.default_rng(0).standard_normal((50, 6, 8)), axis=2)  # 50 samples of 6 random walks
    >>> pca = TensorPCA(n_components=0.9, algebra="dct").fit(X)
    >>> scores = pca.transform(X)
    >>> scores.shape, pca.components_.shape, pca.multirank_
    ((50, 14), (14, 6, 8), array([6, 6, 2, 0, 0, 0, 0, 0]))
    >>> np.allclose(scores, np.tensordot(X - pca.mean_, pca.components_, axes=([1, 2], [1, 2])))
    True

    In a pipeline, images as rows of tubes:

    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> digits = load_digits()
    >>> model = make_pipeline(TensorPCA(n_components=30), LogisticRegression(max_iter=1000))
    >>> model.fit(digits.images[:1000], digits.target[:1000]).score(digits.images[1000:], digits.target[1000:]) > 0.9
    True
    """

    _centre = True

    def _vectors(
        self, A: Any, faces: Faces, share: float | None, count: int | None
    ) -> tuple[list[Any], np.ndarray]:
        vectors = [_left_vectors(part) for part in faces.parts]
        return vectors, np.full(self.star_.face_shape, min(A.shape[-2:]))

    def _length(self, energies: np.ndarray, share: float | None, count: int | None) -> int:
        if share is None:
            return len(energies) if count is None else count
        sums = np.cumsum(energies, dtype=np.float64)
        return 1 + int(np.sum(sums[:-1] < share * sums[-1]))

    def _describe(self, energies: np.ndarray, total: float, samples: int) -> None:
        self.explained_variance_ = energies / (samples - 1)
        self.explained_variance_ratio_ = energies / (total or 1)


class TensorSVD(_TensorProjection):
    """Compression of tensors by the t-SVDMII (Kilmer et al. 2021): `TensorPCA` without centring, with its costs.

    X is (samples, features, *tubes). Of the singular triplets of all faces of its transform the largest are kept,
    and the code of a sample is its coefficients in them; `inverse_transform` decodes. Of matrices it is the truncated
    SVD. The decoded samples are those of `nn.t_svdmii`. For M = c · unitary ‖X - decoded‖² is ‖X‖² less the energy
    kept, the sum of `singular_values_`².

    Parameters
    ----------
    n_components : how many numbers the code of a sample has, up to the number of faces times min(samples, features);
        or the share of the energy ‖X̂‖² to keep in as few as possible, 0.99 say; None for all.
    algebra : as of `TensorPCA`, which also says what components and signs are.

    Both components of a conjugate pair of the Fourier algebra are kept, or none, so that the projection is linear
    over tubes, and n_components_ may be one less than asked for.

    Attributes
    ----------
    components_, dual_components_, singular_values_, multirank_, star_, n_components_ : as of `TensorPCA`.
    energy_ratio_ : the share of the energy of X that each component holds.
    storage_ : how many numbers the codes of X and the vectors of the components are.
    compression_ratio_ : the entries of X by `storage_`. relative_error_ : that of the decoded X.

    Raises ValueError as `TensorPCA`, where n_components=1 asks for half a conjugate pair, and for a share of X = 0.

    >>> import numpy as np
    >>> from cutnn.estimators import TensorSVD
    >>> X = np.cumsum(np.random.default_rng(0).standard_normal((500, 6, 32)), axis=2)  # 500 samples of 6 random walks
    >>> codec = TensorSVD(n_components=0.99, algebra="dct").fit(X)
    >>> codes = codec.transform(X)
    >>> error = np.linalg.norm(X - codec.inverse_transform(codes)) / np.linalg.norm(X)
    >>> codes.shape, codec.storage_, round(codec.compression_ratio_, 2)
    ((500, 95), 48070, 2.0)
    >>> error <= 0.1, np.isclose(error, codec.relative_error_)
    (np.True_, np.True_)
    """

    _centre = False

    def _vectors(
        self, A: Any, faces: Faces, share: float | None, count: int | None
    ) -> tuple[list[Any], np.ndarray]:
        U, _, _, multirank, costs = self.star_.svd_energy(A, share, count=count)
        if U.shape[-1] == 0 and share is not None:
            raise ValueError(
                f"{self._name}: X is 0, and no component has a share of its energy; expected n_components as a number"
            )
        if U.shape[-1] == 0:
            raise ValueError(
                f"{self._name}: n_components is {count}, and the largest singular value belongs to a conjugate pair of "
                "faces, which has two components; expected 2 or more, or a real M"
            )
        self.storage_, self.compression_ratio_ = int(costs.storage), float(costs.ratio)
        self.relative_error_ = float(costs.relative_error)
        return Faces(self.star_, U).parts, to_host(multirank)

    def _length(self, energies: np.ndarray, share: float | None, count: int | None) -> int:
        return len(energies)

    def _describe(self, energies: np.ndarray, total: float, samples: int) -> None:
        self.energy_ratio_ = energies / (total or 1)


# -------------------------------------------------------------------------------------------------- helpers


def _resolve(name: str, wanted: Any, A: Any) -> StarAlgebra:
    """The algebra of slices A, (*tubes, features, samples)."""
    tubes = tuple(A.shape[:-2])
    if isinstance(wanted, StarAlgebra):
        star = wanted
    elif wanted == "data":
        star = algebras.from_data(A, tubes=len(tubes))
    elif isinstance(wanted, str) and wanted in _BY_NAME:
        star = algebras.product(*map(_BY_NAME[wanted], tubes))
    else:
        raise ValueError(
            f"{name}: algebra is {wanted!r}; expected a StarAlgebra, cutnn.algebra.dct(8) say, or one of "
            f"{', '.join(sorted([*_BY_NAME, 'data']))}"
        )
    if star.shape != tubes:
        raise ValueError(
            f"{name}: samples have tubes of shape {tubes}, the algebra {star} has {star.shape}; X is "
            "(samples, features, *tubes)"
        )
    if not star.real_products:
        raise ValueError(
            f"{name}: the algebra {star} makes complex scores of real samples; expected a real M, or the Fourier "
            "algebra, whose conjugate pairs give real scores"
        )
    return star


def _slices(X: Any) -> Any:
    """Samples (samples, features, *tubes) as lateral slices, (*tubes, features, samples), a view."""
    return ct.permute_dims(X, (*range(2, X.ndim), 1, 0))


def _samples(A: Any) -> Any:
    """Lateral slices (*tubes, features, samples) as samples, (samples, features, *tubes), a view."""
    return ct.permute_dims(A, (A.ndim - 1, A.ndim - 2, *range(A.ndim - 2)))


def _spectrum(star: StarAlgebra) -> Spectrum:
    """The faces that determine a real tensor without batch."""
    return Spectrum(star, star.half_shape != star.face_shape, 0)


def _scale(star: StarAlgebra) -> float:
    """c of M Mᴴ = c I, and of another M the mean of its squared singular values."""
    return math.prod(float(np.sum(np.abs(t.matrix()) ** 2)) / t.faces for t in star.transforms)


def _left_vectors(faces: Any) -> Any:
    """U of the SVD of each face; of wide ones by R of their transposes (28 of 28 × 5000: 0.3 s, and 1.1 s else)."""
    xp, (rows, columns) = namespace(faces), faces.shape[-2:]
    if columns > rows:
        faces = xp.linalg.qr(faces.mT.conj(), mode="r").mT.conj()
    return xp.linalg.svd(faces, full_matrices=False)[0]


def _aligned(vectors: list[Any], faces: Faces) -> list[Any]:
    """Singular vectors of the faces with their signs and phases fixed.

    A phase e^{iθ} of u turns its coordinates z of the samples by e^{-iθ}: the one that makes Σ z² real and positive
    makes Re z and Im z uncorrelated, Σ Re z Im z = 0, and Re z the larger.
    """
    basis = []
    for u, a in zip(vectors, faces.parts, strict=True):
        xp = namespace(u)
        if u.dtype.kind == "c":
            squares = ((u.mT.conj() @ a) ** 2).sum(axis=-1)
            u = u * xp.exp(0.5j * xp.angle(squares))[..., None, :]
        largest = xp.abs(u.real).argmax(axis=-2)[..., None, :]
        negative = xp.take_along_axis(u.real, largest, axis=-2) < 0
        basis.append(xp.where(negative, -u, u))
    return basis


def _energy(faces: Faces) -> float:
    """‖Â‖² of a real tensor: complex faces stand for two each."""
    return sum((1 + (part.dtype.kind == "c")) * float(ct.sum(ct.abs(part) ** 2)) for part in faces.parts)


def _coordinates(basis: list[Any], faces: Faces) -> Any:
    """The real coordinates of faces in a basis, (n, r, samples): of the real faces, then Re and Im of the pairs."""
    parts = [ct.conj(u).mT @ a for u, a in zip(basis, faces.parts, strict=True)]
    if len(parts) == 1:
        return parts[0]
    own, z = parts
    return ct.concat([own, math.sqrt(2) * ct.real(z), -math.sqrt(2) * ct.imag(z)], axis=0)


def _chosen(star: StarAlgebra, coordinates: Any, order: np.ndarray) -> Any:
    """The scores (samples, len(order)) that some of the coordinates (n, r, samples) are."""
    flat = ct.reshape(coordinates, (-1, coordinates.shape[-1]))
    return ct.take(flat, like(order, flat), axis=0).T * (1 / math.sqrt(_scale(star)))


def _from_coordinates(x: Any, spectrum: Spectrum) -> list[Any]:
    """The faces, the real ones and one of each conjugate pair if they are halved, of real coordinates."""
    if not spectrum.halved:
        return [x]
    pairs = int(np.sum(spectrum.times == 2))
    own = len(spectrum.times) - pairs
    return [x[:own], (x[own : own + pairs] - 1j * x[own + pairs :]) * math.sqrt(0.5)]


def _faces_of_coordinates(spectrum: Spectrum) -> np.ndarray:
    """The number of the face that each of the coordinates stands for; that of Im is the conjugate face."""
    others = np.setdiff1d(np.arange(spectrum.times.sum()), spectrum.numbers)
    place = spectrum.of_all(np.arange(len(spectrum.times))).ravel()
    return np.concatenate([spectrum.numbers, others[np.argsort(place[others])]])


def _is_array_of_cutnn(X: Any) -> bool:
    """Whether X is an array that cutnn computes with and scikit-learn does not: CuPy's, or a traced one."""
    if isinstance(X, Traced):
        return True
    try:
        return namespace(X) is not np
    except TypeError:
        return False
