"""A tiny network and something to explain, for docstrings and guides."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GraphConv, global_add_pool

from skgnnx.graphs import Instances


class TinyNetwork(nn.Module):
    """Two graph convolutions and a linear head, for predictions about graphs, nodes or links.

    Parameters
    ----------
    level : {"graph", "node", "edge"}
        What the network predicts.
    """

    def __init__(self, level: str) -> None:
        super().__init__()
        self.level = level
        self.conv1, self.conv2 = GraphConv(4, 8), GraphConv(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(
        self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None, edge_label_index: Tensor | None = None
    ) -> Tensor:
        """Return logits of two classes."""
        x = self.conv2(self.conv1(x, edge_index).relu(), edge_index).relu()
        if self.level == "graph":
            x = global_add_pool(x, batch)
        elif edge_label_index is not None:
            x = x[edge_label_index[0]] * x[edge_label_index[1]]
        return self.head(x)


def example(level: str = "graph") -> tuple[nn.Module, Instances]:
    """Return a tiny seeded network and instances that it can be asked about.

    The network has random weights: it shows how to call things, not what they find.

    Parameters
    ----------
    level : {"graph", "node", "edge"}, default="graph"
        What is predicted: five molecule-sized graphs, five nodes of one graph, or five links of one graph.

    Returns
    -------
    model : nn.Module
    X : Instances
        Of length 5.

    Raises
    ------
    ValueError
        If `level` is none of the three.

    Examples
    --------
    >>> from skgnnx.testing import example
    >>> model, X = example("node")
    >>> X.shape, X.level
    ((5,), 'node')
    """
    if level not in ("graph", "node", "edge"):
        raise ValueError(f"The 'level' of example must be 'graph', 'node' or 'edge'. Got {level!r} instead.")
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinyNetwork(level).eval()
    graphs = [_ring_with_tail(num_nodes, random) for num_nodes in (6, 7, 8, 9, 10)]
    if level == "graph":
        return model, Instances.from_graphs(graphs)
    if level == "node":
        return model, Instances.from_nodes(graphs[-1], nodes=[0, 2, 4, 6, 8])
    return model, Instances.from_edges(graphs[-1], [[0, 1, 2, 3, 4], [1, 2, 9, 8, 6]])


def _ring_with_tail(num_nodes: int, random: torch.Generator) -> Data:
    """Return a ring of five nodes with a path attached, and random features."""
    ring = [(i, (i + 1) % 5) for i in range(5)]
    pairs = torch.tensor(ring + [(i - 1, i) for i in range(5, num_nodes)]).T
    edge_index = torch.cat([pairs, pairs.flip(0)], dim=1)
    return Data(x=torch.rand(num_nodes, 4, generator=random), edge_index=edge_index)
