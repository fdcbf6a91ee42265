"""Edges that stand for several: a layer that sums weights to degrees counts them without seeing the others."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.masked_sum import PRODUCT_TYPES
from skgnnx.graphs.neighbourhoods import Condensed

WEIGHT = "edge_weight"
CHECKED, EDGES_TO_CHECKED = 8, 50_000


class NotCountedError(ValueError):
    """A layer takes no weights, has weights already, or runs along other edges."""


@contextmanager
def counted(layers: list[tuple[str, MessagePassing]], condensed: Condensed | None) -> Iterator[None]:
    """Weight each edge of a condensed neighbourhood by how many it stands for, in some layers.

    Parameters
    ----------
    layers : list of (str, MessagePassing)
        Layers that are given their edges without weights.
    condensed : Condensed or None
        The neighbourhood that the model runs on; None changes nothing.

    Raises
    ------
    NotCountedError
        If a layer cannot be given weights.
    """
    with ExitStack() as stack:
        if condensed is not None:
            hook = partial(_with_weights, condensed)
            for _, layer in layers:
                stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _with_weights(condensed: Condensed, layer: MessagePassing, args: Any, kwargs: Any) -> Any:
    edges = condensed.batch.edge_index
    signature = inspect.signature(type(layer).forward)
    given = signature.bind(layer, *args, **kwargs)
    tensors = [value for value in given.arguments.values() if torch.is_tensor(value)]
    own = any(value is edges or (value.shape == edges.shape and torch.equal(value, edges)) for value in tensors)
    kinds = {value.dtype for value in tensors if value.is_floating_point()}
    if WEIGHT not in signature.parameters or given.arguments.get(WEIGHT) is not None or not own or len(kinds) != 1:
        raise NotCountedError
    kind = kinds.pop()
    if kind not in PRODUCT_TYPES:  # others cannot count so far
        raise NotCountedError
    given.arguments[WEIGHT] = torch.from_numpy(condensed.stands_for).to(edges.device, kind)
    return given.args[1:], given.kwargs


def edges_to_check(condensed: Condensed) -> np.ndarray:
    """Return edges that come from nodes of very different degrees to which most edges are left out.

    The largest degree that is not too large is among them.
    """
    graphs, ptr = condensed.batch.graphs, condensed.batch.X.store.in_edges.ptr
    source, target = graphs.ends
    stands_in = np.flatnonzero(condensed.stands_for > 1)
    size = condensed.stands_for[stands_in]
    stands_in, size = stands_in[size <= EDGES_TO_CHECKED], size[size <= EDGES_TO_CHECKED]
    by_size = stands_in[np.argsort(-size, kind="stable")]
    chosen = np.zeros(len(graphs.node_id), dtype=bool)
    chosen[target[by_size[np.linspace(0, len(by_size) - 1, min(CHECKED, len(by_size))).astype(int)]]] = True
    edges = np.flatnonzero(chosen[source])
    ends = graphs.node_id[target[edges]]
    felt = (graphs.node_level[target[edges]] == 0) & (ptr[ends + 1] - ptr[ends] <= EDGES_TO_CHECKED)
    return edges[felt][np.unique(source[edges[felt]], return_index=True)[1]]
