"""What adds to a score besides the inputs: biases and other constants, and how much of it each instance gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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

    @contextmanager
    def in_messages(self, target: Tensor) -> Iterator[None]:
        """Take rows for messages, given by the nodes that they reach, while a layer computes them."""
        self._messages.append(target)
        try:
            yield
        finally:
            self._messages.pop()

    def counted(self, constant: Tensor, like: Tensor) -> Tensor:
        """Return a constant in the shape of what it is added to, the same values, as something that gets a share."""
        shape = torch.broadcast_shapes(constant.shape, like.shape)
        if not shape:
            return constant
        factor = constant.new_ones(shape[0], *(1,) * (len(shape) - 1)).requires_grad_()
        self.factors.append(factor)
        self._instances.append(self._instance_of(shape[0]))
        return constant.expand(shape) * factor

    def _instance_of(self, rows: int) -> Tensor:
        """Return to which instance each row of a tensor belongs."""
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
        raise UnknownRowsError(rows)

    def sums(self, gradients: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
        """Return the total share of each instance (B,), given the gradients by all factors."""
        total = torch.zeros(len(self.batch), dtype=dtype, device=self.batch.device)
        for gradient, instance in zip(gradients, self._instances, strict=True):
            if gradient is not None:
                total = total.index_add(0, instance, gradient.flatten())
        return total


class UnknownRowsError(Exception):
    """Something is added to rows that are neither nodes, edges nor instances."""
