"""Runs of a model that make every message and show it to a visitor, who may replace it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import is_sparse

from skgnnx.blackbox.edge_matching import NOT_AN_EDGE
from skgnnx.blackbox.embeddings import Embedded
from skgnnx.blackbox.hooks import Named, Nodes, mapped, scaled
from skgnnx.blackbox.masked_run import MaskedRun
from skgnnx.blackbox.pyg_compat import ends_of_call, message_dim

if TYPE_CHECKING:
    from skgnnx.blackbox.plan import Plan


@dataclass
class OpenCall:
    """A propagate call that is running.

    Parameters
    ----------
    number : int
        Which call of the run.
    name : str
        Name of its layer.
    ends : Tensor of shape (2, M)
        Source and target of each message.
    edge : Tensor of shape (M,)
        The edge of the batch behind each message; -1 for a loop that the layer made, and for messages of a readout.
    values : Tensor of shape (M,) or None
        What the messages miss, see `missing_values`.
    width : int
        How many numbers of each message have come by so far: a layer may make messages in several parts.
    """

    number: int
    name: str
    ends: Tensor
    edge: Tensor
    values: Tensor | None
    width: int = 0


class MessageVisitor:
    """What a run does about its messages; given to a run in place of an edge mask."""

    @contextmanager
    def watching(self, layers: Named) -> Iterator[None]:
        """Look on while the model runs."""
        yield

    def start(self, call: OpenCall) -> None:
        """Take note of a call."""

    def replaced(self, call: OpenCall, messages: Tensor) -> Tensor:
        """Return what becomes of messages (M, d), which are the next `d` numbers of those of a call."""
        return messages


class MessageRun(MaskedRun):
    """A forward pass over a whole batch that makes every message and shows it to a visitor."""

    def __init__(self, plan: Plan, visitor: MessageVisitor) -> None:
        super().__init__(plan, [])
        self.visitor = visitor
        self._open: list[OpenCall] = []

    def __call__(self, x: Tensor | Embedded | None) -> Tensor:
        """Return the raw output of the model."""
        with self.visitor.watching(self.plan.setup.layers):
            return self._run(x, [])

    def _propagate(
        self, name: str, layer: MessagePassing, original: Any, /, edge_index: Tensor, *args: Any, **given: Any
    ) -> Any:
        if not self.plan.edges.resolving and is_sparse(edge_index):
            self.plan.look_at_values(self.calls, layer, edge_index, lambda: original(edge_index, *args, **given))
        return original(edge_index, *args, **given)

    def _start(self, name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        if self.plan.edges.resolving:
            return
        number, ends = self.calls, ends_of_call(edge_index, layer)
        self.calls += 1
        if self.plan.edges.kind(number).readout:
            edge = torch.full_like(ends[0], NOT_AN_EDGE)
        else:
            self.plan.edges.check(number, name, nodes, self.plan.allowed_rows)
            edge = self.plan.message_edges(number, name, layer, edge_index)
        self._open.append(OpenCall(number, name, ends, edge, self.plan.missing_values.get(number)))
        self.visitor.start(self._open[-1])

    def _end(self) -> None:
        if not self.plan.edges.resolving:
            self._open.pop()

    def _message(self, layer: MessagePassing, output: Any) -> Any:
        if self.plan.edges.resolving:
            return output
        call = self._open[-1]
        output = output if call.values is None else scaled(output, call.values, layer)
        return mapped(lambda part: self._part(call, layer, part), output)

    def _part(self, call: OpenCall, layer: MessagePassing, part: Any) -> Any:
        if not torch.is_tensor(part):
            return part
        dim = message_dim(layer, part)
        rows = part.movedim(dim, 0)
        flat = rows.reshape(len(rows), width_of(rows))
        replaced = self.visitor.replaced(call, flat)
        call.width += flat.shape[1]
        return part if replaced is flat else replaced.view(rows.shape).movedim(0, dim)


def width_of(rows: Tensor) -> int:
    """Return how many numbers each row of a tensor holds, which is one where it has a single axis."""
    return int(torch.Size(rows.shape[1:]).numel())
