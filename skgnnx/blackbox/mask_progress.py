"""Which instances still learn their masks, and what those had that have stopped."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.mask_logits import MaskLogits
from skgnnx.graphs.batch import GraphBatch

PATIENCE = 10


class Progress:
    """Which instances still move: all, until their loss has been still for `PATIENCE` steps.

    Parameters
    ----------
    num_instances : int
    tol : float or None
        Relative change of the loss that counts as still; None for none.
    device : torch.device

    Attributes
    ----------
    loss, num_steps : Tensor of shape (num_instances,)
        Last loss and number of steps of each instance that has stopped.
    active : Tensor of bool
        Which instances of the present batch still move.
    """

    def __init__(self, num_instances: int, tol: float | None, device: torch.device) -> None:
        self.tol = tol
        self.loss = torch.full((num_instances,), float("inf"), dtype=torch.float64, device=device)
        self.num_steps = torch.zeros(num_instances, dtype=torch.long, device=device)
        self.active = torch.ones(num_instances, dtype=torch.bool, device=device)
        self._place = torch.arange(num_instances, device=device)  # of instances of the batch, among all
        self._last = self.loss.clone()
        self._still = torch.zeros_like(self.num_steps)

    def note(self, loss: Tensor, steps: int, logits: dict[str, MaskLogits]) -> None:
        """Take in the losses of one step, and stop instances with it."""
        if self.tol is not None:
            calm = (loss - self._last).abs() <= self.tol * loss.abs().clamp_min(1e-12)
            self._still = torch.where(calm, self._still + 1, 0)
        self._last = loss
        stopped = self.active & (self._still >= PATIENCE)
        if stopped.any():
            self.settle(stopped, steps, logits)

    def settle(self, instances: Tensor, steps: int, logits: dict[str, MaskLogits]) -> None:
        """Stop some instances of the batch with what they have now."""
        self.loss[self._place[instances]] = self._last[instances]
        self.num_steps[self._place[instances]] = steps
        self.active = self.active & ~instances
        for each in logits.values():
            each.settle(instances)

    def is_sparse(self, batch: GraphBatch) -> bool:
        """Return True once half of the nodes and edges of a batch belong to what has stopped."""
        if self.tol is None or self.active.all():
            return False
        size = np.diff(batch.graphs.node_ptr) + np.diff(batch.graphs.edge_ptr)
        return bool(2 * size[self.active.cpu().numpy()].sum() <= size.sum())

    def compacted(self, batch: GraphBatch, logits: dict[str, MaskLogits]) -> GraphBatch:
        """Return what to go on with: a batch of the instances that still move."""
        active = self.active.cpu().numpy()
        for each in logits.values():
            each.keep(self.active)
        self._place, self._last, self._still = (
            values[self.active] for values in (self._place, self._last, self._still)
        )
        self.active = torch.ones_like(self._place, dtype=torch.bool)
        return batch.take(np.flatnonzero(active))
