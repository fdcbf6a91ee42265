"""Hypothesis strategies: awkward graphs, networks of many kinds, and predictions to explain."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from skgnnx.graphs import Instances
from skgnnx.testing.networks import CONVS, EDGE_WIDTH, NUM_CATEGORIES, NUM_RELATIONS, POOLS, Network

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

FEATURES = ("normal", "zero", "constant", "one-hot", "integer")
LOOPS = ("none", "first", "middle", "last")


def require_hypothesis() -> ModuleType:
    """Return the hypothesis package, or say in one sentence how to install it."""
    try:
        import hypothesis
    except ImportError as error:
        raise ImportError(
            "Checks of explainers need hypothesis. Install it with: pip install 'skgnnx[test]'"
        ) from error
    return hypothesis


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
    st = require_hypothesis().strategies
    options = {"num_features": num_features, "categories": categories, "edge_input": edge_input, "dtype": dtype}
    return st.composite(_draw_graph)(min_nodes, max_nodes, **options)


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
    st = require_hypothesis().strategies
    return st.composite(_draw_network)(level, tuple(convs), num_features)


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
    st = require_hypothesis().strategies
    return st.composite(_draw_instances)(level, tuple(convs), tuple(pools), max_size, categories)


def _draw_graph(draw: Any, min_nodes: int, max_nodes: int, **options: Any) -> Data:
    st = require_hypothesis().strategies
    n = draw(st.integers(min_nodes, max_nodes))
    node = st.integers(0, n - 1)
    pairs = [pair for pair in draw(st.lists(st.tuples(node, node), max_size=2 * n)) if pair[0] != pair[1]]
    if pairs and draw(st.booleans()):
        pairs.append(pairs[0])
    if draw(st.booleans()):
        back = [(target, source) for source, target in pairs]
        interleaved = [edge for both in zip(pairs, back) for edge in both]
        pairs = draw(st.sampled_from([pairs + back, interleaved]))
    place = draw(st.sampled_from(LOOPS))
    if place != "none":
        v = draw(node)
        pairs.insert({"first": 0, "middle": len(pairs) // 2, "last": len(pairs)}[place], (v, v))
    edge_index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous()
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(FEATURES))
    data = Data(x=_features(kind, n, random, **options), edge_index=edge_index, num_nodes=n)
    if options["edge_input"] is not None:
        data[options["edge_input"]] = _edge_values(options["edge_input"], len(pairs), random, options["dtype"])
    return data


def _features(
    kind: str, n: int, random: torch.Generator, *, num_features: int, categories: bool, dtype: torch.dtype, **_: Any
) -> Tensor:
    if categories:
        return torch.randint(NUM_CATEGORIES, (n, num_features), generator=random)
    if kind == "normal":
        return torch.randn(n, num_features, generator=random, dtype=torch.float64).to(dtype)
    if kind == "integer":
        return torch.randint(-2, 3, (n, num_features), generator=random).to(dtype)
    if kind == "one-hot":
        return torch.eye(num_features, dtype=dtype)[torch.randint(num_features, (n,), generator=random)]
    return torch.full((n, num_features), 0.0 if kind == "zero" else 1.0, dtype=dtype)


def _edge_values(key: str, num_edges: int, random: torch.Generator, dtype: torch.dtype) -> Tensor:
    if key == "edge_type":
        return torch.randint(NUM_RELATIONS, (num_edges,), generator=random)
    if key == "edge_weight":
        return torch.rand(num_edges, generator=random, dtype=torch.float64).to(dtype) + 0.5
    return torch.randn(num_edges, EDGE_WIDTH, generator=random, dtype=torch.float64).to(dtype)


def _draw_network(
    draw: Any,
    level: str,
    convs: tuple[str, ...],
    num_features: int,
    pools: tuple[str, ...] = tuple(POOLS),
    categories: bool = True,
) -> Network:
    st = require_hypothesis().strategies
    flag = st.booleans()
    model = Network(
        draw(st.sampled_from(convs)),
        level,
        num_features=num_features,
        categories=categories and draw(st.integers(0, 4)) == 4,
        norm=draw(flag),
        module_relu=draw(flag),
        log_softmax=draw(flag),
        pool=draw(st.sampled_from(pools)),
        seed=draw(st.integers(0, 2**16)),
    )
    return model.to(draw(st.sampled_from([torch.float32, torch.float64]))).train(draw(flag))


def _draw_instances(
    draw: Any, level: str, convs: tuple[str, ...], pools: tuple[str, ...], max_size: int, categories: bool
) -> tuple[Network, Instances]:
    st = require_hypothesis().strategies
    model = draw(st.composite(_draw_network)(level, convs, 3, pools, categories))
    graph = graphs(categories=model.categories, edge_input=model.edge_input, dtype=model.head.weight.dtype)
    if level == "graph":
        X = Instances.from_graphs(draw(st.lists(graph, min_size=1, max_size=max_size)))
    else:
        data = draw(graph)
        node = st.integers(0, data.num_nodes - 1)
        if level == "node":
            X = Instances.from_nodes(data, draw(st.lists(node, min_size=1, max_size=max_size)))
        else:
            ends = draw(st.lists(st.tuples(node, node), min_size=1, max_size=max_size))
            X = Instances.from_edges(data, torch.tensor(ends).T)
    target = draw(st.sampled_from([None, 0, model.num_classes - 1]))
    return model, X.with_target(target)
