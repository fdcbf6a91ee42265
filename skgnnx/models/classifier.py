"""A graph neural network as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from skgnnx.models.base import BaseGNN
from skgnnx.models.checks import check_columns, checked_weights, checked_y
from skgnnx.models.training import Target


@dataclass(eq=False, repr=False, kw_only=True)
class GNNClassifier(ClassifierMixin, BaseGNN):
    r"""Classifies graphs, or nodes of one or several graphs, by a graph neural network.

    Minimises the weighted mean of :math:`-\log \mathrm{softmax}(f(G))_y` by Adam. Predictions about nodes are
    transductive where the graph of X is the graph of the training nodes (it is run whole, the loss is that of the given
    nodes), inductive where it is another one.

    Parameters
    ----------
    class_weight : {None, "balanced"} or dict, default=None
        Weight of every class in the loss; "balanced" is n / (number of classes * number of instances of the class).
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
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns.
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
    >>> from skgnnx.models import GNNClassifier
    >>> X, y = load_mutag(return_X_y=True)
    >>> clf = GNNClassifier(conv="gine", hidden=16, epochs=5).fit(X, y)
    >>> clf.predict_proba(X[:3]).shape, clf.classes_.tolist()
    ((3, 2), [0, 1])
    """

    class_weight: Literal["balanced"] | dict | None = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : Instances, or anything `skgnnx.check_instances` accepts
            Graphs or nodes.
        y : array-like of shape (n,)
            Their labels, at least two different ones.
        sample_weight : array-like of shape (n,), optional
            Weight of every instance in the loss.

        Returns
        -------
        self
        """
        X = self._checked(X, reset=True)
        labels = checked_y(y, len(X), type(self).__name__)
        check_classification_targets(labels)
        if labels.ndim > 1:
            raise ValueError(
                f"y must hold one label per instance. Got shape {labels.shape}; fit one classifier per column."
            )
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least 2 classes. Got only {self.classes_.tolist()[0]!r}.")
        per_class = compute_class_weight(self.class_weight, classes=self.classes_, y=labels).astype(np.float32)
        weights = checked_weights(sample_weight, len(X)) * per_class[codes]

        def make_target(_: nn.Module, device: torch.device) -> Target:
            return Target(torch.from_numpy(codes).to(device), torch.from_numpy(weights).to(device), self._losses)

        return self._train(X, make_target, len(self.classes_), codes)

    def _losses(self, output: Tensor, codes: Tensor) -> Tensor:
        check_columns(output, len(self.classes_), "one column per class")
        return cross_entropy(output, codes, reduction="none")

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every class, an array of shape (n, n_classes)."""
        return self._outputs(X).double().softmax(dim=1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of every instance, an array of shape (n,)."""
        output = self._outputs(X)
        return self.classes_[output.argmax(dim=1).numpy()]
