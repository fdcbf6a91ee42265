"""GNN-LRP the naive way: one forward and one backward pass for each walk, all other nodes cut off at each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from side_by_side.networks import DONE
from side_by_side.tasks import Task
from skgnnx import GNNLRP
from skgnnx.blackbox.relevance import Rules, Surrogate
from skgnnx.blackbox.relevance.boundaries import Boundaries

WalkPass = Callable[[np.ndarray, int], float]


def only(state: Tensor, node: int) -> Tensor:
    """Return states through which gradients flow back to one node."""
    mask = torch.zeros(len(state), 1, dtype=state.dtype)
    mask[node] = 1
    return state * mask + (state * (1 - mask)).detach()


class ByHand:
    """Written for one network in plain torch: GIN layers, mean pooling, one Linear, features that are not negative.

    Positive and negative parts of the weights are taken once, before any walk.

    Parameters
    ----------
    task : Task
    """

    def __init__(self, task: Task) -> None:
        self.task, self.head = task, task.network.head
        gammas = np.linspace(3, 0, len(task.network.convs))
        self.layers = [
            [Shared(part, gamma) for part in conv.nn if isinstance(part, nn.Linear)]
            for conv, gamma in zip(task.network.convs, gammas, strict=True)
        ]

    @contextmanager
    def opened(self, i: int) -> Iterator[WalkPass]:
        """Yield what gives the relevance of a walk of a graph, for a target."""
        graph = self.task.graph(i)

        def relevance(walk: np.ndarray, target: int) -> float:
            DONE.note(graph.num_edges)
            x = graph.x.clone().requires_grad_()
            h = x
            for (first, second), node in zip(self.layers, walk, strict=False):
                h = only(h, node)
                h = h.index_add(0, graph.edge_index[1], h[graph.edge_index[0]])
                h = second(first(h).relu()).relu()
            score = self.head(only(h, walk[-1]).mean(dim=0))[target]
            (slope,) = torch.autograd.grad(score, x)
            return float((graph.x[walk[0]] * slope[walk[0]]).sum())

        yield relevance


class Shared:
    """A Linear whose values are its own and whose gradients share relevance out by the gamma rule."""

    def __init__(self, layer: nn.Linear, gamma: float) -> None:
        self.layer, self.gamma = layer, gamma
        self.parts = [(layer.weight.clamp(*ends), layer.bias.clamp(*ends)) for ends in ((0, None), (None, 0))]

    def __call__(self, h: Tensor) -> Tensor:
        """Return the units of the layer."""
        value = self.layer(h)
        if self.gamma == 0:
            return value
        positive, negative = (linear(h, *part) for part in self.parts)
        shared = value + self.gamma * torch.where(value > 0, positive, negative)
        return shared * (value / shared).detach()


class OnTheModel:
    """The same on any model as it is, with what our own explainers make of it: its layers under hooks.

    Opening the model is not counted.

    Parameters
    ----------
    task : Task
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    @contextmanager
    def opened(self, i: int) -> Iterator[WalkPass]:
        """Yield what gives the relevance of a walk of a graph, for its own target."""
        explainer = GNNLRP(self.task.network)
        with explainer._box().open(self.task.take(np.array([i])).instances()) as gnn:
            surrogate = Surrogate(gnn, Rules(explainer.rule))
            (batch,) = gnn.batches()

            def relevance(walk: np.ndarray, target: int) -> float:
                passed = surrogate.pass_forward(batch, boundaries=OneWalk(walk))
                (slope,) = torch.autograd.grad(passed.scores[0, target], passed.x)
                return float((passed.x[walk[0]].detach() * slope[walk[0]]).sum())

            yield relevance


class OneWalk(Boundaries):
    """Lets gradients pass along one walk."""

    def __init__(self, walk: np.ndarray) -> None:
        super().__init__()
        self.walk = walk

    def _crossed(self, number: int, state: Tensor) -> tuple[Tensor, Tensor]:
        open_at_node = only(state, self.walk[number])
        return open_at_node, open_at_node
