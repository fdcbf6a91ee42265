"""Batches of instances that are too large and are thinned: what is left of each has a prediction of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.normalisation import Normaliser
from skgnnx.blackbox.plan import Setup
from skgnnx.blackbox.reference import PlainRuns
from skgnnx.blackbox.shortcuts import Shortcuts
from skgnnx.blackbox.trimming import Trim
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import ComputationGraphs, receptive_fields_in_groups, whole_graphs_in_groups
from skgnnx.graphs.neighbour_sampling import sample_neighbours

TRIED = 8  # instances on which it is tried what layers may leave out


class Part(NamedTuple):
    """Some instances and their computation graphs.

    Parameters
    ----------
    rows : ndarray of int
        The instances.
    graphs : ComputationGraphs
        In the same order.
    """

    rows: np.ndarray
    graphs: ComputationGraphs

    @classmethod
    def joined(cls, parts: list[Part]) -> Part | None:
        """Join parts, None where there are none."""
        if not parts:
            return None
        return cls(np.concatenate([part.rows for part in parts]), ComputationGraphs.concat([p.graphs for p in parts]))

    def take(self, chosen: np.ndarray) -> Part:
        """Return those for which `chosen` is true."""
        return self if chosen.all() else Part(self.rows[chosen], self.graphs.take(np.flatnonzero(chosen)))


class NeighbourSampler:
    """Thins instances with too many edges, and runs them.

    Parameters
    ----------
    runs : PlainRuns
        The model as it is.
    setup : Setup
        The model as it runs on cuts, and its receptive field.
    reference : Tensor of shape (n, C)
        Outputs on whole graphs.
    targets : ndarray of shape (n,)
        Explained classes or columns.
    max_edges : int >= 1
        Most edges of an instance.
    random_state : int
        Root seed of the draw.

    Attributes
    ----------
    outputs : Tensor of shape (n, C)
        Outputs that are explained: those on thinned graphs for thinned instances.
    """

    def __init__(
        self,
        runs: PlainRuns,
        setup: Setup,
        reference: Tensor,
        targets: np.ndarray,
        *,
        max_edges: int,
        random_state: int,
    ) -> None:
        self.runs, self.setup, self.targets = runs, setup, targets
        self.max_edges, self.random_state = max_edges, random_state
        self._sizes: dict[int, tuple[int, int]] = {}
        self.outputs = reference.clone()
        self._shortcuts = Shortcuts(runs, setup)
        self._trims: dict[bool, Trim] = {}

    def split(self, rows: np.ndarray, whole: bool) -> tuple[Part | None, Part | None]:
        """Return the instances that are small enough, and the others, thinned.

        Graphs are looked at a few at a time: the large ones are never all there at once.

        Parameters
        ----------
        rows : ndarray of int
            Instances.
        whole : bool
            Whether predictions see whole graphs.
        """
        small, large = [], []
        for part in self._found(rows, whole):
            over = np.diff(part.graphs.edge_ptr) > self.max_edges
            if not over.all():
                small.append(part.take(~over))
            if over.any():
                large.append(self._thinned(part.take(over)))
        return Part.joined(small), Part.joined(large)

    def smallest(self, rows: np.ndarray) -> np.ndarray:
        """Return the instances, predicted from parts, that are not thinned; if all are, the smallest one."""
        edges = np.concatenate([np.diff(part.graphs.edge_ptr) for part in self._found(rows, whole=False)])
        return rows[edges <= max(self.max_edges, edges.min())]

    def some(self, rows: np.ndarray, whole: bool) -> GraphBatch:
        """Return a batch of some of the instances: those that are thinned, or the others if there are more."""
        part = max((part for part in self.split(rows, whole) if part is not None), key=lambda part: len(part.rows))
        return self._batch(part)

    def _found(self, rows: np.ndarray, whole: bool) -> Iterator[Part]:
        X, trace = self.runs.X, self.setup.trace
        groups = (
            whole_graphs_in_groups(X, rows)
            if whole
            else receptive_fields_in_groups(X, rows, trace.hops or 0, 0, trace.both_ways)
        )
        return (Part(*group) for group in groups)

    def _batch(self, part: Part) -> GraphBatch:
        rows, graphs = part
        return GraphBatch(self.runs.X, rows, graphs, self.targets[rows], self.runs.device)

    def _thinned(self, part: Part) -> Part:
        both_ways = self.setup.trace.both_ways
        graphs = sample_neighbours(self.runs.X, *part, self.max_edges, self.random_state, both_ways)
        counts = (np.diff(ptr).tolist() for ptr in (part.graphs.edge_ptr, graphs.edge_ptr))
        self._sizes.update(zip(part.rows.tolist(), zip(*counts, strict=True), strict=True))
        return Part(part.rows, graphs)

    def batches(
        self, part: Part, batch_size: int | str, whole: bool, normaliser: Normaliser | None
    ) -> Iterator[GraphBatch]:
        """Yield batches of thinned instances that run like the model itself.

        No other prediction tells whether they are right: what is left of a graph has one of its own.

        Parameters
        ----------
        part : Part
            What `split` has thinned.
        batch_size : int or "auto"
            Most instances in a batch.
        whole : bool
            Whether predictions see whole graphs.
        normaliser : Normaliser or None
            Hands true degrees to layers that take them; None where they are computed of what is left.
        """
        for rows, graphs in self.runs.packed(part.graphs, part.rows, batch_size):
            batch = self._batch(Part(rows, graphs))
            if normaliser is not None and normaliser.prepare_part(rows, graphs.node_id, graphs.summing_nodes):
                normaliser.hand_to(batch)
            outputs = self.runs.outputs(batch)
            self.outputs[torch.from_numpy(rows).to(outputs.device)] = outputs
            self.setup.put(batch, self._trim(batch, whole))
            self._shortcuts.gives(batch, outputs)  # shortcuts go until it does; without any it is the model as it is
            yield batch

    def said(self, change: Tensor) -> list[dict[str, Any] | None]:
        """Return for each instance how many edges reach it, how many were kept and what that changed; None if all were.

        Parameters
        ----------
        change : Tensor of shape (n,)
            Of the prediction.
        """
        said: list[dict[str, Any] | None] = [None] * len(change)
        for position, (edges, kept) in self._sizes.items():
            said[position] = {"edges": edges, "kept": kept, "change": float(change[position])}
        return said

    def _trim(self, batch: GraphBatch, whole: bool) -> Trim:
        """Return how much layers may leave out of such batches."""
        if whole and self.runs.X.level != "graph":
            return Trim.NONE
        if whole not in self._trims:
            self._trims[whole] = self._shortcuts.of(batch.take(np.arange(min(TRIED, len(batch)))))
        return self._trims[whole]
