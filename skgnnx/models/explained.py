"""Train, then explain: a model and its explainer as one estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skgnnx.graphs import Explanations


def _estimator_has(name: str) -> Callable[[Any], bool]:
    """Return a check that the estimator has a method, for methods that exist only where it does."""

    def check(self: Any) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    return check


class ExplainedEstimator(TransformerMixin, BaseEstimator):
    """Trains an estimator, and explains its predictions by the network that came out.

    Both are tuned together: a grid over ``estimator__*`` and ``explainer__*`` may be scored by accuracy and by fidelity
    at once. To tune only the explainer of a trained estimator, give that as `sklearn.frozen.FrozenEstimator`.

    Parameters
    ----------
    estimator : estimator
        Such as `GNNClassifier`, or a pipeline that ends in one; the explanations are then of the graphs that reach the
        last step. Cloned by `fit`.
    explainer : explainer
        Such as `skgnnx.GNNExplainer`, without a model, or a pipeline that starts with one. Cloned by `fit`, and given
        the trained network.

    Attributes
    ----------
    estimator_ : estimator
        The trained one.
    explainer_ : explainer
        The one that explains it.
    classes_ : ndarray
        Labels, if the estimator is a classifier.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.datasets import load_mutag
    >>> from skgnnx.models import ExplainedEstimator, GNNClassifier
    >>> X, y = load_mutag(return_X_y=True)
    >>> both = ExplainedEstimator(GNNClassifier(hidden=16, epochs=5), SensitivityAnalysis()).fit(X, y)
    >>> both.predict(X[:2]).shape, both.explain(X[:2])[0].shape
    ((2,), (38,))
    """

    def __init__(self, estimator: Any, explainer: Any) -> None:
        self.estimator = estimator
        self.explainer = explainer

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> Self:
        """Train a clone of the estimator, then fit a clone of the explainer to it.

        Parameters
        ----------
        X : Instances, or anything the estimator accepts
            Predictions to learn, and to explain.
        y : array-like of shape (n,)
            Labels or values.
        **fit_params : dict
            Passed to the estimator.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If what was trained is nothing that the explainer can take; the message says what it needs.
        """
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        self.explainer_ = clone(self.explainer)
        first = self.explainer_[0] if hasattr(self.explainer_, "steps") else self.explainer_
        first.set_params(model=self._network())
        self.explainer_.fit(self._seen_by_network(X), y)
        return self

    def _network(self) -> Any:
        """Return the estimator that holds the network."""
        trained = self.estimator_
        return trained[-1] if hasattr(trained, "steps") else trained

    def _seen_by_network(self, X: Any) -> Any:
        """Return X as it reaches the last step of the estimator."""
        trained = self.estimator_
        return trained[:-1].transform(X) if hasattr(trained, "steps") and len(trained) > 1 else X

    def explain(self, X: Any) -> Explanations:
        """Explain the predictions of the trained estimator.

        Parameters
        ----------
        X : Instances, or anything the estimator accepts
            What to explain.

        Returns
        -------
        Explanations
            Or what the last step of an explainer pipeline returns.
        """
        check_is_fitted(self, "explainer_")
        seen = self._seen_by_network(X)
        return self.explainer_.explain(seen) if hasattr(self.explainer_, "explain") else self.explainer_.transform(seen)

    def transform(self, X: Any) -> Any:
        """Explain the predictions, as `explain` does, in the container that `set_output` asks for."""
        check_is_fitted(self, "explainer_")
        return self.explainer_.transform(self._seen_by_network(X))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names that the explainer gives to its columns."""
        check_is_fitted(self, "explainer_")
        return self.explainer_.get_feature_names_out(input_features)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Set the container of `transform`; only tables, such as feature masks, can change theirs."""
        self.explainer.set_output(transform=transform)
        if hasattr(self, "explainer_"):
            self.explainer_.set_output(transform=transform)
        return self

    @available_if(_estimator_has("predict"))
    def predict(self, X: Any) -> np.ndarray:
        """Return the predictions of the trained estimator."""
        check_is_fitted(self, "estimator_")
        return self.estimator_.predict(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the class probabilities of the trained estimator."""
        check_is_fitted(self, "estimator_")
        return self.estimator_.predict_proba(X)

    @available_if(_estimator_has("score"))
    def score(self, X: Any, y: Any, **params: Any) -> float:
        """Return the score of the trained estimator, such as its accuracy; see `skgnnx.metrics` for explanations."""
        check_is_fitted(self, "estimator_")
        return self.estimator_.score(X, y, **params)

    @property
    def classes_(self) -> np.ndarray:
        """Labels of a classifier, in the order of the columns of `predict_proba`."""
        return self.estimator_.classes_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        return tags
