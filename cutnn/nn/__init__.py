"""Tensor neural networks: modules that are pytrees, layers, losses, initialisers, regularisers."""

from cutnn.nn import initializers
from cutnn.nn._module import Module, count_parameters, static
from cutnn.nn.dynamics import HamiltonianNet, ResNet, TimeNet, prolong
from cutnn.nn.layers import Dense, Sequential, TLinear, Unfold
from cutnn.nn.losses import CrossEntropy, MeanSquaredError, TubalCrossEntropy, tubal_softmax
from cutnn.nn.regularizers import Blocks, Regularizer, Smoothness, Tikhonov

__all__ = [
    "Blocks",
    "CrossEntropy",
    "Dense",
    "HamiltonianNet",
    "MeanSquaredError",
    "Module",
    "Regularizer",
    "ResNet",
    "Sequential",
    "Smoothness",
    "TLinear",
    "Tikhonov",
    "TimeNet",
    "TubalCrossEntropy",
    "Unfold",
    "count_parameters",
    "initializers",
    "prolong",
    "static",
    "tubal_softmax",
]
