"""Is a network stable? Its numbers against the bounds of the theory, before training, and the spectrum of its Jacobian.

What a step does to a small change is told by the spectrum of the Jacobian J = ∂f/∂(state) of its vector field, and
by the integrator. With D = diag(σ′), σ′ ≥ 0, and M a multiple of a unitary matrix the theory knows where it lies:

| field | Jacobian | its spectrum |
|---|---|---|
| antisymmetric | D (K − Kᵀ − γI) | d (iω − γ), 0 ≤ d ≤ max σ′, ω² + γ² ≤ σ(K̂)², K̂ as it acts |
| Hamiltonian, shared | [0, −D₁Kᵀ; D₂K, 0] | imaginary, up to σ(K̂) max σ′ |
| two-block, H2 | [0, K₁ᵀD₁K₁; −K₂ᵀD₂K₂, 0] | imaginary, up to σ(K̂₁) σ(K̂₂) max σ′ |
| H1 | J KᵀDK | imaginary, up to ‖J‖ σ(K̂)² max σ′ |
| parabolic | −KᵀDK | real, from −σ(K̂)² max σ′ to 0 |
| parabolic of second order (leapfrog) | [0, I; −KᵀDK, 0] | imaginary, up to σ(K̂) √max σ′ |
| general | DK | within the disc of radius σ(K̂) max σ′ |

Each is similar to a matrix whose spectrum is plain: D S to D^½ S D^½, which is skew-symmetric where S is, A C of
positive semidefinite A and C to A^½ C A^½. Times h that is the number of a step, and its bound is where the
integrator's region of stability ends: on the imaginary axis 1 for midpoint, 2√2 for Runge-Kutta 4, 2 for leapfrog,
0 for Euler, which needs damping: √(2γh max σ′); on the negative axis 2 for Euler, 2.785 for Runge-Kutta 4, 0 for
midpoint, whose second root damping makes grow, by e^(γt), within the bound too. Over another M the operators are not
antisymmetric in the spatial domain, where σ acts: the numbers are those of the transform domain, exact for linear
networks.

Sources: Haber, Ruthotto, Stable architectures for deep neural networks, Inverse Problems 34 (2018), sections 2 to 4;
Chang et al., Reversible architectures for arbitrarily deep residual neural networks, AAAI (2018); Galimberti et al.,
IEEE Trans. Autom. Control (2023); the regions of stability: Hairer, Wanner, Solving ordinary differential equations
II, sections IV.2 and V.1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optree

from cutnn import array as ct
from cutnn.device import device_of, to_device, to_host
from cutnn.nn import fields
from cutnn.nn.dynamics import TimeNet, time_nets
from cutnn.nn.integrators import Euler, Integrator, Leapfrog, Midpoint, RungeKutta4, Verlet
from cutnn.tape import grad, vjp

__all__ = [
    "Stability",
    "StabilityWarning",
    "amplification",
    "check_stability",
    "jacobian_spectrum",
    "stability_numbers",
]

_TOLERATED = 1e4
"""A growth of which `check_stability` says nothing: forward Euler without damping has some, and small h is practice."""

_RK4_REAL = 2.785293563405282
"""Where its polynomial is 1 again on the negative axis."""

_RK4_LEFT = 2.615
"""The smallest |z| on the boundary of its region in the left half-plane, at 122° from the positive axis."""


class StabilityWarning(UserWarning):
    """A network in which states and gradients have modes that grow from step to step."""


class Stability(NamedTuple):
    """What `stability_numbers` returns.

    `numbers`, (steps,), are h · max |λ| of each step, by the `formula`. Up to the `bound` no mode of a step grows; it
    is None where the theory has none. `growth` is the product over all steps of the largest factor by which one may
    multiply a mode, anywhere in its spectrum: 1 within the bound, but for midpoint with damping. It is of modes: norms
    may grow by more where the weights change from step to step (`nn.norms`).
    """

    numbers: np.ndarray
    bound: float | None
    growth: float
    formula: str


def stability_numbers(net: TimeNet) -> Stability:
    """h · max σ(K̂) · max σ′ of each step of a time network, or what its field has in place of that, and the bound.

    The formulas and bounds are at the top of this file. max σ′ is that of the activation on [−30, 30], by its
    derivative; one that falls somewhere, σ′ < 0, leaves a spectrum without structure, for which no bound is known.
    Raises TypeError for an activation that is not a function of each entry.

    >>> from cutnn import algebra, nn
    >>> net = nn.HamiltonianNet(algebra.dct(4), width=3, depth=2, h=0.25, seed=0)
    >>> numbers, bound, growth, formula = nn.stability_numbers(net)
    >>> numbers.round(2), bound, growth, formula
    (array([0.27, 0.29]), 2.0, 1.0, 'h σ(K̂) max σ′')
    """
    slopes = _slopes(net.field.activation)
    if slopes is None:
        raise TypeError(
            f"stability_numbers: the activation of {_name(net)} is not a function of each entry, so it has no σ′"
        )
    return _stability(net, _spectra(net, slopes))


def check_stability(model: Any) -> None:
    """Warn, once for each time network of a model, where its number is beyond the bound of its integrator.

    The `StabilityWarning` names the number, the bound and the remedies. Where the bound is 0, or only what damping
    gives, as for forward Euler on an imaginary spectrum, or none is known, it warns where all steps together may
    multiply a mode by more than 10⁴. `fit` calls it before training.

    >>> from cutnn import algebra, nn
    >>> nn.check_stability(nn.Sequential(nn.HamiltonianNet(algebra.dct(4), width=3, h=0.25)))
    """
    for net in time_nets(model):
        slopes = _slopes(net.field.activation)
        message = slopes and _complaint(net, _spectra(net, slopes))
        if message:
            warnings.warn(message, StabilityWarning, stacklevel=2)


def amplification(integrator: Integrator, z: Any) -> np.ndarray:
    """By what factor one step multiplies y in y′ = λy, for z = hλ: its region of stability is where that is ≤ 1.

    Of a method that knows more than y it is the spectral radius of its step, for which |y| may not grow in the
    long run; leapfrog takes y″ = λ²y.

    >>> from cutnn.nn.integrators import Euler, Midpoint
    >>> amplification(Euler(), [-1.0, 1j]).round(3), amplification(Midpoint(), [0.5j, 2j]).round(3)
    (array([0.   , 1.414]), array([1.   , 3.732]))
    """
    z = np.asarray(z, dtype=np.complex128)
    square = isinstance(integrator, Leapfrog)
    blocks = 2 if isinstance(integrator, Verlet) else 1
    parts = tuple([(lambda y: z * z * y) if square else (lambda y: z * y)] * blocks)
    state = integrator.start(parts, tuple([np.ones_like(z)] * blocks), 1.0)
    size, shape = len(optree.tree_leaves(state)), optree.tree_structure(state)
    columns = []
    for k in range(size):
        unit = [np.full_like(z, float(i == k)) for i in range(size)]
        columns.append(optree.tree_leaves(integrator.forward(parts, shape.unflatten(unit), 1.0)))
    step = np.moveaxis(np.array(columns), (0, 1), (-1, -2))  # column k is what a step makes of unit k
    return np.abs(np.linalg.eigvals(step)).max(axis=-1)


def jacobian_spectrum(net: TimeNet, X: Any, limit: int = 1024) -> np.ndarray:
    """The eigenvalues of the Jacobian of each step's vector field along the trajectory of one sample X.

    X is `(n, width, 1)`; the result is complex, (steps, size), with `size` the numbers in the state of a sample:
    n · width, and those of Z. Row j is of step j's weights at the state at time j. For `leapfrog` of one block,
    Y″ = f(Y), they are those of (Y, Y′), ±√λ of the eigenvalues λ of f.

    The Jacobian is dense, and size³ the work. Raises ValueError where size is beyond `limit`, for more than one
    sample, and for shapes that do not fit.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> star = algebra.dct(4)
    >>> net = nn.ResNet(star, width=3, depth=2, structure="antisymmetric", gamma=0.0, dtype=np.float64, seed=0)
    >>> spectrum = nn.jacobian_spectrum(net, star.random(3, 1, seed=1))
    >>> spectrum.shape, bool(abs(spectrum.real).max() < 1e-10)
    ((2, 12), True)
    """
    states = net.blocks(X)
    if X.shape[-1] != 1 or X.ndim != len(net.star.shape) + 2:
        raise ValueError(
            f"jacobian_spectrum is of one sample, and X has shape {tuple(X.shape)}; take X[..., :1]"
        )
    size = sum(math.prod(block.shape) for block in states[0])
    if size > limit:
        raise ValueError(
            f"jacobian_spectrum: the state of a sample has {size} numbers, so its Jacobian {size**2:,}, and the limit "
            f"is {limit}. nn.stability_numbers bounds the spectrum for the price of a few products; limit={size} "
            "goes ahead all the same"
        )
    rows = []
    for j, blocks in enumerate(states[:-1]):
        values = np.linalg.eigvals(_jacobian(net.rate(j), blocks))
        if isinstance(net.integrator, Leapfrog):
            root = np.sqrt(values.astype(np.complex128))
            values = np.concatenate([root, -root])
        rows.append(values.astype(np.complex128))
    return np.array(rows)


# -------------------------------------------------------------------------------------- where spectra lie


class _Spectrum(NamedTuple):
    """Where the spectrum of a step lies, times h.

    `where` is "imaginary", "negative" or, without structure, "disc"; `radius` bounds its moduli; `damping` is by
    how much an imaginary one is shifted to the left.
    """

    where: str
    radius: float
    formula: str
    damping: float = 0.0

    def bound(self, integrator: Integrator) -> float | None:
        """Up to which radius the integrator's region of stability holds it."""
        match self.where, integrator:
            case "imaginary", Euler():
                return math.sqrt(2 * self.damping)  # |1 + d(iω − γ)|² ≤ 1 where d(ω² + γ²) ≤ 2γ
            case "imaginary", Midpoint():
                return 1.0
            case "imaginary", RungeKutta4():
                return 2 * math.sqrt(2) if self.damping <= 0.3 * self.radius else _RK4_LEFT
            case "imaginary", Verlet() | Leapfrog():
                return 2.0
            case "negative", Euler():
                return 2.0
            case "negative", RungeKutta4():
                return _RK4_REAL
            case "negative", Midpoint():
                return 0.0
        return None

    def points(self) -> np.ndarray:
        """Points of it among which the worst is."""
        part = np.linspace(0, 1, 65)
        if self.where == "disc":  # on its edge, by the maximum principle
            return self.radius * np.exp(1j * math.pi * part)
        if self.where == "negative":
            return -self.radius * part + 0j
        shift = min(self.damping, self.radius)
        frequency = 1j * math.sqrt(self.radius**2 - shift**2) * part
        return part[::4, None] * (frequency - shift) if shift else frequency


def _spectra(net: TimeNet, slopes: tuple[float, float]) -> list[_Spectrum]:
    """That of each step, by the table at the top of this file, from the smallest and the largest σ′."""
    field, h, slope = net.field, net.h, max(map(abs, slopes))
    spectra = []
    for j in range(len(net)):
        norms = [float(_spectral_norms(to_host(K_hat)).max()) for K_hat in net.operators(j)]
        match field:
            case fields.H1():
                turn = 1.0 if field.J == "canonical" else 1 / math.tan(math.pi / (2 * field.width))
                spectrum = _Spectrum("imaginary", turn * norms[0] ** 2 * slope, "h ‖J‖ σ(K̂)² max σ′")
            case fields.Parabolic():
                spectrum = _Spectrum("negative", norms[0] ** 2 * slope, "h σ(K̂)² max σ′")
            case fields.TwoBlock():
                spectrum = _Spectrum("imaginary", math.prod(norms) * slope, "h σ(K̂₁) σ(K̂₂) max σ′")
            case fields.Antisymmetric() | fields.Shared():
                spectrum = _Spectrum("imaginary", norms[0] * slope, "h σ(K̂) max σ′")
            case _:
                spectrum = _Spectrum("disc", max(norms) * slope, "h σ(K̂) max σ′")
        if slopes[0] < -1e-9:
            spectrum = spectrum._replace(where="disc")
        if isinstance(net.integrator, Leapfrog):
            where = "imaginary" if spectrum.where == "negative" else "disc"
            formula = {"h σ(K̂)² max σ′": "h σ(K̂) √max σ′"}.get(spectrum.formula, "h √(σ(K̂) max σ′)")
            spectrum = _Spectrum(where, math.sqrt(spectrum.radius), formula)
        damping = h * slope * getattr(field, "gamma", 0.0)
        spectra.append(spectrum._replace(radius=h * spectrum.radius, damping=damping))
    return spectra


def _stability(net: TimeNet, spectra: list[_Spectrum]) -> Stability:
    bounds = [s.bound(net.integrator) for s in spectra]
    return Stability(
        np.array([s.radius for s in spectra]),
        None if None in bounds else min(bound for bound in bounds if bound is not None),
        _growth(net.integrator, np.array([s.points() for s in spectra])),
        spectra[0].formula,
    )


def _growth(integrator: Integrator, points: np.ndarray) -> float:
    """The product of the largest factors of all steps, each 1 at least, from the points (steps, …) of their spectra."""
    if not (np.abs(points) < 1e60).all():  # their powers would overflow; NaN too
        return math.inf
    factors = amplification(integrator, points).reshape(len(points), -1).max(axis=1)
    logarithm = float(np.sum(np.log(factors[factors > 1 + 1e-7])))  # below it is rounding, at a double root
    return math.exp(logarithm) if logarithm < 700 else math.inf


# ------------------------------------------------------------------------------------------- the message


def _complaint(net: TimeNet, spectra: list[_Spectrum]) -> str | None:
    """What there is to say against a network, and what to do; None if nothing."""
    numbers, bound, growth, formula = _stability(net, spectra)
    worst = int(np.argmax(np.where(np.isnan(numbers), np.inf, numbers)))
    number = float(numbers[worst])
    held_to = bound if bound is not None and bound >= 1 else math.inf
    if growth <= _TOLERATED and number <= held_to:
        return None
    integrator = type(net.integrator).__name__
    spectrum = spectra[worst]
    where = {"imaginary": "an imaginary spectrum", "negative": "a negative spectrum"}.get(spectrum.where)
    limit = (
        f"no bound is known for {integrator} on a spectrum without structure"
        if bound is None
        else f"the bound of {integrator} on {where} is {bound:.3g}"
    )
    remedies = ["a smaller h, with more steps over the same time", "smaller weights"]
    if held_to < math.inf and math.isfinite(number):
        remedies[0] = f"h = {_rounded_down(net.h * held_to / number):g} or less"
    # Runge-Kutta 4 does not run backward, and of Y″ = f(Y) it would solve Y′ = f(Y).
    held = net.reversible or isinstance(net.integrator, Leapfrog)
    best = None if held else spectrum.bound(RungeKutta4())
    if bound is None:
        remedies.append("structure='antisymmetric' or a HamiltonianNet")
    elif best is not None and best > max(number, bound):
        remedies.append(f"integrator='rk4', whose bound is {best:.3g}")
    return (
        f"{_name(net)}: {formula} is {number:.3g} in step {worst}, and {limit}. States and gradients have modes that "
        f"may grow by {growth:.2g} over its {len(net)} steps. Take {', '.join(remedies[:-1])}, or {remedies[-1]}"
    )


def _rounded_down(x: float) -> float:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(x)) - 1)
    return math.floor(x / unit) * unit


def _name(net: TimeNet) -> str:
    return f"{type(net).__name__}({net._summary()})"


# -------------------------------------------------------------------------------------------------- helpers


def _slopes(activation: Callable[[Any], Any] | None) -> tuple[float, float] | None:
    """The smallest and the largest σ′ on [−30, 30]; None for what is not a function of each entry."""
    if activation is None:
        return 1.0, 1.0
    grid = np.arange(-3000, 3001) / 100  # 0 is among them, and there many have their largest
    try:
        value, pull = vjp(activation, grid)
        (slope,) = pull(np.ones_like(grid))
    except Exception:  # whatever a function that wants other shapes raises
        return None
    if value.shape != grid.shape:
        return None
    derivative = grad(lambda x: ct.sum(activation(x)))
    extremes = []
    for sign in (-1, 1):
        best, width = grid[np.argmax(sign * slope)], 0.01
        for _ in range(4):
            near = np.clip(best + width * np.arange(-40, 41) / 40, -30, 30)
            best, width = near[np.argmax(sign * derivative(near))], width / 40
        extremes.append(float(derivative(np.array([best]))[0]))
    return extremes[0], extremes[1]


def _spectral_norms(K: np.ndarray, sweeps: int = 32) -> np.ndarray:
    """The largest singular value of each face, `(…, l, m)` to `(…)`, from the Krylov space of a random vector.

    Exact where l or m is at most `sweeps`. For random float32 entries: off by 1e-7 for 32 faces of 96 × 96, by 4e-5
    for one of 3072 × 3072, in 15 ms and 1.2 s where all singular values took 120 ms and 81 s.
    """
    largest = np.abs(K).max(axis=(-2, -1), keepdims=True, initial=0)
    if not np.isfinite(largest).all():
        return np.full(K.shape[:-2], np.nan)
    K = K / np.where(largest == 0, 1, largest)  # squares neither overflow nor vanish
    if K.shape[-2] < K.shape[-1]:
        K = K.mT.conj()
    adjoint, tiny = K.mT.conj(), 100 * np.finfo(K.dtype).eps
    v = np.random.default_rng(0).standard_normal((*K.shape[:-2], K.shape[-1], 1)).astype(K.dtype)
    basis = v / np.linalg.norm(v, axis=-2, keepdims=True)
    images = []
    for _ in range(min(sweeps, K.shape[-1])):
        images.append(K @ basis[..., -1:])
        w = adjoint @ images[-1]
        floor = tiny * np.linalg.norm(w, axis=-2, keepdims=True)
        for _ in range(2):  # once leaves what rounding made of it
            w = w - basis @ (basis.mT.conj() @ w)
        size = np.linalg.norm(w, axis=-2, keepdims=True)
        end = size <= floor  # the space is whole: nothing is left to find
        basis = np.concatenate([basis, np.where(end, 0, w / np.where(end, 1, size))], axis=-1)
    image = np.concatenate(images, axis=-1)
    return largest[..., 0, 0] * np.sqrt(np.linalg.eigvalsh(image.mT.conj() @ image)[..., -1])


def _jacobian(rate: Callable[..., Any], blocks: tuple[Any, ...]) -> np.ndarray:
    """The Jacobian of a vector field at the state of one sample, on the host.

    The field treats samples apart, so that as many copies of the sample as the state has numbers give all rows in
    one backward pass.
    """
    sizes = [math.prod(block.shape) for block in blocks]
    total = sum(sizes)
    copies = tuple([ct.concat([block] * total, axis=-1) for block in blocks])
    _, pull = vjp(rate, copies)
    seeds, start = [], 0
    for block, size in zip(copies, sizes, strict=True):
        unit = np.eye(total)[start : start + size].reshape(block.shape)
        seeds.append(to_device(unit.astype(block.dtype), device_of(block)))
        start += size
    (pulled,) = pull(tuple(seeds))
    columns = [to_host(part).reshape(size, total) for part, size in zip(pulled, sizes, strict=True)]
    return np.concatenate(columns).conj().T.astype(np.result_type(columns[0], np.float64))
