"""The networks that benchmarks explain, and their training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, global_mean_pool

Conv = Callable[[int, int], nn.Module]


@dataclass
class Work:
    """How often networks ran, and over how many edges in all: figures that no load on the machine changes."""

    forwards: int = 0
    edges: int = 0
    edges_of_last: int = 0

    def note(self, edges: int) -> None:
        """Count one run."""
        self.forwards += 1
        self.edges += edges
        self.edges_of_last = edges


DONE = Work()


class Stack(nn.Module):
    """Layers with ReLUs and a linear head; counts its calls outside of itself, so that it has no state of its own."""

    def __init__(self, conv: Conv, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(a, b) for a, b in pairwise([features, *[hidden] * layers]))
        self.head = nn.Linear(hidden, classes)

    def __call__(self, x: Tensor, edge_index: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run, and count."""
        DONE.note(edge_index.shape[1])
        return super().__call__(x, edge_index, *args, **kwargs)

    def hidden(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return what the last layer gives."""
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return x


class NodeNetwork(Stack):
    """One row of logits per node."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        return self.head(self.hidden(x, edge_index))


class GraphNetwork(Stack):
    """Mean pooling, and one row of logits per graph."""

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        """Return the logits (graphs, classes)."""
        return self.head(global_mean_pool(self.hidden(x, edge_index), batch))


def gin(inputs: int, outputs: int) -> nn.Module:
    """Return a GIN layer with a network of two linear layers."""
    return GINConv(nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs)))


def gat(inputs: int, outputs: int) -> nn.Module:
    """Return a GAT layer of four heads."""
    return GATConv(inputs, outputs // 4, heads=4)


def sage_max(inputs: int, outputs: int) -> nn.Module:
    """Return a GraphSAGE layer that takes the maximum over neighbours."""
    return SAGEConv(inputs, outputs, aggr="max")


CONVS: dict[str, Conv] = {"GCN": GCNConv, "GIN": gin, "GAT": gat, "SAGE-max": sage_max}


def train(network: nn.Module, arguments: tuple[Tensor, ...], labels: Tensor, steps: int) -> None:
    """Fit a network to the labels of all its rows."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(*arguments), labels).backward()
        optimiser.step()
    network.eval()
