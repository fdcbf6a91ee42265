"""A batch: the disjoint union of the computation graphs of several instances, as tensors."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from skgnnx.graphs.computation_graph import ComputationGraphs
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.noise import draw_normal

UNTRIMMED = 4
ADJACENCY = ("adjacency",)  # a tuple, so that no key of the user's graphs is the same


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
        # How to cut some of the instances again, where the batch holds more than its graphs tell (true degrees).
        self.cut_again: Callable[[GraphBatch, np.ndarray], GraphBatch] | None = None
        self.trim = UNTRIMMED  # how much layers may leave out of what is far from the explained elements
        node_instance = np.repeat(np.arange(len(graphs)), np.diff(graphs.node_ptr))
        edge_instance = np.repeat(np.arange(len(graphs)), np.diff(graphs.edge_ptr))
        self.node_instance = self._tensor(node_instance)
        self.edge_instance = self._tensor(edge_instance)
        self.node_reach = self._tensor(graphs.node_reach)
        self.edge_reach = self._tensor(graphs.edge_reach)
        self.edge_index = self._tensor(graphs.ends + graphs.node_ptr[edge_instance])

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
        node_key = np.repeat(np.arange(len(self)) * n, np.diff(self.graphs.node_ptr)) + self.graphs.node_id
        rows = np.searchsorted(node_key, np.arange(len(self))[:, None] * n + roots)
        return self._tensor(rows[:, 0] if X.level == "node" else rows.T)

    @cached_property
    def ptr(self) -> Tensor:
        """First node of each instance, and the number of nodes (B + 1,)."""
        return self._tensor(self.graphs.node_ptr)

    def adjacency(self) -> Tensor:
        """Return the edges as a sparse CSR matrix with one row per target, the form that ``adj_t`` has in PyG."""
        if ADJACENCY not in self.memo:
            source, target = self.edge_index
            if "edge_weight" in self.X.store.columns:
                values = self.attribute("edge_weight")
            else:
                dtype = None if self.x is None or not self.x.is_floating_point() else self.x.dtype
                values = torch.ones(self.num_edges, device=self.device, dtype=dtype)
            size = (self.num_nodes, self.num_nodes)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse")  # torch calls them a beta; users have them already
                matrix = torch.sparse_coo_tensor(torch.stack([target, source]), values, size)
                self.memo[ADJACENCY] = matrix.to_sparse_csr()
        return self.memo[ADJACENCY]

    def with_own_tensors(self) -> GraphBatch:
        """Return a batch whose tensors may be changed in place without an effect on this one."""
        twin = copy.copy(self)
        twin.memo = {key: value.clone() if _is_dense(value) else value for key, value in self.memo.items()}
        twin.edge_index, twin.node_instance = self.edge_index.clone(), self.node_instance.clone()
        twin.rows, twin.ptr = self.rows.clone(), self.ptr.clone()
        return twin

    def for_target(self, target: int) -> GraphBatch:
        """Return the same batch, of which the same target is explained for every instance."""
        twin = copy.copy(self)
        twin.targets = torch.full((len(self),), target, device=self.device)
        return twin

    def is_modified(self) -> bool:
        """Return True if a tensor of a batch with its own tensors has been changed in place."""
        tensors = [self.edge_index, self.node_instance, self.rows, self.ptr, *self.memo.values()]
        return any(tensor._version > 0 for tensor in tensors if _is_dense(tensor))

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
        return [array[a:b][reach[a:b]] for a, b in pairwise(ptr)]

    @cached_property
    def num_reached_nodes(self) -> Tensor:
        """Nodes of each instance that can reach the prediction."""
        return self.sum_nodes(self.node_reach.double())

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
        if self.cut_again is not None:
            raise RuntimeError(
                "Nodes and edges can be removed only from a batch that was made for it: others hold the degrees of the "
                "whole graph. Got one made without; ask for batches(removal=True)."
            )
        return self._like_this(GraphBatch(self.X, self.positions, graphs, self._numpy_targets(), self.device))

    def take(self, instances: np.ndarray, keep: np.ndarray | None = None) -> GraphBatch:
        """Return a batch of some of the instances, given by their positions in this one.

        Parameters
        ----------
        instances : ndarray of int
        keep : ndarray of bool, optional
            Which of all their edges stay, one copy of an instance after the other.
        """
        if self.cut_again is not None:
            taken = self._like_this(self.cut_again(self, instances))
            return taken if keep is None else taken.keep_edges(keep)
        targets = self._numpy_targets()
        targets = None if targets is None else targets[instances]
        graphs = self.graphs.take(instances, keep)
        return self._like_this(GraphBatch(self.X, self.positions[instances], graphs, targets, self.device))

    def _like_this(self, part: GraphBatch) -> GraphBatch:
        part.trim = self.trim
        return part

    def _numpy_targets(self) -> np.ndarray | None:
        return None if self.targets is None else self.targets.cpu().numpy()

    def to_data(self, x: Tensor | None = None) -> Batch:
        """Return the union as a PyG `Batch` with every key of the graphs."""
        data = Batch(edge_index=self.edge_index, batch=self.node_instance)
        data.ptr = self.ptr
        for key in self.X.store.columns:
            data[key] = self.attribute(key) if key != "x" or x is None else x
        for key, values in self.X.store.objects.items():
            data[key] = [values[g] for g in self.X.graph_index[self.positions]]
        if self.X.level == "edge":
            data.edge_label_index = self.rows
        if self.X.store.sparse:
            data.adj_t = self.adjacency()
        data.num_nodes = self.num_nodes
        return data

    def noise(
        self,
        random_state: int,
        shape: str,
        columns: int | None = None,
        *,
        places: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Tensor:
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
        places : tuple of two ndarrays of int, optional
            Rows and columns: only these numbers of the whole draw, as one row.

        Returns
        -------
        Tensor
            float64, on the batch's device.
        """
        return draw_normal(self, random_state, shape, columns, places)


def _is_dense(value: Any) -> bool:
    return torch.is_tensor(value) and value.layout == torch.strided
