"""Scores of explanations: metrics as functions of explanations, and scorers for scikit-learn."""

from skgnnx.metrics.curve import fidelity_curve
from skgnnx.metrics.fidelity import characterization, fidelity_delta, fidelity_minus, fidelity_plus
from skgnnx.metrics.reducing import Score
from skgnnx.metrics.size import sparsity

__all__ = [
    "Score",
    "characterization",
    "fidelity_curve",
    "fidelity_delta",
    "fidelity_minus",
    "fidelity_plus",
    "sparsity",
]
