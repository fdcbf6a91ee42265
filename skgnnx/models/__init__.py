"""Networks as scikit-learn estimators: train, predict, and hand to an explainer."""

from skgnnx.models.base import BaseGNN
from skgnnx.models.classifier import GNNClassifier
from skgnnx.models.explained import ExplainedEstimator
from skgnnx.models.regressor import GNNRegressor

__all__ = ["GNNClassifier", "GNNRegressor", "ExplainedEstimator", "BaseGNN"]
