"""Edges of a batch that are added or removed as one: single ones, or the two directions of an undirected edge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skgnnx.graphs.batch import GraphBatch


class EdgeUnits(NamedTuple):
    """Units of the edges of a batch, in the order that breaks ties: by instance, source, target, occurrence.

    Parameters
    ----------
    of_edge : ndarray of int, shape (E,)
        Unit of each edge, -1 for edges that belong to none.
    ptr : ndarray of int, shape (B + 1,)
        First unit of each instance, and how many there are.
    """

    of_edge: np.ndarray
    ptr: np.ndarray

    @property
    def instance(self) -> np.ndarray:
        """Instance of each unit."""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))


def edge_units(batch: GraphBatch, candidates: np.ndarray, *, tie_directions: bool) -> EdgeUnits:
    """Return the units of some edges of a batch.

    Parameters
    ----------
    batch : GraphBatch
    candidates : ndarray of bool, shape (E,)
        Which edges belong to units; of an undirected edge perhaps only one direction.
    tie_directions : bool
        Whether the two directions of an edge of an undirected graph are one unit.
    """
    edge = batch.graphs.edge_id
    # Ids ascend within an instance, so numbers within the union order by instance and then as the user's do.
    source, target = batch.edge_index.cpu().numpy()
    lead = edge
    if tie_directions:
        partner = batch.X.store.all_partners[edge]
        turned = (source > target) & (partner >= 0) & (partner != edge)
        lead = np.where(turned, partner, edge)
        source, target = np.where(turned, target, source), np.where(turned, source, target)
    kept = np.flatnonzero(candidates)
    order = kept[np.lexsort((lead[kept], target[kept], source[kept]))]
    instance = batch.edge_instance.cpu().numpy()[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (lead[order[1:]] != lead[order[:-1]]) | (instance[1:] != instance[:-1])
    of_edge = np.full(batch.num_edges, -1, dtype=np.int64)
    of_edge[order] = np.cumsum(new) - 1
    counts = np.bincount(instance[new], minlength=len(batch))
    return EdgeUnits(of_edge, np.concatenate([[0], np.cumsum(counts)]))
