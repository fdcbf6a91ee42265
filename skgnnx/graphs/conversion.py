"""Scores of one kind made of another: edges to nodes, nodes to edges, two directions to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from skgnnx.graphs.columns import ranges
from skgnnx.graphs.entries import Entries, offsets
from skgnnx.graphs.explanation_array import ExplanationArray
from skgnnx.graphs.instance_array import is_excluded
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.selection import units

if TYPE_CHECKING:
    from skgnnx.graphs.explanations import Explanations

WAYS = ("max", "mean", "sum")


class _Keyed(NamedTuple):
    """Scores of (instance, node or edge) pairs; the pairs are sorted and differ."""

    rows: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    explained: np.ndarray

    def as_entries(self, n: int) -> Entries:
        counts = np.bincount(self.rows, minlength=n)
        return Entries(offsets(counts), self.ids, self.values, None if self.explained.all() else self.explained)


def convert(E: ExplanationArray, kind: str, how: str) -> Explanations:
    """Score nodes by edges or the reverse; see `Explanations.to_kind`."""
    _check_how(how, "to_kind")
    if kind not in ("node", "edge"):
        raise ValueError(f"The 'kind' parameter of to_kind must be 'node' or 'edge'. Got {kind!r} instead.")
    if kind in E.masks:
        entries = E.masks[kind]
    elif kind == "node":
        entries = _node_entries(E, how)
    else:
        entries = _edges_of_nodes(E, _node_entries(E, how), how)
    return _as_result(E, kind, entries)


def symmetrised(E: ExplanationArray, how: str) -> Explanations:
    """Give both directions of an undirected edge one score; see `Explanations.undirected`."""
    _check_how(how, "undirected")
    entries = E.stored("edge")
    unit = units(E, "edge")
    is_unit = unit.of_entry >= 0
    score = reduce_groups(entries.values[is_unit], unit.of_entry[is_unit], len(unit.score), how)
    values = np.where(is_unit, unit.spread(score), entries.values)
    masks = {**E.masks, "edge": entries.with_values(values)}
    return E._with(masks=masks, kind="edge", hard=E.hard and _is_binary(values))


def reduce_groups(values: np.ndarray, group: np.ndarray, num_groups: int, how: str) -> np.ndarray:
    """Reduce the values of every group; a group without values gives 0.

    Parameters
    ----------
    values : ndarray of shape (rows,)
        The scores.
    group : ndarray of int, shape (rows,)
        Group of every score, in [0, num_groups).
    num_groups : int
        Length of the result.
    how : {"max", "mean", "sum"}
        The reduction; sums run in float64.

    Returns
    -------
    ndarray of float64, shape (num_groups,)
    """
    if how == "max":
        out = np.full(num_groups, -np.inf)
        np.maximum.at(out, group, values)
        return np.where(np.isinf(out), 0.0, out)
    total = np.bincount(group, weights=values, minlength=num_groups)
    if how == "sum":
        return total
    return total / np.maximum(np.bincount(group, minlength=num_groups), 1)


def _as_result(E: ExplanationArray, kind: str, entries: Entries) -> Explanations:
    return E._with(masks={kind: entries}, kind=kind, hard=E.hard and _is_binary(entries.values))


def _node_entries(E: ExplanationArray, how: str) -> Entries:
    if "node" in E.masks:
        return E.masks["node"]
    if "node_feature" in E.masks:
        entries = E.masks["node_feature"]
        return Entries(entries.ptr, entries.ids, getattr(entries.values, how)(axis=1), entries.explained)
    if "edge" not in E.masks:
        raise ValueError(
            "to_kind must start from edge, node or node-feature scores. Got feature scores, which belong to no node or "
            "edge; let the explainer score another mask."
        )
    return _nodes_of_edges(E, E.masks["edge"], how)


def _nodes_of_edges(E: ExplanationArray, entries: Entries, how: str) -> Entries:
    X, rows = E.instances, entries.rows
    use = E.ok[rows]
    if entries.explained is not None:
        use &= entries.explained
    rows, values = rows[use], entries.values[use]
    source, target = X.store.edge_index[:, X.store.edge_ptr[X.graph_index[rows]] + entries.ids[use]]
    once = source != target  # a loop touches its node once
    base_rows, base_ids = _explained_elements(X, E.ok)
    all_rows, all_ids = entries.rows[E.ok[entries.rows]], entries.ids[E.ok[entries.rows]]
    ends = X.store.edge_index[:, X.store.edge_ptr[X.graph_index[all_rows]] + all_ids]
    width = int(np.diff(X.store.node_ptr).max(initial=1))
    known = np.unique(np.concatenate([base_rows * width + base_ids, *(all_rows * width + ends)]))
    touched = np.concatenate([rows * width + source, (rows * width + target)[once]])
    group = np.searchsorted(known, touched)
    score = reduce_groups(np.concatenate([values, values[once]]), group, len(known), how)
    explained = np.bincount(group, minlength=len(known)) > 0
    return _Keyed(known // width, known % width, score, explained).as_entries(len(X))


def _explained_elements(X: Instances, ok: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes that are in every computation graph: all of a graph, the explained node, or the two ends of a link."""
    instances = np.flatnonzero(ok)
    if X.level != "graph":
        return np.repeat(instances, X.element.shape[1]), X.element[instances].reshape(-1)
    counts = np.diff(X.store.node_ptr)[X.graph_index[instances]]
    return np.repeat(instances, counts), ranges(np.zeros_like(counts), counts)


def _edges_of_nodes(E: ExplanationArray, entries: Entries, how: str) -> Entries:
    """Score every edge, loops aside, whose two ends are scored."""
    X, store = E.instances, E.instances.store
    rows, ids, values = _sorted_scores(E, entries)
    edges_at = store.out_edges
    node = store.node_ptr[X.graph_index[rows]] + ids
    counts = np.diff(edges_at.ptr)[node]
    edge = edges_at.edge_id[ranges(edges_at.ptr[node], counts)]
    start = np.repeat(np.arange(len(rows)), counts)
    end = _find(rows, ids, rows[start], store.edge_index[1, edge])
    use = (end >= 0) & (end != start) & ~is_excluded(X, rows[start], store.edge_index[:, edge])
    start, end, edge = start[use], end[use], edge[use]
    pair = np.stack([values[start], values[end]])
    score = {"max": pair.max(axis=0, initial=-np.inf), "mean": pair.mean(axis=0), "sum": pair.sum(axis=0)}[how]
    rows = rows[start]
    edge_id = edge - store.edge_ptr[X.graph_index[rows]]
    order = np.lexsort((edge_id, rows))
    everything = np.ones(len(order), dtype=bool)
    return _Keyed(rows[order], edge_id[order], score[order], everything).as_entries(len(X))


def _sorted_scores(E: ExplanationArray, entries: Entries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    use = np.flatnonzero(E.ok[entries.rows])
    order = use[np.lexsort((entries.ids[use], entries.rows[use]))]
    return entries.rows[order], entries.ids[order], entries.values[order].astype(np.float64)


def _find(rows: np.ndarray, ids: np.ndarray, wanted_rows: np.ndarray, wanted_ids: np.ndarray) -> np.ndarray:
    """Return the position of every wanted (row, id) among sorted ones, -1 where it is missing."""
    if not len(rows):
        return np.full(len(wanted_rows), -1)
    width = max(int(ids.max()), int(wanted_ids.max(initial=0))) + 1
    known, wanted = rows * width + ids, wanted_rows * width + wanted_ids
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, place, -1)


def _is_binary(values: np.ndarray) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _check_how(how: str, where: str) -> None:
    if how not in WAYS:
        raise ValueError(f"The 'how' parameter of {where} must be one of {WAYS}. Got {how!r} instead.")
