"""Classify CIFAR-100 with Hamiltonian networks of sixteen steps: t-NNs with a dense or a tubal head, matrix networks.

The same networks, settings and options as in `cifar10_hamiltonian.py`, with a hundred classes and the normalisation
of CIFAR-100 by its channels.

    python examples/cifar100_hamiltonian.py --root data --preset quick      # two epochs of two t-NNs of depth 4
    python examples/cifar100_hamiltonian.py --root data                     # better settings, 10 epochs
    python examples/cifar100_hamiltonian.py --root data --preset paper --device cuda    # in full, 500 epochs

Presets: `paper` (the authors' settings), `unregularized` (the same without the two regularisers), `better` (the
default), `quick` (`better`, for two epochs). An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from _experiment import main_guard
from cifar10_hamiltonian import PRESETS as CIFAR10
from cifar10_hamiltonian import experiment

_DEEP = ("dense-16", "tubal-16", "matrix-16")
PRESETS = {
    "paper": replace(CIFAR10["paper"], networks=_DEEP),
    "unregularized": replace(CIFAR10["unregularized"], networks=_DEEP),
    "better": replace(CIFAR10["better"], networks=("dense-16", "tubal-16")),
    "quick": replace(CIFAR10["quick"], networks=("dense-4", "tubal-4")),
}


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    return experiment(argv, __doc__, "cifar100_hamiltonian", "cifar100", PRESETS, {})


if __name__ == "__main__":
    sys.exit(main())
