"""What is explained: one prediction per instance, many instances as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_geometric.data import Batch, Data

from skgnnx.graphs.arguments import (
    ONE_DATA,
    as_int_array,
    as_names,
    check_not_empty,
    check_range,
    checked_node_ids,
    checked_target,
    node_elements,
)
from skgnnx.graphs.instance_array import Instance, InstanceArray
from skgnnx.graphs.store import GraphStore
from skgnnx.graphs.truth import checked_truth


class Instances(InstanceArray):
    """Predictions to explain, as a one-dimensional array-like that scikit-learn can split.

    Use `from_graphs`, `from_nodes` or `from_edges`. Graphs are kept once, as columns; an instance is a row of
    (graph, element, target). Objects are immutable, and slices share the graphs.

    Examples
    --------
    >>> import torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx import Instances
    >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> X = Instances.from_nodes(Data(x=torch.eye(3), edge_index=edge_index), nodes=[0, 2])
    >>> X.shape, X.level, X[1].element
    ((2,), 'node', 2)
    """

    @classmethod
    def from_graphs(
        cls,
        graphs: Any,
        target: Any = None,
        *,
        truth: dict[str, Sequence[Any]] | None = None,
        ids: Sequence[Any] | None = None,
    ) -> Instances:
        """Make one instance per graph.

        Parameters
        ----------
        graphs : list of Data, PyG Dataset or Batch
            The graphs to explain.
        target : None, int or array-like of shape (n,), default=None
            Class, or output column for regression and multi-label models. None means the predicted class.
        truth : dict, optional
            ``{"edge" | "node" | "feature": one entry per instance}``; an entry is a bool array, a list of alternative
            bool arrays, or None where no truth is known.
        ids : sequence of length n, optional
            The user's own names of the instances.

        Returns
        -------
        Instances

        Raises
        ------
        TypeError
            If `graphs` is a single `Data`.
        ValueError
            If there is no graph, or a graph is malformed; the message names its index.
        """
        if isinstance(graphs, Batch):
            graphs = graphs.to_data_list()
        if isinstance(graphs, Data):
            raise TypeError(ONE_DATA)
        graphs = list(graphs)
        check_not_empty(len(graphs))
        for i, graph in enumerate(graphs):
            if isinstance(graph, Batch):
                raise TypeError(
                    f"Each graph must be a single Data. Got a Batch at index {i}; use batch.to_data_list()."
                )
        store = GraphStore.from_graphs(graphs)
        element = np.empty((len(graphs), 0), dtype=np.int64)
        return cls._checked(store, np.arange(len(graphs)), element, target, truth=truth, ids=ids)

    @classmethod
    def from_nodes(
        cls,
        data: Data | Instances,
        nodes: Any = None,
        target: Any = None,
        *,
        truth: dict[str, Sequence[Any]] | None = None,
        ids: Sequence[Any] | None = None,
        node_ids: Sequence[Any] | None = None,
    ) -> Instances:
        """Make one instance per node of one shared graph.

        Parameters
        ----------
        data : Data or Instances
            The graph; its tensors are shared, not copied, so do not change them afterwards. Instances of one graph, as
            `open` returns them, stand for that graph with its index and its names of nodes.
        nodes : None, array-like of int or of bool, default=None
            Node ids, or a mask over the nodes; None means all nodes.
        target, truth, ids
            As in `from_graphs`.
        node_ids : sequence of length num_nodes, optional
            The user's own names of the nodes.

        Returns
        -------
        Instances

        Raises
        ------
        IndexError
            If a node id is out of range; the message names its position.
        """
        store, node_ids = _one_graph(data, node_ids)
        element = node_elements(nodes, store.num_nodes(0))[:, None]
        graph_index = np.zeros(len(element), dtype=np.int64)
        names = checked_node_ids(node_ids, store.num_nodes(0))
        own_names = element[:, 0] if names is None else names[0][element[:, 0]]
        chosen = own_names if ids is None else ids
        return cls._checked(store, graph_index, element, target, truth=truth, ids=chosen, node_ids=names)

    @classmethod
    def from_edges(
        cls,
        data: Data | Instances,
        edge_label_index: Any,
        target: Any = None,
        *,
        truth: dict[str, Sequence[Any]] | None = None,
        ids: Sequence[Any] | None = None,
        node_ids: Sequence[Any] | None = None,
        exclude_link: bool = False,
    ) -> Instances:
        """Make one instance per link, whether it is in the graph or not.

        Parameters
        ----------
        data : Data or Instances
            The graph that the links belong to, as in `from_nodes`.
        edge_label_index : array-like of shape (2, n)
            Source and target node of each link.
        target, truth, ids, node_ids
            As in `from_nodes`.
        exclude_link : bool, default=False
            If True, the edges between the two ends are taken out of the graph of that instance, as in training with
            held-out links.

        Returns
        -------
        Instances

        Raises
        ------
        IndexError
            If an end is out of range.
        ValueError
            If `edge_label_index` does not have two rows.
        """
        store, node_ids = _one_graph(data, node_ids)
        pairs = as_int_array(edge_label_index, "edge_label_index")
        if pairs.ndim != 2 or pairs.shape[0] != 2:
            raise ValueError(f"'edge_label_index' must have shape (2, n). Got {pairs.shape}.")
        element = np.ascontiguousarray(pairs.T)
        check_range(element, store.num_nodes(0), "edge_label_index")
        graph_index = np.zeros(len(element), dtype=np.int64)
        names = checked_node_ids(node_ids, store.num_nodes(0))
        return cls._checked(
            store, graph_index, element, target, truth=truth, ids=ids, node_ids=names, exclude_link=exclude_link
        )

    @classmethod
    def _checked(
        cls,
        store: GraphStore,
        graph_index: np.ndarray,
        element: np.ndarray,
        target: Any,
        *,
        truth: Any,
        ids: Any,
        **options: Any,
    ) -> Instances:
        check_not_empty(len(graph_index))
        if ids is not None:
            ids = as_names(ids, len(graph_index), "ids")
        X = cls(store, graph_index, element, checked_target(target, len(graph_index)), ids=ids, **options)
        X.truth = checked_truth(truth, X)
        return X

    @staticmethod
    def concat(parts: Sequence[Instances]) -> Instances:
        """Join instances of one level.

        Parameters
        ----------
        parts : sequence of Instances
            At least one; all of the same level, with targets in all or in none.

        Returns
        -------
        Instances

        Raises
        ------
        ValueError
            If levels differ, or only some parts hold targets.
        """
        from skgnnx.graphs.joining import join_instances

        return join_instances(list(parts))


def _one_graph(data: Data | InstanceArray, node_ids: Any) -> tuple[GraphStore, Any]:
    """Return the store of one graph, and the names of its nodes."""
    if not isinstance(data, InstanceArray):
        return GraphStore.from_graphs([data]), node_ids
    if data.store.num_graphs != 1:
        raise ValueError(
            f"'data' must hold one graph. Got Instances of {data.store.num_graphs} graphs; pass the Data of one."
        )
    known = None if data.node_ids is None else data.node_ids[0]
    return data.store, known if node_ids is None else node_ids


__all__ = ["Instance", "Instances"]
