"""Computation graphs: what of a graph can reach a prediction, for many predictions at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from skgnnx.graphs.columns import ranges
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.store import GraphStore

SCRATCH_CELLS = 40_000_000


@dataclass(frozen=True)
class ComputationGraphs:
    """Computation graphs of several instances, one after the other.

    Parameters
    ----------
    node_ptr, edge_ptr : ndarray of shape (n + 1,)
        First node and first edge of each instance.
    node_id, edge_id : ndarray
        Ids in the whole store, ascending within an instance: the user's own order.
    node_level, edge_level : ndarray of int
        Messages between a node, or the target of an edge, and the explained element; 0 in whole graphs.
    hops : int
        Longest chain of messages: what is farther is kept only so that degrees are true.
    """

    node_ptr: np.ndarray
    node_id: np.ndarray
    node_level: np.ndarray
    edge_ptr: np.ndarray
    edge_id: np.ndarray
    edge_level: np.ndarray
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

    def keep_edges(self, keep: np.ndarray) -> ComputationGraphs:
        """Return the graphs with a shorter edge list."""
        edge_ptr = _pointers(_counts(keep, self.edge_ptr))
        return replace(self, edge_ptr=edge_ptr, edge_id=self.edge_id[keep], edge_level=self.edge_level[keep])

    def keep_nodes(self, keep: np.ndarray) -> ComputationGraphs:
        """Return the graphs with fewer nodes; edges at dropped nodes must have been dropped before."""
        node_ptr = _pointers(_counts(keep, self.node_ptr))
        return replace(self, node_ptr=node_ptr, node_id=self.node_id[keep], node_level=self.node_level[keep])

    def take(self, instances: np.ndarray) -> ComputationGraphs:
        """Return the given instances, in that order."""
        node_counts, edge_counts = np.diff(self.node_ptr)[instances], np.diff(self.edge_ptr)[instances]
        nodes = ranges(self.node_ptr[instances], node_counts)
        edges = ranges(self.edge_ptr[instances], edge_counts)
        return ComputationGraphs(
            _pointers(node_counts),
            self.node_id[nodes],
            self.node_level[nodes],
            _pointers(edge_counts),
            self.edge_id[edges],
            self.edge_level[edges],
            self.hops,
        )


def whole_graphs(X: Instances, rows: np.ndarray) -> ComputationGraphs:
    """Return the whole graph of each instance as its computation graph."""
    store, graphs = X.store, X.graph_index[rows]
    node_counts, edge_counts = np.diff(store.node_ptr)[graphs], np.diff(store.edge_ptr)[graphs]
    node_id = ranges(store.node_ptr[graphs], node_counts)
    edge_id = ranges(store.edge_ptr[graphs], edge_counts)
    instance = np.repeat(np.arange(len(rows)), edge_counts)
    kept = ~_is_excluded(X, rows, instance, edge_id)
    edge_id, edge_counts = edge_id[kept], np.bincount(instance[kept], minlength=len(rows))
    return ComputationGraphs(
        _pointers(node_counts),
        node_id,
        np.zeros(len(node_id), dtype=np.int16),
        _pointers(edge_counts),
        edge_id,
        np.zeros(len(edge_id), dtype=np.int16),
        hops=1,
    )


def receptive_fields(X: Instances, rows: np.ndarray, hops: int, ring: int, both_ways: bool) -> ComputationGraphs:
    """Return what is within `hops` messages of each explained element.

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
    step = max(1, SCRATCH_CELLS // max(X.store.total_nodes, 1))
    parts = [_fields(X, rows[i : i + step], hops, ring, both_ways) for i in range(0, len(rows), step)]
    if len(parts) == 1:
        return parts[0]
    return ComputationGraphs(
        _pointers(np.concatenate([np.diff(part.node_ptr) for part in parts])),
        np.concatenate([part.node_id for part in parts]),
        np.concatenate([part.node_level for part in parts]),
        _pointers(np.concatenate([np.diff(part.edge_ptr) for part in parts])),
        np.concatenate([part.edge_id for part in parts]),
        np.concatenate([part.edge_level for part in parts]),
        hops,
    )


def _fields(X: Instances, rows: np.ndarray, hops: int, ring: int, both_ways: bool) -> ComputationGraphs:
    """Breadth-first search from all elements at once; keys are instance * num_nodes + node."""
    store, n = X.store, max(X.store.total_nodes, 1)
    roots = X.element[rows] + store.node_ptr[X.graph_index[rows]][:, None]
    frontier = np.unique(np.arange(len(rows))[:, None] * n + roots)
    stamp = np.empty(len(rows) * n, dtype=np.int32)
    seen = np.zeros(len(rows) * n, dtype=bool)
    seen[frontier] = True
    nodes, edges = [frontier], []
    for _ in range(hops + ring):
        instance, sources, edge_id = _incoming(store, frontier, both_ways)
        kept = ~_is_excluded(X, rows, instance, edge_id)
        edges.append(instance[kept] * len(store.edge_index[0]) + edge_id[kept])
        candidates = instance[kept] * n + sources[kept]
        frontier = _first_seen(candidates[~seen[candidates]], stamp)
        seen[frontier] = True
        nodes.append(frontier)
    node_key, node_level = _sorted_with_level(nodes)
    edge_key, edge_level = _sorted_with_level(edges)
    node_counts = np.bincount(node_key // n, minlength=len(rows))
    num_edges = max(len(store.edge_index[0]), 1)
    edge_counts = np.bincount(edge_key // num_edges, minlength=len(rows))
    return ComputationGraphs(
        _pointers(node_counts), node_key % n, node_level, _pointers(edge_counts), edge_key % num_edges, edge_level, hops
    )


def _incoming(store: GraphStore, frontier: np.ndarray, both_ways: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (instance, far end, edge id) of every edge that brings a message to the frontier."""
    n = max(store.total_nodes, 1)
    instance, node = frontier // n, frontier % n
    found = []
    for index in (store.in_edges, store.out_edges) if both_ways else (store.in_edges,):
        counts = index.ptr[node + 1] - index.ptr[node]
        position = ranges(index.ptr[node], counts)
        found.append((np.repeat(instance, counts), index.far_end[position], index.edge_id[position]))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def _first_seen(keys: np.ndarray, stamp: np.ndarray) -> np.ndarray:
    """Drop repeated keys; writing then reading back a scratch array is several times faster than sorting."""
    order = np.arange(len(keys), dtype=np.int32)
    stamp[keys] = order
    return keys[stamp[keys] == order]


def _sorted_with_level(levels: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sort the keys of all levels, with the first level at which each appears."""
    keys = np.concatenate([*levels, np.empty(0, dtype=np.int64)])
    level = np.repeat(np.arange(len(levels), dtype=np.int16), [len(part) for part in levels])
    order = np.lexsort((level, keys))
    keys, level = keys[order], level[order]
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    return keys[first], level[first]


def _is_excluded(X: Instances, rows: np.ndarray, instance: np.ndarray, edge_id: np.ndarray) -> np.ndarray:
    """Mark the edges between the two ends of an explained link where the link is to be left out."""
    if not (X.exclude_link and X.level == "edge"):
        return np.zeros(len(edge_id), dtype=bool)
    source, target = X.store.edge_index[:, edge_id]
    first, second = X.element[rows[instance]].T
    return ((source == first) & (target == second)) | ((source == second) & (target == first))


def _pointers(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _counts(keep: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Return how many kept items each instance has."""
    before = np.concatenate([[0], np.cumsum(keep)])
    return np.diff(before[ptr])
