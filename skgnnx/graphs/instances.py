"""What is explained: one prediction per instance, many instances as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Batch, Data, Dataset

from skgnnx.graphs.store import GraphStore
from skgnnx.graphs.truth import Truth, checked_truth

LEVELS = {0: "graph", 1: "node", 2: "edge"}


@dataclass(frozen=True)
class Instance:
    """One prediction to explain.

    Parameters
    ----------
    graph : Data
        The whole graph of the prediction.
    element : None, int or (int, int)
        None for a prediction of the graph, a node id, or the two ends of a link.
    target : int or None
        Class or output column to explain; None means what the model predicts.
    level : {"graph", "node", "edge"}
        What the prediction is about.
    """

    graph: Data
    element: int | tuple[int, int] | None = None
    target: int | None = None
    level: str = "graph"
    source: tuple[Instances, int] | None = field(default=None, repr=False, compare=False)


class Instances:
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

    def __init__(
        self,
        store: GraphStore,
        graph_index: np.ndarray,
        element: np.ndarray,
        target: np.ndarray | None = None,
        *,
        truth: Truth | None = None,
        ids: np.ndarray | None = None,
        node_ids: list[Any] | None = None,
        exclude_link: bool = False,
    ) -> None:
        self.store = store
        self.graph_index = graph_index
        self.element = element
        self.target = target
        self.truth = truth
        self.ids = np.arange(len(graph_index)) if ids is None else ids
        self.node_ids = node_ids
        self.exclude_link = exclude_link

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
            raise TypeError(_ONE_DATA)
        graphs = list(graphs)
        _check_not_empty(len(graphs))
        store = GraphStore.from_graphs(graphs)
        element = np.empty((len(graphs), 0), dtype=np.int64)
        return cls._checked(store, np.arange(len(graphs)), element, target, truth=truth, ids=ids)

    @classmethod
    def from_nodes(
        cls,
        data: Data,
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
        data : Data
            The graph; its tensors are shared, not copied, so do not change them afterwards.
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
        store = GraphStore.from_graphs([data])
        element = _node_elements(nodes, store.num_nodes(0))[:, None]
        graph_index = np.zeros(len(element), dtype=np.int64)
        names = _checked_node_ids(node_ids, store.num_nodes(0))
        if ids is None:
            ids = element[:, 0] if names is None else names[0][element[:, 0]]
        return cls._checked(store, graph_index, element, target, truth=truth, ids=ids, node_ids=names)

    @classmethod
    def from_edges(
        cls,
        data: Data,
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
        data : Data
            The graph that the links belong to.
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
        store = GraphStore.from_graphs([data])
        pairs = _as_int_array(edge_label_index, "edge_label_index")
        if pairs.ndim != 2 or pairs.shape[0] != 2:
            raise ValueError(f"'edge_label_index' must have shape (2, n). Got {pairs.shape}.")
        element = np.ascontiguousarray(pairs.T)
        _check_range(element, store.num_nodes(0), "edge_label_index")
        graph_index = np.zeros(len(element), dtype=np.int64)
        names = _checked_node_ids(node_ids, store.num_nodes(0))
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
        _check_not_empty(len(graph_index))
        if ids is not None:
            ids = _as_names(ids, len(graph_index), "ids")
        X = cls(store, graph_index, element, _checked_target(target, len(graph_index)), ids=ids, **options)
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

    @property
    def shape(self) -> tuple[int]:
        """Number of instances, as a tuple."""
        return (len(self.graph_index),)

    @property
    def level(self) -> str:
        """What the predictions are about: "graph", "node" or "edge"."""
        return LEVELS[self.element.shape[1]]

    def __len__(self) -> int:
        return len(self.graph_index)

    def __iter__(self) -> Iterator[Instance]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Instances(n={len(self)}, level={self.level!r}, num_graphs={len(np.unique(self.graph_index))})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        items = np.empty(len(self), dtype=object)
        for i in range(len(self)):
            items[i] = self[i]
        return items

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if isinstance(key, (int, np.integer)):
            return self._instance(range(len(self))[key])
        rows = np.arange(len(self))[key if isinstance(key, slice) else np.asarray(key)]
        return Instances(
            self.store,
            self.graph_index[rows],
            self.element[rows],
            None if self.target is None else self.target[rows],
            truth=None if self.truth is None else {kind: values[rows] for kind, values in self.truth.items()},
            ids=self.ids[rows],
            node_ids=self.node_ids,
            exclude_link=self.exclude_link,
        )

    def _instance(self, i: int) -> Instance:
        ends = tuple(self.element[i].tolist())
        element = ends if len(ends) == 2 else (ends[0] if ends else None)
        target = None if self.target is None else int(self.target[i])
        return Instance(self.store.graph(self.graph_index[i]), element, target, self.level, source=(self, i))

    def num_units(self, kind: str, i: int) -> int:
        """Return the length of a dense array of `kind` ("edge", "node" or "feature") for instance `i`."""
        if kind == "edge":
            return self.store.num_edges(self.graph_index[i])
        if kind == "node":
            return self.store.num_nodes(self.graph_index[i])
        x = self.store.columns.get("x")
        return 0 if x is None else int(np.prod(x.values.shape[1:]))

    def compact(self) -> Instances:
        """Return the same instances over a store of only the graphs that they use."""
        graphs, graph_index = np.unique(self.graph_index, return_inverse=True)
        names = None if self.node_ids is None else [self.node_ids[g] for g in graphs]
        return self._over(self.store.select(graphs), graph_index, names)

    def map_graphs(self, function: Callable[[Data], Data]) -> Instances:
        """Return the same instances over changed graphs.

        Parameters
        ----------
        function : callable
            Takes and returns a `Data`; must keep the nodes and edges.

        Returns
        -------
        Instances
        """
        graphs = [function(self.store.graph(g)) for g in range(self.store.num_graphs)]
        return self._over(GraphStore.from_graphs(graphs), self.graph_index, self.node_ids)

    def with_target(self, target: Any) -> Instances:
        """Return the same instances with other targets (None, an int, or one int per instance)."""
        X = self[:]
        X.target = _checked_target(target, len(self))
        return X

    def _over(self, store: GraphStore, graph_index: np.ndarray, node_ids: list[Any] | None) -> Instances:
        X = self[:]
        X.store, X.graph_index, X.node_ids = store, graph_index, node_ids
        return X


def check_instances(X: Any) -> Instances:
    """Return `X` as `Instances`.

    Parameters
    ----------
    X : Instances, or list, tuple, Series, object array, Dataset or Batch of Data, or list of Instance
        Graph-level instances are made of bare graphs.

    Returns
    -------
    Instances

    Raises
    ------
    TypeError
        If `X` is a single `Data`, or holds something else than graphs and instances.
    ValueError
        If `X` is empty, or mixes levels.

    Examples
    --------
    >>> import torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx import check_instances
    >>> check_instances([Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]))])
    Instances(n=1, level='graph', num_graphs=1)
    """
    if isinstance(X, Instances):
        _check_not_empty(len(X))
        return X
    if isinstance(X, Data) and not isinstance(X, Batch):
        raise TypeError(_ONE_DATA)
    if isinstance(X, Instance):
        X = [X]
    if isinstance(X, (Batch, Dataset)):
        return Instances.from_graphs(X)
    if isinstance(X, (str, bytes, dict)) or not hasattr(X, "__iter__"):
        raise TypeError(f"X must be Instances or a sequence of graphs. Got {type(X).__name__}.")
    items = list(X)
    _check_not_empty(len(items))
    if not any(isinstance(item, Instance) for item in items):
        return Instances.from_graphs(items)
    from skgnnx.graphs.joining import gather_instances

    return gather_instances(items)


_ONE_DATA = (
    "X must hold one entry per prediction. Got one Data; use Instances.from_nodes(data) to explain its nodes, "
    "Instances.from_edges(data, pairs) for links, or Instances.from_graphs([data]) for the graph."
)


def _check_not_empty(n: int) -> None:
    if n == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: X must hold an instance.")


def _as_int_array(values: Any, name: str) -> np.ndarray:
    array = values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        if array.dtype.kind != "f" or not np.array_equal(array, np.floor(array)):
            raise TypeError(f"{name!r} must hold integers. Got dtype {array.dtype}.")
    return array.astype(np.int64)


def _check_range(element: np.ndarray, num_nodes: int, name: str) -> None:
    bad = ((element < 0) | (element >= num_nodes)).any(axis=1)
    if bad.any():
        i = int(np.argmax(bad))
        got = element[i].tolist() if element.shape[1] > 1 else int(element[i, 0])
        raise IndexError(f"{name!r} must hold node ids in [0, {num_nodes}). Got {got} at position {i}.")


def _node_elements(nodes: Any, num_nodes: int) -> np.ndarray:
    if nodes is None:
        return np.arange(num_nodes)
    array = nodes.detach().cpu().numpy() if torch.is_tensor(nodes) else np.asarray(nodes)
    if array.dtype == bool:
        if array.shape != (num_nodes,):
            raise ValueError(f"A 'nodes' mask must have shape ({num_nodes},). Got {array.shape}.")
        return np.flatnonzero(array)
    array = np.atleast_1d(_as_int_array(array, "nodes"))
    _check_range(array[:, None], num_nodes, "nodes")
    return array


def _checked_node_ids(node_ids: Any, num_nodes: int) -> list[np.ndarray] | None:
    return None if node_ids is None else [_as_names(node_ids, num_nodes, "node_ids")]


def _as_names(names: Any, n: int, parameter: str) -> np.ndarray:
    names = names.tolist() if torch.is_tensor(names) else list(names)
    if len(names) != n:
        raise ValueError(f"{parameter!r} must have length {n}. Got {len(names)}.")
    array = np.asarray(names) if all(isinstance(name, (int, np.integer)) for name in names) else None
    if array is not None:
        return array
    array = np.empty(n, dtype=object)
    array[:] = names
    return array


def _checked_target(target: Any, n: int) -> np.ndarray | None:
    if target is None:
        return None
    array = _as_int_array(target, "target")
    if array.ndim == 0:
        array = np.full(n, int(array))
    array = array.reshape(-1)
    if len(array) != n:
        raise ValueError(f"'target' must be None, an int, or {n} ints. Got {len(array)}.")
    if (array < 0).any():
        i = int(np.argmax(array < 0))
        raise ValueError(f"'target' must be at least 0. Got {array[i]} at index {i}.")
    return array
