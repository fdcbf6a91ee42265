"""What adds to a score besides the inputs: biases and other constants, and how much of it each instance gets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skgnnx.graphs.batch import GraphBatch


class BiasShares:
    """Factors of 1, one per row, on everything that is added without depending on an input.

    The derivative of a score by such a factor is the share of the score that comes from there.

    Parameters
    ----------
    batch : GraphBatch
        The batch that runs.
    """

    def __init__(self, batch: GraphBatch) -> None:
        self.batch = batch
        self.factors: list[Tensor] = []
        self._instances: list[Tensor] = []
        self._messages: list[Tensor] = []

    def enter_messages(self, target: Tensor) -> None:
        """Take rows for messages, given by the nodes that they reach, until `leave_messages`."""
        self._messages.append(target)

    def leave_messages(self) -> None:
        """Take rows for what they were before."""
        self._messages.pop()

    def counted(self, constant: Tensor, like: Tensor) -> Tensor:
        """Return a constant in the shape of what it is added to, the same values, as something that gets a share.

        Raises
        ------
        UnknownRowsError
            If it is added to something that has a row for neither nodes, edges nor instances.
        """
        shape = torch.broadcast_shapes(constant.shape, like.shape)
        for axis in (0, -2):
            instance = self._instance_of(shape[axis]) if len(shape) >= abs(axis or 1) else None
            if instance is not None:
                ones = [1] * len(shape)
                ones[axis] = shape[axis]
                self.factors.append(constant.new_ones(ones).requires_grad_())
                self._instances.append(instance)
                return constant.expand(shape) * self.factors[-1]
        raise UnknownRowsError(tuple(shape))

    def _instance_of(self, rows: int) -> Tensor | None:
        """Return to which instance each row of a tensor belongs, None where that cannot be told."""
        batch = self.batch
        if self._messages and rows == len(self._messages[-1]):
            return batch.node_instance[self._messages[-1]]
        if rows == batch.num_nodes:
            return batch.node_instance
        if rows == len(batch):
            return torch.arange(rows, device=batch.device)
        if rows == batch.num_edges:
            return batch.edge_instance
        if rows == 2 * len(batch) and batch.X.level == "edge":
            return torch.arange(rows, device=batch.device) % len(batch)
        return None

    def sums(self, gradients: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
        """Return the total share of each instance (B,), given the gradients by all factors."""
        total = torch.zeros(len(self.batch), dtype=dtype, device=self.batch.device)
        for gradient, instance in zip(gradients, self._instances, strict=True):
            if gradient is not None:
                total = total.index_add(0, instance, gradient.flatten())
        return total


class UnknownRowsError(Exception):
    """A constant is added to a tensor, whose shape is given, without a row for nodes, edges or instances."""
