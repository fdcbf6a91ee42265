"""Node features under masks, which exist where a feature is not zero: elsewhere nothing can be shown or hidden."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.feature_matrices import Entries
from skgnnx.blackbox.feature_pattern import FeaturePattern, spread
from skgnnx.blackbox.lazy_features import WIDE, lazy
from skgnnx.blackbox.masked_sum import PRODUCT_TYPES
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import ranges

SPARSE = 0.25  # share of entries that are not zero up to which sparse products are faster than dense ones
MASKED_FEATURES = ("masked features",)


@dataclass(frozen=True)
class Units:
    """What one kind of mask has values for.

    Parameters
    ----------
    place : ndarray of int of shape (P,)
        Where each unit is in the flat dense scores.
    instance : Tensor of int of shape (P,)
    reached : Tensor of bool of shape (P,)
        Whether a unit can reach the prediction.
    shape : tuple of int
        Shape of the dense scores.
    of_entry : Tensor of int or None
        Unit of each entry of the features that is not zero; None where these are the units.
    """

    place: np.ndarray
    instance: Tensor
    reached: Tensor
    shape: tuple[int, ...]
    of_entry: Tensor | None = None

    def scores(self, values: Tensor) -> Tensor:
        """Return dense scores: 0 where there is no unit, or one that cannot reach the prediction."""
        return spread(values * self.reached, torch.from_numpy(self.place).to(values.device), self.shape)


class MaskedFeatures:
    """The node features of a batch, and their masks of kind "node", "feature" and "node_feature".

    Parameters
    ----------
    batch : GraphBatch
        With floating-point features (N, F).

    Attributes
    ----------
    is_sparse : bool
        Whether so few features are not zero that no dense tensor is made of them.
    """

    def __init__(self, batch: GraphBatch) -> None:
        self._node_instance, self._node_reach, self._num_instances = batch.node_instance, batch.node_reach, len(batch)
        # Instances that share nodes have the same rows many times over.
        nodes, self._copy_of = np.unique(batch.graphs.node_id, return_inverse=True)
        self._own = torch.from_numpy(batch.X.store.columns["x"].values[nodes]).to(batch.device)
        self.shape = (batch.num_nodes, self._own.shape[1])
        few = int(torch.count_nonzero(self._own)) < SPARSE * self._own.numel()
        self.is_sparse = few and self.shape[1] >= WIDE and self._own.dtype in PRODUCT_TYPES
        self._units: dict[str, Units] = {}

    @cached_property
    def _found(self) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Row and column of what is not zero, row by row, and the values."""
        row, column = self._own.nonzero(as_tuple=True)
        counts = np.bincount(row.cpu().numpy(), minlength=len(self._own))
        starts = np.cumsum(counts) - counts
        from_own = ranges(starts[self._copy_of], counts[self._copy_of])
        values = self._own[row, column].index_select(0, self._tensor(from_own))
        rows = np.repeat(np.arange(self.shape[0]), counts[self._copy_of])
        return rows, column.cpu().numpy()[from_own], values

    @cached_property
    def _pattern(self) -> FeaturePattern:
        rows, columns, _ = self._found
        return FeaturePattern(rows, columns, self.shape, self._own.device)

    def units(self, kind: str) -> Units:
        """Return what a kind of mask has values for."""
        if kind not in self._units:
            self._units[kind] = {"node": self._nodes, "feature": self._features, "node_feature": self._entries}[kind]()
        return self._units[kind]

    def _nodes(self) -> Units:
        rows = np.arange(self.shape[0])
        return Units(rows, self._node_instance, self._node_reach, (len(rows),), self._tensor(self._found[0]))

    def _features(self) -> Units:
        rows, columns, _ = self._found
        shape = (self._num_instances, self.shape[1])
        place_of_entry = self._node_instance.cpu().numpy()[rows] * shape[1] + columns
        exists, reached = np.zeros(shape[0] * shape[1], dtype=bool), np.zeros(shape[0] * shape[1], dtype=bool)
        exists[place_of_entry] = True
        reached[place_of_entry[self._node_reach.cpu().numpy()[rows]]] = True
        place, number = np.flatnonzero(exists), np.cumsum(exists) - 1
        of_entry = self._tensor(number[place_of_entry])
        return Units(place, self._tensor(place // max(shape[1], 1)), self._tensor(reached[place]), shape, of_entry)

    def _entries(self) -> Units:
        rows, columns, _ = self._found
        row = self._tensor(rows)
        instance, reached = (each.index_select(0, row) for each in (self._node_instance, self._node_reach))
        return Units(rows * self.shape[1] + columns, instance, reached, self.shape)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._own.device)

    def noise(self, batch: GraphBatch, kind: str, random_state: int) -> Tensor:
        """Draw the batch's standard normal noise (P,) for the units of a kind of mask, in the type of the features."""
        columns = 1 if kind == "node" else self.shape[1]
        places = np.divmod(self.units(kind).place, max(columns, 1))
        slot = "instance" if kind == "feature" else "node"
        return batch.noise(random_state, slot, columns, places=places).to(self._own.dtype)

    def under(self, masks: dict[str, Tensor]) -> Tensor:
        """Return the features (N, F) times masks, each with a value (P,) for every unit of its kind."""
        if self.is_sparse:
            return lazy(self.entries(masks), self.shape)
        return spread(self._under(masks), self._places, self.shape)

    def entries(self, masks: dict[str, Tensor]) -> Entries:
        """Return what `under` returns, as entries."""
        return Entries(self._under(masks), self._pattern)

    def _under(self, masks: dict[str, Tensor]) -> Tensor:
        values = self._found[2]
        for kind, mask in masks.items():
            of_entry = self.units(kind).of_entry
            values = values * (mask if of_entry is None else mask.index_select(0, of_entry))
        return values

    @cached_property
    def _places(self) -> Tensor:
        return self._tensor(self.units("node_feature").place)


def masked_features(batch: GraphBatch) -> MaskedFeatures:
    """Return the features of a batch in the form in which they are masked; made once."""
    if MASKED_FEATURES not in batch.memo:
        batch.memo[MASKED_FEATURES] = MaskedFeatures(batch)
    return batch.memo[MASKED_FEATURES]
