"""A graph neural network as a scikit-learn regressor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from torch import Tensor, nn

from skgnnx.models.base import BaseGNN
from skgnnx.models.checks import check_columns, checked_weights, checked_y
from skgnnx.models.networks import GNN
from skgnnx.models.training import Target


@dataclass(eq=False, repr=False, kw_only=True)
class GNNRegressor(RegressorMixin, BaseGNN):
    r"""Predicts one or several numbers of graphs, or of nodes, by a graph neural network.

    Minimises the weighted mean of :math:`\|f(G) - y\|^2 / \sigma^2` by Adam, where :math:`\sigma` is the standard
    deviation of y per column. The scale is put into the head of the network afterwards, so that the network itself
    returns values in the units of y. A whole network given as `conv` learns y as it is.

    Parameters
    ----------
    conv, hidden, layers, pool, norm, dropout
        The network, as in `skgnnx.models.BaseGNN`: three "gin" layers of 64 channels with batch
        normalisation and a sum by default.
    lr, schedule, weight_decay, epochs, batch_size
        Training by Adam, as there: 100 epochs, from a rate of 0.01 to 0, in steps of 64 graphs by default.
    early_stopping, validation_fraction, n_iter_no_change, tol
        When to stop before `epochs`, as there.
    device, random_state
        As there.

    Attributes
    ----------
    module_ : nn.Module
        The trained network, in evaluation mode; what explainers take, and plain PyG.
    loss_curve_, validation_loss_curve_ : list of float
        Mean loss per epoch; the second is None without early stopping.
    n_iter_, n_features_in_, n_edge_features_in_, level_
        Epochs run, and what `fit` has seen.

    Raises
    ------
    ValueError
        If a parameter or y is not usable; the message says which and how to repair it.

    Notes
    -----
    Xu, Hu, Leskovec & Jegelka, "How Powerful are Graph Neural Networks?", ICLR 2019, for "gin" and the sum.

    Examples
    --------
    >>> from skgnnx.datasets import load_mutag
    >>> from skgnnx.models import GNNRegressor
    >>> X, _ = load_mutag(return_X_y=True)
    >>> num_atoms = [instance.graph.num_nodes for instance in X]
    >>> reg = GNNRegressor(hidden=16, epochs=50).fit(X, num_atoms)
    >>> reg.predict(X[:2]).shape, bool(reg.score(X, num_atoms) > 0.5)
    ((2,), True)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : Instances, or anything `skgnnx.check_instances` accepts
            Graphs or nodes.
        y : array-like of shape (n,) or (n, k)
            Finite numbers.
        sample_weight : array-like of shape (n,), optional
            Weight of every instance in the loss.

        Returns
        -------
        self
        """
        X = self._checked(X, reset=True)
        values = checked_y(y, len(X), type(self).__name__)
        if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
            raise ValueError(f"y must hold finite numbers. Got {values.dtype} with others; remove or impute them.")
        self._one_column = values.ndim == 1
        values = values.reshape(len(X), -1).astype(np.float64)
        weights = checked_weights(sample_weight, len(X))
        shift, scale = values.mean(axis=0), values.std(axis=0)
        scale[scale == 0] = 1.0

        def make_target(module: nn.Module, device: torch.device) -> Target:
            own = isinstance(module, GNN)
            unit = _tensor(np.ones_like(scale) if own else scale, device)

            def losses(output: Tensor, wanted: Tensor) -> Tensor:
                check_columns(output, len(scale), "one column per value")
                return ((output - wanted) / unit).square().mean(dim=1)

            wanted = (values - shift) / scale if own else values
            return Target(_tensor(wanted, device), _tensor(weights, device), losses)

        self._train(X, make_target, values.shape[1])
        if isinstance(self.module_, GNN):
            device = self.module_.head.weight.device
            self.module_.rescale_output(_tensor(scale, device), _tensor(shift, device))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted values, an array of shape (n,), or (n, k) where y had several columns."""
        output = self._outputs(X).double().numpy()
        return output[:, 0] if self._one_column else output

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).float().to(device)
