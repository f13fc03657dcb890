"""Tensor neural networks: modules that are pytrees, layers, losses, initialisers, regularisers, diagnostics."""

from cutnn.nn import initializers
from cutnn.nn._module import Module, count_parameters, static
from cutnn.nn.autoencoder import Autoencoder
from cutnn.nn.diagnostics import Energy, GradientNorms, energy, gradient_norms, norms
from cutnn.nn.domains import in_domain
from cutnn.nn.dynamics import HamiltonianNet, ResNet, TimeNet, prolong
from cutnn.nn.layers import Dense, Sequential, TLinear, Unfold
from cutnn.nn.learned import Learned
from cutnn.nn.linear import Projection, pca, t_svdm, t_svdmii
from cutnn.nn.losses import CrossEntropy, MeanSquaredError, SquaredError, TubalCrossEntropy, tubal_softmax
from cutnn.nn.regularizers import Blocks, Regularizer, Smoothness, Tikhonov
from cutnn.nn.stability import (
    Stability,
    StabilityWarning,
    amplification,
    check_stability,
    jacobian_spectrum,
    stability_numbers,
)

__all__ = [
    "Autoencoder",
    "Blocks",
    "CrossEntropy",
    "Dense",
    "Energy",
    "GradientNorms",
    "HamiltonianNet",
    "Learned",
    "MeanSquaredError",
    "Module",
    "Projection",
    "Regularizer",
    "ResNet",
    "Sequential",
    "Smoothness",
    "SquaredError",
    "Stability",
    "StabilityWarning",
    "TLinear",
    "Tikhonov",
    "TimeNet",
    "TubalCrossEntropy",
    "Unfold",
    "amplification",
    "check_stability",
    "count_parameters",
    "energy",
    "gradient_norms",
    "in_domain",
    "initializers",
    "jacobian_spectrum",
    "norms",
    "pca",
    "prolong",
    "stability_numbers",
    "static",
    "t_svdm",
    "t_svdmii",
    "tubal_softmax",
]
