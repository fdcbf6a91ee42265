"""Learning soft masks by gradient descent, for all instances of a batch at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skgnnx.graphs.batch import GraphBatch

EPS = 1e-15
PATIENCE = 10


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

    def __call__(self, mask: MaskParameters, sigma: Tensor, support: Tensor, num_instances: int) -> Tensor:
        """Return the penalty of each instance (B,)."""
        count = mask.per_instance(support, num_instances).clamp_min(1)
        size = mask.per_instance(sigma * support, num_instances)
        entropy = -sigma * (sigma + EPS).log() - (1 - sigma) * (1 - sigma + EPS).log()
        mean_entropy = mask.per_instance(entropy * support, num_instances) / count
        return self.size * (size / count if self.mean else size) + self.entropy * mean_entropy


@dataclass
class LearnedMasks:
    """What `learn_masks` returns: values per edge, node or instance, the last losses, and the steps taken."""

    masks: dict[str, Tensor]
    loss: Tensor
    num_steps: Tensor


def learn_masks(
    objective: Callable[[dict[str, Tensor]], Tensor],
    parameters: dict[str, MaskParameters],
    penalties: dict[str, Penalty],
    *,
    num_instances: int,
    epochs: int,
    lr: float,
    tol: float | None = None,
    gradient_support: bool = False,
) -> LearnedMasks:
    """Minimise ``objective(masks) + penalties`` by Adam over the logits.

    The loss is a sum over instances and Adam works element by element, so every instance takes the steps that it would
    take alone.

    Parameters
    ----------
    objective : callable
        From masks in (0, 1), one value per edge or node, to the loss of each instance (B,).
    parameters, penalties : dict by kind of mask
    num_instances : int
    epochs : int
    lr : float
    tol : float, optional
        An instance whose loss has changed by less than `tol` relative in each of the last 10 steps stops.
    gradient_support : bool, default=False
        If True, the first step has no penalties, and logits whose first gradient is zero are never penalised and end
        at 0, as in PyG.
    """
    # In single precision the logits' own rounding, step after step, is what batching would change most.
    logits = {kind: p.logits.double().clone().requires_grad_() for kind, p in parameters.items()}
    adam = {kind: Adam(logit, lr) for kind, logit in logits.items()}
    support = {kind: p.weight.double() for kind, p in parameters.items()}
    stopping = Stopping(num_instances, tol, next(iter(logits.values())))
    for step in range(epochs):
        sigma = {kind: value.sigmoid() for kind, value in logits.items()}
        masks = {kind: value.to(parameters[kind].logits.dtype) for kind, value in sigma.items()}
        loss = objective({kind: parameters[kind].entries(mask) for kind, mask in masks.items()}).double()
        if step > 0 or not gradient_support:
            for kind, penalty in penalties.items():
                loss = loss + penalty(parameters[kind], sigma[kind], support[kind], num_instances)
        gradients = _gradients(loss, list(logits.values()))
        if step == 0 and gradient_support:
            support = {k: (g != 0).to(g.dtype) for k, g in zip(logits, gradients, strict=True)}
        stopping.note(loss.detach())
        for (kind, logit), gradient in zip(logits.items(), gradients, strict=True):
            with torch.no_grad():
                adam[kind].step(logit, gradient, stopping.moving(parameters[kind].instance, logit))
        if stopping.all_stopped():
            break
    final = {}
    for kind, logit in logits.items():
        value = logit.detach().sigmoid() * (support[kind] if gradient_support else 1)
        final[kind] = parameters[kind].entries(value.to(parameters[kind].logits.dtype))
    return LearnedMasks(final, stopping.loss, stopping.num_steps)


def _gradients(loss: Tensor, values: list[Tensor]) -> list[Tensor]:
    """Return the gradient of a summed loss, zero with respect to what it does not depend on."""
    if not loss.requires_grad:
        return [torch.zeros_like(value) for value in values]
    found = torch.autograd.grad(loss.sum(), values, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for g, v in zip(found, values, strict=True)]


class Adam:
    """Adam with in-place moments; rows can be held still without disturbing the others."""

    def __init__(self, like: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.mean, self.square = (
            torch.zeros_like(like, requires_grad=False),
            torch.zeros_like(like, requires_grad=False),
        )
        self.lr, self.betas, self.eps = lr, betas, eps
        self.steps = 0

    def step(self, value: Tensor, gradient: Tensor, moving: Tensor | None) -> None:
        """Move `value` in place; rows where `moving` is 0 stay."""
        self.steps += 1
        first, second = self.betas
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = (self.square.sqrt() / (1 - second**self.steps) ** 0.5).add_(self.eps)
        change = self.mean / scale
        value.sub_(change if moving is None else change * moving, alpha=self.lr / (1 - first**self.steps))


class Stopping:
    """Which instances still move: all, until their loss has been still for `PATIENCE` steps."""

    def __init__(self, num_instances: int, tol: float | None, like: Tensor) -> None:
        self.tol = tol
        self.loss = torch.full((num_instances,), float("inf"), dtype=like.dtype, device=like.device)
        self.still = torch.zeros(num_instances, dtype=torch.long, device=like.device)
        self.num_steps = torch.zeros(num_instances, dtype=torch.long, device=like.device)

    def note(self, loss: Tensor) -> None:
        """Take in the losses of one step."""
        active = self.still < PATIENCE
        if self.tol is not None:
            calm = (loss - self.loss).abs() <= self.tol * loss.abs().clamp_min(1e-12)
            self.still = torch.where(active, torch.where(calm, self.still + 1, 0), self.still)
        self.loss = torch.where(active, loss, self.loss)
        self.num_steps += active

    def moving(self, instance: Tensor, like: Tensor) -> Tensor | None:
        """Return 1 for the rows of instances that still move, None if all do."""
        if self.tol is None:
            return None
        moving = (self.still < PATIENCE).to(like.dtype).index_select(0, instance)
        return moving.view(-1, *(1,) * (like.dim() - 1))

    def all_stopped(self) -> bool:
        """Return True if no instance moves any more."""
        return self.tol is not None and bool((self.still >= PATIENCE).all())


def edge_pairs(batch: GraphBatch) -> tuple[Tensor, Tensor]:
    """Return the unit of each edge (E,), and one edge of each unit that reaches the prediction if any does.

    The two directions of an undirected edge are one unit where both are in the batch.
    """
    store, edge_id = batch.X.store, batch.graphs.edge_id
    partner = store.all_partners[edge_id]
    lead = np.where(partner < 0, edge_id, np.minimum(edge_id, partner))
    key = batch.edge_instance.cpu().numpy() * max(store.edge_index.shape[1], 1) + lead
    reached_first = np.argsort(~batch.graphs.edge_reach, kind="stable")
    _, first, unit = np.unique(key[reached_first], return_index=True, return_inverse=True)
    unit_of_edge = np.empty(len(key), dtype=np.int64)
    unit_of_edge[reached_first] = unit
    chosen = reached_first[first]
    return torch.from_numpy(unit_of_edge).to(batch.device), torch.from_numpy(chosen).to(batch.device)
