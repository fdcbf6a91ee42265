"""Lagrange multipliers that grow as long as what they watch over is violated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

START, LOWEST, HIGHEST = 0.55, -2.0, 30.0


class Multipliers:
    r"""Multipliers :math:`\lambda = \mathrm{softplus}(\alpha)`, found by gradient ascent in :math:`\lambda g`.

    The steps are those of centred RMSprop, which are of one size whatever the scale of `g` is.

    Parameters
    ----------
    number : int
        How many there are; each watches over a violation of its own.
    lr : float
        Learning rate.
    device : torch.device

    Attributes
    ----------
    raw : Tensor of shape (number,)
        :math:`\alpha`, which starts at 0.55 and stays in [-2, 30].
    """

    def __init__(self, number: int, lr: float, device: torch.device | str = "cpu") -> None:
        self.raw = torch.full((number,), START, dtype=torch.float64, device=device)
        self.lr = lr
        self._mean, self._square = torch.zeros_like(self.raw), torch.zeros_like(self.raw)

    @property
    def values(self) -> Tensor:
        """The multipliers themselves."""
        return functional.softplus(self.raw)

    def ascend(self, violation: Tensor) -> None:
        """Take a step by the violations (number,), which are 0 where nothing is violated."""
        gradient = violation.double() * self.raw.sigmoid()
        self._mean = 0.99 * self._mean + 0.01 * gradient
        self._square = 0.99 * self._square + 0.01 * gradient.square()
        spread = (self._square - self._mean.square()).clamp_min(0).sqrt() + 1e-8
        self.raw = (self.raw + self.lr * gradient / spread).clamp(LOWEST, HIGHEST)
