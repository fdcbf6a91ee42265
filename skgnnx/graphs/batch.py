"""A batch: the disjoint union of the computation graphs of several instances, as tensors."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from skgnnx.graphs.computation_graph import ComputationGraphs, whole_graphs
from skgnnx.graphs.instances import Instances


class GraphBatch:
    """Disjoint union of computation graphs.

    Instances never share a node, so a loss summed over them has the gradient of each alone.

    Parameters
    ----------
    X : Instances
        All instances; the batch holds some rows of it.
    positions : ndarray of shape (B,)
        Rows of `X` in the batch.
    graphs : ComputationGraphs
        Their computation graphs, in the same order.
    targets : ndarray of shape (B,) or None
        Class or output column explained for each.
    device : torch.device, default="cpu"
        Where tensors live.

    Attributes
    ----------
    edge_index : Tensor of shape (2, E)
        Edges of the union.
    node_id, edge_id : ndarray
        The user's own ids of the nodes (N,) and edges (E,).
    node_instance, edge_instance : Tensor
        Instance of each node (N,) and edge (E,), as positions in the batch.
    node_reach, edge_reach : Tensor of bool
        Whether a node or an edge can reach the prediction; False for rings kept only for degrees.
    """

    def __init__(
        self,
        X: Instances,
        positions: np.ndarray,
        graphs: ComputationGraphs,
        targets: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.X = X
        self.positions = positions
        self.graphs = graphs
        self.device = torch.device(device)
        self.targets = None if targets is None else torch.as_tensor(targets, device=self.device)
        self.memo: dict[Any, Any] = {}
        node_instance = np.repeat(np.arange(len(graphs)), np.diff(graphs.node_ptr))
        edge_instance = np.repeat(np.arange(len(graphs)), np.diff(graphs.edge_ptr))
        self.node_instance = self._tensor(node_instance)
        self.edge_instance = self._tensor(edge_instance)
        self.node_reach = self._tensor(graphs.node_reach)
        self.edge_reach = self._tensor(graphs.edge_reach)
        n = max(X.store.total_nodes, 1)
        self._node_key = node_instance * n + graphs.node_id
        ends = edge_instance * n + X.store.global_edges[:, graphs.edge_id]
        self.edge_index = self._tensor(np.searchsorted(self._node_key, ends))

    def __len__(self) -> int:
        return len(self.positions)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    @property
    def num_nodes(self) -> int:
        """Number of nodes of the union."""
        return len(self.graphs.node_id)

    @property
    def num_edges(self) -> int:
        """Number of edges of the union."""
        return len(self.graphs.edge_id)

    @property
    def node_id(self) -> np.ndarray:
        """The user's id of each node."""
        first = self.X.store.node_ptr[self.X.graph_index[self.positions]]
        return self.graphs.node_id - np.repeat(first, np.diff(self.graphs.node_ptr))

    @property
    def edge_id(self) -> np.ndarray:
        """The user's id of each edge."""
        first = self.X.store.edge_ptr[self.X.graph_index[self.positions]]
        return self.graphs.edge_id - np.repeat(first, np.diff(self.graphs.edge_ptr))

    @cached_property
    def rows(self) -> Tensor:
        """Rows of the model's output: (B,) graphs or nodes, or the two ends (2, B) of each link."""
        X, positions = self.X, self.positions
        if X.level == "graph":
            return torch.arange(len(self), device=self.device)
        n = max(X.store.total_nodes, 1)
        roots = X.element[positions] + X.store.node_ptr[X.graph_index[positions]][:, None]
        rows = np.searchsorted(self._node_key, np.arange(len(self))[:, None] * n + roots)
        return self._tensor(rows[:, 0] if X.level == "node" else rows.T)

    @cached_property
    def ptr(self) -> Tensor:
        """First node of each instance, and the number of nodes (B + 1,)."""
        return self._tensor(self.graphs.node_ptr)

    def adjacency(self) -> Tensor:
        """Return the edges as a sparse CSR matrix with one row per target, the form that ``adj_t`` has in PyG."""
        if "adjacency" not in self.memo:
            source, target = self.edge_index
            weighted = "edge_weight" in self.X.store.columns
            values = self.attribute("edge_weight") if weighted else torch.ones(self.num_edges, device=self.device)
            size = (self.num_nodes, self.num_nodes)
            self.memo["adjacency"] = torch.sparse_coo_tensor(
                torch.stack([target, source]), values, size
            ).to_sparse_csr()
        return self.memo["adjacency"]

    @property
    def x(self) -> Tensor | None:
        """Node features (N, F), None where the graphs have none."""
        return self.attribute("x") if "x" in self.X.store.columns else None

    def attribute(self, key: str) -> Tensor:
        """Return one column of the graphs, cut to the batch."""
        if key not in self.memo:
            self.memo[key] = self._tensor(self._rows_of(key))
        return self.memo[key]

    def _rows_of(self, key: str) -> np.ndarray:
        column = self.X.store.columns[key]
        if column.slot == "node":
            return column.values[self.graphs.node_id]
        if column.slot == "edge":
            return column.values[self.graphs.edge_id]
        parts = [column.of(g) for g in self.X.graph_index[self.positions]]
        if column.along_last:
            return np.concatenate([p + first for p, first in zip(parts, self.graphs.node_ptr, strict=False)], axis=-1)
        return np.concatenate(parts, axis=0)

    def sum_nodes(self, values: Tensor) -> Tensor:
        """Sum node values (N, ...) per instance, to (B, ...)."""
        return values.new_zeros(len(self), *values.shape[1:]).index_add(0, self.node_instance, values)

    def sum_edges(self, values: Tensor) -> Tensor:
        """Sum edge values (E, ...) per instance, to (B, ...)."""
        return values.new_zeros(len(self), *values.shape[1:]).index_add(0, self.edge_instance, values)

    def split(self, values: Tensor, kind: str) -> list[np.ndarray]:
        """Cut values per edge, node or instance into one array per instance, of what reaches the prediction."""
        array = values.detach().cpu().numpy()
        if kind not in ("edge", "node", "node_feature"):
            return list(array)
        graphs = self.graphs
        ptr, reach = (graphs.edge_ptr, graphs.edge_reach) if kind == "edge" else (graphs.node_ptr, graphs.node_reach)
        return [array[a:b][reach[a:b]] for a, b in zip(ptr[:-1], ptr[1:], strict=True)]

    @cached_property
    def num_reached_nodes(self) -> Tensor:
        """Nodes of each instance that can reach the prediction."""
        return self.sum_nodes(self.node_reach.double())

    @cached_property
    def num_reached_edges(self) -> Tensor:
        """Edges of each instance that can reach the prediction."""
        return self.sum_edges(self.edge_reach.double())

    def keep_edges(self, keep: np.ndarray) -> GraphBatch:
        """Return the batch with a shorter edge list; nodes stay."""
        return self._with(self.graphs.keep_edges(keep))

    def keep_nodes(self, keep: np.ndarray) -> GraphBatch:
        """Return the batch induced on some nodes; explained elements always stay."""
        keep = keep.copy()
        if self.X.level != "graph":
            keep[self.rows.cpu().numpy().ravel()] = True
        ends = self.edge_index.cpu().numpy()
        return self._with(self.graphs.keep_edges(keep[ends[0]] & keep[ends[1]]).keep_nodes(keep))

    def _with(self, graphs: ComputationGraphs) -> GraphBatch:
        return GraphBatch(self.X, self.positions, graphs, self._numpy_targets(), self.device)

    def take(self, instances: np.ndarray) -> GraphBatch:
        """Return a batch of some of the instances, given by their positions in this one."""
        targets = self._numpy_targets()
        targets = None if targets is None else targets[instances]
        return GraphBatch(self.X, self.positions[instances], self.graphs.take(instances), targets, self.device)

    def _numpy_targets(self) -> np.ndarray | None:
        return None if self.targets is None else self.targets.cpu().numpy()

    def to_data(self, x: Tensor | None = None) -> Batch:
        """Return the union as a PyG `Batch` with every key of the graphs."""
        data = Batch(edge_index=self.edge_index, batch=self.node_instance)
        data.ptr = self.ptr
        for key in self.X.store.columns:
            data[key] = self.attribute(key)
        for key, values in self.X.store.objects.items():
            data[key] = [values[g] for g in self.X.graph_index[self.positions]]
        if x is not None:
            data.x = x
        if self.X.level == "edge":
            data.edge_label_index = self.rows
        data.num_nodes = self.num_nodes
        return data

    def noise(self, random_state: int, shape: str, columns: int | None = None) -> Tensor:
        """Draw standard normal noise that depends on an instance's own content only.

        Each instance has its own stream, seeded by `random_state` and the content of its computation graph, so the
        draw does not change with batch size, order, or the company of other instances.

        Parameters
        ----------
        random_state : int
            Root seed.
        shape : {"edge", "node", "instance"}
            One draw for each reaching edge (E,), each reaching node (N,), or each instance (B,); zero elsewhere.
        columns : int, optional
            Adds a second axis of this size.

        Returns
        -------
        Tensor
            float64, on the batch's device.
        """
        graphs = self.graphs
        reach = {"edge": graphs.edge_reach, "node": graphs.node_reach, "instance": np.ones(len(self), dtype=bool)}[
            shape
        ]
        ptr = {"edge": graphs.edge_ptr, "node": graphs.node_ptr, "instance": np.arange(len(self) + 1)}[shape]
        size = (len(reach),) if columns is None else (len(reach), columns)
        values = np.zeros(size)
        for i, digest in enumerate(self._digests):
            seed = hashlib.blake2b(digest + f"{random_state}|{shape}".encode(), digest_size=16).digest()
            stream = np.random.Generator(np.random.Philox(int.from_bytes(seed, "little")))
            rows = np.flatnonzero(reach[ptr[i] : ptr[i + 1]]) + ptr[i]
            values[rows] = stream.standard_normal((len(rows), *size[1:]))
        return self._tensor(values)

    @cached_property
    def _digests(self) -> list[bytes]:
        """Digest of each instance: features, edges and attributes that reach it, element and target."""
        graphs, ends = self.graphs, self.edge_index.cpu().numpy()
        rank = np.cumsum(graphs.node_reach) - 1
        columns = self.X.store.columns
        node_keys = [key for key in ("x", "pos") if key in columns and columns[key].slot == "node"]
        edge_keys = [key for key in ("edge_attr", "edge_weight", "edge_type") if key in columns]
        edge_keys = [key for key in edge_keys if columns[key].slot == "edge"]
        rows = np.atleast_2d(self.rows.cpu().numpy())
        digests = []
        for i in range(len(self)):
            nodes = np.arange(graphs.node_ptr[i], graphs.node_ptr[i + 1])[
                graphs.node_reach[slice(*graphs.node_ptr[i : i + 2])]
            ]
            edges = np.arange(graphs.edge_ptr[i], graphs.edge_ptr[i + 1])[
                graphs.edge_reach[slice(*graphs.edge_ptr[i : i + 2])]
            ]
            first = rank[nodes[0]] if len(nodes) else 0
            content = hashlib.blake2b(str((len(nodes), len(edges))).encode(), digest_size=16)
            content.update((rank[ends[:, edges]] - first).tobytes())
            for key in node_keys:
                content.update(columns[key].values[graphs.node_id[nodes]].tobytes())
            for key in edge_keys:
                content.update(columns[key].values[graphs.edge_id[edges]].tobytes())
            if self.X.level != "graph":
                content.update((rank[rows[:, i]] - first).tobytes())
            if self.targets is not None:
                content.update(int(self.targets[i]).to_bytes(8, "little", signed=True))
            digests.append(content.digest())
        return digests

    def with_split_edges(self, edges: np.ndarray, copied: np.ndarray) -> GraphBatch:
        """Return the batch with copies of some nodes added, for edges that start at them.

        Parameters
        ----------
        edges : ndarray of shape (2, E)
            The edges, where new nodes are numbered from `num_nodes`.
        copied : ndarray
            The node that each new node is a copy of.
        """
        graphs = self.graphs
        origin = np.concatenate([np.arange(self.num_nodes), copied]).astype(np.int64)
        instance = self.node_instance.cpu().numpy()[origin]
        order = np.argsort(instance, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        origin = origin[order]
        batch = copy.copy(self)
        batch.memo = {}
        node_ptr = np.concatenate([[0], np.cumsum(np.bincount(instance, minlength=len(self)))])
        batch.graphs = replace(
            graphs, node_ptr=node_ptr, node_id=graphs.node_id[origin], node_level=graphs.node_level[origin]
        )
        batch.node_instance = self._tensor(instance[order])
        batch.node_reach = self._tensor(batch.graphs.node_reach)
        batch.edge_index = self._tensor(place[edges])
        batch.rows = self.rows if self.X.level == "graph" else self._tensor(place[self.rows.cpu().numpy()])
        batch.__dict__.pop("ptr", None)
        return batch


def shared_graphs(X: Instances, device: torch.device) -> GraphBatch:
    """Return one copy of each graph, with the output rows of all instances."""
    graphs, first = np.unique(X.graph_index, return_index=True)
    one_each = X[first]
    batch = GraphBatch(one_each, np.arange(len(first)), whole_graphs(one_each, np.arange(len(first))), device=device)
    shift = batch.graphs.node_ptr[np.searchsorted(graphs, X.graph_index)]
    elements = X.element + shift[:, None]
    batch.rows = torch.from_numpy(elements[:, 0] if X.level == "node" else elements.T.copy()).to(device)
    return batch
