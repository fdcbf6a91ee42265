"""The model's predictions on a graph that no single forward pass fits: from cuts that agree with wider cuts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.normalisation import Normaliser
from skgnnx.blackbox.plan import Setup
from skgnnx.blackbox.receptive_field import ModelTrace
from skgnnx.blackbox.reference import PlainRuns
from skgnnx.blackbox.trimming import Trim
from skgnnx.config import memory_budget
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import ComputationGraphs, receptive_fields
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.neighbourhoods import condensed_neighbourhood, condensed_size, distinct, joint_neighbourhood
from skgnnx.graphs.unions import shared_graphs

WIDEST_RING = 3
COMPARED = 2
FAR_NODES = 64
ALWAYS_ALLOWED = 100_000  # edges that no memory budget is too small for
BYTES_OF_BATCH = 300  # what a node or an edge of a batch takes that has been run
BYTES_OF_PRODUCT = 240  # what one edge takes while a layer normalises it and its place in a sparse product is found


def bytes_of_whole(X: Instances, trace: ModelTrace) -> int:
    """Return the memory that one forward pass over the graphs of all instances takes, roughly."""
    store, graphs = X.store, np.unique(X.graph_index)
    size = int((np.diff(store.edge_ptr)[graphs] + np.diff(store.node_ptr)[graphs]).sum())
    return bytes_of(size, trace)


def bytes_of(size: int, trace: ModelTrace) -> int:
    """Return the memory that one forward pass over so many nodes and edges takes, roughly.

    Without gradient the messages of one call are alive at a time, with their sources and their weighted copy.
    """
    return 4 * 3 * size * max([*trace.widths, 1])


def wider_cut(runs: PlainRuns, trace: ModelTrace, batch: GraphBatch, ring: int) -> tuple[GraphBatch | None, np.ndarray]:
    """Return more of the graph than a batch of instances holds, and which of them it holds; None if none fits.

    Where the whole graph fits, that is all of it or what leads to the nodes of the batch, with nodes from everywhere.
    Where it does not, it is a further ring around a few small instances.

    Parameters
    ----------
    runs : PlainRuns
    trace : ModelTrace
    batch : GraphBatch
        Node or link instances.
    ring : int
        Rings around what reaches an instance, one more than in the batch.
    """
    X, rows = batch.X, batch.positions
    if not X.exclude_link and bytes_of_whole(X, trace) <= memory_budget():
        far = np.linspace(0, X.store.total_nodes - 1, FAR_NODES).astype(np.int64)
        nodes = distinct(np.concatenate([batch.graphs.node_id, far]))
        if 2 * degrees(X, nodes, trace.both_ways) > X.store.total_edges:
            return shared_graphs(X[rows], runs.device), np.arange(len(rows))
        return joint_neighbourhood(X, rows, nodes, trace.both_ways, runs.device), np.arange(len(rows))
    few = np.argsort(np.diff(batch.graphs.edge_ptr), kind="stable")[:COMPARED]
    graphs = receptive_fields(X, rows[few], trace.hops or 0, ring, trace.both_ways)
    if bytes_of(len(graphs.edge_id) + len(graphs.node_id), trace) > memory_budget():
        return None, few
    return GraphBatch(X, rows[few], graphs, device=runs.device), few


def degrees(X: Instances, nodes: np.ndarray, both_ways: bool) -> int:
    """Return how many edges lead to some nodes, or lead to or leave them."""
    indices = (X.store.in_edges, X.store.out_edges) if both_ways else (X.store.in_edges,)
    return sum(int((index.ptr[nodes + 1] - index.ptr[nodes]).sum()) for index in indices)


class CutReference:
    """Outputs for nodes or links of a graph that does not fit in the memory budget.

    Parameters
    ----------
    runs : PlainRuns
        The model as it is.
    setup : Setup
        The model as it runs on cuts.
    normaliser : Normaliser
        Hands true degrees to layers that need them.
    """

    def __init__(self, runs: PlainRuns, setup: Setup, normaliser: Normaliser) -> None:
        self.runs, self.setup, self.normaliser = runs, setup, normaliser
        self.X = runs.X
        general = [w for number, w in enumerate(setup.trace.widths) if setup.fusion(number) is None]
        self._most_edges = memory_budget() // max(4 * 3 * max([*general, 1]), BYTES_OF_PRODUCT)

    def outputs(self) -> Tensor:
        """Return the output (n, C) for every node or link without running the model on a whole graph.

        Instances share one neighbourhood, one ring wider than what reaches any of them, where their outputs must be
        what each has alone; otherwise it grows by further rings until two of them agree.

        Raises
        ------
        MemoryError
            If the prediction sees the whole graph, or cuts do not come to agree.
        """
        if self.setup.trace.hops is None or self.X.exclude_link:
            raise self._too_large()
        rows = np.arange(len(self.X))
        return torch.cat([self._agreed(part, graphs) for part, graphs in self._parts(rows)])

    def _parts(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, ComputationGraphs]]:
        """Yield instances whose shared neighbourhood fits, with what reaches each of them."""
        graphs = receptive_fields(self.X, rows, self.setup.trace.hops or 0, 0, self.setup.trace.both_ways)
        if len(rows) == 1 or self._least_edges(graphs) <= self._most_edges:
            yield rows, graphs
            return
        for half in np.array_split(rows, 2):
            yield from self._parts(half)

    def _least_edges(self, graphs: ComputationGraphs) -> int:
        if self.setup.trace.both_ways:
            return self._degrees(graphs.node_id)
        return condensed_size(self.X, distinct(graphs.node_id), distinct(graphs.summing_nodes))

    def _degrees(self, node_id: np.ndarray) -> int:
        return degrees(self.X, distinct(node_id), self.setup.trace.both_ways)

    def _agreed(self, rows: np.ndarray, graphs: ComputationGraphs) -> Tensor:
        outputs = None if self.setup.trace.both_ways else self._condensed(rows, graphs)
        if outputs is not None and self._are_had_alone(outputs, rows, graphs):
            return outputs
        return self._agreed_whole(rows, graphs)

    def _condensed(self, rows: np.ndarray, graphs: ComputationGraphs) -> Tensor | None:
        """Return the outputs where most of what leads to the outermost nodes is left out, None where that is no use."""
        if self.setup.trace.outer_degrees:
            return None
        nodes, summing = distinct(graphs.node_id), distinct(graphs.summing_nodes)
        condensed = condensed_neighbourhood(self.X, rows, nodes, summing, self.runs.device)
        if condensed is None:
            return None
        found: list[Tensor] = []

        def run() -> None:
            found.append(self._on(condensed.batch))

        if not self.normaliser.has_layers:
            run()
        elif not self.normaliser.learn_condensed(condensed, run):
            return None
        return found[0]

    def _agreed_whole(self, rows: np.ndarray, graphs: ComputationGraphs) -> Tensor:
        nodes = distinct(graphs.node_id)
        if len(rows) > 1 and self._degrees(nodes) > self._most_edges:
            return self._of_halves(rows, graphs)
        union, found = self._union(rows, nodes), []
        self.normaliser.learn(union, lambda: found.append(self._on(union)))
        outputs = found[0] if found else self._on(union)
        if self._are_had_alone(outputs, rows, graphs):
            return outputs
        for _ in range(1, WIDEST_RING):
            nodes = union.graphs.node_id
            if self._degrees(nodes) > max(self._most_edges, ALWAYS_ALLOWED):
                if len(rows) == 1:
                    break
                return self._of_halves(rows, graphs)
            union = self._union(rows, nodes)
            wider = self._on(union)
            if self.runs.same(outputs, wider):
                return wider
            outputs = wider
        raise self._too_large()

    def _of_halves(self, rows: np.ndarray, graphs: ComputationGraphs) -> Tensor:
        halves = np.array_split(np.arange(len(rows)), 2)
        return torch.cat([self._agreed_whole(rows[half], graphs.take(half)) for half in halves])

    def _union(self, rows: np.ndarray, nodes: np.ndarray) -> GraphBatch:
        return joint_neighbourhood(self.X, rows, nodes, self.setup.trace.both_ways, self.runs.device)

    def _are_had_alone(self, outputs: Tensor, rows: np.ndarray, graphs: ComputationGraphs) -> bool:
        """Return True if every instance has the same output in a graph of its own, trimmed or not."""
        for trim in (Trim.TARGETS, Trim.PAIRS):
            kept: list[GraphBatch] = []
            try:
                if self.runs.same(self._alone(rows, graphs, trim, kept), outputs):
                    self.runs.compared += kept
                    return True
            except Exception:
                continue  # not every model can be trimmed, and each refuses in its own way
        return self.runs.same(self._alone(rows, graphs, Trim.NONE, []), outputs)

    def _alone(self, rows: np.ndarray, graphs: ComputationGraphs, trim: Trim, kept: list[GraphBatch]) -> Tensor:
        """Return the outputs when every instance has a graph of its own, with true degrees where layers take them.

        Batches are kept while there is room for them.
        """
        handed, parts = self.normaliser.prepare(rows, graphs.node_id, graphs.summing_nodes), []
        before = sum(batch.num_nodes + batch.num_edges for batch in self.runs.compared)
        room = memory_budget() // (4 * BYTES_OF_BATCH) - before
        for chosen, cut in self.runs.packed(graphs, rows, "auto"):
            batch = GraphBatch(self.X, chosen, cut, device=self.runs.device)
            batch = self.normaliser.hand_to(batch) if handed else batch
            self.setup.put(batch, trim)
            parts.append(self._on(batch))
            room -= batch.num_nodes + batch.num_edges
            kept += [batch] if room >= 0 else []
        return torch.cat(parts)

    def _on(self, batch: GraphBatch) -> Tensor:
        with torch.no_grad():
            return self.setup.rows(self.setup.run(batch), batch, self.runs)

    def _too_large(self) -> MemoryError:
        return MemoryError(
            f"The memory budget must hold a forward pass of {self.runs.name} over the whole graph, because its "
            f"predictions cannot be had from a part. Got {memory_budget() / 2**20:.0f} MB, needed about "
            f"{bytes_of_whole(self.X, self.setup.trace) / 2**20:.0f} MB; raise it with "
            "config_context(memory_budget=...)."
        )
