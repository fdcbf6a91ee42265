"""Which propagate calls are nothing but sums of weighted copies: found with random numbers, never by a class name."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.hooks import after_messages, replaced
from skgnnx.blackbox.masked_sum import PRODUCT_TYPES
from skgnnx.blackbox.pyg_compat import ends_of_call, has_own_hooks, message_passing_modules
from skgnnx.graphs.batch import GraphBatch

DRAWS = 2


class Fusion(NamedTuple):
    """A propagate call that returns, for each target, the sum or mean of weight times source row.

    Parameters
    ----------
    source : str
        Argument of the call whose rows are copied.
    weight : str or None
        Argument with one factor per message.
    mean : bool
        Whether the sum is divided by the number of messages.
    """

    source: str
    weight: str | None
    mean: bool

    def rows(self, given: dict[str, Any]) -> Tensor:
        """Return what a call copies."""
        value = given[self.source]
        return value[0] if isinstance(value, (tuple, list)) else value

    def takes(self, given: dict[str, Any]) -> bool:
        """Return True if a call has arguments that a sparse product takes."""
        return self.rows(given).dtype in PRODUCT_TYPES

    def __str__(self) -> str:
        return f"fused {'mean' if self.mean else 'sum'} of {'weighted ' if self.weight else ''}copies"


def fusions(call: ModelCall, batch: GraphBatch) -> list[Fusion | str]:
    """Return for each propagate call how it may be fused, or why it may not.

    Every floating-point argument of a call is replaced by random numbers, twice. Where each message is then one
    argument's source row times one argument's entry, and the result is their sum or mean, it is so for all numbers.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    batch : GraphBatch
        A small graph with several messages per target.
    """
    layers = message_passing_modules(call.model)
    probe = _Probe({layer for _, layer in layers if has_own_hooks(layer)})
    try:
        with torch.no_grad(), replaced(layers, "propagate", probe.propagate), after_messages(layers, probe.message):
            call(batch)
    except Exception:
        # Whatever a model says about a graph that is not the user's: it only runs slower.
        return []
    return probe.found


class _Probe:
    def __init__(self, hooked: set[MessagePassing]) -> None:
        self.found: list[Fusion | str] = []
        self._hooked = hooked
        self._messages: list[Any] = []

    def message(self, layer: MessagePassing, output: Any) -> None:
        self._messages.append(output)

    def propagate(
        self, name: str, layer: MessagePassing, original: Any, edge_index: Tensor, *args: Any, **given: Any
    ) -> Any:
        self.found.append(self._fusion(layer, original, edge_index, args, given))
        return original(edge_index, *args, **given)

    def _fusion(
        self, layer: MessagePassing, original: Any, edge_index: Tensor, args: Any, given: dict[str, Any]
    ) -> Fusion | str:
        if args or layer in self._hooked:
            return "positional arguments" if args else "hooks of the model's own"
        tensors = [value for value in _flat(given.values()) if torch.is_tensor(value)]
        if any(not tensor.is_floating_point() for tensor in tensors):
            return "an argument of whole numbers"
        ends = ends_of_call(edge_index, layer)
        if ends.shape[1] == 0 or int(torch.bincount(ends[1]).max()) < 2:
            return "too few messages to tell a sum from a maximum"
        generator = torch.Generator().manual_seed(0)
        found: set[Fusion | str] = set()
        for _ in range(DRAWS):
            random = {key: _random(value, generator) for key, value in given.items()}
            self._messages.clear()
            output = original(edge_index, **random)
            found.add(_recognise(self._messages, output, ends, random, layer))
        return found.pop() if len(found) == 1 else "messages of another kind"


def _recognise(messages: list[Any], output: Any, ends: Tensor, given: dict[str, Any], layer: Any) -> Fusion | str:
    if len(messages) != 1 or not torch.is_tensor(messages[0]) or not torch.is_tensor(output):
        return "messages of several parts"
    message = messages[0]
    for source, value in given.items():
        rows = value[0] if isinstance(value, (tuple, list)) else value
        if not torch.is_tensor(rows) or rows.dim() < 2 or layer.node_dim not in (0, -rows.dim()):
            continue
        if len(rows) <= int(ends[0].max()) or rows.shape[1:] != message.shape[1:]:
            continue
        copies = rows.index_select(0, ends[0])
        for weight in [None, *(key for key in given if _is_per_message(given[key], ends))]:
            scaled = copies if weight is None else copies * given[weight].view(-1, *(1,) * (rows.dim() - 1))
            if torch.allclose(message, scaled, rtol=1e-5, atol=1e-6):
                return _aggregation(source, weight, scaled, output, ends[1])
    return "messages that are no weighted copies"


def _aggregation(source: str, weight: str | None, messages: Tensor, output: Tensor, targets: Tensor) -> Fusion | str:
    total = torch.zeros_like(output)
    if output.shape[1:] != messages.shape[1:]:
        return "an update of its own"
    total.index_add_(0, targets, messages)
    count = torch.bincount(targets, minlength=len(output)).clamp_min(1).view(-1, *(1,) * (output.dim() - 1))
    for mean in (False, True):
        if torch.allclose(output, total / count if mean else total, rtol=1e-4, atol=1e-5):
            return Fusion(source, weight, mean)
    return "an aggregation that is no sum or mean"


def _is_per_message(value: Any, ends: Tensor) -> bool:
    return torch.is_tensor(value) and value.numel() == ends.shape[1] and len(value) == ends.shape[1]


def _random(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_random(part, generator) for part in value)
    if not torch.is_tensor(value):
        return value
    return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)


def _flat(values: Any) -> list[Any]:
    return [part for value in values for part in (_flat(value) if isinstance(value, (tuple, list)) else [value])]
