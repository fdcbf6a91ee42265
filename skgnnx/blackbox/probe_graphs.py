"""Small graphs on which a model shows what it does: a path, a cycle, a tournament, the user's graph made acyclic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import Column, offsets
from skgnnx.graphs.computation_graph import whole_graphs
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.store import GraphStore
from skgnnx.graphs.unions import shared_graphs

CYCLE_NODES = 5
TOURNAMENT_NODES = 6


class Part(NamedTuple):
    """One of several small graphs that are put side by side: its edges and the number of its nodes."""

    edges: np.ndarray
    num_nodes: int


def path(num_nodes: int, *, both_ways: bool = False) -> Part:
    """Return a path from its first node to its last, and back as well if messages are to run both ways."""
    edges = np.stack([np.arange(num_nodes - 1), np.arange(1, num_nodes)])
    return Part(np.concatenate([edges, edges[::-1]], axis=1) if both_ways else edges, num_nodes)


def cycle(step: int) -> Part:
    """Return a directed cycle through five nodes; with steps of 1 or 2 all degrees are 1, and all neighbours differ."""
    nodes = np.arange(CYCLE_NODES)
    return Part(np.stack([nodes, (nodes + step) % CYCLE_NODES]), CYCLE_NODES)


def tournament_batch(X: Instances, device: torch.device) -> GraphBatch:
    """Return a graph in which every node has an edge to all later ones, so that numbers of messages differ."""
    target, source = np.tril_indices(TOURNAMENT_NODES, k=-1)  # in the order of a sparse matrix
    return probe_batch(X, [Part(np.stack([source, target]), TOURNAMENT_NODES)], device)


def own_graph_batch(X: Instances, device: torch.device) -> GraphBatch:
    """Return the first graph that is explained, with those edges only that lead to a node of a higher number."""
    rows = np.array([0])
    if X.level == "graph":
        batch = GraphBatch(X, rows, whole_graphs(X, rows), device=device)
    else:
        batch = shared_graphs(X[:1], device)
    source, target = batch.edge_index.cpu().numpy()
    rows_of_output = batch.rows
    batch = batch.keep_edges(source < target)
    batch.rows = rows_of_output
    return batch


def probe_batch(X: Instances, parts: list[Part], device: torch.device) -> GraphBatch:
    """Return small graphs side by side, each with attributes of the first graph that is explained.

    They are graphs of their own where graphs are explained, and together one graph where nodes or links are: all of its
    nodes are explained then.
    """
    graph, alone = X.graph_index[0], X.level == "graph"
    sizes = {"node": [part.num_nodes for part in parts], "edge": [part.edges.shape[1] for part in parts]}
    ptr = {slot: offsets(counts if alone else [sum(counts)]) for slot, counts in sizes.items()}
    columns = {key: _filled(column, graph, sizes, ptr, alone) for key, column in X.store.columns.items()}
    objects = {key: [values[graph]] * (len(parts) if alone else 1) for key, values in X.store.objects.items()}
    first = offsets(sizes["node"])[:-1] * (not alone)
    edges = np.concatenate([part.edges + start for part, start in zip(parts, first, strict=True)], axis=1)
    store = GraphStore(edges, ptr["node"], ptr["edge"], columns, objects, X.store.sparse)
    if alone:
        rows = np.arange(len(parts))
        Z = Instances(store, rows, np.empty((len(parts), 0), dtype=np.int64))
        return GraphBatch(Z, rows, whole_graphs(Z, rows), device=device)
    total = sum(sizes["node"])
    element = np.repeat(np.arange(total)[:, None], X.element.shape[1], axis=1)
    return shared_graphs(Instances(store, np.zeros(total, dtype=np.int64), element), device)


def _filled(column: Column, graph: int, sizes: dict[str, list[int]], ptr: dict[str, np.ndarray], alone: bool) -> Column:
    """Return a column of the right length with values of the user's graph, the same ones in every part."""
    values = column.of(graph)
    if column.slot == "graph":
        # Keys that run along the last axis hold node ids, which must exist here.
        parts = sizes["node"] if alone else [sum(sizes["node"])]
        whole = column.along_last and values.dtype.kind in "iu"
        copies = [values % size if whole else values for size in parts]
        axis = values.ndim - 1 if column.along_last else 0
        length = [copy.shape[axis] for copy in copies]
        return Column("graph", np.concatenate(copies, axis=axis), offsets(length), column.along_last)
    values = values if len(values) else column.values
    values = values if len(values) else np.zeros((1, *values.shape[1:]), values.dtype)
    index = np.concatenate([np.arange(size) % len(values) for size in sizes[column.slot]])
    return Column(column.slot, values[index], ptr[column.slot])
