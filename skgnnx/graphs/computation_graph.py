"""Computation graphs: what of a graph can reach a prediction, for many predictions at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from skgnnx.graphs.breadth_first import EDGES_AT_ONCE, BreadthFirstSearch
from skgnnx.graphs.columns import id_type, ranges
from skgnnx.graphs.instance_array import is_excluded
from skgnnx.graphs.instances import Instances

FIRST_GROUP, LARGEST_GROUP = 256, 2_048


@dataclass(frozen=True)
class ComputationGraphs:
    """Computation graphs of several instances, one after the other.

    Parameters
    ----------
    node_ptr, edge_ptr : ndarray of shape (n + 1,)
        First node and first edge of each instance.
    node_id, edge_id : ndarray of int32 or int64
        Ids in the whole store, ascending within an instance: the user's own order.
    node_level, edge_level : ndarray of int
        Messages between a node, or the target of an edge, and the explained element; 0 in whole graphs.
    ends : ndarray of shape (2, total edges)
        Source and target of every edge, as numbers of nodes within its instance.
    hops : int
        Longest chain of messages: what is farther is kept only so that degrees are true.
    """

    node_ptr: np.ndarray
    node_id: np.ndarray
    node_level: np.ndarray
    edge_ptr: np.ndarray
    edge_id: np.ndarray
    edge_level: np.ndarray
    ends: np.ndarray
    hops: int

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    @property
    def node_reach(self) -> np.ndarray:
        """Whether a node can reach the prediction."""
        return self.node_level <= self.hops

    @property
    def edge_reach(self) -> np.ndarray:
        """Whether a message over an edge can reach the prediction."""
        return self.edge_level < self.hops

    @property
    def summing_nodes(self) -> np.ndarray:
        """Ids of the nodes at which messages that can reach a prediction end, with repetitions."""
        return self.node_id[self.node_level < self.hops]

    def keep_edges(self, keep: np.ndarray) -> ComputationGraphs:
        """Return the graphs with a shorter edge list."""
        edge_ptr = _pointers(_counts(keep, self.edge_ptr))
        columns = {"edge_id": self.edge_id[keep], "edge_level": self.edge_level[keep], "ends": self.ends[:, keep]}
        return replace(self, edge_ptr=edge_ptr, **columns)

    def keep_nodes(self, keep: np.ndarray) -> ComputationGraphs:
        """Return the graphs with fewer nodes; edges at dropped nodes must have been dropped before."""
        kept_before = _pointers(keep)
        node_ptr = kept_before[self.node_ptr]
        instance = np.repeat(np.arange(len(self)), np.diff(self.edge_ptr))
        ends = kept_before[self.ends + self.node_ptr[instance]] - node_ptr[instance]
        columns = {"node_id": self.node_id[keep], "node_level": self.node_level[keep]}
        return replace(self, node_ptr=node_ptr, ends=ends.astype(self.ends.dtype), **columns)

    def take(self, instances: np.ndarray, keep: np.ndarray | None = None) -> ComputationGraphs:
        """Return the given instances, in that order; `keep` says which of all their edges stay."""
        node_counts, edge_counts = np.diff(self.node_ptr)[instances], np.diff(self.edge_ptr)[instances]
        nodes = ranges(self.node_ptr[instances], node_counts)
        edges = ranges(self.edge_ptr[instances], edge_counts)
        if keep is not None:
            edges, edge_counts = edges[keep], _counts(keep, _pointers(edge_counts))
        return ComputationGraphs(
            _pointers(node_counts),
            self.node_id[nodes],
            self.node_level[nodes],
            _pointers(edge_counts),
            self.edge_id[edges],
            self.edge_level[edges],
            self.ends[:, edges],
            self.hops,
        )

    @staticmethod
    def concat(parts: list[ComputationGraphs]) -> ComputationGraphs:
        """Join the instances of several parts."""
        if len(parts) == 1:
            return parts[0]
        return ComputationGraphs(
            _pointers(np.concatenate([np.diff(part.node_ptr) for part in parts])),
            np.concatenate([part.node_id for part in parts]),
            np.concatenate([part.node_level for part in parts]),
            _pointers(np.concatenate([np.diff(part.edge_ptr) for part in parts])),
            np.concatenate([part.edge_id for part in parts]),
            np.concatenate([part.edge_level for part in parts]),
            np.concatenate([part.ends for part in parts], axis=1),
            parts[0].hops,
        )


def whole_graphs(X: Instances, rows: np.ndarray) -> ComputationGraphs:
    """Return the whole graph of each instance as its computation graph."""
    store, graphs = X.store, X.graph_index[rows]
    node_counts, edge_counts = np.diff(store.node_ptr)[graphs], np.diff(store.edge_ptr)[graphs]
    node_id = ranges(store.node_ptr[graphs], node_counts).astype(id_type(store.total_nodes))
    edge_id = ranges(store.edge_ptr[graphs], edge_counts).astype(id_type(store.total_edges))
    ends = store.edge_index[:, edge_id].astype(node_id.dtype)
    if X.exclude_link:
        instance = np.repeat(np.arange(len(rows)), edge_counts)
        kept = ~is_excluded(X, rows[instance], ends)
        edge_id, ends, edge_counts = edge_id[kept], ends[:, kept], np.bincount(instance[kept], minlength=len(rows))
    return ComputationGraphs(
        _pointers(node_counts),
        node_id,
        np.zeros(len(node_id), dtype=np.int16),
        _pointers(edge_counts),
        edge_id,
        np.zeros(len(edge_id), dtype=np.int16),
        ends,
        hops=1,
    )


def whole_graphs_in_groups(X: Instances, rows: np.ndarray) -> Iterator[tuple[np.ndarray, ComputationGraphs]]:
    """Yield what `whole_graphs` returns in groups of consecutive instances, with their rows.

    A group has at most ``4 * EDGES_AT_ONCE`` edges besides those of its first instance.
    """
    group = np.cumsum(np.diff(X.store.edge_ptr)[X.graph_index[rows]]) // (4 * EDGES_AT_ONCE)
    for part in np.split(rows, np.flatnonzero(np.diff(group)) + 1):
        yield part, whole_graphs(X, part)


def receptive_fields(X: Instances, rows: np.ndarray, hops: int, ring: int, both_ways: bool) -> ComputationGraphs:
    """Return what is within `hops` messages of each explained element.

    Time and memory depend on what is found, never on the size of the graph.

    Parameters
    ----------
    X : Instances
        Node or link instances.
    rows : ndarray of int
        Which of them.
    hops : int
        Longest chain of messages of the model.
    ring : int
        Further rings of edges kept for the degrees of the outermost nodes.
    both_ways : bool
        True if messages also run against the edges.

    Returns
    -------
    ComputationGraphs
    """
    parts = receptive_fields_in_groups(X, rows, hops, ring, both_ways)
    return ComputationGraphs.concat([graphs for _, graphs in parts])


def receptive_fields_in_groups(
    X: Instances, rows: np.ndarray, hops: int, ring: int, both_ways: bool
) -> Iterator[tuple[np.ndarray, ComputationGraphs]]:
    """Yield what `receptive_fields` returns in groups of consecutive instances, with their rows.

    A group has so many instances that what is sorted for it stays in the processor's cache; one with more than
    ``4 * EDGES_AT_ONCE`` edges is a single instance. Memory is then bounded by the largest instance, not by all.
    """
    start, size = 0, FIRST_GROUP
    while start < len(rows):
        group = rows[start : start + size]
        search = BreadthFirstSearch(X, group, both_ways)
        if not all(search.step() for _ in range(hops + ring)):
            size = max(1, size // 4)
            continue
        yield group, ComputationGraphs(*search.result(), hops)
        start += size
        size = min(max(1, size * EDGES_AT_ONCE // (2 * search.num_edges + 1)), LARGEST_GROUP)


def _pointers(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _counts(keep: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Return how many kept items each instance has."""
    before = np.concatenate([[0], np.cumsum(keep)])
    return np.diff(before[ptr])
