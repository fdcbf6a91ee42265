"""Learning which messages may be replaced: for one prediction at a time, or by networks that know it for all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgnnx.blackbox.gate_networks import GateNetworks
from skgnnx.blackbox.gate_sites import GateSites, stages
from skgnnx.blackbox.hard_concrete import HardConcrete
from skgnnx.blackbox.multipliers import Multipliers
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.config import memory_budget
from skgnnx.graphs.batch import GraphBatch

STRIDE = 1_000_003  # between the seeds of two runs
MEMORY = 0.9  # of the running mean of the loss: one flipped prediction of a sharp model violates the bound in its step


@dataclass(frozen=True)
class GateProblem:
    r"""What is minimised: :math:`\rho \sum P(\bar s > 0) / E` as long as the loss grows by no more than `allowance`.

    Parameters
    ----------
    gates : HardConcrete
        Distribution of the gates.
    penalty : float
        :math:`\rho`.
    allowance : float
        How much larger the loss may become.
    epochs : int
        Passes over the data before the next layer from the top is learned, too.
    lr, dual_lr : float
        Learning rates of Adam, and of the multipliers.
    """

    gates: HardConcrete
    penalty: float
    allowance: float
    epochs: int
    lr: float
    dual_lr: float

    def violation(self, excess: Tensor) -> Tensor:
        """Return how much more than allowed losses have grown."""
        return (excess - self.allowance).clamp_min(0)


class LearnedGates(nn.Module):
    """What amortised learning has reached, and all that it needs to go on.

    Parameters
    ----------
    networks : GateNetworks
        To be trained.
    multiplier : Multipliers
        One.

    Attributes
    ----------
    networks, best : GateNetworks
        The newest, and those that are used.
    layers_done : Fraction
        How many layers have had all of their epochs: part of one for each epoch, however many steps that took.
    steps_done : int
        Steps of the optimiser, each of which has noise of its own.
    retained, change : float
        Share of open gates and relative change of predictions on held-out instances, of the best.
    """

    def __init__(self, networks: GateNetworks, multiplier: Multipliers) -> None:
        super().__init__()
        self.networks, self.best = networks, copy.deepcopy(networks)
        self.multiplier = multiplier
        self.layers_done, self.steps_done = Fraction(0), 0
        self.retained, self.change = 1.0, 0.0
        self.optimiser: dict[str, Any] | None = None
        self._mean = self._weight = 0.0

    def running_mean(self, loss: float) -> float:
        """Take in the growth of the loss in one step, and return the mean over this one and those just before."""
        self._mean = MEMORY * self._mean + (1 - MEMORY) * loss
        self._weight = MEMORY * self._weight + (1 - MEMORY)
        return self._mean / self._weight


class AmortisedLearning:
    """Trains networks on all instances of a learning set.

    Parameters
    ----------
    gnn : OpenBox
    problem : GateProblem
    learned : LearnedGates
        Changed by `run`.
    seed : int
        Root seed of the noise.
    """

    def __init__(self, gnn: OpenBox, problem: GateProblem, learned: LearnedGates, seed: int) -> None:
        self.gnn, self.problem, self.learned, self.seed = gnn, problem, learned, seed
        self._known: dict[int, GateSites] = {}
        self._room = memory_budget() / 2

    def sites(self, batch: GraphBatch) -> GateSites:
        """Return the gates of a batch; those that fit into half of the memory budget are kept."""
        if id(batch) in self._known:
            return self._known[id(batch)]
        found = GateSites(self.gnn, batch)
        size = sum(t.numel() * t.element_size() for c in found.calls for t in (c.source, c.target, c.messages, c.edge))
        if size <= self._room:
            self._room -= size
            self._known[id(batch)] = found
        return found

    def run(
        self,
        steps: Sequence[Sequence[GraphBatch]],
        held_out: Sequence[GraphBatch],
        epochs: int | None,
        tolerance: float,
    ) -> None:
        """Go through the steps of so many epochs, all that the problem asks for by default, and keep the best networks.

        Best is what leaves the fewest gates open without changing predictions by more than `tolerance`.
        """
        learned = self.learned
        readouts = [kind.readout for kind in self.gnn.trace.kinds]
        order = stages(self.sites(steps[0][0]).calls, readouts)
        if not order:  # readouts only
            return
        adam = torch.optim.Adam(learned.networks.parameters(), self.problem.lr)
        if learned.optimiser is not None:
            adam.load_state_dict(learned.optimiser)
            learned.retained, learned.change = self._measured(learned.best, held_out)
        for _ in range(self.problem.epochs * len(order) if epochs is None else epochs):
            enabled = np.concatenate(order[: int(learned.layers_done) + 1])
            for batches in steps:
                self._step(adam, batches, enabled, learned.steps_done)
                learned.steps_done += 1
            learned.layers_done += Fraction(1, self.problem.epochs)
            retained, change = self._measured(learned.networks, held_out)
            if change <= tolerance and (retained < learned.retained or learned.change > tolerance):
                learned.best = copy.deepcopy(learned.networks)
                learned.retained, learned.change = retained, change
        learned.optimiser = adam.state_dict()

    def _step(self, adam: torch.optim.Adam, batches: Sequence[GraphBatch], enabled: np.ndarray, number: int) -> None:
        """Take one step; gradients of the batches are added up."""
        networks = self.learned.networks
        trained = [
            parameter
            for call in enabled.tolist()
            for parameter in (*networks.networks[call].parameters(), networks.baselines[call])
        ]
        sites = [self.sites(batch) for batch in batches]
        num_instances = sum(len(batch) for batch in batches)
        num_edges = max(sum(float(each.num_edges.sum()) for each in sites), 1.0)
        loss = 0.0
        for_size, for_loss = ([torch.zeros_like(parameter) for parameter in trained] for _ in range(2))
        for each in sites:
            penalty, grown = self._terms(each, number)
            _add_gradients(for_size, penalty / num_edges, trained)
            _add_gradients(for_loss, grown / num_instances, trained)
            loss += float(grown.detach()) / num_instances
        # Whether the whole step violates the bound is known only now, when all of its batches are through.
        violation = max(self.learned.running_mean(loss) - self.problem.allowance, 0.0)
        factor = float(self.learned.multiplier.values) if violation > 0 else 0.0
        adam.zero_grad()
        for parameter, first, second in zip(trained, for_size, for_loss, strict=True):
            parameter.grad = first + factor * second
        adam.step()
        self.learned.multiplier.ascend(torch.tensor([violation]))

    def _terms(self, sites: GateSites, number: int) -> tuple[Tensor, Tensor]:
        """Return the summed penalty and the summed growth of the loss of a batch."""
        problem, networks = self.problem, self.learned.networks
        location = sites.of_edges(networks(sites.calls)).double()
        noise = sites.batch.noise(self.seed * STRIDE + number, "edge", len(sites.calls)).T
        excess = sites.excess(problem.gates.sampled(location, noise), list(networks.baselines))
        penalty = problem.penalty * sites.total(problem.gates.penalty(location)).sum()
        return penalty, excess.clamp_min(0).sum()

    def _measured(self, networks: GateNetworks, batches: Sequence[GraphBatch]) -> tuple[float, float]:
        """Return the share of open gates and the relative change of predictions, without noise."""
        opened = total = changed = compared = 0.0
        with torch.no_grad():
            for batch in batches:
                sites = self.sites(batch)
                gates = self.problem.gates.settled(sites.of_edges(networks(sites.calls)))
                change, size = sites.change(gates, list(networks.baselines))
                opened, total = opened + float(sites.total(gates).sum()), total + float(sites.num_gates.sum())
                changed, compared = changed + float(change.sum()), compared + float(size.sum())
        return opened / max(total, 1.0), changed / max(compared, 1e-12)


def _add_gradients(known: list[Tensor], objective: Tensor, parameters: Sequence[Tensor]) -> None:
    found = torch.autograd.grad(objective, parameters, retain_graph=True, allow_unused=True)
    for total, gradient in zip(known, found, strict=True):
        if gradient is not None:
            total += gradient
