"""Edge masks on messages, through the layers' public hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import NORMALISATION
from skgnnx.blackbox.edge_matching import CallKind, gates, match_edges
from skgnnx.blackbox.pyg_compat import (
    ends_of_call,
    fuse,
    message_dim,
    message_passing_modules,
    nodes_of_call,
    unfuse,
)
from skgnnx.graphs.batch import GraphBatch

Nodes = tuple[int | None, int | None]


@contextmanager
def message_hooks(model: nn.Module, propagate: Any, message: Any) -> Iterator[None]:
    """Call two functions around every propagate call of a model.

    ``propagate(name, layer, edge_index, nodes)`` runs before, where `nodes` holds the numbers of sources and targets;
    ``message(layer, out)`` runs after the message function, and may replace what it returns.
    """
    handles, fused = [], []
    try:
        for name, layer in message_passing_modules(model):
            fused.append((layer, unfuse(layer)))

            def before(layer: MessagePassing, inputs: Any, name: str = name) -> None:
                propagate(name, layer, inputs[0], nodes_of_call(inputs, layer))

            def after(layer: MessagePassing, inputs: Any, output: Tensor) -> Tensor | None:
                return message(layer, output)

            handles.append(layer.register_propagate_forward_pre_hook(before))
            handles.append(layer.register_message_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer, was in fused:
            fuse(layer, was)


class CallTracer:
    """Records the edges of every propagate call of one forward pass."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.edges: list[np.ndarray] = []
        self.widths: list[int] = []
        self.nodes: list[Nodes] = []

    def propagate(self, name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        """Note one call."""
        self.nodes.append(nodes)
        self.names.append(name)
        self.edges.append(ends_of_call(edge_index, layer).detach().cpu().numpy())
        self.widths.append(0)

    def message(self, layer: MessagePassing, output: Tensor) -> None:
        """Note how many numbers one message has."""
        parts = [part for part in (output if isinstance(output, tuple) else (output,)) if torch.is_tensor(part)]
        width = sum(part.numel() // max(part.shape[message_dim(layer, part)], 1) for part in parts)
        self.widths[-1] = max(self.widths[-1], width)


class EdgeMasking:
    """Multiplies the messages of a batch by an edge mask.

    Parameters
    ----------
    batch : GraphBatch
        The batch that runs.
    mask : Tensor of shape (E,) or sequence of such
        One mask for all propagate calls, or one per call.
    kinds : list of CallKind
        What is known of each propagate call, measured once on a path without loops.
    resolve : callable
        ``resolve(call number) -> ndarray``: finds the edges of a call in which parallel edges cannot be told apart.
    """

    def __init__(self, batch: GraphBatch, mask: Tensor | Sequence[Tensor], kinds: list[CallKind], resolve: Any) -> None:
        self.batch = batch
        self.mask = mask
        self.kinds = kinds
        self.resolve = resolve
        self.calls = -1
        self.current: Tensor | None = None
        self._resolving = False

    def propagate(self, name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        """Look up which edges the messages of this call belong to."""
        if self._resolving:
            return
        self.calls += 1
        mask = self.mask if torch.is_tensor(self.mask) else self.mask[self.calls]
        if self._kind().readout:
            self.current = None
            return
        if self._kind().coarsened or nodes[0] not in (None, self.batch.num_nodes):
            raise ValueError(
                f"Every message must run between nodes of the graph. Got {nodes[0]} nodes instead of "
                f"{self.batch.num_nodes} in layer {name!r}, which runs after a pooling; explain node features "
                "(mask='node_feature') or use a method that needs no edge masks."
            )
        if edge_index is self.batch.edge_index and not self._kind().replaces_loops:
            self.current = mask
            return
        handed = self.batch.memo.get(NORMALISATION, {}).get(layer)
        if handed is not None and edge_index is handed.edge_index:
            self.current = gates(mask, handed.edge)
            return
        self.current = gates(mask, self._found(name, ends_of_call(edge_index, layer)))

    def _kind(self) -> CallKind:
        return self.kinds[self.calls] if self.calls < len(self.kinds) else CallKind()

    def message(self, layer: MessagePassing, output: Any) -> Any:
        """Scale the messages of the current call."""
        if self.current is None or self._resolving:
            return output
        return scaled(output, self.current, layer)

    def _found(self, name: str, edges: Tensor) -> Tensor:
        """Return the edge of each message; kept for the next forward pass over the same edges."""
        key = ("messages", self.calls)
        known = self.batch.memo.get(key)
        if known is not None and (known[0] is edges or torch.equal(known[0], edges)):
            return known[1]
        call, own = edges.detach().cpu().numpy(), self.batch.edge_index.cpu().numpy()
        found = match_edges(call, own, self._kind())
        if found is None:
            raise ValueError(
                f"Every message must run along an edge of the graph. Got others in layer {name!r} "
                f"({call.shape[1]} messages, {own.shape[1]} edges), which makes edges of its own; explain node "
                "features "
                "(mask='node_feature') or use a method that needs no edge masks."
            )
        edge = found.edge if found.certain else self._resolved(call)
        result = torch.from_numpy(edge).to(self.batch.device)
        self.batch.memo[key] = (edges, result)
        return result

    def _resolved(self, call: np.ndarray) -> np.ndarray:
        # Resolving runs the model inside of the run that is being masked, whose hooks must then do nothing.
        self._resolving = True
        try:
            return self.resolve(self.batch, self.calls, call)
        finally:
            self._resolving = False


def scaled(messages: Any, factor: Tensor, layer: MessagePassing) -> Any:
    """Multiply messages, or each tensor of a tuple of messages, by one factor per edge."""
    if isinstance(messages, tuple):
        return tuple(scaled(part, factor, layer) for part in messages)
    if not torch.is_tensor(messages):
        return messages
    shape = [1] * messages.dim()
    shape[message_dim(layer, messages)] = -1
    return messages * factor.to(messages.dtype).view(shape)
