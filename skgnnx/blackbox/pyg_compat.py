"""The only place that touches what PyG does not promise to keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import is_sparse, to_edge_index


def message_passing_modules(model: nn.Module) -> list[tuple[str, MessagePassing]]:
    """Return the layers of a model that pass messages, with their names."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, MessagePassing)]


def unfuse(layer: MessagePassing) -> bool:
    """Make a layer compute its messages one by one, also for sparse input, and return whether it would have fused."""
    was, layer.fuse = layer.fuse, False
    return was


def multiplies(layer: MessagePassing) -> bool:
    """Return True if a layer has a product of its own with sparse matrices, and uses it."""
    return bool(layer.fuse)


def fuse(layer: MessagePassing, value: bool) -> None:
    """Give a layer back the fusing flag that `unfuse` has taken from it."""
    layer.fuse = value


def ends_of_call(edge_index: Tensor, layer: MessagePassing) -> Tensor:
    """Return the source and target (2, messages) of the messages of one propagate call, in their order."""
    if is_sparse(edge_index):
        (target, source), _ = to_edge_index(edge_index)
        return torch.stack([source, target])
    ends = edge_index if type(edge_index) is Tensor else edge_index.as_subclass(Tensor)
    return ends if layer.flow == "source_to_target" else ends.flip(0)


def nodes_of_call(inputs: Any, layer: MessagePassing) -> tuple[int | None, int | None]:
    """Return between how many sources and targets a propagate call sends messages, None where that cannot be told."""
    _, size, given = inputs
    if size is not None:
        return size[0], size[1]
    for name in layer._user_args:
        value = given.get(name[:-2]) if name.endswith(("_i", "_j")) else None
        ends = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)
        if torch.is_tensor(ends[0]):
            source, target = (int(end.shape[layer.node_dim]) if torch.is_tensor(end) else None for end in ends)
            return source, target
    return None, None


def states_of_call(inputs: Any, layer: MessagePassing) -> Any:
    """Return the node states that a propagate call makes its messages of, one row per node first, None for none."""
    _, _, given = inputs
    for name in layer._user_args:
        value = given.get(name[:-2]) if name.endswith("_j") else None
        if torch.is_tensor(value):
            return value.movedim(layer.node_dim, 0) if value.dim() > 1 else value
        if isinstance(value, (tuple, list)) and len(value) == 2 and all(map(torch.is_tensor, value)):
            return tuple(part.movedim(layer.node_dim, 0) if part.dim() > 1 else part for part in value)
    return None


def message_dim(layer: MessagePassing, message: Tensor) -> int:
    """Return the axis of a message tensor that runs over the edges."""
    return layer.node_dim if layer.node_dim >= 0 else message.dim() + layer.node_dim


def normalising_layers(model: nn.Module) -> list[tuple[str, MessagePassing]]:
    """Return the named layers that keep normalised edges as a pair (edge_index, weight) when asked to."""
    layers = message_passing_modules(model)
    return [(name, layer) for name, layer in layers if {"_cached_edge_index", "cached"} <= vars(layer).keys()]


def is_normalisation(kept: Any) -> bool:
    """Return True if what a layer keeps is a pair (edge_index, weight), not something else under the same name.

    A sparse matrix is something else: it holds no list of edges that could be shortened.
    """
    if not isinstance(kept, tuple) or len(kept) != 2 or not torch.is_tensor(kept[0]):
        return False
    edges, weight = kept
    is_list = edges.dim() == 2 and len(edges) == 2 and edges.dtype == torch.long and edges.layout == torch.strided
    fits = weight is None or (torch.is_tensor(weight) and weight.shape[:1] == edges.shape[1:])
    return is_list and fits


def has_own_hooks(layer: MessagePassing) -> bool:
    """Return True if the user has registered hooks inside of a layer's propagate call, or has it decomposed."""
    kinds = [name for name in vars(layer) if name.endswith("_hooks") and name.split("_")[1] in _STEPS]
    return any(vars(layer)[name] for name in kinds) or layer.decomposed_layers > 1 or bool(layer.explain)


_STEPS = ("propagate", "message", "aggregate", "edge")
