"""Greedy search for edges: they are added to the nodes of all instances of a batch, step by step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from skgnnx.blackbox.gathering import Masks
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.variants import Variants
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.edge_units import EdgeUnits
from skgnnx.graphs.ranking import TIE


class EdgeSearch:
    """The edges that have been added to each instance of a batch, and what the model then says of it.

    The nodes are there from the start, and so are the edges that belong to no unit. All versions that one step asks
    about, of all instances, run together.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
        Cut so that edges can be removed.
    units : EdgeUnits
        What may be added.

    Attributes
    ----------
    value : ndarray of shape (B,)
        Log-probability of the target of each instance with the edges so far; in a regression minus the distance from
        the value that all edges lead to.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, units: EdgeUnits) -> None:
        self._gnn = gnn
        self._batch = batch
        self._units = units
        self._instance = units.instance
        self._step = np.full(units.ptr[-1], -1)
        self._effect = np.zeros(units.ptr[-1])
        everyone = np.arange(len(batch))
        self._aim: np.ndarray | None = None
        if gnn.kind_of_output == "regression":
            self._aim = self._values(everyone, None)
        self.value = self._values(everyone, np.full(len(batch), -1))
        self._trajectory = [[value] for value in self.value]
        self._num_evals = np.ones(len(batch), dtype=np.int64)

    def open_units(self, enough: float) -> np.ndarray:
        """Return the units that may still be added, of instances whose value is not enough yet."""
        return np.flatnonzero((self._step < 0) & (self.value < enough - TIE)[self._instance])

    def add_best(self, tried: np.ndarray) -> None:
        """Add of some units, in ascending order, the best of each instance; ties go to the first."""
        owner = self._instance[tried]
        values = self._values(owner, tried)
        ids, first, counts = np.unique(owner, return_index=True, return_counts=True)
        best = np.maximum.reduceat(values, first)
        # Rounding of probabilities is seen in their logarithms as it is, that of values in distances from the aim.
        size = np.maximum(np.abs(best), 1 if self._aim is None else np.abs(self._aim[ids]))
        tied = np.flatnonzero(values >= np.repeat(best - TIE * size, counts))
        won = tied[np.unique(owner[tied], return_index=True)[1]]
        self._num_evals[ids] += counts
        self._effect[tried[won]] = values[won] - self.value[ids]
        self.value[ids] = values[won]
        for i, unit in zip(ids, tried[won], strict=True):
            self._step[unit] = len(self._trajectory[i]) - 1
            self._trajectory[i].append(self.value[i])

    def _values(self, owner: np.ndarray, added: np.ndarray | None) -> np.ndarray:
        """Return what the model says of instances with the edges so far and one more unit each; None adds all."""
        variants = Variants(self._gnn, self._batch, owner)
        unit = self._units.of_edge
        stays = np.append(self._step, 0)[unit] >= 0  # also of edges without a unit, which is unit -1

        def keep(part: slice) -> np.ndarray:
            copied = variants.copied_edges(part)
            if added is None:
                return np.ones(len(copied), dtype=bool)
            return stays[copied] | (unit[copied] == np.repeat(added[part], np.diff(variants.edge_ptr)[part]))

        values = variants.log_values(variants.keep_edges(keep)).cpu().numpy()
        return values if self._aim is None else -np.abs(values - self._aim[owner])

    def masks(self) -> Masks:
        """Return scores by the order in which edges were added, and how that came about."""
        unit, batch = self._units.of_edge, self._batch
        inside = unit >= 0
        step = np.append(self._step, -1)[unit]  # the last one is for edges without a unit, which is unit -1
        sizes = np.bincount(unit[inside], minlength=len(self._step))
        effects = np.append(self._effect / sizes, 0.0)[unit]
        num_units = np.diff(self._units.ptr)[batch.edge_instance.cpu().numpy()]
        scores = np.where(step >= 0, (num_units - step) / np.maximum(num_units, 1), 0.0)
        spans = [slice(first, end) for first, end in pairwise(batch.graphs.edge_ptr)]
        extras: dict[str, list[Any]] = {
            "base": [float(trajectory[0]) for trajectory in self._trajectory],
            "effects": batch.split(torch.from_numpy(effects), "edge"),
            "trajectory": [np.array(trajectory) for trajectory in self._trajectory],
            "order": [_in_order(batch.edge_id[span], step[span]) for span in spans],
            "n_evals": self._num_evals.tolist(),
            "path": [self._gnn.path_once(batch)] * len(batch),
        }
        return Masks(edge=torch.from_numpy(scores), extras=extras)


def _in_order(ids: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the edges that were added, the first ones first."""
    order = np.argsort(step, kind="stable")
    return ids[order[step[order] >= 0]].astype(np.int64)
