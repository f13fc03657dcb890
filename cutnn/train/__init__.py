"""Training: the fit loop, its history, and models on disk."""

from cutnn.train._storage import load_model, save_model
from cutnn.train.fit import Evaluation, FitResult, evaluate, fit
from cutnn.train.history import History

__all__ = ["Evaluation", "FitResult", "History", "evaluate", "fit", "load_model", "save_model"]
