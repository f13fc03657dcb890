"""Pictures: tensors, training, networks as dynamical systems. Needs matplotlib.

Each function returns a matplotlib `Figure` that belongs to no window; `figure.savefig("name.png")` writes it.
"""

from cutnn.plot.dynamics import spectrum, stability, trajectories
from cutnn.plot.tensors import class_tubes, compaction, faces, layout
from cutnn.plot.training import accuracy_against_parameters, curves

__all__ = [
    "accuracy_against_parameters",
    "class_tubes",
    "compaction",
    "curves",
    "faces",
    "layout",
    "spectrum",
    "stability",
    "trajectories",
]
