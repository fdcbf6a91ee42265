"""Gradients along a straight line of inputs, for all instances of a batch and several targets."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.special import roots_legendre
from torch import Tensor

from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.graphs.batch import GraphBatch

Inputs = dict[str, Tensor]


class Line:
    """The straight line from one input of a batch to another.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    start, end : dict of str to Tensor
        Inputs of `OpenBox.forward`: "x" (N, ...), "edge_mask" (E,) or one column per propagate call (E, L), or both.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, start: Inputs, end: Inputs) -> None:
        self.batch = batch
        self._gnn = gnn
        self._start = start
        self._end = end
        self._copies = {1: batch}
        self._at_once = 1

    def take(self, instances: np.ndarray) -> Line:
        """Return the line of some of the instances, given by their ascending positions in the batch."""
        taken = torch.zeros(len(self.batch), dtype=torch.bool, device=self.batch.device)
        taken[torch.from_numpy(instances).to(taken.device)] = True
        start, end = (
            {key: value[taken[self.instance_of(key)]] for key, value in inputs.items()}
            for inputs in (self._start, self._end)
        )
        return Line(self._gnn, self.batch.take(instances), start, end)

    def prepare(self, num_points: int) -> None:
        """Let so many points run together as pays: as copies of a small batch."""
        copies = self._gnn.copies(self.batch, num_points)
        self._at_once = len(copies) // len(self.batch)
        self._copies[self._at_once] = copies

    def instance_of(self, key: str) -> Tensor:
        """Return the instance of each row of an input."""
        return self.batch.edge_instance if key == "edge_mask" else self.batch.node_instance

    def sums(self, values: Inputs) -> Tensor:
        """Return the sum over all inputs for each instance (B,)."""
        parts = [value.flatten(1).sum(1) if value.dim() > 1 else value for value in values.values()]
        summed = [
            part.new_zeros(len(self.batch)).index_add(0, self.instance_of(key), part)
            for key, part in zip(values, parts, strict=True)
        ]
        return torch.stack(summed).sum(0)

    def scores(self, fractions: Tensor) -> Tensor:
        """Return scores of all targets at some points of the line (points, B, T), without gradient."""
        with torch.no_grad():
            found = [self._scores(part, self._at(part)) for part in fractions.split(self._at_once)]
        return torch.cat([part.unflatten(0, (-1, len(self.batch))) for part in found])

    def integrals(self, num_points: int, targets: list[Tensor]) -> list[Inputs]:
        r"""Return for each of several targets :math:`(z - z_0) \int_0^1 \partial s / \partial z \, da`, in float64.

        Parameters
        ----------
        num_points : int
            Points of the Gauss-Legendre rule.
        targets : list of Tensor of shape (B,)
            Columns of the scores.
        """
        points, weights = gauss_legendre(num_points)
        shares = [
            {key: torch.zeros_like(value, dtype=torch.float64) for key, value in self._end.items()} for _ in targets
        ]
        for some, share in zip(points.split(self._at_once), weights.split(self._at_once), strict=True):
            inputs = {key: value.requires_grad_() for key, value in self._at(some).items()}
            scores = self._scores(some, inputs)
            for found, target in zip(shares, targets, strict=True):
                self._add(found, inputs, of_targets(scores, target.repeat(len(some))).sum(), share)
        for found in shares:
            for key, value in found.items():
                value *= self._end[key].double() - self._start[key].double()
        return shares

    def _add(self, found: Inputs, inputs: Inputs, score: Tensor, weights: Tensor) -> None:
        """Add weighted gradients to their sums over all points."""
        if not score.requires_grad:
            return
        gradients = torch.autograd.grad(score, list(inputs.values()), retain_graph=True, allow_unused=True)
        for key, gradient in zip(inputs, gradients, strict=True):
            if gradient is not None:
                by_point = gradient.double().view(len(weights), -1)
                found[key] += (weights.to(by_point.device) @ by_point).view_as(found[key])

    def _at(self, points: Tensor) -> Inputs:
        """Return the inputs at some points of the line, one point after the other."""
        inputs = {}
        for key, end in self._end.items():
            fraction = points.to(end).view(-1, *(1,) * end.dim())
            inputs[key] = torch.lerp(self._start[key].unsqueeze(0), end.unsqueeze(0), fraction).flatten(0, 1)
        return inputs

    def _scores(self, points: Tensor, inputs: Inputs) -> Tensor:
        number = len(points)
        if number not in self._copies:
            most = max(self._copies.values(), key=len)
            self._copies[number] = most.take(np.arange(number * len(self.batch)))
        given: dict[str, Any] = dict(inputs)
        gates = inputs.get("edge_mask")
        if gates is not None and gates.dim() > 1:
            given["edge_mask"] = gates.unbind(1)
        return self._gnn.all_scores(self._copies[number], **given)


@lru_cache(maxsize=16)
def gauss_legendre(num_points: int) -> tuple[Tensor, Tensor]:
    """Return the points and the weights of the Gauss-Legendre rule on [0, 1], in float64."""
    points, weights = roots_legendre(num_points)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)


class Integral:
    """Gradients of the scores of one target, integrated as finely as each instance of a batch needs.

    Parameters
    ----------
    line : Line
        From the baseline to the input.
    ends : Tensor of shape (2, B, T)
        Scores at both.
    targets : Tensor of shape (B,)
    """

    def __init__(self, line: Line, ends: Tensor, targets: Tensor) -> None:
        self.targets = targets
        self.start, self.score = ends[:, torch.arange(len(targets)), targets].cpu().numpy()
        self.waiting = np.ones(len(targets), dtype=bool)
        self.gap = np.full(len(targets), np.inf)
        self.steps = np.zeros(len(targets), dtype=int)
        self.shares: Inputs = {}
        self._line = line

    def note(self, part: Line, rows: np.ndarray, shares: Inputs, num_steps: int) -> None:
        """Keep the shares that some instances have after a number of steps, where they wait for them."""
        sums, mine = part.sums(shares).cpu().numpy(), self.waiting[rows]
        new = rows[mine]
        self.gap[new] = np.abs(sums - (self.score - self.start)[rows])[mine]
        self.steps[new] = num_steps
        wanted = torch.from_numpy(self.waiting).to(self.targets.device)
        taken = torch.from_numpy(np.isin(np.arange(len(self.waiting)), rows)).to(wanted.device)
        for key, share in shares.items():
            if key not in self.shares:
                self.shares[key] = share
                continue
            instance = self._line.instance_of(key)
            kept = wanted[instance[taken[instance]]]
            self.shares[key][taken[instance] & wanted[instance]] = share[kept]

    def extras(self) -> dict[str, list[Any]]:
        """Return one value per instance of everything that is told besides the masks."""
        return {
            "score": self.score.tolist(),
            "baseline_score": self.start.tolist(),
            "completeness_gap": self.gap.tolist(),
            "steps_used": self.steps.tolist(),
        }


def integrated(
    line: Line, targets: list[Tensor], num_points: int, most: int, is_complete: Callable[..., np.ndarray]
) -> list[Integral]:
    """Integrate with more and more points, until the shares of an instance sum to the change of its score.

    Parameters
    ----------
    line : Line
    targets : list of Tensor of shape (B,)
        Several targets of every instance.
    num_points, most : int
        How many points there are first, and at most; they are doubled.
    is_complete : callable
        From the scores at both ends, the last one first, and how far the sum is off, to whether that will do.
    """
    line.prepare(num_points)
    ends = line.scores(torch.tensor([0.0, 1.0])).double()
    found = [Integral(line, ends, target) for target in targets]
    part, waiting = line, np.arange(len(line.batch))
    while True:
        rows = torch.from_numpy(waiting).to(ends.device)
        shares = part.integrals(num_points, [target[rows] for target in targets])
        for each, share in zip(found, shares, strict=True):
            each.note(part, waiting, share, num_points)
            each.waiting &= ~is_complete(each.score, each.start, each.gap)
        num_points *= 2
        waiting = np.flatnonzero(np.any([each.waiting for each in found], axis=0))
        if not len(waiting) or num_points > most:
            return found
        part = line.take(waiting)
        part.prepare(num_points)
