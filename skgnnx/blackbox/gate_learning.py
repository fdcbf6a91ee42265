"""Gates of edges drawn from a concrete distribution, what they cost, and the descent of the network that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skgnnx.blackbox.edge_scorer import EdgeScorer, ScoredEdges
from skgnnx.blackbox.open_box import OpenBox

SEEDS_APART = 1_000_003  # more than there are epochs, so that no two seeds draw the same noise
TIED = 1e-5  # relative difference of two losses that says nothing
INSIDE = 0.99  # gates are drawn so far towards a half before logarithms are taken, as in the references


@dataclass(frozen=True)
class Concrete:
    """The relaxed Bernoulli distribution of gates, whose temperature moves from epoch to epoch.

    Parameters
    ----------
    first, last : float
        Temperatures of the first epoch, and after all of them.
    epochs : int
        How many there are; later ones keep the last temperature.
    margin : float in [0, 0.5]
        The uniform noise stays so far from 0 and 1; at 0.5 there is none.
    """

    first: float
    last: float
    epochs: int
    margin: float

    def temperature(self, epoch: int) -> float:
        """Return ``first * (last / first) ** (epoch / epochs)``."""
        return self.first * (self.last / self.first) ** (min(epoch, self.epochs) / self.epochs)

    def gates(self, logits: Tensor, normal: Tensor, epoch: int) -> Tensor:
        """Return one draw per edge (E,), from standard normal noise, which its distribution function makes uniform."""
        low, high = (self.margin + (1 - 2 * self.margin) * torch.special.ndtr(noise) for noise in (normal, -normal))
        return torch.sigmoid((low.log() - high.log() + logits) / self.temperature(epoch))


@dataclass(frozen=True)
class GateCosts:
    """What gates cost an instance, besides the prediction that they spoil.

    Parameters
    ----------
    size, entropy, connectivity : float
        Coefficients of the size, of the mean entropy, and of the mean cross-entropy of gates of edges that share a
        node.
    mean_size : bool
        Whether the size is the mean of the gates, or their sum.
    budget : float, default=0.0
        Size that costs nothing.
    """

    size: float
    entropy: float
    connectivity: float
    mean_size: bool
    budget: float = 0.0

    def of(self, edges: ScoredEdges, gates: Tensor) -> Tensor:
        """Return the costs of each instance (B,)."""
        size = edges.sums(gates) / (edges.counts if self.mean_size else 1)
        costs = self.size * ((size - self.budget).relu() if self.budget else size)
        inner = INSIDE * gates + (1 - INSIDE) / 2
        if self.entropy:
            entropy = -inner * inner.log() - (1 - inner) * (1 - inner).log()
            costs = costs + self.entropy * edges.sums(entropy) / edges.counts
        if self.connectivity:
            costs = costs + self.connectivity * mean_cross_entropy(edges, inner)
        return costs


def mean_cross_entropy(edges: ScoredEdges, gates: Tensor) -> Tensor:
    r"""Return the mean of :math:`-s_e \log s_f - (1 - s_e) \log(1 - s_f)` over pairs of edges that share a node (B,).

    Both orders of a pair count, each direction of an undirected edge is an edge, and edges that share two nodes count
    at both. Sums over the edges of a node factorise, so that no pair is listed.
    """
    batch = edges.batch

    def at_nodes(values: Tensor) -> Tensor:
        zeros = values.new_zeros(batch.num_nodes)
        return sum((zeros.index_add(0, end, values * edges.weight) for end in batch.edge_index), zeros)

    degree = at_nodes(torch.ones_like(gates))
    total, pairs = torch.zeros_like(degree), degree * (degree - 1)
    for share in (gates, 1 - gates):
        log = share.log()
        total = total - at_nodes(share) * at_nodes(log) + at_nodes(share * log)
    per_instance = total.new_zeros(len(batch))
    pairs = per_instance.index_add(0, batch.node_instance, pairs).clamp_min(1)
    return per_instance.index_add(0, batch.node_instance, total) / pairs


class ScorerTraining:
    """Adam on the network that scores edges: losses are summed over the instances of a step.

    Parameters
    ----------
    gnn : OpenBox
    network : EdgeScorer
        Changed in place.
    concrete : Concrete
    costs : GateCosts
    lr : float
        Learning rate.
    tied : bool
        Whether the directions of an undirected edge share the mean of their gates.
    seed : int
        Root seed of the noise.

    Attributes
    ----------
    losses, held_out_losses : list of float
        Mean loss per instance in each epoch: under noise while it learned, and of the held-out instances afterwards,
        without noise.
    best_epoch : int
        Number, among the epochs run here, of the one with the least loss on held-out instances, from which the network
        and what the optimiser knows are kept in the end.
    """

    def __init__(
        self, gnn: OpenBox, network: EdgeScorer, concrete: Concrete, costs: GateCosts, lr: float, tied: bool, seed: int
    ) -> None:
        self.gnn, self.network, self.concrete, self.costs = gnn, network, concrete, costs
        self.tied, self.seed = tied, seed
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        if network.adam is not None:
            self.optimizer.load_state_dict(network.adam)
            self.optimizer.param_groups[0]["lr"] = lr
        self.losses: list[float] = []
        self.held_out_losses: list[float] = []
        self.best_epoch = 0

    def run(self, steps: Sequence[Sequence[ScoredEdges]], held_out: Sequence[ScoredEdges], epochs: int) -> None:
        """Go through the steps so many times."""
        size, kept = max(sum(len(edges.batch) for step in steps for edges in step), 1), self._kept()
        for epoch in range(epochs):
            self.losses.append(sum(self._step(step) for step in steps) / size)
            self.network.epochs += 1
            with torch.no_grad():
                sums = sum(float(self.loss(edges, self.gates(edges)).sum()) for edges in held_out)
            self.held_out_losses.append(sums / max(sum(len(edges.batch) for edges in held_out), 1))
            if self._is_better(self.held_out_losses[-1]):
                self.best_epoch = epoch
                kept = self._kept()
        self.network.epochs -= epochs - 1 - self.best_epoch
        self._put_back(kept)

    def _kept(self) -> list[list[Tensor]]:
        """Return copies of the parameters, each with what the optimiser remembers of it."""
        remembered = (self.optimizer.state.get(parameter, {}) for parameter in self.network.parameters())
        both = zip(self.network.parameters(), remembered, strict=True)
        return [[one.detach().clone() for one in (parameter, *known.values())] for parameter, known in both]

    def _put_back(self, kept: list[list[Tensor]]) -> None:
        with torch.no_grad():
            for parameter, (value, *known) in zip(self.network.parameters(), kept, strict=True):
                parameter.copy_(value)
                state = self.optimizer.state[parameter]
                state.update(zip(state, known, strict=True))
        self.network.adam = self.optimizer.state_dict()

    def _is_better(self, loss: float) -> bool:
        """Return True for a loss below the least one so far, by more than rounding."""
        known = self.held_out_losses[self.best_epoch]
        return len(self.held_out_losses) == 1 or loss < known - TIED * abs(known)

    def _step(self, step: Sequence[ScoredEdges]) -> float:
        self.optimizer.zero_grad()
        total = 0.0
        for edges in step:
            loss = self.loss(edges, self.drawn(edges)).sum()
            loss.backward()
            total += float(loss.detach())
        self.optimizer.step()
        return total

    def drawn(self, edges: ScoredEdges) -> Tensor:
        """Return gates drawn for the present epoch (E,)."""
        epoch = self.network.epochs
        normal = edges.batch.noise(self.seed * SEEDS_APART + epoch, "edge")
        gates = self.concrete.gates(self.network(edges), normal, epoch)
        return edges.tied(gates) if self.tied else gates

    def gates(self, edges: ScoredEdges) -> Tensor:
        """Return gates without noise (E,)."""
        return scores(self.network, edges, tied=self.tied)

    def loss(self, edges: ScoredEdges, gates: Tensor) -> Tensor:
        """Return the loss of each instance under gates (B,)."""
        prediction = self.gnn.prediction_loss(edges.batch, edge_mask=gates.to(self.gnn.dtype))
        return prediction.double() + self.costs.of(edges, gates)


def scores(network: EdgeScorer, edges: ScoredEdges, *, tied: bool) -> Tensor:
    """Return the sigmoid of the logit of each edge (E,), or the mean over its directions."""
    gates = network(edges).sigmoid()
    return edges.tied(gates) if tied else gates
