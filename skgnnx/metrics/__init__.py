"""Scores of explanations: metrics as functions of explanations, and scorers for scikit-learn."""

from skgnnx.metrics.areas import average_precision, roc_auc
from skgnnx.metrics.curve import fidelity_curve
from skgnnx.metrics.fidelity import characterization, fidelity_delta, fidelity_minus, fidelity_plus
from skgnnx.metrics.overlap import jaccard, precision_at_k
from skgnnx.metrics.reducing import Score
from skgnnx.metrics.scorers import ExplanationScorer, get_scorer, get_scorer_names, make_explanation_scorer
from skgnnx.metrics.size import sparsity

__all__ = [
    "ExplanationScorer",
    "Score",
    "average_precision",
    "characterization",
    "fidelity_curve",
    "fidelity_delta",
    "fidelity_minus",
    "fidelity_plus",
    "get_scorer",
    "get_scorer_names",
    "jaccard",
    "make_explanation_scorer",
    "precision_at_k",
    "roc_auc",
    "sparsity",
]
