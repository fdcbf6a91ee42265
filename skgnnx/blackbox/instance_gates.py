"""Gates learned for each prediction by itself, all of a batch at once."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.amortised_gates import STRIDE, GateProblem
from skgnnx.blackbox.gate_sites import GatesFound, GateSites, stages
from skgnnx.blackbox.multipliers import Multipliers
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.graphs.batch import GraphBatch

CHECK_EVERY = 10  # steps between looks at the gates without noise
START = -1.0  # mean of the first locations


class InstanceLearning:
    """Free locations of all gates of a batch, with baselines of their own for every instance.

    Losses, penalties and multipliers are those of each instance, and Adam works element by element: every instance
    takes the steps that it would take alone.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    problem : GateProblem
    seed : int
        Root seed of the first values and of the noise.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, problem: GateProblem, seed: int) -> None:
        self.batch, self.problem, self.seed = batch, problem, seed
        self.sites = GateSites(gnn, batch)
        self.stages = stages(self.sites.calls, [kind.readout for kind in gnn.trace.kinds])
        self.multipliers = Multipliers(len(batch), problem.dual_lr, batch.device)
        self.locations = [(START + row).requires_grad_() for row in self._noise(0)]
        self.baselines = [each.requires_grad_() for each in self._first_baselines()]
        self._gates = torch.ones_like(self.sites.active, dtype=torch.float64)
        self._retained = self.sites.retained(self._gates)
        self._excess = torch.zeros_like(self._retained)

    def _noise(self, step: int) -> Tensor:
        return self.batch.noise(self.seed * STRIDE + step, "edge", len(self.sites.calls)).T.contiguous()

    def _first_baselines(self) -> list[Tensor]:
        widths = [call.messages.shape[1] for call in self.sites.calls]
        uniform = torch.special.ndtr(self.batch.noise(self.seed, "instance", sum(widths)))
        return [(2 * u - 1) / math.sqrt(max(u.shape[1], 1)) for u in uniform.split(widths, dim=1)]

    def run(self) -> GatesFound:
        """Learn one layer after the other, from the top, and return the best gates that were seen.

        Best is what leaves the fewest gates open while the loss has grown by no more than it may. All open gates, which
        change nothing, are the last resort.
        """
        adam = torch.optim.Adam([*self.locations, *self.baselines], self.problem.lr)
        total = self.problem.epochs * len(self.stages)
        for step in range(total):
            enabled = np.concatenate(self.stages[: step // self.problem.epochs + 1])
            self._step(adam, enabled, step + 1)
            if (step + 1) % CHECK_EVERY == 0 or step == total - 1:
                self._look()
        probability = self.problem.gates.probability(self._stacked())
        return GatesFound.of(self.sites, self._gates, probability, self._excess, self.multipliers.values)

    def _stacked(self) -> Tensor:
        return torch.stack([location.detach() for location in self.locations])

    def _of_edges(self) -> list[Tensor]:
        """Return baselines with one row per edge."""
        return [baseline[self.batch.edge_instance] for baseline in self.baselines]

    def _step(self, adam: torch.optim.Adam, enabled: np.ndarray, number: int) -> None:
        problem, sites = self.problem, self.sites
        trained = [each[call] for call in enabled.tolist() for each in (self.locations, self.baselines)]
        location = torch.stack(self.locations)
        excess = sites.excess(problem.gates.sampled(location, self._noise(number)), self._of_edges())
        violation = problem.violation(excess)
        penalty = problem.penalty * sites.total(problem.gates.penalty(location)) / sites.num_edges.clamp_min(1)
        objective = (penalty + self.multipliers.values * violation).sum()
        gradients = torch.autograd.grad(objective, trained, allow_unused=True)
        for leaf, gradient in zip(trained, gradients, strict=True):
            leaf.grad = torch.zeros_like(leaf) if gradient is None else gradient
        adam.step()
        self.multipliers.ascend(violation.detach())

    def _look(self) -> None:
        """Note for each instance what is better than all before."""
        gates = self.problem.gates.settled(self._stacked())
        with torch.no_grad():
            excess = self.sites.excess(gates, self._of_edges())
        retained = self.sites.retained(gates)
        better = (excess <= self.problem.allowance) & (retained < self._retained)
        self._gates = torch.where(better[self.batch.edge_instance], gates, self._gates)
        self._retained = torch.where(better, retained, self._retained)
        self._excess = torch.where(better, excess, self._excess)
