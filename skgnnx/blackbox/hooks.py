"""Stepping in where a model passes messages: around the message function, or instead of a whole propagate call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.pyg_compat import fuse, message_dim, message_passing_modules, nodes_of_call, unfuse

Nodes = tuple[int | None, int | None]
Named = Sequence[tuple[str, MessagePassing]]


@contextmanager
def message_hooks(model: nn.Module, propagate: Any, message: Any) -> Iterator[None]:
    """Call two functions around every propagate call of a model.

    ``propagate(name, layer, edge_index, nodes)`` runs before, where `nodes` holds the numbers of sources and targets;
    ``message(layer, out)`` runs after the message function, and may replace what it returns.
    """
    layers = message_passing_modules(model)
    with around_propagate(layers, propagate), after_messages(layers, message):
        yield


@contextmanager
def around_propagate(layers: Named, before: Any, after: Callable[[], None] | None = None) -> Iterator[None]:
    """Call ``before(name, layer, edge_index, nodes)`` and ``after()`` around every propagate call of each layer."""
    handles = []
    try:
        for name, layer in layers:

            def start(layer: MessagePassing, inputs: Any, name: str = name) -> None:
                before(name, layer, inputs[0], nodes_of_call(inputs, layer))

            def end(layer: MessagePassing, inputs: Any, output: Any) -> None:
                if after is not None:
                    after()

            handles += [layer.register_propagate_forward_pre_hook(start), layer.register_propagate_forward_hook(end)]
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def after_messages(layers: Named, message: Any) -> Iterator[None]:
    """Call ``message(layer, out)`` after the message function of each layer; it may replace what that returns."""
    handles, fused = [], []
    try:
        for _, layer in layers:
            fused.append((layer, unfuse(layer)))

            def after(layer: MessagePassing, inputs: Any, output: Tensor) -> Tensor | None:
                return message(layer, output)

            handles.append(layer.register_message_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer, was in fused:
            fuse(layer, was)


@contextmanager
def replaced(modules: Sequence[tuple[str, nn.Module]], method: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Call ``replacement(name, module, original, *args, **kwargs)`` wherever a module's method is called.

    The first three must be positional-only: the user's own arguments may have any name.
    """
    had = [(module, module.__dict__.get(method)) for _, module in modules]
    try:
        for name, module in modules:
            module.__dict__[method] = partial(replacement, name, module, getattr(module, method))
        yield
    finally:
        for module, own in had:
            module.__dict__.pop(method, None)
            if own is not None:
                module.__dict__[method] = own


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to a value, or to every part of a tuple or list, named ones too, and of those inside."""
    if not isinstance(value, (tuple, list)):
        return function(value)
    parts = [mapped(function, part) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def scaled(messages: Any, factor: Tensor, layer: MessagePassing) -> Any:
    """Multiply messages, or each tensor of a tuple of messages, by one factor per edge."""

    def one(part: Any) -> Any:
        if not hasattr(part, "dim"):
            return part
        shape = [1] * part.dim()
        shape[message_dim(layer, part)] = -1
        return part * factor.to(part.dtype).view(shape)

    return mapped(one, messages)
