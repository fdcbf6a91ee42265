"""Awkward graphs, networks and predictions, drawn from any source of integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from skgnnx.graphs import Instances
from skgnnx.testing.networks import CONVS, EDGE_WIDTH, NUM_CATEGORIES, NUM_RELATIONS, POOLS, Network

FEATURES = ("zero", "constant", "one-hot", "integer", "normal", "normal")
LOOPS = ("none", "first", "middle", "last")
LARGEST_SEED = 2**16


class Source(Protocol):
    """Where choices come from: a strategy of hypothesis, which can shrink them, or a seed."""

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""


class Seeded:
    """Choices that are spread evenly, the same for the same seed.

    Parameters
    ----------
    seed : int
        At least 0.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return int(self.random.randint(low, high + 1))


class Drawn:
    """Choices of hypothesis.

    Parameters
    ----------
    draw : callable
        What ``hypothesis.strategies.composite`` hands over.
    integers : callable
        ``hypothesis.strategies.integers``.
    """

    def __init__(self, draw: Any, integers: Any) -> None:
        self.draw, self.integers = draw, integers

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return int(self.draw(self.integers(low, high)))


def choice(source: Source, options: Sequence[Any]) -> Any:
    """Return one of several options; the first is the one that shrinking goes to."""
    return options[source.integer(0, len(options) - 1)]


def draw_graph(
    source: Source,
    min_nodes: int = 1,
    max_nodes: int = 7,
    *,
    num_features: int = 3,
    categories: bool = False,
    edge_input: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Data:
    """Return a small and awkward graph, as described in `skgnnx.testing.graphs`."""
    n = source.integer(min_nodes, max_nodes)
    drawn = [(source.integer(0, n - 1), source.integer(0, n - 1)) for _ in range(source.integer(0, 2 * n))]
    pairs = [pair for pair in drawn if pair[0] != pair[1]]
    if pairs and source.integer(0, 2) == 2:
        pairs.append(pairs[0])
    if source.integer(0, 1):
        back = [pair[::-1] for pair in pairs]
        interleaved = [edge for both in zip(pairs, back) for edge in both]
        pairs = choice(source, [pairs + back, interleaved])
    place = choice(source, LOOPS)
    if place != "none":
        v = source.integer(0, n - 1)
        pairs.insert({"first": 0, "middle": len(pairs) // 2, "last": len(pairs)}[place], (v, v))
    edge_index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous()
    random = torch.Generator().manual_seed(source.integer(0, LARGEST_SEED))
    if categories:
        x = torch.randint(NUM_CATEGORIES, (n, num_features), generator=random)
    else:
        x = _features(choice(source, FEATURES), n, num_features, random).to(dtype)
    data = Data(x=x, edge_index=edge_index, num_nodes=n)
    if edge_input is not None:
        data[edge_input] = _edge_values(edge_input, len(pairs), random, dtype)
    return data


def _features(kind: str, n: int, width: int, random: torch.Generator) -> Tensor:
    if kind == "normal":
        return torch.randn(n, width, generator=random, dtype=torch.float64)
    if kind == "integer":
        return torch.randint(-2, 3, (n, width), generator=random)
    if kind == "one-hot":
        return torch.eye(width)[torch.randint(width, (n,), generator=random)]
    return torch.full((n, width), 0.0 if kind == "zero" else 1.0)


def _edge_values(key: str, num_edges: int, random: torch.Generator, dtype: torch.dtype) -> Tensor:
    if key == "edge_type":
        return torch.randint(NUM_RELATIONS, (num_edges,), generator=random)
    if key == "edge_weight":
        return torch.rand(num_edges, generator=random, dtype=torch.float64).to(dtype) + 0.5
    return torch.randn(num_edges, EDGE_WIDTH, generator=random, dtype=torch.float64).to(dtype)


def draw_network(
    source: Source,
    level: str,
    *,
    convs: Sequence[str] = tuple(CONVS),
    pools: Sequence[str] = tuple(POOLS),
    num_features: int = 3,
    categories: bool = True,
) -> Network:
    """Return a network with random weights, as described in `skgnnx.testing.gnns`."""
    model = Network(
        choice(source, convs),
        level,
        num_features=num_features,
        categories=categories and source.integer(0, 4) == 4,
        norm=source.integer(0, 1) == 1,
        module_relu=source.integer(0, 1) == 1,
        log_softmax=source.integer(0, 1) == 1,
        pool=choice(source, pools),
        seed=source.integer(0, LARGEST_SEED),
    )
    return model.to(choice(source, [torch.float32, torch.float64])).train(source.integer(0, 1) == 1)


def draw_instances(source: Source, level: str, *, max_size: int = 4, **options: Any) -> tuple[Network, Instances]:
    """Return a network and predictions of it, as described in `skgnnx.testing.instances`."""
    model = draw_network(source, level, **options)
    size = source.integer(1, max_size)
    target = choice(source, [None, 0, model.num_classes - 1])
    given: dict[str, Any] = {"categories": model.categories, "edge_input": model.edge_input}
    given["dtype"] = model.head.weight.dtype
    if level == "graph":
        return model, Instances.from_graphs([draw_graph(source, **given) for _ in range(size)], target)
    data = draw_graph(source, **given)
    nodes = [source.integer(0, data.x.shape[0] - 1) for _ in range(2 * size)]
    if level == "node":
        return model, Instances.from_nodes(data, nodes[:size], target)
    exclude_link = source.integer(0, 3) == 3
    return model, Instances.from_edges(data, [nodes[:size], nodes[size:]], target, exclude_link=exclude_link)
