"""What happens along a network: the energy, and the norms of states and of gradients, at all times.

Numbers for eyes and tests, as NumPy arrays on the host; a time is a row, a sample a column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optree

from cutnn import array as ct
from cutnn.device import to_host
from cutnn.nn import fields
from cutnn.nn.dynamics import TimeNet, time_nets
from cutnn.nn.integrators import Leapfrog
from cutnn.tape import grad

__all__ = ["Energy", "GradientNorms", "energy", "gradient_norms", "norms"]


class Energy(NamedTuple):
    """What `energy` returns: `values` (steps + 1, N) at all times, and `drift` (steps, N) within each step.

    `drift` is what a step of the integrator adds under its own weights, which a flow of the equation would not;
    the rest of the change of `values` is the change of the weights from step to step.
    """

    values: np.ndarray
    drift: np.ndarray


class GradientNorms(NamedTuple):
    """What `gradient_norms` returns: of ∂loss/∂(state) at all times, `states` (steps + 1, N), and of ∂loss/∂θ of the
    weights of each step, `weights` (steps,)."""

    states: np.ndarray
    weights: np.ndarray


def energy(net: TimeNet, X: Any) -> Energy:
    """The energy of each sample of X `(n, width, N)` along its trajectory, and what each step adds to it.

    With S′ = σ, summed over entries, and the weights of the step that begins at the time (at the end the last's):

    * two-block, H2: H = Σ S(K₁ ★ Z + B₁) + Σ S(K₂ ★ Y + B₂); H1: H = Σ S(K ★ Y + B). Kept by the equation;
    * parabolic of second order (leapfrog): H = ½|Y′|² + Σ S(K ★ Y + B), kept; of first order: Σ S(K ★ Y + B), which
      falls;
    * shared: ½(|Y|² + |Z|²), and antisymmetric: ½|Y|². These are energies of the linearised networks, kept by
      σ = identity and B = 0 (with damping falling), and by tanh only about.

    S is known of `ct.tanh`, `ct.relu`, `ct.sigmoid` and None; a complex network has one with None alone. All are
    kept over M that are multiples of unitary matrices: over others Kᵀ is not the adjoint. Raises TypeError for a
    network without an energy, for another activation, and ValueError for shapes that do not fit.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> star = algebra.dct(4)
    >>> net = nn.HamiltonianNet(star, width=3, depth=100, h=0.01, form="two-block", dtype=np.float64, seed=0)
    >>> values, drift = nn.energy(net, star.random(3, 2, seed=1))
    >>> values.shape, drift.shape, bool(abs(drift).max() < 1e-4 * values.mean())
    ((101, 2), (100, 2), True)
    """
    of_step = _energies(net)
    states = _with_speed(net, X) if isinstance(net.integrator, Leapfrog) else net.blocks(X)
    before, after = [], []
    for j in range(len(net)):
        of_state = of_step(j)
        before.append(of_state(states[j]))
        after.append(of_state(states[j + 1]))
    return Energy(np.array([*before, after[-1]]), np.array(after) - np.array(before))


def norms(net: TimeNet, X: Any) -> np.ndarray:
    """The norm of the whole state, Z with Y, of each sample of X `(n, width, N)` at all times: (steps + 1, N).

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> net = nn.HamiltonianNet(algebra.dct(4), width=3, depth=2, seed=0)
    >>> nn.norms(net, np.ones((4, 3, 5), dtype=np.float32)).shape
    (3, 5)
    """
    return np.array([_norms(net, blocks) for blocks in net.blocks(X)])


def gradient_norms(
    model: Any, loss: Callable[[Any, Any], Any], X: Any, target: Any, net: TimeNet | None = None
) -> GradientNorms:
    """Norms of the gradient of loss(model(X), target) in the states and in the weights of a time network.

    Of the whole state, Z with Y, of each sample at all times, and of all weights of each step, in the domain that
    holds them. `model` is a network
    or holds one, anywhere; of several `net` says which. Raises ValueError where there is none, or more and no
    choice.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> star = algebra.dct(4)
    >>> model = nn.Sequential(nn.HamiltonianNet(star, width=3, depth=2, seed=0), nn.TLinear(star, 3, 2, seed=1))
    >>> X, labels = np.ones((4, 3, 5), dtype=np.float32), np.zeros(5, dtype=int)
    >>> states, weights = nn.gradient_norms(model, nn.TubalCrossEntropy(star), X, labels)
    >>> states.shape, weights.shape
    ((3, 5), (2,))
    """
    chosen = _only(model) if net is None else net
    taps = [tuple(map(ct.zeros_like, blocks)) for blocks in chosen.blocks(_entering(model, chosen, X))]

    def objective(steps: Any, taps: Any) -> Any:
        return loss(_replaced(model, chosen, lambda X: _tapped(chosen, steps, taps, X))(X), target)

    of_steps, of_states = grad(objective, argnums=(0, 1))(chosen.steps, taps)
    weights = [
        math.sqrt(sum(float(_squares(a).sum()) for a in optree.tree_leaves(step, namespace="cutnn")))
        for step in of_steps
    ]
    return GradientNorms(np.array([_norms(chosen, blocks) for blocks in of_states]), np.array(weights))


# ----------------------------------------------------------------------------------------------- energies


def _energies(net: TimeNet) -> Callable[[int], Callable[[tuple[Any, ...]], np.ndarray]]:
    """From the step whose weights count to its energy of each sample, a function of the blocks of a state."""
    field, second_order = net.field, isinstance(net.integrator, Leapfrog)
    if isinstance(field, fields.Antisymmetric | fields.Shared) and not second_order:
        return lambda j: lambda blocks: 0.5 * _norms(net, blocks) ** 2
    if not isinstance(field, fields.TwoBlock | fields.Parabolic):
        raise TypeError(
            f"energy: {net._summary()} has none; HamiltonianNet has one, and ResNet with structure='antisymmetric' "
            "or 'parabolic'. nn.norms says how large the states are"
        )
    S = _potential(net)

    def of_step(j: int) -> Callable[[tuple[Any, ...]], np.ndarray]:
        operator, rate = field.operator(net[j]), net.rate(j)
        weights = operator if isinstance(field, fields.TwoBlock) else (operator,)

        def of_state(blocks: tuple[Any, ...]) -> np.ndarray:
            places, speeds = (blocks[:1], blocks[1:]) if second_order else (blocks, ())
            total = np.zeros(())
            for (K_hat, B), place in zip(weights, reversed(places), strict=True):  # K₁ acts on Z, K₂ on Y
                argument = field.product(K_hat, place)
                total = total + _per_sample(net, S(argument if B is None else argument + B))
            for speed, slope in zip(speeds, rate(places) if speeds else (), strict=True):
                total = total + 0.5 * _norms(net, (speed + 0.5 * net.h * slope,)) ** 2
            return total

        return of_state

    return of_step


def _with_speed(net: TimeNet, X: Any) -> list[tuple[Any, Any]]:
    """Of a second-order network, Y at all times and its speed half a step before: at rest at time 0."""
    Y = [blocks[0] for blocks in net.blocks(X)]
    (slope,) = net.rate(0)((Y[0],))
    speeds = [-0.5 * net.h * slope] + [(b - a) / net.h for a, b in zip(Y, Y[1:], strict=False)]
    return list(zip(Y, speeds, strict=True))


def _log_cosh(x: Any) -> Any:
    size = ct.abs(x)
    return size + ct.log1p(ct.exp(-2 * size)) - math.log(2)


_POTENTIALS: dict[Any, Callable[[Any], Any]] = {
    None: lambda x: 0.5 * _squares(x),
    ct.tanh: _log_cosh,
    ct.relu: lambda x: 0.5 * ct.relu(x) ** 2,
    ct.sigmoid: ct.softplus,
}
"""S of an activation, S′ = σ."""


def _potential(net: TimeNet) -> Callable[[Any], Any]:
    activation = net.field.activation
    if activation not in _POTENTIALS:
        raise TypeError(
            "energy: the S with S′ = σ is known of ct.tanh, ct.relu, ct.sigmoid and None, not of "
            f"{getattr(activation, '__name__', activation)!r}"
        )
    dtype = net.dtype
    if activation is not None and dtype.kind == "c":
        raise TypeError(
            f"energy: the network is of {dtype}, and the S of a complex argument is not real; with "
            "activation=None it has an energy"
        )
    return _POTENTIALS[activation]


# ---------------------------------------------------------------------------------------- a tapped network


def _only(model: Any) -> TimeNet:
    nets = time_nets(model)
    if len(nets) != 1:
        which = "which of them: net=model[0] say" if nets else "a ResNet or a HamiltonianNet"
        raise ValueError(
            f"gradient_norms: {type(model).__name__} holds {len(nets)} time networks; give {which}"
        )
    return nets[0]


def _replaced(model: Any, net: TimeNet, function: Callable[[Any], Any]) -> Any:
    """The model with a function in the place of one of its networks."""
    return optree.tree_map(
        lambda part: function if part is net else part,
        model,
        is_leaf=lambda part: part is net,
        namespace="cutnn",
    )


def _entering(model: Any, net: TimeNet, X: Any) -> Any:
    """What the network receives when the model receives X."""
    received = []

    def note(X: Any) -> Any:
        received.append(X)
        return net(X)

    _replaced(model, net, note)(X)
    if len(received) != 1:
        raise ValueError(
            f"gradient_norms: the network is no part of the model, or is called {len(received)} times in it"
        )
    return received[0]


def _tapped(net: TimeNet, steps: Any, taps: Any, X: Any) -> Any:
    """The network with a tap, zeros, added to its state at each time: their gradients are those of the states."""
    field, integrator, h = net.field, net.integrator, net.h
    for j, step in enumerate(steps):
        parts = field.parts(field.operator(step))
        if j == 0:
            state = integrator.start(parts, _added(field.initial(X), taps[0]), h)
        state = integrator.forward(parts, state, h)
        state = integrator.with_blocks(state, _added(integrator.blocks(state), taps[j + 1]))
    return field.observe(integrator.blocks(state))


def _added(blocks: tuple[Any, ...], taps: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple([a + b for a, b in zip(blocks, taps, strict=True)])


# -------------------------------------------------------------------------------------------------- helpers


def _squares(a: Any) -> Any:
    return ct.real(a * ct.conj(a)) if a.dtype.kind == "c" else a * a


def _per_sample(net: TimeNet, a: Any) -> np.ndarray:
    """The sum over tubes and rows, in double precision on the host: (*batch, N)."""
    axes = tuple(range(-2 - len(net.star.shape), -1))
    return np.asarray(to_host(a), dtype=np.float64).sum(axis=axes)


def _norms(net: TimeNet, blocks: tuple[Any, ...]) -> np.ndarray:
    return np.sqrt(sum([_per_sample(net, _squares(block)) for block in blocks]))
