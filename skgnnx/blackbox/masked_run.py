"""One forward pass over a batch: fused where a layer allows it, trimmed, and under an edge mask if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import is_sparse

from skgnnx.blackbox.edge_matching import gates
from skgnnx.blackbox.embeddings import Embedded
from skgnnx.blackbox.hooks import Nodes, after_messages, around_propagate, replaced, scaled
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
        self._factors: list[Tensor | None] = []
        self._entered: list[int] = []

    def __call__(self, x: Tensor | Embedded | None) -> Tensor:
        """Return the raw output of the model."""
        output = self._run(x, self.plan.setup.foldable)
        if output not in self.plan.constants:
            return output
        # A prediction that no mask changes is made again, for those who look on: the scores are found in its last step.
        self.calls, self.num_rows = 0, self.plan.seen.num_nodes
        return self._run(x, [])

    def _run(self, x: Tensor | Embedded | None, foldable: Sequence[tuple[str, nn.Module]]) -> Tensor:
        plan, setup = self.plan, self.plan.setup
        with ExitStack() as stack:
            stack.enter_context(replaced(foldable, "forward", plan.constants.forward))
            stack.enter_context(replaced(setup.layers, "propagate", self._propagate))
            stack.enter_context(around_propagate(setup.layers, self._start, self._end))
            if self.mask is not None:
                stack.enter_context(after_messages(setup.layers, self._message))
            for layer in setup.trimmed_layers(plan.trim):
                stack.callback(layer.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(self._leave).remove)
            if isinstance(x, Embedded):
                stack.enter_context(x.embeddings.returning(x.values, unless=lambda: plan.edges.resolving))
            return setup.call(plan.seen, None if isinstance(x, Embedded) else x)

    def _enter(self, layer: MessagePassing, args: Any, kwargs: Any) -> Any:
        """Cut what goes into a layer."""
        self._entered.append(self.calls)
        if self.plan.edges.resolving or self.calls >= len(self.plan.setup.trace.reach):
            return None
        distance = self.plan.setup.trace.reach[self.calls]
        nodes, edges = (self.num_rows if self.plan.trim <= Trim.ROWS else None), self.plan.seen.num_edges
        if nodes is not None:
            self.num_rows = min(self.num_rows, self.plan.prefixes.nodes(distance))

        def cut(value: Any, first: bool = False) -> Any:
            if first and self.plan.trim == Trim.PAIRS and torch.is_tensor(value) and len(value) == nodes:
                return self.plan.prefixes.pair(value, distance)
            return self.plan.prefixes.cut(value, distance, nodes=nodes, edges=edges)

        return (
            tuple(cut(value, first=i == 0) for i, value in enumerate(args)),
            {key: cut(value, first=key == "x") for key, value in kwargs.items()},
        )

    def _leave(self, layer: MessagePassing, args: Any, output: Any) -> Any:
        """Cut what comes out of a layer."""
        first = self._entered.pop()
        if self.plan.edges.resolving or self.plan.trim > Trim.ROWS or self.calls == first:
            return None
        distance = self.plan.setup.trace.reach[self.calls - 1] - 1
        before, self.num_rows = self.num_rows, self.plan.prefixes.nodes(distance)
        return self.plan.prefixes.cut(output, distance, nodes=before, edges=-1)

    def _mask_of(self, number: int) -> Tensor | None:
        mask = self.mask if self.mask is None or torch.is_tensor(self.mask) else self.mask[number]
        return None if self.plan.edges.kind(number).readout else mask

    def _propagate(
        self, name: str, layer: MessagePassing, original: Any, /, edge_index: Tensor, *args: Any, **given: Any
    ) -> Any:
        """Run a call as a sparse product where it may be one."""
        number, nodes = self.calls, nodes_of_call((edge_index, given.get("size"), given), layer)
        fused = None
        if not args and not self.plan.edges.resolving and self.plan.setup.trace.names[number : number + 1] == [name]:
            fused = self.plan.fused_call(number, layer, edge_index, nodes, given)
        if fused is None:
            if self.mask is not None and not self.plan.edges.resolving and is_sparse(edge_index):
                self.plan.look_at_values(number, layer, edge_index, lambda: original(edge_index, *args, **given))
            return original(edge_index, *args, **given)
        self.calls += 1
        mask = self._mask_of(number)
        if mask is None:
            return fused(given, None)
        self.plan.edges.check(number, name, nodes, self.plan.allowed_rows)
        if not fused.knows_edges():
            edge = self.plan.edges.of_call(number, name, layer, edge_index)
            fused.tell_edges(self.plan.in_batch(edge), len(mask))
        return fused(given, mask)

    # What a call that runs as it is needs comes from hooks: a layer may also call the propagate method of its class.
    def _start(self, name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        if self.plan.edges.resolving:
            return
        number = self.calls
        self.calls += 1
        mask = self._mask_of(number)
        if self.plan.trim != Trim.NONE and nodes[0] is not None:
            self.plan.prefixes.check_ends(number, edge_index, max(size for size in nodes if size is not None))
        if mask is None:
            self._factors.append(None)
            return
        self.plan.edges.check(number, name, nodes, self.plan.allowed_rows)
        factors = self._factors_of(mask, number, name, layer, edge_index)
        values = self.plan.missing_values.get(number)
        self._factors.append(factors if values is None else factors * values)

    def _factors_of(self, mask: Tensor, number: int, name: str, layer: MessagePassing, edge_index: Tensor) -> Tensor:
        """Return one factor per message of a call."""
        return gates(mask, self.plan.message_edges(number, name, layer, edge_index))

    def _end(self) -> None:
        if not self.plan.edges.resolving:
            self._factors.pop()

    def _message(self, layer: MessagePassing, output: Any) -> Any:
        factors = None if self.plan.edges.resolving else self._factors[-1]
        return output if factors is None else scaled(output, factors, layer)
