"""Optimizers that update a model's arrays in place, and schedules of their learning rate."""

from cutnn.optim.optimizers import SGD, Adam, AdamW, Optimizer
from cutnn.optim.schedules import Schedule, cosine, step_decay, warmup

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "Schedule", "cosine", "step_decay", "warmup"]
