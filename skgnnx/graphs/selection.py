"""Units of explanations: what counts as one edge, one node or one feature where something is selected.

In an undirected graph the two directions of an edge are one unit; loops are never units; only what is among the
entries, that is what can reach the prediction, counts. Units are in the order that breaks ties: by (source, target,
occurrence), or by id.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skgnnx.graphs.entries import Entries, offsets
from skgnnx.graphs.explanation_array import ExplanationArray
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.ranking import rank_order


@dataclass(frozen=True, eq=False)
class Units:
    """What can be selected, for all instances at once.

    Unit ``u`` of instance ``i`` has ``ptr[i] <= u < ptr[i + 1]``; within an instance the units are in the order that
    breaks ties.

    Parameters
    ----------
    ptr : ndarray of shape (n + 1,)
        First unit of every instance; a failed instance has none.
    of_entry : ndarray of int, shaped like the values of the entries
        Unit of every entry, -1 for what is no unit (a loop, a failed instance).
    score : ndarray of shape (num_units,), float64
        Mean score of the entries of each unit.
    """

    ptr: np.ndarray
    of_entry: np.ndarray
    score: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Number of units of every instance."""
        return np.diff(self.ptr)

    @property
    def instance(self) -> np.ndarray:
        """Instance of every unit."""
        return np.repeat(np.arange(len(self.ptr) - 1), self.counts)

    @cached_property
    def ranking(self) -> np.ndarray:
        """Units of every instance from the best to the worst, one instance after the other."""
        return rank_order(self.score, self.ptr)

    @cached_property
    def rank(self) -> np.ndarray:
        """Place of every unit within its instance, 0 for the best."""
        place = np.empty(len(self.score), dtype=np.int64)
        place[self.ranking] = np.arange(len(self.score)) - np.repeat(self.ptr[:-1], self.counts)
        return place

    def top(self, k: int | np.ndarray) -> np.ndarray:
        """Return a bool per unit: True if it is among the best `k` (one number, or one per instance)."""
        limit = np.broadcast_to(np.asarray(k), len(self.counts))
        return self.rank < np.repeat(limit, self.counts)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return for every entry the value of its unit, zero where it has none."""
        padded = np.append(values, np.zeros(1, dtype=values.dtype))
        return padded[self.of_entry]


def units(E: ExplanationArray, mask: str | None = None) -> Units:
    """Return the units of explanations.

    Parameters
    ----------
    E : Explanations
        Failed instances get no units.
    mask : {"edge", "node", "feature", "node_feature"}, default=None
        Which mask of `E`; None means its kind.

    Returns
    -------
    Units
    """
    kind = E.kind if mask is None else mask
    return units_of_entries(E.instances, kind, E.stored(kind), E.ok)


def units_of_entries(X: Instances, kind: str, entries: Entries, ok: np.ndarray | None = None) -> Units:
    """Return the units of scores that are not (yet) in an `Explanations`.

    Parameters
    ----------
    X : Instances
        What the entries are about.
    kind : {"edge", "node", "feature", "node_feature"}
        Meaning of the ids.
    entries : Entries
        One group of entries per instance.
    ok : ndarray of bool of shape (n,), default=None
        False for instances without units.

    Returns
    -------
    Units
    """
    rows = entries.rows
    is_unit = np.ones(len(rows), dtype=bool) if ok is None else np.asarray(ok, dtype=bool)[rows]
    if kind == "edge":
        return _edge_units(X, entries, rows, is_unit)
    if entries.ptr is not None and not _is_sorted(rows, entries.ids):
        order = np.lexsort((entries.ids, rows))
    else:
        order = np.arange(len(rows))
    return _plain_units(entries, rows, order[is_unit[order]])


def _edge_units(X: Instances, entries: Entries, rows: np.ndarray, is_unit: np.ndarray) -> Units:
    source, target, pair = edge_pairs(X, entries, rows)
    keep = np.flatnonzero(is_unit & (pair >= 0))
    order = keep[np.lexsort((pair[keep], target[keep], source[keep], rows[keep]))]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (pair[order[1:]] != pair[order[:-1]]) | (rows[order[1:]] != rows[order[:-1]])
    of_entry = np.full(len(rows), -1, dtype=np.int64)
    of_entry[order] = np.cumsum(new) - 1
    counts = np.bincount(rows[order[new]], minlength=len(entries))
    sizes = np.bincount(of_entry[order], minlength=counts.sum())
    total = np.bincount(of_entry[order], weights=entries.values[order], minlength=counts.sum())
    return Units(offsets(counts), of_entry, total / sizes)


def edge_pairs(X: Instances, entries: Entries, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for every edge entry the ends of its unit, and the edge of the whole store that stands for the unit.

    That edge runs from the smaller to the larger id in an undirected graph; it is -1 for a loop.
    """
    store = X.store
    edge = store.edge_ptr[X.graph_index[rows]] + entries.ids
    source, target = store.edge_index[:, edge]
    partner = store.all_partners[edge]
    turned = (source > target) & (partner >= 0) & (partner != edge)
    pair = np.where(turned | (partner < 0), partner, edge)
    return np.where(turned, target, source), np.where(turned, source, target), pair


def _plain_units(entries: Entries, rows: np.ndarray, order: np.ndarray) -> Units:
    """Every entry is a unit, and every feature of an entry where there are several."""
    width = entries.width or 1
    unit = np.full((len(rows), width), -1, dtype=np.int64)
    unit[order] = np.arange(len(order) * width).reshape(-1, width)
    values = entries.values.reshape(len(rows), width)
    counts = np.bincount(rows[order], minlength=len(entries)) * width
    score = values[order].astype(np.float64).reshape(-1)
    return Units(offsets(counts), unit.reshape(entries.values.shape), score)


def _is_sorted(rows: np.ndarray, ids: np.ndarray) -> bool:
    return bool(((np.diff(ids) > 0) | (np.diff(rows) > 0)).all())
