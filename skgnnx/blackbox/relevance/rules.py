"""Rules that say how the value of a linear unit is shared out among its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skgnnx.blackbox.relevance.bias_shares import BiasShares


class Contributions(NamedTuple):
    """What the inputs and the bias add to the units of a linear block.

    Parameters
    ----------
    total : Tensor
        Sum over the inputs, without bias; differentiable.
    positive : Tensor or None
        Sum over the contributions that are positive; differentiable. None where no rule needs it.
    bias : Tensor or None
        What is added besides, in the shape of the units or one that can be broadcast to it.
    """

    total: Tensor
    positive: Tensor | None = None
    bias: Tensor | None = None

    @property
    def negative(self) -> Tensor:
        """Sum over the contributions that are negative."""
        return self.total if self.positive is None else self.total - self.positive

    def scaled(self, factor: Tensor, shift: Tensor) -> Contributions:
        """Return the contributions to units that are scaled and shifted, as by a batch normalisation."""
        positive = self.positive
        if positive is not None:
            positive = factor * torch.where(factor > 0, positive, self.negative)
        bias = shift if self.bias is None else factor * self.bias + shift
        return Contributions(factor * self.total, positive, bias)


class Rule(NamedTuple):
    """How relevance passes a linear block.

    Parameters
    ----------
    kind : {"zero", "epsilon", "gamma", "zplus", "mass", "against"}
        "mass" hands a unit's relevance of 1, whatever its value, to the positive contributions; "against" hands it to
        the negative ones.
    size : float
        The gamma or the epsilon.
    """

    kind: str
    size: float = 0.0

    @property
    def needs_signs(self) -> bool:
        """True if positive and negative contributions are treated apart."""
        return self.kind in ("zplus", "mass", "against") or (self.kind == "gamma" and self.size > 0)

    def __str__(self) -> str:
        return f"{self.kind} {self.size:g}" if self.kind in ("gamma", "epsilon") else self.kind

    def passed(self, value: Tensor, given: Contributions, shares: BiasShares) -> Tensor:
        """Return the units with their own values, and with gradients by which relevance flows to the inputs.

        What does not flow to an input is the share of the bias.
        """
        value = value.detach()
        way, ratio = _WAYS[self.kind](self, value, given)
        before, ratio = way.detach(), ratio.detach()
        flowing = value + (way - before) * ratio
        if self._keeps_all(given):
            return flowing
        rest = value - before * ratio
        return flowing + (shares.counted(rest, rest) - rest)

    def _keeps_all(self, given: Contributions) -> bool:
        """Return True if inputs get everything: the rest is rounding."""
        return self.kind in ("mass", "against") or (self.kind in ("zero", "gamma") and given.bias is None)


Way = tuple[Tensor, Tensor]


def _zero(rule: Rule, value: Tensor, given: Contributions) -> Way:
    return given.total, torch.ones_like(value)


def _epsilon(rule: Rule, value: Tensor, given: Contributions) -> Way:
    return given.total, _ratio(value, value + rule.size * value.sign())


def _gamma(rule: Rule, value: Tensor, given: Contributions) -> Way:
    if given.positive is None:
        return _zero(rule, value, given)
    favoured = torch.where(value > 0, given.positive, given.negative)
    way = given.total + rule.size * favoured
    bias = value.new_zeros(()) if given.bias is None else given.bias
    favoured_bias = torch.where(value > 0, bias.clamp(min=0), bias.clamp(max=0))
    # The value, and not the sum of contributions and bias, which rounds differently.
    return way, _ratio(value, value + rule.size * (favoured + favoured_bias))


def _zplus(rule: Rule, value: Tensor, given: Contributions) -> Way:
    return _positive(given), _ratio(value, _told(_positive(given), given))


def _mass(rule: Rule, value: Tensor, given: Contributions) -> Way:
    return _positive(given), _ratio(torch.ones_like(value), _told(_positive(given), given))


def _against(rule: Rule, value: Tensor, given: Contributions) -> Way:
    return given.negative, _ratio(torch.ones_like(value), _told(given.negative, given))


def _positive(given: Contributions) -> Tensor:
    return given.total if given.positive is None else given.positive


def _told(part: Tensor, given: Contributions) -> Tensor:
    """Return the contributions of one sign, 0 where they are no more than the rounding of those of the other."""
    part = part.detach()
    size = torch.maximum(_positive(given).detach(), -given.negative.detach())
    return torch.where(part.abs() <= 8 * torch.finfo(part.dtype).eps * size, 0.0, part)


_WAYS: dict[str, Callable[[Rule, Tensor, Contributions], Way]] = {
    "zero": _zero,
    "epsilon": _epsilon,
    "gamma": _gamma,
    "zplus": _zplus,
    "mass": _mass,
    "against": _against,
}


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return a quotient, 0 where there is nothing to share among."""
    below = below.detach()
    return torch.where(below == 0, 0.0, above / torch.where(below == 0, 1.0, below))


def positive_part(block: Callable[[Tensor, Tensor], Tensor], u: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over positive contributions of a bilinear function of inputs and weights."""
    positive = block(u * (u > 0), weight.clamp(min=0))
    if bool((u >= 0).all()):
        return positive
    return positive + block(u * (u < 0), weight.clamp(max=0))
