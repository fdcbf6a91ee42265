"""One forward pass over a batch: fused where a layer allows it, trimmed, and under an edge mask if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.edge_matching import gates
from skgnnx.blackbox.fused_call import FusedCall
from skgnnx.blackbox.hooks import after_messages, replaced, scaled
from skgnnx.blackbox.pyg_compat import nodes_of_call
from skgnnx.blackbox.trimming import Trim

if TYPE_CHECKING:
    from skgnnx.blackbox.plan import Plan


class MaskedRun:
    """The forward pass itself.

    Parameters
    ----------
    plan : Plan
        How the batch runs.
    mask : Tensor of shape (E,), sequence of such, or None
        One factor per edge for all propagate calls, or for each of them; None masks nothing.
    """

    def __init__(self, plan: Plan, mask: Tensor | Sequence[Tensor] | None) -> None:
        self.plan = plan
        self.mask = mask
        self.calls = 0
        self.num_rows = plan.seen.num_nodes
        self._factors: Tensor | None = None
        self._entered: list[int] = []

    def __call__(self, x: Tensor | None) -> Tensor:
        """Return the raw output of the model."""
        plan, setup = self.plan, self.plan.setup
        with ExitStack() as stack:
            stack.enter_context(replaced(setup.foldable, "forward", plan.constants.forward))
            stack.enter_context(replaced(setup.layers, "propagate", self._propagate))
            if self.mask is not None:
                stack.enter_context(after_messages(setup.layers, self._message))
            for layer in setup.trimmed_layers(plan.trim):
                stack.callback(layer.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(self._leave).remove)
            return setup.call(plan.seen, x)

    def _enter(self, layer: MessagePassing, args: Any, kwargs: Any) -> Any:
        """Cut what goes into a layer."""
        self._entered.append(self.calls)
        if self.plan.edges.resolving or self.calls >= len(self.plan.setup.trace.reach):
            return None
        distance = self.plan.setup.trace.reach[self.calls]
        nodes, edges = (self.num_rows if self.plan.trim == Trim.ROWS else None), self.plan.seen.num_edges
        cut = self.plan.prefixes.cut
        if nodes is not None:
            self.num_rows = min(self.num_rows, self.plan.prefixes.nodes(distance))
        return (
            cut(tuple(args), distance, nodes=nodes, edges=edges),
            {key: cut(value, distance, nodes=nodes, edges=edges) for key, value in kwargs.items()},
        )

    def _leave(self, layer: MessagePassing, args: Any, output: Any) -> Any:
        """Cut what comes out of a layer."""
        first = self._entered.pop()
        if self.plan.edges.resolving or self.plan.trim != Trim.ROWS or self.calls == first:
            return None
        distance = self.plan.setup.trace.reach[self.calls - 1] - 1
        before, self.num_rows = self.num_rows, self.plan.prefixes.nodes(distance)
        return self.plan.prefixes.cut(output, distance, nodes=before, edges=-1)

    def _propagate(
        self, name: str, layer: MessagePassing, original: Any, edge_index: Tensor, *args: Any, **given: Any
    ) -> Any:
        if self.plan.edges.resolving:
            return original(edge_index, *args, **given)
        number, outer = self.calls, self._factors
        self.calls += 1
        mask = self.mask if self.mask is None or torch.is_tensor(self.mask) else self.mask[number]
        mask = None if self.plan.edges.kind(number).readout else mask
        size = given.get("size")
        nodes = nodes_of_call((edge_index, size, given), layer)
        if mask is not None:
            self.plan.edges.check(number, name, nodes, self.plan.allowed_rows)
        fused = self.plan.fused_call(number, layer, edge_index, nodes, given)
        try:
            if fused is not None:
                return self._fused(fused, number, name, layer, edge_index, given, mask)
            self._factors = None if mask is None else self._gates(number, name, layer, edge_index, mask)
            return original(edge_index, *args, **given)
        finally:
            self._factors = outer

    def _fused(
        self,
        fused: FusedCall,
        number: int,
        name: str,
        layer: MessagePassing,
        edge_index: Tensor,
        given: dict[str, Any],
        mask: Tensor | None,
    ) -> Tensor:
        if mask is not None and not fused.knows_edges():
            edge = self.plan.edges.of_call(number, name, layer, edge_index)
            fused.tell_edges(self.plan.in_batch(edge), len(mask))
        return fused(given, mask)

    def _gates(self, number: int, name: str, layer: MessagePassing, edge_index: Tensor, mask: Tensor) -> Tensor:
        """Return the factor of each message of a call that runs as it is."""
        return gates(mask, self.plan.message_edges(number, name, layer, edge_index))

    def _message(self, layer: MessagePassing, output: Any) -> Any:
        return output if self._factors is None else scaled(output, self._factors, layer)
