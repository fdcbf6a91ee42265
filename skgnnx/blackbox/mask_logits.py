"""Logits of masks, their penalties with gradients in closed form, and Adam in place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class MaskParameters:
    """The logits of one kind of mask.

    Parameters
    ----------
    logits : Tensor of shape (P, ...)
        Initial values.
    instance : Tensor of shape (P,)
        Instance that each row belongs to.
    weight : Tensor of shape (P, 1 or ...)
        1 where a logit is penalised, 0 where it cannot reach the prediction.
    expand : Tensor of int or None
        Row behind each edge or node; None where rows are edges or nodes themselves.
    """

    logits: Tensor
    instance: Tensor
    weight: Tensor
    expand: Tensor | None = None

    def entries(self, values: Tensor) -> Tensor:
        """Return the value of each edge or node."""
        return values if self.expand is None else values.index_select(0, self.expand)

    def per_instance(self, values: Tensor, size: int) -> Tensor:
        """Sum values (P, ...) over everything that belongs to an instance, to (B,)."""
        rows = values if values.dim() == 1 else values.flatten(1).sum(1)
        return rows.new_zeros(size).index_add(0, self.instance, rows)

    def take(self, instances: Tensor) -> MaskParameters:
        """Return what belongs to some of the instances, which are numbered anew.

        Parameters
        ----------
        instances : Tensor of bool of shape (B,)
            True for those that stay.
        """
        rows = instances[self.instance]
        number = instances.cumsum(0) - 1
        expand = None
        if self.expand is not None:
            expand = (rows.cumsum(0) - 1)[self.expand[rows[self.expand]]]
        return MaskParameters(self.logits[rows], number[self.instance[rows]], self.weight[rows], expand)


@dataclass(frozen=True)
class Penalty:
    """``size * (sum or mean) of sigma + entropy * mean of H(sigma)`` over the penalised logits of an instance.

    Parameters
    ----------
    size, entropy : float
        Coefficients.
    mean : bool
        Whether the size term is a mean (features) or a sum (edges).
    """

    size: float
    entropy: float
    mean: bool

    def coefficients(self, mask: MaskParameters, num_instances: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the factors of sigma and of H(sigma), in the shape of the weights; None where all are 0."""
        support = mask.weight.double()
        count = mask.per_instance(support.expand_as(mask.logits), num_instances).clamp_min(1)
        share = support / count[mask.instance].view(-1, *(1,) * (support.dim() - 1))
        size = self.size * (share if self.mean else support) if self.size else None
        return size, self.entropy * share if self.entropy else None


class MaskLogits:
    """The logits of one kind of mask on their way downhill.

    They stay in double precision, because their rounding, step after step, is what batching would change most. The
    gradient comes back by the masks; the sigmoid and the penalties, whose gradients have closed forms, add to it in
    place, so that a step makes no arrays.

    Parameters
    ----------
    initial : MaskParameters
    penalty : Penalty
    num_instances : int
    lr : float
        Learning rate of Adam.

    Attributes
    ----------
    leaf : Tensor of shape (P, ...)
        The masks in the model's precision, as autograd sees them.
    gradient : Tensor of shape (P, ...)
        Gradient of everything by the logits.
    final : Tensor
        Logits of all rows, each from when its instance was settled.
    """

    def __init__(self, initial: MaskParameters, penalty: Penalty, num_instances: int, lr: float) -> None:
        self.rows, self.penalty = initial, penalty
        self.theta = initial.logits.detach().double().clone()
        self.adam = Adam(self.theta, lr)
        self.final = torch.empty_like(self.theta)
        self._place = torch.arange(len(self.theta), device=self.theta.device)  # of each row, in `final`
        self._coefficients = penalty.coefficients(initial, num_instances)
        self._make_buffers()

    def _make_buffers(self) -> None:
        self.sigma, self.gradient = torch.empty_like(self.theta), torch.empty_like(self.theta)
        self.leaf = torch.empty_like(self.theta, dtype=self.rows.logits.dtype).requires_grad_()

    def masks(self) -> Tensor:
        """Return the mask of each row, as a leaf of autograd; the same tensor every time."""
        torch.sigmoid(self.theta, out=self.sigma)
        with torch.no_grad():
            self.leaf.copy_(self.sigma)
        return self.leaf

    def value(self, num_instances: int) -> Tensor:
        """Return the penalty of each instance (B,)."""
        size, entropy = self._coefficients
        total = torch.zeros_like(self.theta)
        if size is not None:
            total.addcmul_(size, self.sigma)
        if entropy is not None:
            # The entropy of a number is its cross-entropy with itself, which needs no logarithms of zero.
            each = functional.binary_cross_entropy_with_logits(self.theta, self.sigma, reduction="none")
            total.addcmul_(entropy, each)
        return self.rows.per_instance(total, num_instances)

    def take_gradient(self, by_masks: Tensor | None, *, penalised: bool) -> None:
        """Set the gradient by the logits from that by the masks, None for zero, and from the penalties.

        H'(sigma) is minus the logit.
        """
        size, entropy = self._coefficients
        self.gradient.zero_() if by_masks is None else self.gradient.copy_(by_masks)
        if penalised and size is not None:
            self.gradient.add_(size)
        if penalised and entropy is not None:
            self.gradient.addcmul_(entropy, self.theta, value=-1)
        torch.ops.aten.sigmoid_backward.grad_input(self.gradient, self.sigma, grad_input=self.gradient)

    def penalise_only(self, support: Tensor, num_instances: int) -> None:
        """Penalise only some logits from now on."""
        self.rows = replace(self.rows, weight=support.to(self.rows.logits.dtype))
        self._coefficients = self.penalty.coefficients(self.rows, num_instances)

    def step(self) -> None:
        """Move by the gradient, which is lost."""
        self.adam.step(self.theta, self.gradient)

    def settle(self, instances: Tensor) -> None:
        """Note where the logits of some instances (B,), of bool, are now, as their final values."""
        rows = instances[self.rows.instance]
        self.final[self._place[rows]] = self.theta[rows]

    def keep(self, instances: Tensor) -> None:
        """Go on with some of the instances (B,), of bool."""
        rows = instances[self.rows.instance]
        self.rows = self.rows.take(instances)
        size, entropy = (None if each is None else each[rows] for each in self._coefficients)
        self._coefficients = size, entropy
        self.theta, self._place = self.theta[rows], self._place[rows]
        self.adam.keep(rows)
        self._make_buffers()


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
