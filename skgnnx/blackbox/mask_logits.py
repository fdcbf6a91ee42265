"""Logits of masks, and their penalties with gradients in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from skgnnx.blackbox.adam import Adam

UNSURE = 0.1  # masks within this of 0 and 1 are decided
STILL = 0.01  # less than this is no change of a mask
AHEAD = 10  # steps


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
    growth : float, default=1.0
        How many times as large the size coefficient is in the last step as in the first; between them it grows
        geometrically.
    relative : bool, default=False
        Whether coefficients are in units of the mean absolute gradient of an instance's loss by its penalised masks in
        the first step. As units they do not change with what a loss is multiplied by.
    """

    size: float
    entropy: float
    mean: bool
    growth: float = 1.0
    relative: bool = False

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
    steps : int, default=1
        How many steps will come, over which the size coefficient grows.
    average : bool, default=False
        Whether final masks are means over the masks after each step.

    Attributes
    ----------
    reacts : Tensor of bool of shape (num_instances,)
        Whether the loss of an instance had any gradient by its masks in the first step; of all instances, as `final`.
    leaf : Tensor of shape (P, ...)
        The masks in the model's precision, as autograd sees them.
    gradient : Tensor of shape (P, ...)
        Gradient of everything by the logits.
    final : Tensor
        Masks of all rows, each from when its instance was settled.
    open_ended : Tensor of bool
        Which of all rows were still on their way when their instances were settled, see `is_open_ended`.
    """

    def __init__(
        self,
        initial: MaskParameters,
        penalty: Penalty,
        num_instances: int,
        lr: float,
        *,
        steps: int = 1,
        average: bool = False,
    ) -> None:
        self.rows, self.penalty = initial, penalty
        self.reacts = torch.zeros(num_instances, dtype=torch.bool, device=initial.instance.device)
        self._growth = penalty.growth ** (1 / max(steps - 1, 1))
        self._factor = 1.0  # of the size coefficient, now
        self._unit: Tensor | None = None  # of the coefficients, per row
        self.theta = initial.logits.detach().double().clone()
        self.adam = Adam(self.theta, lr)
        self.final = torch.empty_like(self.theta)
        self.open_ended = torch.zeros_like(self.theta, dtype=torch.bool)
        self._sum = torch.zeros_like(self.theta) if average else None
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
            total.addcmul_(size, self.sigma, value=self._factor)
        if entropy is not None:
            # The entropy of a number is its cross-entropy with itself, which needs no logarithms of zero.
            each = functional.binary_cross_entropy_with_logits(self.theta, self.sigma, reduction="none")
            total.addcmul_(entropy, each)
        if self._unit is not None:
            total.mul_(self._unit)
        return self.rows.per_instance(total, num_instances)

    def take_gradient(self, by_masks: Tensor | None, *, penalised: bool) -> None:
        """Set the gradient by the logits from that by the masks, None for zero, and from the penalties.

        H'(sigma) is minus the logit. Where coefficients have a unit, everything is divided by it, which changes no step
        of Adam but keeps tiny gradients of very sure predictions away from its epsilon.
        """
        size, entropy = self._coefficients
        self.gradient.zero_() if by_masks is None else self.gradient.copy_(by_masks)
        if self.adam.steps == 0:
            self._note_first()
        if self._unit is not None:
            self.gradient.div_(self._unit)
        if penalised and size is not None:
            self.gradient.add_(size, alpha=self._factor)
        if penalised and entropy is not None:
            self.gradient.addcmul_(entropy, self.theta, value=-1)
        torch.ops.aten.sigmoid_backward.grad_input(self.gradient, self.sigma, grad_input=self.gradient)

    def _note_first(self) -> None:
        """Note what the first gradient by the masks says of each instance."""
        amount, number = self.gradient.abs(), len(self.reacts)
        self.reacts = self.rows.per_instance(amount, number) > 0
        if not self.penalty.relative:
            return
        support = self.rows.weight.double().expand_as(amount)
        count = self.rows.per_instance(support, number).clamp_min(1)
        mean = self.rows.per_instance(amount * support, number) / count
        unit = torch.where(mean > 0, mean, 1.0)[self.rows.instance]
        self._unit = unit.view(-1, *(1,) * (amount.dim() - 1))

    def penalise_only(self, support: Tensor, num_instances: int) -> None:
        """Penalise only some logits from now on."""
        self.rows = replace(self.rows, weight=support.to(self.rows.logits.dtype))
        self._coefficients = self.penalty.coefficients(self.rows, num_instances)

    def step(self) -> None:
        """Move by the gradient, which is lost."""
        self.adam.step(self.theta, self.gradient)
        self._factor *= self._growth
        if self._sum is not None:
            self._sum.add_(torch.sigmoid(self.theta, out=self.sigma))

    def settle(self, instances: Tensor) -> None:
        """Note what the masks of some instances (B,), of bool, are now, as their final values."""
        rows = instances[self.rows.instance]
        averaged = self._sum is not None and self.adam.steps > 0
        masks = self._sum[rows] / self.adam.steps if averaged else self.theta[rows].sigmoid()  # type: ignore[index]
        self.final[self._place[rows]] = masks
        if not averaged:  # a mean over the way does not wait for its end
            self.open_ended[self._place[rows]] = self.is_open_ended()[rows]

    def is_open_ended(self) -> Tensor:
        """Return which masks are far from 0 and 1 and would still change if the last step was done some times more."""
        mask = self.theta.sigmoid()
        further = (self.theta + AHEAD * self.adam.last_step()).sigmoid()
        return (mask > UNSURE) & (mask < 1 - UNSURE) & ((further - mask).abs() > STILL)

    def keep(self, instances: Tensor) -> None:
        """Go on with some of the instances (B,), of bool."""
        rows = instances[self.rows.instance]
        self.rows = self.rows.take(instances)
        size, entropy = (None if each is None else each[rows] for each in self._coefficients)
        self._coefficients = size, entropy
        self.theta, self._place = self.theta[rows], self._place[rows]
        self._unit = None if self._unit is None else self._unit[rows]
        self._sum = None if self._sum is None else self._sum[rows]
        self.adam.keep(rows)
        self._make_buffers()
