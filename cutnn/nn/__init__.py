"""Tensor neural networks: modules that are pytrees, layers, losses, initialisers, regularisers."""

from cutnn.nn import initializers
from cutnn.nn._module import Module, count_parameters, static
from cutnn.nn.autoencoder import Autoencoder
from cutnn.nn.dynamics import HamiltonianNet, ResNet, TimeNet, prolong
from cutnn.nn.layers import Dense, Sequential, TLinear, Unfold
from cutnn.nn.linear import Projection, pca, t_svdm, t_svdmii
from cutnn.nn.losses import CrossEntropy, MeanSquaredError, SquaredError, TubalCrossEntropy, tubal_softmax
from cutnn.nn.regularizers import Blocks, Regularizer, Smoothness, Tikhonov

__all__ = [
    "Autoencoder",
    "Blocks",
    "CrossEntropy",
    "Dense",
    "HamiltonianNet",
    "MeanSquaredError",
    "Module",
    "Projection",
    "Regularizer",
    "ResNet",
    "Sequential",
    "Smoothness",
    "SquaredError",
    "TLinear",
    "Tikhonov",
    "TimeNet",
    "TubalCrossEntropy",
    "Unfold",
    "count_parameters",
    "initializers",
    "pca",
    "prolong",
    "static",
    "t_svdm",
    "t_svdmii",
    "tubal_softmax",
]
