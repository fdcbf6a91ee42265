"""Gates that are 0 or 1 and still have a gradient: the hard concrete distribution, cut at one half."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LEAST_NOISE = 1e-6  # uniform noise stays this far from 0 and 1
TIE = 1e-5  # values this close to the cut are taken as tied, so that rounding opens no gate


class HardConcrete(NamedTuple):
    r"""The distribution of gates with given locations.

    .. math:: s = \sigma\Bigl(\frac{\log u - \log(1 - u) + a + \ell}{\tau}\Bigr), \qquad
              \bar s = \min(1, \max(0, s (\zeta - \gamma) + \gamma)), \qquad z = [\bar s > 1/2]

    for a location :math:`a` and uniform noise :math:`u`. Without noise :math:`s = \sigma(a + \ell)`. Gradients go
    through the cut as if it were not there.

    Parameters
    ----------
    temperature : float > 0
        :math:`\tau`.
    low, high : float
        :math:`\gamma < 0` and :math:`\zeta > 1/2`, between which :math:`s` is stretched.
    bias : float
        :math:`\ell`, added to every location.

    Notes
    -----
    Louizos, Welling & Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018.
    """

    temperature: float = 1 / 3
    low: float = -0.2
    high: float = 1.0
    bias: float = 3.0

    def sampled(self, location: Tensor, noise: Tensor) -> Tensor:
        """Return gates that are 0 or 1, drawn by standard normal noise and differentiable in their locations."""
        return _cut((_logit_of(noise) + location + self.bias) / self.temperature, self.low, self.high)

    def settled(self, location: Tensor) -> Tensor:
        """Return gates that are 0 or 1, without noise; tied ones are closed."""
        stretched = (location.double() + self.bias).sigmoid() * (self.high - self.low) + self.low
        return (stretched > 0.5 + TIE).to(location.dtype)

    def penalty(self, location: Tensor) -> Tensor:
        r"""Return the probability that :math:`\bar s > 0`, the expected number of what is not quite closed."""
        return (location + self.bias - self.temperature * math.log(-self.low / self.high)).sigmoid()

    def probability(self, location: Tensor) -> Tensor:
        """Return the probability that a gate is 1 under noise."""
        cut = (0.5 - self.low) / (self.high - self.low)
        return (location + self.bias - self.temperature * math.log(cut / (1 - cut))).sigmoid()


def _logit_of(noise: Tensor) -> Tensor:
    """Return log u - log(1 - u) for the uniform number u that is the quantile of standard normal noise."""
    most = math.log(1 / LEAST_NOISE - 1)
    return (torch.special.log_ndtr(noise) - torch.special.log_ndtr(-noise)).clamp(-most, most)


class _Threshold(torch.autograd.Function):
    """1 where a number is above one half, else 0; the gradient passes as it is."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return (values > 0.5).to(values.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _cut(logits: Tensor, low: float, high: float) -> Tensor:
    return _Threshold.apply((logits.sigmoid() * (high - low) + low).clamp(0, 1))
