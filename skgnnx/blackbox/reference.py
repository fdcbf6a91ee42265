"""What the untouched model says of every instance, on whole graphs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.calling import ModelCall
from skgnnx.config import memory_budget
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import ComputationGraphs, whole_graphs
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.unions import shared_graphs

BEST_EDGES_PER_BATCH = 200_000


class PlainRuns:
    """Runs of the model without gradient and without masks.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    X : Instances
        What is explained.
    device : torch.device
        Device of the model.
    message_width : int
        Numbers of all messages over one edge in one forward pass; bounds the size of a batch.
    """

    def __init__(self, call: ModelCall, X: Instances, device: torch.device, message_width: int) -> None:
        self.call = call
        self.X = X
        self.device = device
        self.name = type(call.model).__name__
        self.message_width = message_width
        self.mixes_batch = False

    def outputs(self, batch: GraphBatch) -> Tensor:
        """Return one row per instance of a batch (B, C)."""
        with torch.no_grad():
            return self.rows_of(self.call(batch), batch)

    def rows_of(self, output: Tensor, batch: GraphBatch) -> Tensor:
        """Return the rows of a raw output that belong to the instances."""
        expected = {"graph": len(batch), "node": batch.num_nodes, "edge": batch.rows.shape[-1]}[batch.X.level]
        if output.dim() == 0 or output.shape[0] != expected:
            raise ValueError(
                f"{self.name} must return one row per {batch.X.level} ({expected} here). Got shape "
                f"{tuple(output.shape)}; pool with the 'batch' vector, or use the Instances constructor of the "
                "right level."
            )
        output = output.flatten(1) if output.dim() > 1 else output.unsqueeze(1)
        return output[batch.rows] if batch.X.level == "node" else output

    def same(self, first: Tensor, second: Tensor) -> bool:
        """Return True if two outputs agree up to rounding."""
        tolerance = 1e-9 if first.dtype == torch.float64 else 1e-5
        scale = max(float(second.abs().max()), 1.0) if second.numel() else 1.0
        return bool(((first - second).abs() <= tolerance * scale).all())

    def reference(self) -> Tensor:
        """Return the output (n, C) for every instance, after checking that it can be trusted."""
        if self.X.level != "graph" and not self.X.exclude_link:
            return self._checked(shared_graphs(self.X, self.device))
        outputs: list[Tensor] = []
        everything = np.arange(len(self.X))
        for rows, graphs in self.packed(whole_graphs(self.X, everything), everything, "auto"):
            batch = GraphBatch(self.X, rows, graphs, device=self.device)
            outputs.append(self.outputs(batch) if outputs else self._first(batch))
        return torch.cat(outputs)

    def _first(self, batch: GraphBatch) -> Tensor:
        """Run the first batch twice and its first graph alone; all must agree."""
        output = self._checked(batch)
        if len(batch) == 1 or self.same(self.outputs(batch.take(np.array([0]))), output[:1]):
            return output
        self.mixes_batch = True
        warnings.warn(
            f"{self.name} mixes the graphs of a batch, so graphs are explained one at a time; pass 'batch' to "
            "its pooling "
            "and normalisation to make it faster.",
            UserWarning,
            stacklevel=2,
        )
        return torch.cat([self.outputs(batch.take(np.array([i]))) for i in range(len(batch))])

    def _checked(self, batch: GraphBatch) -> Tensor:
        first, second = self.outputs(batch), self.outputs(batch)
        if not bool(torch.isfinite(first).all()):
            raise ValueError(
                f"The output of {self.name} must be finite. Got NaN or infinity; check its weights and inputs."
            )
        if not self.same(first, second):
            raise ValueError(
                f"{self.name} must give the same output twice in evaluation mode. Got outputs that differ by "
                f"{float((first - second).abs().max()):.2g}; pass training=self.training to functional dropout."
            )
        return first

    def packed(
        self, graphs: ComputationGraphs, rows: np.ndarray, batch_size: int | str
    ) -> Iterator[tuple[np.ndarray, ComputationGraphs]]:
        """Cut consecutive instances, whose graphs are given, into batches that fit the memory budget."""
        most = len(rows) if batch_size == "auto" else int(batch_size)
        most = 1 if self.mixes_batch else most
        # A forward and backward pass keeps every message and a few copies of it.
        budget = min(BEST_EDGES_PER_BATCH, memory_budget() // (4 * 6 * max(self.message_width, 16)))
        size = graphs.edge_ptr + graphs.node_ptr
        start = 0
        while start < len(rows):
            stop = int(np.searchsorted(size, size[start] + budget, side="right")) - 1
            stop = min(max(stop, start + 1), start + most, len(rows))
            most = 1 if self.mixes_batch else most
            yield rows[start:stop], graphs.take(np.arange(start, stop))
            start = stop
