"""Unions of another kind than one copy per instance."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import whole_graphs
from skgnnx.graphs.instances import Instances


def shared_graphs(X: Instances, device: torch.device) -> GraphBatch:
    """Return one copy of each graph, with the output rows of all instances."""
    graphs, first = np.unique(X.graph_index, return_index=True)
    one_each = X[first]
    batch = GraphBatch(one_each, np.arange(len(first)), whole_graphs(one_each, np.arange(len(first))), device=device)
    shift = batch.graphs.node_ptr[np.searchsorted(graphs, X.graph_index)]
    elements = X.element + shift[:, None]
    batch.rows = torch.from_numpy(elements[:, 0] if X.level == "node" else elements.T.copy()).to(device)
    return batch


def with_split_edges(batch: GraphBatch, edges: np.ndarray, copied: np.ndarray) -> GraphBatch:
    """Return the batch with copies of some nodes added, for edges that start at them.

    Parameters
    ----------
    edges : ndarray of shape (2, E)
        The edges, where new nodes are numbered from `num_nodes`.
    copied : ndarray
        The node that each new node is a copy of.
    """
    graphs = batch.graphs

    def to_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(batch.device)

    origin = np.concatenate([np.arange(batch.num_nodes), copied]).astype(np.int64)
    instance = batch.node_instance.cpu().numpy()[origin]
    order = np.argsort(instance, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    origin = origin[order]
    variant = copy.copy(batch)
    variant.memo = {}
    node_ptr = np.concatenate([[0], np.cumsum(np.bincount(instance, minlength=len(batch)))])
    variant.graphs = replace(
        graphs, node_ptr=node_ptr, node_id=graphs.node_id[origin], node_level=graphs.node_level[origin]
    )
    variant.node_instance = to_device(instance[order])
    variant.node_reach = to_device(variant.graphs.node_reach)
    variant.edge_index = to_device(place[edges])
    variant.rows = batch.rows if batch.X.level == "graph" else to_device(place[batch.rows.cpu().numpy()])
    variant.__dict__.pop("ptr", None)
    return variant


def unlinked(batch: GraphBatch) -> GraphBatch:
    """Return a batch with the same content that does not know what is remembered about this one."""
    twin = copy.copy(batch)
    twin.memo, twin.cut_again = dict(batch.memo), None
    return twin


def by_distance(batch: GraphBatch) -> tuple[GraphBatch, Tensor, Tensor]:
    """Return the batch with nodes and edges ordered by their distance from the explained elements.

    What can still reach a prediction over so many messages is then the first so many nodes and edges. Edges that
    lead to one node keep their order.

    Returns
    -------
    GraphBatch
        Nodes of an instance are no longer next to each other.
    node_order, edge_order : Tensor
        Position in `batch` of each node and edge.
    """
    graphs = batch.graphs
    node_order, edge_order = (np.argsort(level, kind="stable") for level in (graphs.node_level, graphs.edge_level))
    place = np.empty(len(node_order), dtype=np.int64)
    place[node_order] = np.arange(len(node_order))
    order_of_nodes, order_of_edges, new = (
        torch.from_numpy(a).to(batch.device) for a in (node_order, edge_order, place)
    )
    ordered = copy.copy(batch)
    ordered.memo, ordered.cut_again = {}, None
    ordered.graphs = replace(
        graphs,
        node_id=graphs.node_id[node_order],
        node_level=graphs.node_level[node_order],
        edge_id=graphs.edge_id[edge_order],
        edge_level=graphs.edge_level[edge_order],
        ends=graphs.ends[:, edge_order],
    )
    for name in ("node_instance", "node_reach"):
        setattr(ordered, name, getattr(batch, name).index_select(0, order_of_nodes))
    for name in ("edge_instance", "edge_reach"):
        setattr(ordered, name, getattr(batch, name).index_select(0, order_of_edges))
    ordered.edge_index = new[batch.edge_index.index_select(1, order_of_edges)]
    ordered.rows = new[batch.rows]
    return ordered, order_of_nodes, order_of_edges
