"""Batches of computation graphs, each proven to give the model's own prediction."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.normalisation import LayerUse, without_ring
from skgnnx.blackbox.receptive_field import ModelTrace
from skgnnx.blackbox.reference import PlainRuns
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import ComputationGraphs, receptive_fields, whole_graphs
from skgnnx.graphs.instances import Instances

EXTRACTED_AT_ONCE = 2_048
SAMPLED = 8


class Cut(IntEnum):
    """How a prediction is cut out of its graph, from the smallest cut to none."""

    HOPS = 0
    NORMALISED = 1
    RING = 2
    WHOLE = 3


class Batcher:
    """Cuts instances out of their graphs and proves that the cut changes no prediction.

    Parameters
    ----------
    runs : PlainRuns
        The model.
    trace : ModelTrace
        Its receptive field.
    reference : Tensor of shape (n, C)
        Its outputs on whole graphs.
    targets : ndarray of shape (n,)
        Explained classes or columns.
    """

    def __init__(self, runs: PlainRuns, trace: ModelTrace, reference: Tensor, targets: np.ndarray) -> None:
        self.runs = runs
        self.trace = trace
        self.reference = reference
        self.targets = targets
        self.level = runs.X.level
        self._least = Cut.WHOLE if self.level == "graph" or trace.hops is None else Cut.HOPS
        self._warned = False
        # A layer that is called several times must keep what its farthest-reaching call needs.
        self._uses: dict[str, LayerUse] = {}
        for name, reach, kind in zip(trace.names, trace.reach, trace.kinds, strict=True):
            known = self._uses.get(name)
            self._uses[name] = LayerUse(max(reach, known.reach if known else 0), kind)

    def batches(self, positions: np.ndarray, batch_size: int | str, *, removal: bool = False) -> Iterator[GraphBatch]:
        """Yield batches of consecutive instances.

        Parameters
        ----------
        positions : ndarray of int
            Rows of the instances.
        batch_size : int or "auto"
            Most instances in a batch.
        removal : bool, default=False
            True if edges will be removed, so that degrees have to be computed afresh.
        """
        if self._least < Cut.WHOLE and len(positions):
            sample = positions[np.linspace(0, len(positions) - 1, min(SAMPLED, len(positions))).astype(int)]
            self._least = max(self._least, self._proven(sample, self._least, removal)[1])
        for part in np.split(positions, range(EXTRACTED_AT_ONCE, len(positions), EXTRACTED_AT_ONCE)):
            cut = self._least if not (removal and self._least == Cut.NORMALISED) else Cut.RING
            for rows, graphs in self.runs.packed(self._extract(part, cut), part, batch_size):
                yield self._proven(rows, cut, removal, graphs)[0]

    def _proven(
        self, rows: np.ndarray, cut: Cut, removal: bool, graphs: ComputationGraphs | None = None
    ) -> tuple[GraphBatch, Cut]:
        """Return a batch that gives the reference, cut as little as that takes."""
        while True:
            batch = self._make(rows, cut, graphs)
            if batch is not None and (self.level == "graph" or self._is_exact(batch)):
                self._warn_if_whole(cut)
                return batch, cut
            if cut == Cut.WHOLE:
                raise ValueError(
                    f"{self.runs.name} must treat disjoint graphs independently. Got other outputs for a batch "
                    "of copies; use "
                    "batch_size=1."
                )
            cut = Cut(cut + 1)
            cut = Cut.RING if removal and cut == Cut.NORMALISED else cut
            graphs = None

    def _make(self, rows: np.ndarray, cut: Cut, graphs: ComputationGraphs | None) -> GraphBatch | None:
        graphs = self._extract(rows, cut) if graphs is None else graphs
        batch = GraphBatch(self.runs.X, rows, graphs, self.targets[rows], self.runs.device)
        return without_ring(self.runs.call, batch, self._uses) if cut == Cut.NORMALISED else batch

    def _extract(self, rows: np.ndarray, cut: Cut) -> ComputationGraphs:
        X: Instances = self.runs.X
        if cut == Cut.WHOLE or self.trace.hops is None:
            return whole_graphs(X, rows)
        return receptive_fields(X, rows, self.trace.hops, int(cut > Cut.HOPS), self.trace.both_ways)

    def _is_exact(self, batch: GraphBatch) -> bool:
        expected = self.reference[torch.from_numpy(batch.positions).to(self.reference.device)]
        return self.runs.same(self.runs.outputs(batch), expected)

    def _warn_if_whole(self, cut: Cut) -> None:
        if cut < Cut.WHOLE or self._warned or self.level == "graph":
            return
        self._warned = True
        warnings.warn(
            f"{self.runs.name} mixes nodes of the whole graph, so every explanation runs on the whole graph.",
            UserWarning,
            stacklevel=2,
        )
