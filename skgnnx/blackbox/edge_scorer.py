"""The network that scores an edge by the embeddings of its ends and of what is explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from skgnnx.blackbox.mask_learning import edge_pairs
from skgnnx.blackbox.node_states import NodeEmbedder
from skgnnx.graphs.batch import GraphBatch


@dataclass(frozen=True)
class ScoredEdges:
    """What the network reads of a batch.

    Parameters
    ----------
    batch : GraphBatch
    states : Tensor of shape (n, d)
        Embeddings of the different nodes, in double precision.
    place : Tensor of int of shape (N,)
        Row of each node of the batch among them.
    weight : Tensor of shape (E,)
        1 for edges that can reach the prediction and whose messages a mask scales, 0 for others.
    """

    batch: GraphBatch
    states: Tensor
    place: Tensor
    weight: Tensor

    @classmethod
    def of(cls, embedder: NodeEmbedder, batch: GraphBatch) -> ScoredEdges:
        """Return what the network reads of a batch."""
        states, place = embedder.of(batch)
        explained = torch.from_numpy(embedder.gnn.explained_edges(batch)).to(batch.device)
        return cls(batch, states.double(), place, (batch.edge_reach & explained).double())

    @property
    def num_elements(self) -> int:
        """Explained nodes of an instance: none for graphs, 1 for nodes, 2 for links."""
        return {"graph": 0, "node": 1, "edge": 2}[self.batch.X.level]

    @cached_property
    def rows(self) -> list[Tensor]:
        """Row of the states of the source, the target and the explained nodes of each edge (E,)."""
        found = list(self.place[self.batch.edge_index])
        if self.num_elements:
            elements = self.place[self.batch.rows.view(self.num_elements, -1)]
            found += list(elements[:, self.batch.edge_instance])
        return found

    @cached_property
    def _unit(self) -> tuple[Tensor, Tensor]:
        """Pair of directions that each edge belongs to, and the number of directions of each pair in the batch."""
        unit, first = edge_pairs(self.batch)
        return unit, torch.bincount(unit, minlength=len(first)).double()

    def tied(self, gates: Tensor) -> Tensor:
        """Return the mean over the directions of an undirected edge, for each of them (E,)."""
        unit, size = self._unit
        return (torch.zeros_like(size).index_add(0, unit, gates) / size)[unit]

    @cached_property
    def num_units(self) -> Tensor:
        """Pairs of directions of each instance that can be scored (B,)."""
        unit, size = self._unit
        share = self.weight / size[unit]
        return self.sums(share)

    @cached_property
    def counts(self) -> Tensor:
        """Edges of each instance that can be scored (B,), 1 where there are none."""
        return self.sums(torch.ones_like(self.weight)).clamp_min(1)

    def sums(self, values: Tensor) -> Tensor:
        """Sum values of edges that can be scored over each instance (B,)."""
        zeros = values.new_zeros(len(self.batch))
        return zeros.index_add(0, self.batch.edge_instance, values * self.weight)

    def spread(self, gates: Tensor) -> Tensor:
        """Return the standard deviation of the gates of each instance (B,)."""
        mean = self.sums(gates) / self.counts
        return (self.sums((gates - mean[self.batch.edge_instance]).square()) / self.counts).sqrt()


class EdgeScorer(nn.Module):
    """Linear, ReLU, Linear from the embeddings of an edge's ends, and of the explained nodes, to a logit.

    Parameters
    ----------
    width : int
        Size of an embedding.
    num_elements : int
        Explained nodes of an instance: 0, 1 or 2.
    hidden : int, default=64
        Units of the layer between.
    first_logit : float, default=0.0
        Added to all logits in the beginning.

    Attributes
    ----------
    epochs : int
        How many it has been trained for.
    adam : dict or None
        What the optimiser remembers of them.

    Notes
    -----
    The first layer acts on nodes, whose parts are then added by edge: the same as on embeddings side by side, without
    arrays of that width. In double precision, because sums of gradients over many edges would otherwise depend on
    their order.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, num_elements: int, hidden: int = 64, first_logit: float = 0.0) -> None:
        super().__init__()
        self.width, self.num_elements = width, num_elements
        self.first = nn.Linear((2 + num_elements) * width, hidden, dtype=torch.float64)
        self.last = nn.Linear(hidden, 1, dtype=torch.float64)
        with torch.no_grad():
            self.last.bias.add_(first_logit)
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(width, dtype=torch.float64))
        self.epochs = 0
        self.adam: dict[str, Any] | None = None

    def standardise(self, known: list[ScoredEdges]) -> None:
        """Read embeddings from now on relative to their mean and standard deviation over the ends of some edges."""
        count = max(sum(float(edges.weight.sum()) for edges in known), 1.0)

        def mean_of(values_of: Callable[[Tensor], Tensor]) -> Tensor:
            total = torch.zeros_like(self.mean)
            for edges in known:
                total.add_(_sum_over_ends(edges, values_of(edges.states)), alpha=1 / (2 * count))
            return total

        self.mean = mean_of(lambda states: states)
        spread = mean_of(lambda states: (states - self.mean).square()).sqrt()
        rounding = 1e-6 * mean_of(Tensor.abs).max()  # what varies by rounding only must not be blown up
        self.scale = torch.where(spread > rounding, spread, torch.ones_like(spread))

    def forward(self, edges: ScoredEdges) -> Tensor:
        """Return one logit per edge (E,)."""
        states = (edges.states - self.mean) / self.scale
        hidden = self.first.bias.expand(len(edges.weight), -1)
        for part, rows in zip(self.first.weight.split(self.width, dim=1), edges.rows, strict=True):
            hidden = hidden.add(functional.linear(states, part).index_select(0, rows))
        return self.last(hidden.relu()).squeeze(1)


def _sum_over_ends(edges: ScoredEdges, values: Tensor) -> Tensor:
    """Sum values of the different nodes over both ends of all edges that can be scored."""
    often = torch.zeros(len(values), dtype=values.dtype, device=values.device)
    for rows in edges.rows[:2]:
        often = often.index_add(0, rows, edges.weight)
    return often @ values
