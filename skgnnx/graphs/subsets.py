"""Subsets of the nodes of graphs, as users give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skgnnx.graphs.instances import Instances


def node_subsets(X: Instances, nodes: Sequence[Any]) -> list[np.ndarray]:
    """Return for each instance the subsets of its nodes that are asked about, as bools (K, num_nodes).

    Parameters
    ----------
    X : Instances
    nodes : sequence of length n
        For each instance the ids of some nodes, a bool array (num_nodes,), or bools (K, num_nodes) for K subsets.

    Returns
    -------
    list of ndarray of bool

    Raises
    ------
    ValueError
        If there is not one entry per instance, or an id or a length does not fit; the message names the instance.
    """
    if len(nodes) != len(X):
        raise ValueError(f"'nodes' must hold one entry per instance. Got {len(nodes)} for {len(X)} instances.")
    return [_subsets(part, X.num_units("node", i), i) for i, part in enumerate(nodes)]


def _subsets(given: Any, num_nodes: int, i: int) -> np.ndarray:
    values = np.asarray(list(given) if isinstance(given, (set, frozenset, range)) else given)
    if values.dtype == bool:
        if values.ndim not in (1, 2) or values.shape[-1] != num_nodes:
            raise ValueError(
                f"'nodes' must hold bools of shape ({num_nodes},) or (K, {num_nodes}) at index {i}. Got shape "
                f"{values.shape}."
            )
        return np.atleast_2d(values)
    ids = values.astype(np.int64) if values.size == 0 else values
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ((ids < 0) | (ids >= num_nodes)).any():
        raise ValueError(f"'nodes' must hold node ids in [0, {num_nodes}) or bools at index {i}. Got {given!r}.")
    subset = np.zeros((1, num_nodes), dtype=bool)
    subset[0, ids] = True
    return subset
