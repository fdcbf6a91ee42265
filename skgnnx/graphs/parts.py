"""The selected part of every graph, as PyG data with the original ids."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from skgnnx.graphs.columns import ranges
from skgnnx.graphs.conversion import convert
from skgnnx.graphs.cutting import keep_share
from skgnnx.graphs.explanation_array import ExplanationArray
from skgnnx.graphs.instance_array import is_excluded
from skgnnx.graphs.instances import Instances


def cut_out(E: ExplanationArray, sparsity: float) -> list[Data | None]:
    """Cut the selected part out of every graph; see `Explanations.subgraphs`."""
    if E.kind == "node_feature":
        E = convert(E, "node", "max")
    if E.kind == "feature":
        raise ValueError(
            "subgraphs must be made of edge or node scores. Got feature scores, which select no part of a graph; "
            "let the explainer score another mask."
        )
    hard = E if E.hard else keep_share(E, sparsity)
    return [_part(hard, i) if ok else None for i, ok in enumerate(E.ok)]


def _part(E: ExplanationArray, i: int) -> Data:
    X = E.instances
    graph = int(X.graph_index[i])
    ids, values = E.entries(i)
    kept = np.sort(ids[values > 0])
    if E.kind == "edge":
        nodes, edges = np.union1d(X.store.edges(graph)[:, kept], X.element[i]), kept
    else:
        nodes = np.union1d(kept, X.element[i])
        edges = _edges_among(X, i, nodes)
    data = _select(X, graph, nodes, edges)
    data.target = int(E.targets[i])
    if X.level != "graph":
        data.element = torch.from_numpy(np.searchsorted(nodes, X.element[i]))
    return data


def _edges_among(X: Instances, i: int, nodes: np.ndarray) -> np.ndarray:
    """Return the sorted ids of the edges that have both ends in `nodes`."""
    store, graph = X.store, X.graph_index[i]
    leaving = store.out_edges
    first = leaving.ptr[store.node_ptr[graph] + nodes]
    edge = leaving.edge_id[ranges(first, leaving.ptr[store.node_ptr[graph] + nodes + 1] - first)]
    ends = store.edge_index[:, edge]
    inside = np.isin(ends[1], nodes) & ~is_excluded(X, np.full(len(edge), i), ends)
    return np.sort(edge[inside]) - store.edge_ptr[graph]


def _select(X: Instances, graph: int, nodes: np.ndarray, edges: np.ndarray) -> Data:
    store = X.store
    data = Data(edge_index=_tensor(np.searchsorted(nodes, store.edges(graph)[:, edges])))
    rows = {"node": nodes, "edge": edges}
    for key, column in store.columns.items():
        values = column.of(graph)
        data[key] = _tensor(values[rows[column.slot]] if column.slot in rows else values)
    for key, objects in store.objects.items():
        if objects[graph] is not None:
            data[key] = objects[graph]
    data.num_nodes = len(nodes)
    data.orig_node_id, data.orig_edge_id = _tensor(nodes), _tensor(edges)
    if X.node_ids is not None:
        data.node_ids = np.asarray(X.node_ids[graph])[nodes].tolist()
    return data


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
