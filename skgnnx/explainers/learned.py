"""What methods share that learn from some instances, and then explain others without learning again."""

from __future__ import annotations

import copy
import warnings
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from skgnnx.blackbox import OpenBox
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs import Explanations, Instances
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.digest import predictions_digests
from skgnnx.validation import Fraction, PositiveInt


class LearningSet(NamedTuple):
    """What is learned from.

    Parameters
    ----------
    steps : list of list of GraphBatch
        Instances of each step of the optimiser, in batches that fit the memory: their gradients are added up.
    held_out : list of GraphBatch
        Instances that tell which epoch is best.
    """

    steps: list[list[GraphBatch]]
    held_out: list[GraphBatch]


@explainer
class LearnedExplainer(BaseExplainer):
    """Base of methods whose `fit` trains a network; a subclass writes its fields, `_train` and `_explain_batch`.

    Parameters
    ----------
    fit_batch_size : int >= 1, optional
        Instances in each step of the optimiser; None takes all of them. Memory does not matter here: a step that does
        not fit is taken in parts, whose gradients are added up.
    validation_fraction : float in [0, 1], default=0.1
        Share of the instances in `fit` that are not learned from and tell which epoch is best. Where that would be none
        or all of them, the instances that are learned from do so.
    warm_start : bool, default=False
        Whether `fit` goes on from what was learned before.

    Attributes
    ----------
    network_ : nn.Module
        What was learned.
    seen_ : tuple of bytes
        Sorted digests of all predictions that were in `fit`; explaining one of them warns.

    Notes
    -----
    Other parameters are those of `BaseExplainer`.
    """

    fit_batch_size: PositiveInt | None = None
    validation_fraction: Fraction = 0.1
    warm_start: bool = False

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from more instances: one epoch that starts where the last one ended.

        Parameters
        ----------
        X : Instances, or anything `check_instances` accepts
            What to learn from.
        y : ignored
            Labels, for scikit-learn's sake.

        Returns
        -------
        self
        """
        self._learn(self._checked(X, reset=not hasattr(self, "network_")), going_on=True, epochs=1)
        return self

    def name_left_out(self, E: Explanations, stacklevel: int = 4) -> None:
        """Warn also of explained predictions that were in `fit`."""
        super().name_left_out(E, stacklevel + 1)
        seen = frozenset(self.seen_ if self._learns() else ())
        known = sum(digest in seen for digest in predictions_digests(E.instances)) if seen else 0
        if known:
            warnings.warn(
                f"{type(self).__name__} should explain other instances than those in fit, where scores say too little "
                f"about new ones. Got {known} of {len(E)} that were in fit; explain the others, or split X first.",
                UserWarning,
                stacklevel=stacklevel - 1,  # warned from here, not from a function that this calls
            )

    def _learns(self) -> bool:
        """Return True if there is something that `fit` has to learn."""
        return True

    def _train(
        self, gnn: OpenBox, data: LearningSet, network: nn.Module | None, seed: int, epochs: int | None
    ) -> nn.Module:
        """Return a trained network.

        Parameters
        ----------
        gnn : OpenBox
        data : LearningSet
        network : Module or None
            What to go on from, which may be changed; None makes a new one, whose initial values are drawn from torch's
            global generator, which holds `seed` here and is put back afterwards.
        seed : int
            Root seed of the noise.
        epochs : int or None
            How often to go through the data; None is what the parameters of the method say.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _train(gnn, data, network, seed, epochs).")

    def _fit(self, X: Instances) -> None:
        self._learn(X, going_on=self.warm_start, epochs=None)

    def _learn(self, X: Instances, *, going_on: bool, epochs: int | None) -> None:
        if not self._learns():
            return
        going_on = going_on and hasattr(self, "network_")
        seed = self._root_seed()
        with self._box().open(X) as gnn:
            torch.manual_seed(seed)
            data = self._learning_set(gnn, X, seed)
            known = copy.deepcopy(self.network_) if going_on else None  # a failure leaves what was learned as it is
            network = self._train(gnn, data, known, seed, epochs)
        self.seen_: tuple[bytes, ...] = tuple(sorted({*predictions_digests(X), *(self.seen_ if going_on else ())}))
        self.network_: nn.Module = network

    def _learning_set(self, gnn: OpenBox, X: Instances, seed: int) -> LearningSet:
        order = np.random.default_rng(seed % 2**64).permutation(len(X))
        num_held_out = round(self.validation_fraction * len(X))
        held_out, learned = np.split(order, [num_held_out if num_held_out < len(X) else 0])
        size = self._instances_per_step() or len(learned)
        steps = [
            self._batches(gnn, np.sort(learned[start : start + size]), seed) for start in range(0, len(learned), size)
        ]
        return LearningSet(steps, self._batches(gnn, np.sort(held_out if len(held_out) else learned), seed))

    def _instances_per_step(self) -> int | None:
        """Return how many instances a step of the optimiser takes; None for all."""
        return self.fit_batch_size

    def _batches(self, gnn: OpenBox, rows: np.ndarray, seed: int) -> list[GraphBatch]:
        cut: dict[str, Any] = {"removal": self.removes_edges, "max_edges": self.max_edges, "random_state": seed}
        return list(gnn.batches(rows, self.batch_size, **cut))

    def _checked(self, X: Any, reset: bool = False) -> Instances:
        if not reset and self._learns() and not hasattr(self, "network_"):
            raise NotFittedError(
                f"{type(self).__name__} must have learned before it explains. Got one that is not fitted; call fit(X) "
                "with other instances than those to explain."
            )
        return super()._checked(X, reset)
