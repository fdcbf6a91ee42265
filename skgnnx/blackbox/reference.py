"""What the untouched model says of every instance, on whole graphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.waking import Awake
from skgnnx.config import memory_budget
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import ComputationGraphs, whole_graphs
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.unions import shared_graphs

BEST_EDGES_PER_BATCH = 200_000
COMPARED = 8  # graphs that tell whether a model keeps the graphs of a batch apart


class FirstLook(NamedTuple):
    """A run of the model on what reaches the first instance, alone.

    Parameters
    ----------
    batch : GraphBatch
    output : Tensor
        As the model returns it.
    head : str or None
        Kind of the softmax or sigmoid that made the output, None where none was seen.
    """

    batch: GraphBatch
    output: Tensor
    head: str | None


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
        # Batches that are known to give the reference as they are; each is handed out once.
        self.compared: list[GraphBatch] = []
        self._largest = 0.0

    def outputs(self, batch: GraphBatch) -> Tensor:
        """Return one row per instance of a batch (B, C)."""
        with torch.no_grad():
            return self.rows_of(self.call(batch), batch)

    def rows_of(self, output: Tensor, batch: GraphBatch, num_nodes: int | None = None) -> Tensor:
        """Return the rows of a raw output that belong to the instances; `num_nodes` where it is of the first nodes."""
        num_nodes = batch.num_nodes if num_nodes is None else num_nodes
        expected = {"graph": len(batch), "node": num_nodes, "edge": batch.rows.shape[-1]}[batch.X.level]
        squeezed = output.dim() == 0 or (output.dim() == 1 and len(output) not in (1, num_nodes))
        if expected == 1 and squeezed and batch.X.level != "node":
            output = output.reshape(1, -1)
        if output.dim() == 0 or output.shape[0] != expected:
            raise ValueError(
                f"{self.name} must return one row per {batch.X.level} ({expected} here). Got shape "
                f"{tuple(output.shape)}; pool with the 'batch' vector, or use the Instances constructor of the "
                "right level."
            )
        output = output.flatten(1) if output.dim() > 1 else output.unsqueeze(1)
        return output.index_select(0, batch.rows) if batch.X.level == "node" else output

    def same(self, first: Tensor, second: Tensor) -> bool:
        """Return True if two outputs agree up to rounding of the largest output."""
        scale = max(self._largest, _largest(second))
        return first.shape == second.shape and bool(((first - second).abs() <= _rounding(first) * scale).all())

    def reference(self, look: Callable[[], FirstLook] | None = None) -> Tensor:
        """Return the output (n, C) for every instance, after checking that it can be trusted.

        Parameters
        ----------
        look : callable, optional
            Returns a run on what reaches the first instance, which is enough to see whether the model repeats itself.
        """
        if self.X.level != "graph" and not self.X.exclude_link:
            whole = shared_graphs(self.X, self.device)
            output = self.outputs(whole) if look is not None and self._repeats(look) else self._checked(whole)
        else:
            parts: list[Tensor] = []
            everything = np.arange(len(self.X))
            look = look if self.X.level == "graph" else None
            for rows, graphs in self.packed(whole_graphs(self.X, everything), everything, "auto"):
                batch = GraphBatch(self.X, rows, graphs, device=self.device)
                parts.append(self.outputs(batch) if parts else self._first(batch, look))
            output = torch.cat(parts)
        self._check_finite(output)
        self._largest = _largest(output)
        return output

    def _first(self, batch: GraphBatch, look: Callable[[], FirstLook] | None) -> Tensor:
        """Run some graphs of the first batch twice, and the first one alone; all must agree."""
        some = batch.take(np.arange(min(len(batch), COMPARED)))
        try:
            output = self._checked(some, look if len(some) == 1 else None)
        except (RuntimeError, IndexError, ValueError):
            if len(some) == 1 or not self._runs(some.take(np.array([0]))):
                raise
            self.explain_singly("takes one graph at a time")
            return self._one_by_one(batch)
        self._largest = _largest(output)
        if len(some) == 1:
            return output if len(batch) == 1 else self.outputs(batch)
        alone = self.outputs(some.take(np.array([0]))) if look is None else self.rows_of(look().output, look().batch)
        if self.same(alone, output[:1]) and self.independent(some):
            return output if len(some) == len(batch) else self.outputs(batch)
        self.explain_singly("mixes the graphs of a batch")
        return self._one_by_one(batch)

    def _one_by_one(self, batch: GraphBatch) -> Tensor:
        return torch.cat([self.outputs(batch.take(np.array([i]))) for i in range(len(batch))])

    def _runs(self, batch: GraphBatch) -> bool:
        try:
            self._checked(batch)
        except (RuntimeError, IndexError, ValueError):
            return False
        return True

    def _repeats(self, look: Callable[[], FirstLook]) -> bool:
        try:
            self._checked(look().batch, look)
        except (RuntimeError, IndexError, ValueError):
            return False
        return True

    @cached_property
    def _scale(self) -> float:
        """Size of the largest node feature."""
        values = self.X.store.columns["x"].values if "x" in self.X.store.columns else np.zeros(0)
        return max(float(values.max()), -float(values.min())) or 1.0 if values.size else 1.0

    def explain_singly(self, reason: str) -> None:
        """Put one instance into a batch from now on, and say why."""
        self.mixes_batch = True
        warnings.warn(
            f"{self.name} {reason}, so instances are explained one at a time; pass 'batch' to its pooling and "
            "normalisation to make it faster.",
            UserWarning,
            stacklevel=2,
        )

    def independent(self, batch: GraphBatch, elsewhere: tuple[Tensor, Tensor] | None = None) -> bool:
        """Return True if no output of an instance, all units awake, changes when only others get other features.

        Copies of one graph agree with each other in models that mix them, until each is masked in its own way. The
        first instance is set against all others, both ways round: the units of either may be asleep.

        Parameters
        ----------
        batch : GraphBatch
            Some instances.
        elsewhere : tuple of Tensor, optional
            Other features of the batch and the outputs for these, all units awake, where they are known.
        """
        if len(batch) == 1 or batch.x is None:
            return True
        first = (batch.node_instance == 0).view(-1, *(1,) * (batch.x.dim() - 1))
        known = [] if elsewhere is None else [elsewhere]
        for x, all_changed in chain(known, ((x, None) for x in other_features(batch, self._scale))):
            mixed = [batch.x, torch.where(first, batch.x, x), torch.where(first, x, batch.x), x]
            try:
                with torch.no_grad(), Awake():
                    rows = [self.rows_of(self.call(batch, f), batch) for f in mixed[: 4 if all_changed is None else 3]]
            except Exception:
                continue  # not every model takes every value, and each refuses in its own way
            rows += [] if all_changed is None else [all_changed]
            if all(bool(torch.isfinite(row).all()) for row in rows):
                output, others_changed, first_changed, all_changed = rows
                own = torch.cat([others_changed[:1], first_changed[1:], first_changed[:1], others_changed[1:]])
                return self.same(own, torch.cat([output[:1], output[1:], all_changed[:1], all_changed[1:]]))
        return True

    def keeps_apart(self, alone: GraphBatch, twice: GraphBatch) -> bool:
        """Return True if a copy of an instance has its output, whatever features the other copy in its batch has."""
        try:
            return self.same(self.outputs(twice)[1:], self.outputs(alone)) and self.independent(twice)
        except (RuntimeError, IndexError, ValueError):
            return False

    def outputs_elsewhere(self, batches: list[GraphBatch]) -> list[tuple[Tensor, Tensor]] | None:
        """Return other features of several batches, the same of each node, and the outputs, all units awake.

        None if the model refuses all such features.
        """
        for features in zip(*(other_features(batch, self._scale) for batch in batches)):
            try:
                with torch.no_grad(), Awake():
                    outputs = [self.rows_of(self.call(b, x), b) for b, x in zip(batches, features)]
            except Exception:
                continue
            if all(bool(torch.isfinite(output).all()) for output in outputs):
                return list(zip(features, outputs))
        return None

    def _checked(self, batch: GraphBatch, look: Callable[[], FirstLook] | None = None) -> Tensor:
        """Return the outputs of a batch after running it twice, or once more than for a look at the same graphs."""
        first = self.outputs(batch) if look is None else self.rows_of(look().output, batch)
        second = self.outputs(batch)
        if not self.same(first.nan_to_num(), second.nan_to_num()):
            raise ValueError(
                f"{self.name} must give the same output twice in evaluation mode. Got outputs that differ by "
                f"{float((first - second).abs().max()):.2g}; pass training=self.training to functional dropout."
            )
        return first

    def _check_finite(self, output: Tensor) -> None:
        bad = ~torch.isfinite(output).all(dim=1)
        if bool(bad.any()):
            raise ValueError(
                f"The output of {self.name} must be finite. Got NaN or infinity for instance {int(bad.nonzero()[0])}; "
                "check its weights and inputs."
            )

    @property
    def rows_at_once(self) -> int:
        """How many nodes and edges a batch may have."""
        # A forward and backward pass keeps every message and a few copies of it.
        return min(BEST_EDGES_PER_BATCH, memory_budget() // (4 * 6 * max(self.message_width, 16)))

    def packed(
        self, graphs: ComputationGraphs, rows: np.ndarray, batch_size: int | str
    ) -> Iterator[tuple[np.ndarray, ComputationGraphs]]:
        """Cut consecutive instances, whose graphs are given, into batches that fit the memory budget."""
        most = len(rows) if batch_size == "auto" else int(batch_size)
        most = 1 if self.mixes_batch else most
        size = graphs.edge_ptr + graphs.node_ptr
        start = 0
        while start < len(rows):
            stop = int(np.searchsorted(size, size[start] + self.rows_at_once, side="right")) - 1
            stop = min(max(stop, start + 1), start + most, len(rows))
            most = 1 if self.mixes_batch else most
            yield rows[start:stop], graphs.take(np.arange(start, stop))
            start = stop


def other_features(batch: GraphBatch, scale: float) -> Iterator[Tensor]:
    """Yield features that differ from the user's, node by node; the same node gets the same ones in every batch."""
    if batch.x is None:
        return
    node, x = torch.from_numpy(batch.graphs.node_id).to(batch.device), batch.x
    values = batch.X.store.columns["x"].values
    if x.is_floating_point() and x.numel():
        # Fractions of multiples of irrational numbers: different for every entry, and cheap on wide features.
        column = torch.arange(x[0].numel(), device=x.device, dtype=torch.float64).view(1, *x.shape[1:])
        of_node = (node.double() * 0.6180339887).frac().to(x.dtype).view(-1, *(1,) * (x.dim() - 1))
        wave = (of_node + (column * 0.7548776662).frac().to(x.dtype)).frac_()
        yield wave.mul_(2 * scale).sub_(scale).sub_(x)
    if not x.is_floating_point() and x.dtype != torch.bool and x.numel() and int(values.min()) >= 0:
        # Categories up to the largest of their column: another one for every entry, or as many as there are.
        last = torch.from_numpy(np.asarray(values.max(axis=0))).to(x)
        step = 1 + node.view(-1, *(1,) * (x.dim() - 1)) % last.clamp(min=1)
        yield ((x + step) % (last + 1)).to(x.dtype)
    yield torch.from_numpy(values[(batch.graphs.node_id * 7 + 3) % len(values)]).to(batch.device)


def _largest(output: Tensor) -> float:
    return float(output.nan_to_num(0, 0, 0).abs().max()) if output.numel() else 0.0


def _rounding(output: Tensor) -> float:
    return {torch.float64: 1e-9, torch.float32: 1e-5}.get(output.dtype, 2e-2)
