"""Pictures of explanations, the way scikit-learn's displays work."""

from skgnnx.inspection.explanation_display import ExplanationDisplay
from skgnnx.inspection.fidelity_curve_display import FidelityCurveDisplay

__all__ = ["ExplanationDisplay", "FidelityCurveDisplay"]
