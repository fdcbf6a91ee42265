"""Which propagate calls are nothing but sums of weighted copies: found with random numbers, never by a class name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import is_sparse, to_edge_index
from torch_geometric.utils.sparse import set_sparse_value

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.hooks import after_messages, mapped, replaced
from skgnnx.blackbox.masked_sum import PRODUCT_TYPES
from skgnnx.blackbox.pyg_compat import ends_of_call, has_own_hooks, message_passing_modules
from skgnnx.graphs.batch import GraphBatch

Draw = Callable[[torch.Size, torch.Generator], Tensor]


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
    others : dict
        What the call was given besides tensors: with anything else it may do something else.
    """

    source: str
    weight: str | None
    mean: bool
    others: dict[str, Any]

    def rows(self, given: dict[str, Any]) -> Tensor:
        """Return what a call copies."""
        value = given[self.source]
        return value[0] if isinstance(value, (tuple, list)) else value

    def takes(self, given: dict[str, Any]) -> bool:
        """Return True if a call has arguments that a sparse product takes, of the same kinds as those probed."""
        try:
            return bool(_others(given) == self.others) and self.rows(given).dtype in PRODUCT_TYPES
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            return False  # arrays of the user's own, for example, that cannot be compared

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
        self, name: str, layer: MessagePassing, original: Any, /, edge_index: Tensor, *args: Any, **given: Any
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
        found: list[Fusion | str] = []
        for draw in (_normal, _of_any_size):
            random = {key: _random(value, draw, generator) for key, value in given.items()}
            self._messages.clear()
            try:
                output = original(_random_adjacency(edge_index, draw, generator), **random)
            except Exception:
                return "random numbers are refused"
            found.append(_recognise(self._messages, output, ends, random, layer))
        return found[0] if found[0] == found[1] else "messages of another kind"


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
            if torch.allclose(message, scaled, rtol=1e-5, atol=0):
                mean = _is_mean(scaled, output, ends[1])
                return mean if isinstance(mean, str) else Fusion(source, weight, mean, _others(given))
    return "messages that are no weighted copies"


def _is_mean(messages: Tensor, output: Tensor, targets: Tensor) -> bool | str:
    """Return whether an output is the mean or the sum of messages, or what it is else."""
    if output.shape[1:] != messages.shape[1:]:
        return "an update of its own"
    total, largest = (torch.zeros_like(output).index_add_(0, targets, part) for part in (messages, messages.abs()))
    count = torch.bincount(targets, minlength=len(output)).clamp_min(1).view(-1, *(1,) * (output.dim() - 1))
    for mean in (False, True):
        scale = count if mean else 1
        if bool(((output * scale - total).abs() <= 1e-5 * largest).all()):
            return mean
    return "an aggregation that is no sum or mean"


def _is_per_message(value: Any, ends: Tensor) -> bool:
    return torch.is_tensor(value) and value.numel() == ends.shape[1] and len(value) == ends.shape[1]


def _random(value: Any, draw: Draw, generator: torch.Generator) -> Any:
    return mapped(lambda part: draw(part.shape, generator).to(part) if torch.is_tensor(part) else part, value)


def _random_adjacency(edge_index: Any, draw: Draw, generator: torch.Generator) -> Any:
    """Return a sparse matrix with other values, which messages may read; any other list of edges as it is."""
    if not (torch.is_tensor(edge_index) and is_sparse(edge_index)):
        return edge_index
    _, values = to_edge_index(edge_index)
    return set_sparse_value(edge_index, _random(values, draw, generator))


def _normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _of_any_size(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw numbers between 10^-6 and 10^6 of either sign: messages that are clipped show that they are."""
    size = 10 ** (torch.rand(shape, generator=generator, dtype=torch.float64) * 12 - 6)
    return size * _normal(shape, generator).sign()


def _others(given: dict[str, Any]) -> dict[str, Any]:
    """Return what is no tensor among the arguments of a call; its size is no matter."""
    kinds = {key: type(value) for key, value in given.items() if key != "size" and _holds_tensors(value)}
    return kinds | {key: value for key, value in given.items() if key != "size" and key not in kinds}


def _holds_tensors(value: Any) -> bool:
    return any(torch.is_tensor(part) for part in _flat([value]))


def _flat(values: Any) -> list[Any]:
    return [part for value in values for part in (_flat(value) if isinstance(value, (tuple, list)) else [value])]
