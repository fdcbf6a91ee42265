"""Explainers as transformers of ordinary tables, so that scikit-learn's own checks can run on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn
from torch_geometric.data import Data

from skgnnx.graphs import Instances
from skgnnx.testing.networks import Network


class ArrayAdapter(TransformerMixin, BaseEstimator):
    """Explain rows of numbers as path graphs: column j is node j, with its value as the only feature.

    Scores per edge, node or feature are as many for every row, so they make a table.

    Parameters
    ----------
    explainer : BaseExplainer
        Its `model` may be None: a small seeded network on one node feature then takes its place.

    Examples
    --------
    >>> import numpy as np
    >>> from skgnnx import InputXGradient
    >>> from skgnnx.testing import ArrayAdapter
    >>> ArrayAdapter(InputXGradient(mask="node")).fit_transform(np.eye(4)).shape
    (4, 4)
    """

    def __init__(self, explainer: Any = None) -> None:
        self.explainer = explainer

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the explainer on the rows of `X`; `y` is ignored.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers.
        y : ignored
            For scikit-learn's sake.

        Returns
        -------
        self
        """
        X = validate_data(self, X)
        self.explainer_ = clone(self.explainer)
        if self.explainer_.model is None:
            self.explainer_.set_params(model=_row_network())
        self._quietly(self.explainer_.fit, X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the scores of every row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            With as many columns as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_scores)
            Of the type of `X`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        E = self._quietly(self.explainer_.transform, X)
        scores = np.stack([np.ravel(E[i]) for i in range(len(E))])
        return scores.astype(X.dtype if X.dtype.kind == "f" else np.float64)

    def _quietly(self, use: Callable[[Instances], Any], X: np.ndarray) -> Any:
        """Do something with rows; what a method that learns has to say about that is about graphs, not about tables."""
        with warnings.catch_warnings():
            if self.explainer_.taxonomy.learned:
                warnings.simplefilter("ignore", UserWarning)
            return use(_as_paths(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _row_network() -> nn.Module:
    # double, because scikit-learn compares scores to 1e-7
    return Network("graph", num_features=1, pool="add").double().eval()


def _as_paths(X: np.ndarray) -> Instances:
    width = X.shape[1]
    there = torch.stack([torch.arange(width - 1), torch.arange(1, width)])
    edge_index = torch.cat([there, there.flip(0)], dim=1)
    rows = torch.from_numpy(np.array(X, dtype=np.float64, order="C")).unsqueeze(2)
    return Instances.from_graphs([Data(x=row, edge_index=edge_index, num_nodes=width) for row in rows])
