"""Messages that lose information in noise: what each may tell beyond the average message, and at what cost."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from skgnnx.blackbox.amortised_gates import STRIDE, AmortisedLearning, LearnedGates
from skgnnx.blackbox.gate_networks import GateNetworks
from skgnnx.blackbox.gate_sites import GateSites
from skgnnx.blackbox.multipliers import Multipliers
from skgnnx.graphs.batch import GraphBatch

LEAST_SPREAD = 1e-2  # of the usual one: numbers that hardly vary are not measured by their own


class Prior(NamedTuple):
    """What messages of one propagate call are like.

    Parameters
    ----------
    mean, spread : Tensor of shape (d,)
        Mean and standard deviation of each of their numbers.
    """

    mean: Tensor
    spread: Tensor

    def drawn(self, noise: Tensor) -> Tensor:
        """Return messages drawn by standard normal noise (E, d)."""
        return self.mean + self.spread * noise.to(self.mean.dtype)

    def information(self, location: Tensor, messages: Tensor) -> Tensor:
        r"""Return what messages tell (M,) in nats, behind gates :math:`g = \sigma(a)` with given locations `a`.

        .. math:: \sum_d \tfrac{1}{2} \Bigl[(1 - g)^2 + g^2 \frac{(m_d - \mu_d)^2}{s_d^2} - 1\Bigr] - \log(1 - g),

        the divergence of :math:`N(g m + (1 - g) \mu, ((1 - g) s)^2)` from the prior :math:`N(\mu, s^2)`.
        """
        gate = location.sigmoid()
        distance = ((messages - self.mean) / self.spread).square().sum(1)
        # (1 - g)^2 - 1 is written without a difference of numbers close to 1
        of_noise = softplus(location) - gate * (2 - gate) / 2
        return 0.5 * gate.square() * distance + messages.shape[1] * of_noise


def priors(sites: Iterable[GateSites]) -> list[Prior]:
    """Return what the messages of each call are like, in all batches taken together."""
    sums: list[tuple[Tensor, Tensor, Tensor]] = []
    for each in sites:
        for number, call in enumerate(each.calls):
            messages = call.messages[call.edge >= 0].double()
            messages = messages[each.active[number, call.edge[call.edge >= 0]]]
            found = (torch.tensor(len(messages)), messages.sum(0), messages.square().sum(0))
            if number == len(sums):
                sums.append(found)
            else:
                count, total, squares = sums[number]
                sums[number] = (count + found[0], total + found[1], squares + found[2])
    return [_prior(*each) for each in sums]


def _prior(count: Tensor, total: Tensor, squares: Tensor) -> Prior:
    mean = total / count.clamp_min(1)
    spread = (squares / count.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
    usual = spread.square().mean().sqrt() if len(spread) else spread.sum()
    return Prior(mean, spread.clamp_min(LEAST_SPREAD * usual).clamp_min(torch.finfo(torch.float32).tiny ** 0.5))


class LearnedBottleneck(LearnedGates):
    """What learning has reached, with the priors of the messages.

    Parameters
    ----------
    networks : GateNetworks
        To be trained.
    multiplier : Multipliers
        One.
    known : sequence of Prior
        One for each propagate call.
    """

    def __init__(self, networks: GateNetworks, multiplier: Multipliers, known: Sequence[Prior]) -> None:
        super().__init__(networks, multiplier)
        self.retained = self.change = math.inf
        for number, prior in enumerate(known):
            self.register_buffer(f"mean_{number}", prior.mean)
            self.register_buffer(f"spread_{number}", prior.spread)
        self.num_calls = len(known)

    @property
    def priors(self) -> list[Prior]:
        """What the messages of each call are like."""
        return [Prior(getattr(self, f"mean_{k}"), getattr(self, f"spread_{k}")) for k in range(self.num_calls)]


class Behind(NamedTuple):
    """What the gates of a batch let through.

    Parameters
    ----------
    told : Tensor of shape (L, E)
        Nats per number of each message.
    gates : Tensor of shape (L, E)
    instead : list of Tensor of shape (E, d)
        Messages that are mixed in, drawn from the priors.
    """

    told: Tensor
    gates: Tensor
    instead: list[Tensor]


class BottleneckLearning(AmortisedLearning):
    """Trains gate networks to let as little information pass as predictions need."""

    learned: LearnedBottleneck

    def run(
        self,
        steps: Sequence[Sequence[GraphBatch]],
        held_out: Sequence[GraphBatch],
        epochs: int | None,
        tolerance: float,
    ) -> None:
        """Learn as `AmortisedLearning` does; where no epoch keeps enough predictions, the last one is taken."""
        super().run(steps, held_out, epochs, tolerance)
        if self.learned.change > tolerance:
            self.learned.best = copy.deepcopy(self.learned.networks)

    def behind(self, networks: GateNetworks, sites: GateSites, seed: int) -> Behind:
        """Return what gates let through, with noise that is drawn by a seed."""
        known = self.learned.priors
        locations = [location.double() for location in networks(sites.calls)]
        told = [
            prior.information(location, call.messages) / max(call.messages.shape[1], 1)
            for prior, location, call in zip(known, locations, sites.calls, strict=True)
        ]
        widths = [len(prior.mean) for prior in known]
        noise = sites.batch.noise(seed, "edge", sum(widths)).split(widths, dim=1)
        instead = [prior.drawn(part) for prior, part in zip(known, noise, strict=True)]
        return Behind(sites.of_edges(told), sites.of_edges([each.sigmoid() for each in locations]), instead)

    def _terms(self, sites: GateSites, number: int) -> tuple[Tensor, Tensor]:
        told, gates, instead = self.behind(self.learned.networks, sites, self.seed * STRIDE + number)
        return self.problem.penalty * sites.total(told).sum(), sites.excess(gates, instead).clamp_min(0).sum()

    def _measured(self, networks: GateNetworks, batches: Sequence[GraphBatch]) -> tuple[float, float]:
        """Return nats per number of a message and the relative change of predictions, with noise of its own."""
        told = total = changed = compared = 0.0
        with torch.no_grad():
            for batch in batches:
                sites = self.sites(batch)
                behind = self.behind(networks, sites, self.seed * STRIDE - 1)
                change, size = sites.change(behind.gates, behind.instead)
                told, total = told + float(sites.total(behind.told).sum()), total + float(sites.num_gates.sum())
                changed, compared = changed + float(change.sum()), compared + float(size.sum())
        return told / max(total, 1.0), changed / max(compared, 1e-12)
