"""Layers that compute only what can still reach a prediction: the first rows of a batch ordered by distance."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import is_sparse

from skgnnx.blackbox.constants import Constants
from skgnnx.blackbox.hooks import mapped
from skgnnx.graphs.batch import UNTRIMMED, GraphBatch
from skgnnx.graphs.computation_graph import ComputationGraphs

FEWEST_ROWS = 16


class Trim(IntEnum):
    """What layers leave out of what is too far from every explained element, from the most to nothing.

    Attributes
    ----------
    TARGETS
        Layers get only the rows and edges that are still felt, and sums are made only for nodes that are needed next.
    PAIRS
        The same for layers that look at the targets again: they get (sources, targets), as for a bipartite graph.
    ROWS
        Layers get only the rows and edges that are still felt.
    EDGES
        Layers get only the edges that are still felt, and all rows.
    NONE
        Nothing is left out.
    """

    TARGETS = 0
    PAIRS = 1
    ROWS = 2
    EDGES = 3
    NONE = UNTRIMMED


class Prefixes:
    """How many nodes and edges are within so many messages of an explained element.

    Parameters
    ----------
    batch : GraphBatch
        Ordered by distance.
    constants : Constants
        Where the first rows of tensors that stay are kept.
    """

    def __init__(self, batch: GraphBatch, constants: Constants) -> None:
        graphs = batch.graphs
        self._constants = constants
        self._checked: dict[int, Any] = {}
        self._nodes = _rows_within(graphs)
        self._edges = np.concatenate([[0], np.cumsum(np.bincount(graphs.edge_level, minlength=1))])

    def nodes(self, distance: int) -> int:
        """Return how many nodes are at most so far from an element."""
        return int(self._nodes[min(distance, len(self._nodes) - 1)])

    def edges(self, distance: int) -> int:
        """Return how many edges lead to a node that is less far than that."""
        return int(self._edges[min(distance, len(self._edges) - 1)])

    def check_ends(self, number: int, edge_index: Any, rows: int) -> None:
        """Raise IndexError if a call has messages from or to rows that it has not: a graphics card fails for good then.

        Parameters
        ----------
        number : int
            Which propagate call of the model.
        edge_index : Tensor or sparse matrix
            Its edges.
        rows : int
            Number of rows of its larger side.
        """
        if self._checked.get(number) is edge_index or is_sparse(edge_index) or not edge_index.numel():
            return
        if int(edge_index.max()) >= rows:
            raise IndexError(
                f"Messages must run between the {rows} rows of call {number}. Got {int(edge_index.max())}."
            )
        self._checked[number] = edge_index

    def known_rows(self) -> set[int]:
        """Return every number of nodes that a layer may see."""
        return {int(count) for count in self._nodes}

    def pair(self, x: Tensor, distance: int) -> tuple[Tensor, Tensor]:
        """Return the rows that are felt from `distance`, and those that are felt from one message less."""
        return self._constants.first(x, self.nodes(distance)), self._constants.first(x, self.nodes(distance - 1))

    def cut(self, value: Any, distance: int, *, nodes: int | None, edges: int) -> Any:
        """Return an argument of a layer without what is farther than `distance` from every explained element.

        Parameters
        ----------
        value : Any
            Tensors with one row per node or edge, pairs of them, and edge lists are cut; anything else stays.
        distance : int
            How far what goes into the layer can still be felt.
        nodes : int or None
            Rows that node tensors have now; None leaves them whole.
        edges : int
            Number of all edges.
        """
        return mapped(lambda part: self._cut(part, distance, nodes, edges), value)

    def _cut(self, value: Any, distance: int, nodes: int | None, edges: int) -> Any:
        if not torch.is_tensor(value) or value.layout != torch.strided or value.dim() == 0:
            return value
        if value.dim() == 2 and tuple(value.shape) == (2, edges) and value.dtype == torch.int64:
            return self._constants.first(value, self.edges(distance), dim=1)
        if nodes is not None and len(value) == nodes:
            return self._constants.first(value, self.nodes(distance))
        return self._constants.first(value, self.edges(distance)) if len(value) == edges else value


def is_mistakable(batch: GraphBatch, trim: Trim) -> bool:
    """Return True if layers could take rows of nodes for rows of edges, or the other way round, by their number.

    Parameters
    ----------
    batch : GraphBatch
    trim : Trim
        What they leave out.
    """
    if trim >= Trim.EDGES:
        return trim == Trim.EDGES and batch.num_edges == batch.num_nodes
    has_attributes = any(column.slot == "edge" for column in batch.X.store.columns.values())
    return has_attributes and batch.num_edges in _rows_within(batch.graphs)


def _rows_within(graphs: ComputationGraphs) -> np.ndarray:
    """Return how many nodes are at most so many messages away, but not too few.

    Few rows are multiplied by other kernels than many, which round differently: batching is to change nothing.
    """
    within = np.cumsum(np.bincount(graphs.node_level, minlength=1))
    return np.maximum(within, min(FEWEST_ROWS, within[-1]))
