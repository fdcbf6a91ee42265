"""Hypothesis strategies: awkward graphs, networks of many kinds, and predictions to explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch_geometric.data import Data

from skgnnx.graphs import Instances
from skgnnx.testing.drawing import Drawn, draw_graph, draw_instances, draw_network
from skgnnx.testing.networks import CONVS, POOLS, Network

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def require_hypothesis() -> ModuleType:
    """Return the hypothesis package, or say in one sentence how to install it."""
    try:
        import hypothesis
    except ImportError as error:
        raise ImportError("Checks need hypothesis, which is not installed: pip install 'skgnnx[test]'.") from error
    return hypothesis


def strategy_of(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return a strategy for what ``function(source, *args, **options)`` returns."""
    st = require_hypothesis().strategies

    def drawn(draw: Any) -> Any:
        return function(Drawn(draw, st.integers), *args, **options)

    return st.composite(drawn)()


def graphs(
    min_nodes: int = 1,
    max_nodes: int = 7,
    *,
    num_features: int = 3,
    categories: bool = False,
    edge_input: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> SearchStrategy[Data]:
    """Return a strategy for small graphs as awkward as those of users.

    Among them are one node, no edges, isolated nodes, repeated edges, self loops in first, middle and last place,
    directed and undirected edges in any order, and features that are all zero, constant, one-hot or whole numbers.

    Parameters
    ----------
    min_nodes, max_nodes : int
        Number of nodes.
    num_features : int, default=3
        Columns of ``x``.
    categories : bool, default=False
        True for integer features in [0, 5).
    edge_input : {None, "edge_attr", "edge_type", "edge_weight"}, default=None
        What edges carry: two numbers, a relation out of two, or a positive weight.
    dtype : torch.dtype, default=torch.float32
        Type of real-valued features.

    Returns
    -------
    SearchStrategy of Data

    Raises
    ------
    ImportError
        If hypothesis is missing.
    """
    options = {"num_features": num_features, "categories": categories, "edge_input": edge_input, "dtype": dtype}
    return strategy_of(draw_graph, min_nodes, max_nodes, **options)


def gnns(
    level: str = "graph", *, convs: Sequence[str] = tuple(CONVS), num_features: int = 3
) -> SearchStrategy[Network]:
    """Return a strategy for networks: many layers, heads, activations and poolings, with random weights.

    Parameters
    ----------
    level : {"graph", "node", "edge"}, default="graph"
        What is predicted.
    convs : sequence of str
        Keys of ``skgnnx.testing.networks.CONVS`` to choose from; all of them by default.
    num_features : int, default=3
        Columns of ``x``.

    Returns
    -------
    SearchStrategy of Network
        Some with integer features, some in double precision, some in training mode.

    Raises
    ------
    ImportError
        If hypothesis is missing.
    """
    return strategy_of(draw_network, level, convs=tuple(convs), num_features=num_features)


def instances(
    level: str = "graph",
    *,
    convs: Sequence[str] = tuple(CONVS),
    pools: Sequence[str] = tuple(POOLS),
    max_size: int = 4,
    categories: bool = True,
) -> SearchStrategy[tuple[Network, Instances]]:
    """Return a strategy for a network together with predictions of it.

    Parameters
    ----------
    level : {"graph", "node", "edge"}, default="graph"
        What is predicted.
    convs : sequence of str
        Kinds of layers to choose from; all by default.
    pools : sequence of str
        Kinds of pooling to choose from; all by default.
    max_size : int, default=4
        Most instances.
    categories : bool, default=True
        Whether some networks take integer features, which not every method can explain.

    Returns
    -------
    SearchStrategy of (Network, Instances)
        Some with targets, some without.

    Raises
    ------
    ImportError
        If hypothesis is missing.
    """
    options = {"convs": tuple(convs), "pools": tuple(pools), "categories": categories}
    return strategy_of(draw_instances, level, max_size=max_size, **options)
