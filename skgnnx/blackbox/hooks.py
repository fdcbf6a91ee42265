"""Stepping in where a model passes messages: around the message function, or instead of a whole propagate call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    handles = []
    try:
        for name, layer in layers:

            def before(layer: MessagePassing, inputs: Any, name: str = name) -> None:
                propagate(name, layer, inputs[0], nodes_of_call(inputs, layer))

            handles.append(layer.register_propagate_forward_pre_hook(before))
        with after_messages(layers, message):
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
    """Call ``replacement(name, module, original, *args, **kwargs)`` wherever a module's method is called."""
    had = [(module, module.__dict__.get(method)) for _, module in modules]
    try:
        for name, module in modules:
            original = getattr(module, method)

            def instead(
                *args: Any, name: str = name, module: nn.Module = module, original: Any = original, **kwargs: Any
            ) -> Any:
                return replacement(name, module, original, *args, **kwargs)

            module.__dict__[method] = instead
        yield
    finally:
        for module, own in had:
            module.__dict__.pop(method, None)
            if own is not None:
                module.__dict__[method] = own


def scaled(messages: Any, factor: Tensor, layer: MessagePassing) -> Any:
    """Multiply messages, or each tensor of a tuple of messages, by one factor per edge."""
    if isinstance(messages, tuple):
        return tuple(scaled(part, factor, layer) for part in messages)
    if not hasattr(messages, "dim"):
        return messages
    shape = [1] * messages.dim()
    shape[message_dim(layer, messages)] = -1
    return messages * factor.to(messages.dtype).view(shape)
