"""Values of sparse matrices that a layer's own product reads, and its messages do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import to_edge_index

from skgnnx.blackbox.hooks import after_messages, mapped, scaled
from skgnnx.blackbox.pyg_compat import fuse, unfuse


def missing_values(layer: MessagePassing, adjacency: Tensor, propagate: Callable[[], Tensor]) -> Tensor | None:
    """Return what messages must be multiplied by to sum up to what the layer's product with a sparse matrix gives.

    Some layers (GIN and SAGE) multiply by the values of the matrix where they have a product, and ignore these in
    their messages, which are what an edge mask scales. They are asked with numbers that hide nothing: a source that is
    zero now may be anything under other masks.

    Parameters
    ----------
    layer : MessagePassing
        It multiplies by sparse matrices when it is left alone.
    adjacency : sparse Tensor
        What it multiplies by.
    propagate : callable
        Runs the call.

    Returns
    -------
    Tensor of shape (messages,) or None
        None where nothing is missing.

    Raises
    ------
    ValueError
        If the messages do not sum up to the product in either way.
    """
    _, values = to_edge_index(adjacency)
    if bool((values == 1).all()):
        return None
    with torch.no_grad(), _all_awake(layer, values):
        product = _product(layer, propagate)
        with after_messages([("", layer)], lambda _, messages: messages):
            if _same(propagate(), product):
                return None
        with after_messages([("", layer)], lambda _, messages: scaled(messages, values, layer)):
            if values.dim() == 1 and _same(propagate(), product):
                return values
    raise ValueError(
        f"The messages of {type(layer).__name__} must sum up to its product with a sparse matrix. Got other sums; give "
        "the model 'edge_index' and 'edge_weight' instead of 'adj_t'."
    )


@contextmanager
def _all_awake(layer: MessagePassing, values: Tensor) -> Iterator[None]:
    """Give a layer's calls other numbers in [1, 3] wherever they take floating-point ones but those of the matrix."""

    def other(value: Any) -> Any:
        if not torch.is_tensor(value) or not value.is_floating_point() or value.layout != torch.strided:
            return value
        if value.shape == values.shape and torch.equal(value, values):
            return value  # the model is given them once more, as edge weights
        numbers = torch.arange(value.numel(), dtype=value.dtype, device=value.device)
        return (2 + numbers.cos()).view(value.shape)

    def replaced(layer: MessagePassing, inputs: Any) -> Any:
        edge_index, size, given = inputs
        return edge_index, size, {name: mapped(other, value) for name, value in given.items()}

    handle = layer.register_propagate_forward_pre_hook(replaced)
    try:
        yield
    finally:
        handle.remove()


def _product(layer: MessagePassing, propagate: Callable[[], Tensor]) -> Tensor:
    was = unfuse(layer)
    fuse(layer, True)
    try:
        return propagate()
    finally:
        fuse(layer, was)


def _same(first: Tensor, second: Tensor) -> bool:
    scale = float(second.abs().max()) if second.numel() else 0.0
    return torch.allclose(first, second, rtol=0, atol=scale * (1e-9 if second.dtype == torch.float64 else 1e-5))
