"""Columnar storage of a collection of graphs: one array per key instead of one object per graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array
from torch_geometric.data import Data

from skgnnx.graphs.columns import (
    STRUCTURE_KEYS,
    Column,
    as_column,
    check_ends,
    checked_graph,
    edges_of,
    id_type,
    offsets,
    ranges,
    stable_order,
    weights_of,
)


@dataclass(frozen=True)
class EdgeIndex:
    """Edges sorted by one of their ends (CSR): those of node v are the rows ``ptr[v]`` to ``ptr[v + 1]``."""

    ptr: np.ndarray
    far_end: np.ndarray
    edge_id: np.ndarray

    @classmethod
    def build(cls, near_end: np.ndarray, far_end: np.ndarray, num_nodes: int) -> EdgeIndex:
        """Sort edges by their near end, keeping their order within a node."""
        # A sparse matrix with one entry per column, turned into rows: edges are counted, and never compared.
        place = id_type(max(len(near_end), num_nodes))
        entries = far_end.astype(id_type(num_nodes)), near_end.astype(place), np.arange(len(near_end) + 1, dtype=place)
        by_node = csc_array(entries, shape=(num_nodes, len(near_end))).tocsr()
        return cls(by_node.indptr.astype(np.int64), by_node.data, by_node.indices.astype(id_type(len(near_end))))


class GraphStore:
    """Immutable columns of a collection of graphs.

    Columns travel to worker processes at memory speed and are memory-mapped once by joblib, where a list of `Data`
    objects costs a millisecond a graph. A single graph is stored without copying its tensors.

    Parameters
    ----------
    edge_index : ndarray of shape (2, total edges)
        Ends of every edge, as node ids local to its graph.
    node_ptr, edge_ptr : ndarray of shape (num_graphs + 1,)
        First node and first edge of each graph.
    columns : dict of str to Column
        Tensor-valued keys shared by all graphs.
    objects : dict of str to list
        Every other key: one Python value per graph, None where a graph lacks it.
    sparse : bool
        True if the graphs came with a sparse ``adj_t`` instead of ``edge_index``.
    """

    index_from_file = False

    def __init__(
        self,
        edge_index: np.ndarray,
        node_ptr: np.ndarray,
        edge_ptr: np.ndarray,
        columns: dict[str, Column],
        objects: dict[str, list[Any]],
        sparse: bool = False,
    ) -> None:
        self.edge_index = edge_index
        self.node_ptr = node_ptr
        self.edge_ptr = edge_ptr
        self.columns = columns
        self.objects = objects
        self.sparse = sparse

    @classmethod
    def from_graphs(cls, graphs: Sequence[Data]) -> GraphStore:
        """Store PyG graphs.

        Parameters
        ----------
        graphs : sequence of Data
            At least one homogeneous graph with ``edge_index`` (or a sparse ``adj_t``).

        Returns
        -------
        GraphStore

        Raises
        ------
        TypeError
            If an item is not a homogeneous `Data`.
        ValueError
            If a graph refers to a node that it does not have, holds NaN, or differs in its number of features.
        """
        graphs = [checked_graph(graph, i) for i, graph in enumerate(graphs)]
        edges = [edges_of(graph, i) for i, graph in enumerate(graphs)]
        node_ptr = offsets(int(graph.num_nodes or 0) for graph in graphs)
        edge_ptr = offsets(e.shape[1] for e in edges)
        edge_index = edges[0] if len(edges) == 1 else np.concatenate(edges, axis=1)
        check_ends(edge_index, node_ptr, edge_ptr)
        columns, objects = {}, {}
        keys = dict.fromkeys(key for graph in graphs for key, _ in graph)
        for key in [key for key in keys if key not in STRUCTURE_KEYS]:
            values = [graph.get(key) for graph in graphs]
            column = as_column(key, values, graphs, node_ptr, edge_ptr)
            if column is None:
                objects[key] = [value.clone() if torch.is_tensor(value) else value for value in values]
            else:
                columns[key] = column
        sparse = all("edge_index" not in graph for graph in graphs)
        weight = weights_of(graphs) if sparse and "edge_weight" not in columns else None
        if weight is not None:
            columns["edge_weight"] = Column("edge", weight, edge_ptr)
        store = cls(edge_index, node_ptr, edge_ptr, columns, objects, sparse)
        store._check_finite()
        return store

    def __getstate__(self) -> dict[str, Any]:
        # An index from a file goes along: joblib sends the file's name instead of mapped arrays.
        dropped = {"global_edges"} if self.index_from_file else {"pairs", "in_edges", "out_edges", "global_edges"}
        return {key: value for key, value in self.__dict__.items() if key not in dropped}

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return len(self.node_ptr) - 1

    @property
    def total_nodes(self) -> int:
        """Number of nodes of all graphs together."""
        return int(self.node_ptr[-1])

    @property
    def total_edges(self) -> int:
        """Number of directed edges of all graphs together."""
        return int(self.edge_ptr[-1])

    def num_nodes(self, graph: int) -> int:
        """Return the number of nodes of one graph."""
        return int(self.node_ptr[graph + 1] - self.node_ptr[graph])

    def num_edges(self, graph: int) -> int:
        """Return the number of directed edges of one graph."""
        return int(self.edge_ptr[graph + 1] - self.edge_ptr[graph])

    def edges(self, graph: int) -> np.ndarray:
        """Return the (2, num_edges) ends of one graph's edges, in the user's order."""
        return self.edge_index[:, self.edge_ptr[graph] : self.edge_ptr[graph + 1]]

    def value(self, graph: int, key: str) -> Any:
        """Return what one graph holds under `key`: an array, or the Python value."""
        return self.columns[key].of(graph) if key in self.columns else self.objects[key][graph]

    def graph(self, graph: int) -> Data:
        """Return one graph as a fresh `Data` that shares no memory with the store."""
        data = Data(edge_index=torch.from_numpy(self.edges(graph).copy()))
        for key, column in self.columns.items():
            data[key] = torch.from_numpy(np.array(column.of(graph)))
        for key, values in self.objects.items():
            if values[graph] is not None:
                data[key] = values[graph]
        data.num_nodes = self.num_nodes(graph)
        return data

    def like(self, other: GraphStore) -> GraphStore:
        """Return the store, marked to hand its edges to models in the form of another one."""
        self.sparse = other.sparse
        return self

    def select(self, graphs: np.ndarray) -> GraphStore:
        """Return a store of the given graphs only."""
        if self.num_graphs == len(graphs) and np.array_equal(graphs, np.arange(len(graphs))):
            return self
        edge_rows = ranges(self.edge_ptr[graphs], np.diff(self.edge_ptr)[graphs])
        columns = {}
        for key, column in self.columns.items():
            rows = ranges(column.ptr[graphs], np.diff(column.ptr)[graphs])
            values = column.values[..., rows] if column.along_last else column.values[rows]
            columns[key] = Column(column.slot, values, offsets(np.diff(column.ptr)[graphs]), column.along_last)
        objects = {key: [values[g] for g in graphs] for key, values in self.objects.items()}
        node_ptr = offsets(np.diff(self.node_ptr)[graphs])
        edge_ptr = offsets(np.diff(self.edge_ptr)[graphs])
        return GraphStore(self.edge_index[:, edge_rows], node_ptr, edge_ptr, columns, objects, self.sparse)

    @cached_property
    def global_edges(self) -> np.ndarray:
        """Ends of every edge as node ids of the whole store."""
        if self.num_graphs == 1:
            return self.edge_index
        return self.edge_index + np.repeat(self.node_ptr[:-1], np.diff(self.edge_ptr))

    @cached_property
    def in_edges(self) -> EdgeIndex:
        """Edges by their target node."""
        source, target = self.global_edges
        return EdgeIndex.build(near_end=target, far_end=source, num_nodes=self.total_nodes)

    @cached_property
    def out_edges(self) -> EdgeIndex:
        """Edges by their source node."""
        source, target = self.global_edges
        return EdgeIndex.build(near_end=source, far_end=target, num_nodes=self.total_nodes)

    def with_index(self, in_edges: EdgeIndex, out_edges: EdgeIndex, pairs: tuple[np.ndarray, np.ndarray]) -> GraphStore:
        """Return the store with an index that was read from a file: `in_edges`, `out_edges` and `pairs`."""
        self.index_from_file = True
        self.__dict__.update(in_edges=in_edges, out_edges=out_edges, pairs=pairs)
        return self

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each graph is undirected, and the reverse of each edge (global edge ids, -1 for loops)."""
        source, target = self.global_edges
        # Sorted by one end before, a stable order by the other one sorts by both.
        by_target, by_source = self.in_edges.edge_id, self.out_edges.edge_id
        by_forward = by_target[stable_order(source[by_target], self.total_nodes)[0]]
        by_backward = by_source[stable_order(target[by_source], self.total_nodes)[0]]
        partner = np.empty(len(source), dtype=by_target.dtype)
        partner[by_forward] = by_backward
        lonely = source[by_forward] != target[by_backward]
        lonely |= target[by_forward] != source[by_backward]
        graph_of_edge = np.repeat(np.arange(self.num_graphs), np.diff(self.edge_ptr))
        undirected = np.ones(self.num_graphs, dtype=bool)
        undirected[graph_of_edge[by_forward[lonely]]] = False
        directed_edge = ~undirected[graph_of_edge]
        partner[directed_edge] = np.flatnonzero(directed_edge)
        partner[source == target] = -1
        return undirected, partner

    def is_undirected(self, graph: int) -> bool:
        """Return True if every edge of the graph has its reverse, with multiplicity (loops aside)."""
        return bool(self.pairs[0][graph])

    def partner(self, graph: int) -> np.ndarray:
        """Return for each edge the id of its reverse: itself in a directed graph, -1 for a loop."""
        first = self.edge_ptr[graph]
        partner = self.pairs[1][first : self.edge_ptr[graph + 1]]
        return np.where(partner < 0, -1, partner - first)

    @property
    def all_partners(self) -> np.ndarray:
        """The reverse of every edge of the store, as in `partner` but with ids of the whole store."""
        return self.pairs[1]

    def _check_finite(self) -> None:
        for key in ("x", "edge_attr", "edge_weight"):
            column = self.columns.get(key)
            if column is None or column.values.dtype.kind != "f" or np.isfinite(column.values).all():
                continue
            row = int(np.argwhere(~np.isfinite(column.values))[0, 0])
            graph = int(np.searchsorted(column.ptr, row, side="right")) - 1
            raise ValueError(
                f"The values of {key!r} must be finite. Got NaN or infinity at {column.slot} {row - column.ptr[graph]} "
                f"of graph {graph}; impute or remove it."
            )
