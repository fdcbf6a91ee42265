"""Which units of an explanation are known to be the reason: scores and truth side by side, one instance at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skgnnx.graphs import Explanations, Instances, Units, units
from skgnnx.graphs.instance_array import is_excluded
from skgnnx.graphs.selection import edge_pairs
from skgnnx.graphs.truth import as_alternatives

SCOPES = ("explained", "all")


@dataclass(frozen=True, eq=False)
class Judged:
    """Units of one instance, in the order that breaks ties.

    Parameters
    ----------
    scores : ndarray of shape (u,)
        Their scores.
    truths : list of ndarray of bool, shape (u,)
        Alternative truths, at least one.
    """

    scores: np.ndarray
    truths: list[np.ndarray]


def judged(
    E: Explanations, y: Any, *, over: str = "explained", include_target: bool = False
) -> Iterator[tuple[int, Judged]]:
    """Yield position, scores and truth of every instance that was explained and has a truth.

    An undirected edge is one unit, true if one of its directions is.

    Parameters
    ----------
    E : Explanations
        What is evaluated, by its primary mask.
    y : None, labels, or one mask (or list of alternative masks) per instance
        Masks are used as truth; otherwise the truth that travels with the instances is.
    over : {"explained", "all"}, default="explained"
        Units of the computation graph, or all of the graph, where what is out of reach scores 0.
    include_target : bool, default=False
        Whether the explained node, or the ends of the explained link, are among the nodes to be found.

    Raises
    ------
    ValueError
        If there is no truth of this kind, or it does not fit; the message says what to do.
    """
    if over not in SCOPES:
        raise ValueError(f"The 'over' parameter must be one of {SCOPES}. Got {over!r} instead.")
    truth = truth_of(E, y)
    return _judged(E, truth, over, include_target)


def _judged(
    E: Explanations, truth: list[tuple[np.ndarray, ...] | None], over: str, include_target: bool
) -> Iterator[tuple[int, Judged]]:
    unit, X = units(E), E.instances
    ids = _unit_ids(E, unit)
    for i in np.flatnonzero(E.ok).tolist():
        alternatives = truth[i]
        if alternatives is None:
            continue
        mine = slice(unit.ptr[i], unit.ptr[i + 1])
        known, scores = ids[mine], unit.score[mine]
        if over == "all":
            everything = _all_units(X, E.kind, i)
            dense = np.zeros(X.num_units(E.kind, i))
            dense[known] = scores
            known, scores = everything, dense[everything]
        if E.kind == "node" and not include_target and X.level != "graph":
            kept = ~np.isin(known, X.element[i])
            known, scores = known[kept], scores[kept]
        yield i, Judged(scores, [_of_units(X, E.kind, i, mask)[known] for mask in alternatives])


def truth_of(E: Explanations, y: Any) -> list[tuple[np.ndarray, ...] | None]:
    """Return the alternative truths of every instance, None where there is none."""
    if E.kind == "node_feature":
        raise ValueError(
            "Scores must be about edges, nodes or features to have a truth. Got node_feature scores; use "
            "E.to_kind('node')."
        )
    if holds_masks(y):
        return _checked_masks(E, list(y))
    truth = E.instances.truth or {}
    if E.kind in truth:
        return list(truth[E.kind])
    if y is not None and all(value is None for value in y):  # a fold in which no truth is known
        return [None] * len(E)
    known = [kind for kind in truth if kind != "feature" and E.kind != "feature"]
    repair = (
        f"use E.to_kind({known[0]!r})" if known else f"pass masks as y=, or Instances with truth={{{E.kind!r}: ...}}"
    )
    raise ValueError(f"Metrics against truth need one for {E.kind} scores. Got {list(truth) or 'none'}; {repair}.")


def holds_masks(y: Any) -> bool:
    """Return True if y holds one array (or list of arrays) per instance, False for None and for labels.

    A two-dimensional array is taken for masks only if it is of bool dtype, otherwise for labels with several columns.
    """
    if y is None or isinstance(y, str):
        return False
    if torch.is_tensor(y) or (isinstance(y, np.ndarray) and y.dtype != object):
        return y.ndim == 2 and y.dtype in (torch.bool, np.dtype(bool))
    if hasattr(y, "columns"):  # a table of labels, whose iteration gives the names of the columns
        return False
    return any(isinstance(item, (list, tuple)) or getattr(item, "ndim", 0) > 0 for item in y)


def _checked_masks(E: Explanations, y: list[Any]) -> list[tuple[np.ndarray, ...] | None]:
    if len(y) != len(E):
        raise ValueError(f"'y' must have one entry per explanation ({len(E)}). Got {len(y)}.")
    found = []
    for i, value in enumerate(y):
        try:
            found.append(as_alternatives(value, E.instances.num_units(E.kind, i), f"y[{i}]"))
        except ValueError as error:
            raise ValueError(f"{error}{_other_kind(E, i, value)}") from error
    return found


def _other_kind(E: Explanations, i: int, value: Any) -> str:
    """Return what to do about masks of another kind than the scores, or nothing."""
    for kind in {"edge", "node"} - {E.kind}:
        try:
            as_alternatives(value, E.instances.num_units(kind, i), "")
        except ValueError:
            continue
        return f" The scores are about {E.kind}s; for truth about {kind}s use E.to_kind({kind!r})."
    return ""


def _unit_ids(E: Explanations, unit: Units) -> np.ndarray:
    """Return for every unit the node, the feature, or the edge that stands for it, in the user's numbering."""
    X, entries = E.instances, E.stored()
    if entries.ids is None:
        ids = np.broadcast_to(np.arange(entries.values.shape[1]), entries.values.shape)
    elif E.kind == "edge":
        rows = entries.rows
        ids = edge_pairs(X, entries, rows)[2] - X.store.edge_ptr[X.graph_index[rows]]
    else:
        ids = entries.ids
    found = np.empty(len(unit.score), dtype=np.int64)
    is_unit = unit.of_entry >= 0
    found[unit.of_entry[is_unit]] = ids[is_unit]
    return found


def _all_units(X: Instances, kind: str, i: int) -> np.ndarray:
    """Return every unit of the user's graph, in the order that breaks ties."""
    if kind != "edge":
        return np.arange(X.num_units(kind, i))
    graph = X.graph_index[i]
    source, target = X.store.edges(graph)
    one_way = source < target if X.store.is_undirected(graph) else source != target
    edge = np.flatnonzero(one_way)
    edge = edge[~is_excluded(X, np.full(len(edge), i), X.store.edges(graph)[:, edge])]
    return edge[np.lexsort((edge, target[edge], source[edge]))]


def _of_units(X: Instances, kind: str, i: int, mask: np.ndarray) -> np.ndarray:
    """Return the truth of every unit: for an undirected edge that of both directions together."""
    if kind != "edge":
        return mask
    return mask | mask[X.store.partner(X.graph_index[i])]  # loops have none (-1), and are no units either
