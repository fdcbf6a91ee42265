"""Small graphs on which a model shows what it does: a path, a cycle, a tournament, the user's graph made acyclic."""

from __future__ import annotations

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


def path_batch(X: Instances, num_nodes: int, device: torch.device, *, both_ways: bool = False) -> GraphBatch:
    """Return a path whose nodes and edges have attributes of the first graph that is explained."""
    edges = np.stack([np.arange(num_nodes - 1), np.arange(1, num_nodes)])
    return _probe(X, np.concatenate([edges, edges[::-1]], axis=1) if both_ways else edges, num_nodes, device)


def cycle_batch(X: Instances, device: torch.device, *, step: int) -> GraphBatch:
    """Return a directed cycle through five nodes; with steps of 1 or 2 all degrees are 1, and all neighbours differ."""
    nodes = np.arange(CYCLE_NODES)
    return _probe(X, np.stack([nodes, (nodes + step) % CYCLE_NODES]), CYCLE_NODES, device)


def tournament_batch(X: Instances, device: torch.device) -> GraphBatch:
    """Return a graph in which every node has an edge to all later ones, so that numbers of messages differ."""
    source, target = np.triu_indices(TOURNAMENT_NODES, k=1)
    return _probe(X, np.stack([source, target]), TOURNAMENT_NODES, device)


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


def _probe(X: Instances, edge_index: np.ndarray, num_nodes: int, device: torch.device) -> GraphBatch:
    graph = X.graph_index[0]
    sizes = {"node": num_nodes, "edge": edge_index.shape[1]}
    columns = {key: _filled(column, graph, sizes) for key, column in X.store.columns.items()}
    objects = {key: [values[graph]] for key, values in X.store.objects.items()}
    node_ptr, edge_ptr = offsets([num_nodes]), offsets([edge_index.shape[1]])
    store = GraphStore(edge_index, node_ptr, edge_ptr, columns, objects, X.store.sparse)
    if X.level == "graph":
        Z = Instances(store, np.zeros(1, dtype=np.int64), np.empty((1, 0), dtype=np.int64))
        return GraphBatch(Z, np.array([0]), whole_graphs(Z, np.array([0])), device=device)
    element = np.repeat(np.arange(num_nodes)[:, None], X.element.shape[1], axis=1)
    return shared_graphs(Instances(store, np.zeros(num_nodes, dtype=np.int64), element), device)


def _filled(column: Column, graph: int, sizes: dict[str, int]) -> Column:
    """Return a column of the right length with values of the user's graph."""
    values = column.of(graph)
    if column.slot == "graph":
        # Keys that run along the last axis hold node ids, which must exist here.
        values = values % sizes["node"] if column.along_last and values.dtype.kind in "iu" else values
        return Column("graph", values, offsets([values.shape[-1 if column.along_last else 0]]), column.along_last)
    values = values if len(values) else column.values
    values = values if len(values) else np.zeros((1, *values.shape[1:]), values.dtype)
    size = sizes[column.slot]
    return Column(column.slot, values[np.arange(size) % len(values)], offsets([size]))
