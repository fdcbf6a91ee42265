"""Messages of every propagate call: what they are, and gates that put other messages in their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.edge_matching import gates
from skgnnx.blackbox.hooks import Named
from skgnnx.blackbox.message_run import MessageVisitor, OpenCall, width_of
from skgnnx.blackbox.pyg_compat import states_of_call


class MessageGates(MessageVisitor):
    """Gates on the messages of every propagate call: `z m + (1 - z) b` instead of `m`, differentiable in z and b.

    An edge without a message in a call (of another relation, for example) has a gate there that does nothing. Messages
    that run along no edge of the user's, loops that a layer makes and readouts, stay. Where all gates are 1, every
    output is the model's own, bit for bit, for any baselines.

    Parameters
    ----------
    gates : sequence of Tensor of shape (E,) or None
        For each propagate call one gate per edge of the batch; None leaves a call as it is.
    baselines : sequence of Tensor of shape (d,) or (E, d), or None
        For each call what stands in for its messages, as one vector or as one per edge; `d` is the width of
        `CallMessages.messages`.
    """

    def __init__(self, gates: Sequence[Tensor | None], baselines: Sequence[Tensor | None]) -> None:
        self.gates, self.baselines = gates, baselines

    def replaced(self, call: OpenCall, messages: Tensor) -> Tensor:
        """Return messages (M, d) behind their gates."""
        gate = self.gates[call.number] if call.number < len(self.gates) else None
        if gate is None or not messages.is_floating_point():
            return messages
        opened = gates(gate, call.edge).to(messages.dtype).unsqueeze(1)
        baseline = self._baseline(call, messages.shape[1]).to(messages.dtype)
        return opened * messages + (1 - opened) * baseline

    def _baseline(self, call: OpenCall, width: int) -> Tensor:
        given = self.baselines[call.number]
        if given is None:
            return call.edge.new_zeros(1)
        part = given.narrow(-1, call.width, width)
        if part.dim() == 1:
            return part
        padded = torch.cat([part, part.new_zeros(1, width)])
        return padded.index_select(0, torch.where(call.edge < 0, len(part), call.edge))


class CallMessages(NamedTuple):
    """The messages of one propagate call, and what they were made of.

    Parameters
    ----------
    name : str
        Name of the layer.
    run : int
        Which run of a layer the call belongs to, counted from the input: some layers send messages several times, once
        for each relation for example.
    source, target : Tensor of shape (M, s) and (M, t)
        States of both ends of each message: what went into the layer, or into the call where it is a later one of its
        layer. Of no width where that is no floating-point tensor.
    messages : Tensor of shape (M, d)
        All numbers of each message side by side, heads and parts of tuples too.
    edge : Tensor of shape (M,)
        The edge of the batch behind each message; -1 for a loop that the layer made, and for messages of a readout.
    """

    name: str
    run: int
    source: Tensor
    target: Tensor
    messages: Tensor
    edge: Tensor


class LayerRun:
    """One run of a layer: what went into it, and what its newest call was given."""

    def __init__(self, layer: MessagePassing, number: int, states: Any) -> None:
        self.number = number
        self.states = states
        self.given: Any = None
        self.calls = 0
        self._first = 0 if layer.flow == "source_to_target" else 1  # place of the sources in a pair of states

    def side(self, number: int, rows: Tensor) -> Tensor:
        """Return the states of the sources (0) or targets (1) of the messages of the present call."""
        known = (self.given, self.states) if self.calls else (self.states, self.given)
        for states in known:
            if isinstance(states, (tuple, list)):
                states = states[abs(self._first - number)] if len(states) == 2 else None
            if _has_rows(states, rows):
                return states.detach().reshape(len(states), width_of(states)).index_select(0, rows)
        return torch.empty(len(rows), 0, device=rows.device)


class Recording(MessageVisitor):
    """Keeps the messages of a run and the states of their ends.

    Attributes
    ----------
    calls : list of CallMessages
        As far as the run has come.
    """

    def __init__(self) -> None:
        self.calls: list[CallMessages] = []
        self._layers: list[LayerRun] = []
        self._begun = 0

    @contextmanager
    def watching(self, layers: Named) -> Iterator[None]:
        """Note what goes into layers and calls."""
        with ExitStack() as stack:
            for _, layer in layers:
                stack.callback(layer.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(self._leave).remove)
                stack.callback(layer.register_propagate_forward_pre_hook(self._propagate).remove)
            yield

    def _enter(self, layer: MessagePassing, args: Any, kwargs: Any) -> None:
        self._layers.append(LayerRun(layer, self._begun, kwargs.get("x", args[0] if args else None)))
        self._begun += 1

    def _leave(self, layer: nn.Module, args: Any, output: Any) -> None:
        self._layers.pop()

    def _propagate(self, layer: MessagePassing, inputs: Any) -> None:
        if not self._layers:  # a network may call propagate without the layer's forward
            self._enter(layer, (), {})
        self._layers[-1].given = states_of_call(inputs, layer)

    def start(self, call: OpenCall) -> None:
        """Note the states of both ends of each message."""
        run = self._layers[-1]
        source, target = run.side(0, call.ends[0]), run.side(1, call.ends[1])
        run.calls += 1
        nothing = source.new_empty(len(call.edge), 0)
        self.calls.append(CallMessages(call.name, run.number, source, target, nothing, call.edge))

    def replaced(self, call: OpenCall, messages: Tensor) -> Tensor:
        """Keep messages, and return them as they are."""
        known = self.calls[call.number]
        both = torch.cat([known.messages.to(messages.dtype), messages.detach()], dim=1)
        self.calls[call.number] = known._replace(messages=both)
        return messages


def by_run(calls: Sequence[CallMessages]) -> list[CallMessages]:
    """Return calls with the runs of their layers numbered without gaps, from the input on."""
    _, number = np.unique([call.run for call in calls], return_inverse=True)
    return [call._replace(run=int(n)) for call, n in zip(calls, number, strict=True)]


def _has_rows(states: Any, rows: Tensor) -> bool:
    """Return True for a floating-point tensor that has the given rows."""
    if not torch.is_tensor(states) or not states.is_floating_point() or states.layout != torch.strided:
        return False
    return states.dim() > 0 and (not len(rows) or int(rows.max()) < len(states))
