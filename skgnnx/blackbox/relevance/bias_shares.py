"""What adds to a score besides the inputs: biases and other constants, and how much of it each instance gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skgnnx.graphs.batch import GraphBatch

Slopes = Sequence[Tensor | None]


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
        self._instances: list[Tensor | None] = []
        self._messages: list[Tensor] = []

    def enter_messages(self, target: Tensor) -> None:
        """Take rows for messages, given by the nodes that they reach, until `leave_messages`."""
        self._messages.append(target)

    def leave_messages(self) -> None:
        """Take rows for what they were before."""
        self._messages.pop()

    def counted(self, constant: Tensor, like: Tensor) -> Tensor:
        """Return a constant in the shape of what it is added to, the same values, as something that gets a share."""
        same = constant.shape == like.shape
        shape = like.shape if same else torch.broadcast_shapes(constant.shape, like.shape)
        factor = constant.new_ones((*shape[:-1], 1) if len(shape) > 1 else shape).requires_grad_()
        self.factors.append(factor)
        self._instances.append(self._instance_of(factor))
        return constant.expand(shape) * factor

    def _instance_of(self, factor: Tensor) -> Tensor | None:
        """Return to which instance each entry of a factor seems to belong, None where nothing tells."""
        if len(self.batch) == 1:
            return torch.zeros(factor.shape, dtype=torch.long, device=factor.device)
        for axis in (0, factor.dim() - 2):
            instance = self._rows(factor.shape[axis]) if 0 <= axis < factor.dim() else None
            if instance is not None:
                return instance.view([-1 if i == axis else 1 for i in range(factor.dim())]).expand(factor.shape)
        return None

    def _rows(self, rows: int) -> Tensor | None:
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

    @property
    def are_clear(self) -> bool:
        """True if every factor has a guess to which instance it belongs."""
        return all(instance is not None for instance in self._instances)

    def sums(self, slopes: Slopes, dtype: torch.dtype) -> Tensor:
        """Return the total share of each instance (B,), given the slopes of the scores by all factors."""
        return self._sums(slopes, self._instances, dtype)

    def sums_by_code(self, slopes: Slopes, coded: Callable[[Tensor], Slopes], dtype: torch.dtype) -> Tensor:
        """Return the same where numbers of rows do not tell, or tell wrongly, to which instance they belong.

        ``coded(codes)`` returns the slopes of the sum of scores times codes: how much larger they are is the code.
        """
        number = len(self.batch)
        codes = 1 + torch.arange(number, dtype=dtype, device=self.batch.device) / number
        instances = [
            None if slope is None or other is None else _decoded(slope, other, number)
            for slope, other in zip(slopes, coded(codes), strict=True)
        ]
        return self._sums(slopes, instances, dtype)

    def _sums(self, slopes: Slopes, instances: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
        total = torch.zeros(len(self.batch), dtype=dtype, device=self.batch.device)
        for slope, instance in zip(slopes, instances, strict=True):
            if slope is not None and instance is not None:
                total = total.index_add(0, instance.flatten(), slope.flatten())
        return total


def _decoded(slope: Tensor, coded: Tensor, number: int) -> Tensor:
    ratio = torch.where(slope == 0, 1.0, coded / torch.where(slope == 0, 1.0, slope))
    return ((ratio - 1) * number).round().long().clamp(0, number - 1)
