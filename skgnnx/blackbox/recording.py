"""What every propagate call of a forward pass does: its edges, and the hidden states that go in and come out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.hooks import Nodes, message_hooks
from skgnnx.blackbox.pyg_compat import ends_of_call, message_dim, message_passing_modules


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


@dataclass
class HiddenState:
    """One propagate call.

    Parameters
    ----------
    name : str
        Name of the layer in the model.
    before : Tensor of shape (N, d) or None
        Node states that went into the layer.
    after : Tensor of shape (N, d) or None
        What the layer returned.
    messages : Tensor of shape (messages, ...) or None
        Messages of the call, before they are aggregated.
    edges : Tensor of shape (2, messages)
        Ends of the messages.
    """

    name: str
    before: Tensor | None
    edges: Tensor
    after: Tensor | None = None
    messages: Tensor | None = None


class Recorder:
    """Collects a `HiddenState` for every propagate call of a forward pass, also of layers that are used repeatedly."""

    def __init__(self) -> None:
        self.states: list[HiddenState] = []
        self._inputs: list[tuple[MessagePassing, Tensor | None, int]] = []

    def enter(self, layer: MessagePassing, args: Any, kwargs: Any) -> None:
        """Note what goes into a layer."""
        x = kwargs.get("x", args[0] if args else None)
        x = x[0] if isinstance(x, (tuple, list)) and x else x
        self._inputs.append((layer, x if torch.is_tensor(x) else None, len(self.states)))

    def propagate(self, name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        """Note that a layer starts to pass messages."""
        before = self._inputs[-1][1] if self._inputs else None
        self.states.append(HiddenState(name, before, ends_of_call(edge_index, layer)))

    def message(self, layer: MessagePassing, messages: Tensor) -> None:
        """Note the messages of the call that has started last."""
        self.states[-1].messages = messages

    def leave(self, layer: MessagePassing, args: Any, output: Any) -> None:
        """Note what a layer returns, for all of its calls."""
        _, _, first = self._inputs.pop()
        output = output[0] if isinstance(output, (tuple, list)) and output else output
        for state in self.states[first:]:
            if state.after is None:
                state.after = output


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[HiddenState]]:
    """Record the hidden states of the forward passes that run inside.

    Parameters
    ----------
    model : nn.Module
        The frozen model.

    Yields
    ------
    list of HiddenState
        Filled as the model runs, in the order of the propagate calls.
    """
    recorder = Recorder()
    with ExitStack() as stack:
        stack.enter_context(message_hooks(model, recorder.propagate, recorder.message))
        for _, layer in message_passing_modules(model):
            before = layer.register_forward_pre_hook(recorder.enter, with_kwargs=True)
            after = layer.register_forward_hook(recorder.leave)
            stack.callback(before.remove)
            stack.callback(after.remove)
        yield recorder.states
