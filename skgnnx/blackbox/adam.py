"""Adam, in place."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Adam, in place.

    Parameters
    ----------
    like : Tensor
        What has the shape of the values.
    lr : float
    betas, eps : float
        Decay of the two moments and the number that keeps the denominator from zero, as in torch.
    """

    def __init__(self, like: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        self.lr, self.betas, self.eps = lr, betas, eps
        self.steps = 0

    def last_step(self) -> Tensor:
        """Return what the last step added; zero before the first."""
        first, second = (1 - beta ** max(self.steps, 1) for beta in self.betas)
        return -self.lr * (self.mean / first) / ((self.square / second).sqrt() + self.eps)

    def step(self, value: Tensor, gradient: Tensor) -> None:
        """Move `value`, and overwrite `gradient`."""
        self.steps += 1
        first, second = self.betas
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        # Both corrections of the start are numbers, so they need no pass over the moments.
        correction = (1 - second**self.steps) ** 0.5
        scale = torch.sqrt(self.square, out=gradient).add_(self.eps * correction)
        value.addcdiv_(self.mean, scale, value=-self.lr * correction / (1 - first**self.steps))

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        self.mean, self.square = self.mean[rows], self.square[rows]
