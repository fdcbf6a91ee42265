"""Reading what users give for nodes, links, targets and names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

ONE_DATA = (
    "X must hold one entry per prediction. Got one Data; use Instances.from_nodes(data) to explain its nodes, "
    "Instances.from_edges(data, pairs) for links, or Instances.from_graphs([data]) for the graph."
)


def check_not_empty(n: int) -> None:
    """Raise ValueError, in scikit-learn's words, if there is no instance."""
    if n == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: X must hold an instance.")


def as_int_array(values: Any, name: str) -> np.ndarray:
    """Return values as int64, or raise TypeError if they are no whole numbers."""
    array = values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)
    is_float = array.dtype.kind == "f" and bool(np.isfinite(array).all())
    whole = array.dtype.kind in "iu" or (is_float and np.array_equal(array, np.floor(array)))
    if array.size and not whole:
        raise TypeError(f"{name!r} must hold integers. Got dtype {array.dtype}.")
    return array.astype(np.int64)


def check_range(element: np.ndarray, num_nodes: int, name: str) -> None:
    """Raise IndexError with the position of the first node id that is out of range."""
    bad = ((element < 0) | (element >= num_nodes)).any(axis=1)
    if bad.any():
        i = int(np.argmax(bad))
        got = element[i].tolist() if element.shape[1] > 1 else int(element[i, 0])
        raise IndexError(f"{name!r} must hold node ids in [0, {num_nodes}). Got {got} at position {i}.")


def node_elements(nodes: Any, num_nodes: int) -> np.ndarray:
    """Return node ids from None (all), ids, or a mask over the nodes."""
    if nodes is None:
        return np.arange(num_nodes)
    array = nodes.detach().cpu().numpy() if torch.is_tensor(nodes) else np.asarray(nodes)
    if array.dtype == bool:
        if array.shape != (num_nodes,):
            raise ValueError(f"A 'nodes' mask must have shape ({num_nodes},). Got {array.shape}.")
        return np.flatnonzero(array)
    array = np.atleast_1d(as_int_array(array, "nodes"))
    if array.ndim != 1:
        raise ValueError(f"'nodes' must be one-dimensional. Got shape {array.shape}.")
    check_range(array[:, None], num_nodes, "nodes")
    return array


def checked_node_ids(node_ids: Any, num_nodes: int) -> list[np.ndarray] | None:
    """Return the user's names of the nodes of one graph, as a list with one entry per graph."""
    return None if node_ids is None else [as_names(node_ids, num_nodes, "node_ids")]


def as_names(names: Any, n: int, parameter: str) -> np.ndarray:
    """Return names as an array of ints, or of objects where some name is no int."""
    names = names.tolist() if torch.is_tensor(names) else list(names)
    if len(names) != n:
        raise ValueError(f"{parameter!r} must have length {n}. Got {len(names)}.")
    array = np.asarray(names) if all(isinstance(name, (int, np.integer)) for name in names) else None
    if array is not None:
        return array
    array = np.empty(n, dtype=object)
    array[:] = names
    return array


def checked_target(target: Any, n: int) -> np.ndarray | None:
    """Return targets as one int per instance, or None for what the model predicts."""
    if target is None:
        return None
    array = as_int_array(target, "target")
    if array.ndim == 0:
        array = np.full(n, int(array))
    array = array.reshape(-1)
    if len(array) != n:
        raise ValueError(f"'target' must be None, an int, or {n} ints. Got {len(array)}.")
    if (array < 0).any():
        i = int(np.argmax(array < 0))
        raise ValueError(f"'target' must be at least 0. Got {array[i]} at index {i}.")
    return array
