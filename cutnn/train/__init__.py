"""Training: the fit loop, its history, models and checkpoints on disk."""

from cutnn.train._progress import solver_progress
from cutnn.train._run import FitResult
from cutnn.train._settings import ResumeError
from cutnn.train.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_model,
)
from cutnn.train.evaluation import Evaluation, evaluate
from cutnn.train.fit import fit
from cutnn.train.history import History

__all__ = [
    "Checkpoint",
    "Evaluation",
    "FitResult",
    "History",
    "ResumeError",
    "evaluate",
    "fit",
    "latest_checkpoint",
    "load_checkpoint",
    "load_model",
    "save_checkpoint",
    "save_model",
    "solver_progress",
]
