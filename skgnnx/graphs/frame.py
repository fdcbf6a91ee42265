"""Explanations as a long table, one row per unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skgnnx.graphs.conversion import convert
from skgnnx.graphs.entries import is_int, offsets
from skgnnx.graphs.explanation_array import ExplanationArray
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.ranking import rank_order
from skgnnx.graphs.selection import Units, edge_pairs, units

if TYPE_CHECKING:
    from pandas import DataFrame


def as_frame(E: ExplanationArray, k: int | None, by: str | None) -> DataFrame:
    """Make a long table with the best units first; see `Explanations.to_frame`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame needs pandas, which is not installed: pip install 'skgnnx[frame]'.") from error
    if k is not None and (not is_int(k) or k < 0):
        raise ValueError(
            f"The 'k' parameter of to_frame must be None or an int in the range [0, inf). Got {k!r} instead."
        )
    if by not in (None, "edge", "node"):
        raise ValueError(f"The 'by' parameter of to_frame must be None, 'edge' or 'node'. Got {by!r} instead.")
    if by is not None:
        E = convert(E, by, "max")
    unit = units(E)
    entry = np.zeros(len(unit.score), dtype=np.int64)
    flat = unit.of_entry.reshape(-1)
    entry[flat[flat >= 0]] = np.flatnonzero(flat >= 0)
    listed = np.arange(len(unit.score))
    if by == "node":
        explained = E.instances.element[unit.instance] == E.stored().ids[entry][:, None]
        listed = listed[~explained.any(axis=1)]
    return pd.DataFrame(_columns(E, unit, entry, listed, k))


def _columns(E: ExplanationArray, unit: Units, entry: np.ndarray, listed: np.ndarray, k: int | None) -> dict[str, Any]:
    """Return the columns of the listed units, the best of each instance first."""
    counts = np.bincount(unit.instance[listed], minlength=len(E))
    ptr = offsets(counts)
    order = listed[rank_order(unit.score[listed], ptr)]
    rank = np.arange(len(order)) - np.repeat(ptr[:-1], counts)
    if k is not None:
        order, rank = order[rank < k], rank[rank < k]
    i = unit.instance[order]
    columns = {"instance": E.ids[i], "target": E.targets[i], "rank": rank + 1, "value": unit.score[order]}
    return columns | _places(E, i, entry[order])


def _places(E: ExplanationArray, i: np.ndarray, entry: np.ndarray) -> dict[str, Any]:
    """Return the columns that say which edge, node or feature a row is about."""
    X, entries = E.instances, E.stored()
    if E.kind == "edge":
        source, target, pair = (part[entry] for part in edge_pairs(X, entries, entries.rows))
        edge = pair - X.store.edge_ptr[X.graph_index[i]]
        return {"edge": edge, "source_node": _names(X, i, source), "target_node": _names(X, i, target)}
    if E.kind == "feature":
        return {"feature": entry % max(entries.width or 1, 1)}
    if E.kind == "node":
        return {"node": _names(X, i, entries.ids[entry])}
    width = max(entries.width or 1, 1)
    return {"node": _names(X, i, entries.ids[entry // width]), "feature": entry % width}


def _names(X: Instances, i: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    if X.node_ids is None:
        return nodes
    graphs, place = np.unique(X.graph_index[i], return_inverse=True)
    names = [X.node_ids[graph] for graph in graphs]
    first = offsets(np.array([len(name) for name in names], dtype=np.int64))
    return np.concatenate(names)[first[place] + nodes] if names else nodes
