"""Breadth-first search from the explained elements of many instances at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skgnnx.graphs.columns import id_type, ranges, stable_order
from skgnnx.graphs.instance_array import is_excluded
from skgnnx.graphs.instances import Instances

EDGES_AT_ONCE = 1 << 16


class Found(NamedTuple):
    """Nodes and edges of every instance, ascending by id; the fields are those of `ComputationGraphs`."""

    node_ptr: np.ndarray
    node_id: np.ndarray
    node_level: np.ndarray
    edge_ptr: np.ndarray
    edge_id: np.ndarray
    edge_level: np.ndarray
    ends: np.ndarray


class BreadthFirstSearch:
    """What is found from the elements of several instances, step by step.

    Whatever an edge leads to is appended to one list of keys, instance * total nodes + node. Sorting it tells which
    nodes are new and, in the end, numbers them. Marks on nodes would need memory, and miss caches, in proportion to the
    size of the graph.

    Parameters
    ----------
    X : Instances
        Node or link instances.
    rows : ndarray of int
        Which of them.
    both_ways : bool
        True if messages also run against the edges.
    """

    def __init__(self, X: Instances, rows: np.ndarray, both_ways: bool) -> None:
        self.X, self.rows, self.both_ways = X, rows, both_ways
        self.total_nodes, self.total_edges = max(X.store.total_nodes, 1), max(X.store.total_edges, 1)
        roots = X.element[rows] + X.store.node_ptr[X.graph_index[rows]][:, None]
        self.keys = (np.arange(len(rows))[:, None] * self.total_nodes + roots).ravel()
        self.level_sizes = [len(self.keys)]
        # Edge number i has led to key number i + number of roots.
        self.edge_keys = [np.empty(0, dtype=np.int64)]
        self.near = [np.empty(0, dtype=np.int64)]
        self.against = [np.empty(0, dtype=bool)]

    @property
    def num_edges(self) -> int:
        """Number of edges found so far, with repetitions."""
        return len(self.keys) - self.level_sizes[0]

    def step(self) -> bool:
        """Follow all edges at the newest nodes; return False where that is too much for several instances at once."""
        places, _, first = self._sorted(self.keys, self.total_nodes)
        newest = places[first]
        newest = newest[newest >= len(self.keys) - self.level_sizes[-1]]
        instance, node = np.divmod(self.keys[newest], self.total_nodes)
        store, before = self.X.store, self.num_edges
        keys = [self.keys]
        for against in (False, True) if self.both_ways else (False,):
            index = store.out_edges if against else store.in_edges
            start = index.ptr[node]
            counts = index.ptr[node + 1] - start
            before += int(counts.sum())
            if before > 4 * EDGES_AT_ONCE and len(self.rows) > 1:
                return False
            position = ranges(start, counts)
            edge_id, owner = index.edge_id[position], np.repeat(instance, counts)
            found = [index.far_end[position], edge_id, owner, np.repeat(newest, counts)]
            if self.X.exclude_link:
                kept = ~is_excluded(self.X, self.rows[owner], store.edge_index[:, edge_id])
                found = [part[kept] for part in found]
            far_end, edge_id, owner, near = found
            keys.append(owner * self.total_nodes + far_end)
            self.edge_keys.append(owner * self.total_edges + edge_id)
            self.near.append(near)
            self.against.append(np.full(len(near), against))
        self.level_sizes.append(sum(len(part) for part in keys[1:]))
        self.keys = np.concatenate(keys)
        return True

    def result(self) -> Found:
        """Return what has been found, each node and edge of an instance once, at the first level it was found at."""
        places, keys, first = self._sorted(self.keys, self.total_nodes)
        level = np.repeat(np.arange(len(self.level_sizes), dtype=np.int16), self.level_sizes)
        node_ptr, node_id = self._ids(keys[first], self.total_nodes)
        number = np.empty(len(places), dtype=node_id.dtype)
        number[places] = np.cumsum(first) - 1
        edges, edge_keys, once = self._sorted(np.concatenate(self.edge_keys), self.total_edges)
        if self.both_ways:
            edges, edge_keys = edges[once], edge_keys[once]
        edge_ptr, edge_id = self._ids(edge_keys, self.total_edges)
        far = edges + self.level_sizes[0]
        ends = np.stack([number[far], number[np.concatenate(self.near)[edges]]])
        if self.both_ways:
            ends = np.where(np.concatenate(self.against)[edges], ends[::-1], ends)
        ends -= np.repeat(node_ptr[:-1].astype(ends.dtype), np.diff(edge_ptr))
        return Found(node_ptr, node_id, level[places[first]], edge_ptr, edge_id, level[far] - np.int16(1), ends)

    def _sorted(self, keys: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the places of all keys in their stable order, the keys in it, and where a new one starts."""
        places, keys = stable_order(keys, len(self.rows) * total)
        first = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        return places, keys, first

    def _ids(self, keys: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Take sorted keys apart: the first of each instance, and all ids."""
        starts = np.arange(len(self.rows) + 1) * total
        ptr = np.searchsorted(keys, starts)
        return ptr, (keys - np.repeat(starts[:-1], np.diff(ptr))).astype(id_type(total))
