"""What is explained, as columns that read like a one-dimensional array."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from torch_geometric.data import Data

from skgnnx.graphs.arguments import checked_target
from skgnnx.graphs.store import GraphStore
from skgnnx.graphs.truth import Truth

if TYPE_CHECKING:
    from skgnnx.graphs.instances import Instances

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
    source: tuple[Any, int] | None = field(default=None, repr=False, compare=False)


class InstanceArray:
    """The columns behind `Instances`: rows of (graph, element, target) over a store of graphs.

    Parameters
    ----------
    store : GraphStore
        The graphs, each held once.
    graph_index : ndarray of shape (n,)
        Graph of each instance.
    element : ndarray of shape (n, 0), (n, 1) or (n, 2)
        Nothing for a graph, a node id, or the two ends of a link.
    target : ndarray of shape (n,) or None
        Class or output column.
    truth : dict of str to object array, optional
        By kind: a tuple of alternative bool arrays per instance, or None.
    ids : ndarray of shape (n,), optional
        The user's names of the instances.
    node_ids : list of ndarray, optional
        The user's names of the nodes, per graph.
    exclude_link : bool, default=False
        Whether the edges between the ends of a link are left out.
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
        if not isinstance(key, slice):
            key = np.asarray(key)
            key = key[()] if key.ndim == 0 else key.astype(np.int64) if key.size == 0 else key
        if isinstance(key, (int, np.integer)):
            return self._instance(range(len(self))[key])
        rows = np.arange(len(self))[key]
        return type(self)(
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

    def compact(self) -> Self:
        """Return the same instances over a store of only the graphs that they use."""
        graphs, graph_index = np.unique(self.graph_index, return_inverse=True)
        names = None if self.node_ids is None else [self.node_ids[g] for g in graphs]
        return self._over(self.store.select(graphs), graph_index, names)

    def map_graphs(self, function: Callable[[Data], Data]) -> Self:
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
        return self._over(GraphStore.from_graphs(graphs).like(self.store), self.graph_index, self.node_ids)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the instances, their graphs and the index of their edges to a new folder, without pickle.

        Parameters
        ----------
        path : path-like
            A folder that does not exist. It appears under this name when it is complete.

        Raises
        ------
        FileExistsError
            If there is something under this name.
        TypeError
            If an id is neither number nor string.
        """
        from skgnnx.graphs.folder import write

        write(self, path)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Instances:
        """Map a folder written by `save` into memory; arrays are read where they are used, and cannot be changed.

        Parameters
        ----------
        path : path-like
            The folder. It must stay as it is while the instances are used.

        Returns
        -------
        Instances

        Raises
        ------
        ValueError
            If the folder was not written by `save`, or by a newer version, or if some of it is missing or damaged.

        Examples
        --------
        >>> import tempfile, torch
        >>> from torch_geometric.data import Data
        >>> from skgnnx import Instances
        >>> X = Instances.from_nodes(Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1], [1, 2]])))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     X.save(f"{folder}/graph")
        ...     len(Instances.from_nodes(Instances.open(f"{folder}/graph"), nodes=[2]))
        1
        """
        from skgnnx.graphs.folder import read

        return read(path)

    def with_target(self, target: Any) -> Self:
        """Return the same instances with other targets (None, an int, or one int per instance)."""
        X = self[:]
        X.target = checked_target(target, len(self))
        return X

    def _over(self, store: GraphStore, graph_index: np.ndarray, node_ids: list[Any] | None) -> Self:
        X = self[:]
        X.store, X.graph_index, X.node_ids = store, graph_index, node_ids
        return X


def is_excluded(X: InstanceArray, rows: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return True for edges between the two ends of the explained link, where that link is taken out of the graph.

    Parameters
    ----------
    X : InstanceArray
        What is explained.
    rows : ndarray of int, shape (k,)
        Instance that each edge is looked at for.
    ends : ndarray of int, shape (2, k)
        Ends of the edges, local to their graph.

    Returns
    -------
    ndarray of bool, shape (k,)
    """
    if not X.exclude_link:
        return np.zeros(len(rows), dtype=bool)
    return (np.sort(ends, axis=0) == np.sort(X.element[rows], axis=1).T).all(axis=0)
