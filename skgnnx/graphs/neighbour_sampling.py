"""Neighbour sampling: computation graphs with a bounded number of edges."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import offsets, stable_order
from skgnnx.graphs.computation_graph import ComputationGraphs
from skgnnx.graphs.instances import Instances

NEVER = np.iinfo(np.int64).max


def sample_neighbours(
    X: Instances, rows: np.ndarray, graphs: ComputationGraphs, max_edges: int, random_state: int, both_ways: bool
) -> ComputationGraphs:
    """Return computation graphs of at most `max_edges` edges, drawn by the content of each instance alone.

    Parameters
    ----------
    X : Instances
        What is explained.
    rows : ndarray of int
        Instances of the graphs.
    graphs : ComputationGraphs
        Without a ring; whole graphs or receptive fields.
    max_edges : int >= 1
        Most edges of an instance.
    random_state : int
        Root seed of the draw.
    both_ways : bool
        True if messages also run against the edges.

    Returns
    -------
    ComputationGraphs
        As in `thinned`. Which edges stay depends on the seed, the graph and the element, not on the explained class.
    """
    draw = GraphBatch(X, rows, graphs).noise(random_state, "edge").numpy()
    return thinned(graphs, draw, max_edges, both_ways)


def thinned(graphs: ComputationGraphs, draw: np.ndarray, max_edges: int, both_ways: bool) -> ComputationGraphs:
    """Return the graphs with at most `max_edges` edges each.

    A node keeps the f edges with the smallest draws among those that lead to it, which are those over which it hears
    of nodes at least as far away, and of these what still reaches an element; f is the largest number that leaves
    at most `max_edges`. Where f = 1 leaves more, the nearest edges stay, those with the smallest draws first. Nodes of
    level 0 (explained elements, or all nodes of whole graphs) always stay.

    Parameters
    ----------
    graphs : ComputationGraphs
        Without a ring.
    draw : ndarray of shape (total edges,)
        Decides among the edges that lead to a node.
    max_edges : int >= 1
        Most edges of an instance.
    both_ways : bool
        True if messages also run against the edges.

    Returns
    -------
    ComputationGraphs
        With the distances that nodes and edges have in it.
    """
    instance = np.repeat(np.arange(len(graphs)), np.diff(graphs.edge_ptr))
    source, target = graphs.ends + graphs.node_ptr[instance]
    near = np.where(graphs.node_level[target] == graphs.edge_level, target, source)
    place = 1 + _number_within(near, np.argsort(draw, kind="stable"))
    # Both depend on f in one direction only, so one number says it for all f: from which f on it is there.
    needed = _needed_to_reach(graphs, source, target, place, both_ways)
    inner = needed[max(graphs.hops - 1, 0)]
    needed_by_edge = np.maximum(np.minimum(inner[source], inner[target]) if both_ways else inner[target], place)
    most = _largest_within(needed_by_edge, graphs.edge_ptr, max_edges)
    level = (needed > np.repeat(most, np.diff(graphs.node_ptr))).sum(axis=0).astype(graphs.node_level.dtype)
    edge_level = np.minimum(level[source], level[target]) if both_ways else level[target]
    kept = np.flatnonzero(needed_by_edge <= most[instance])
    keep = np.zeros(len(instance), dtype=bool)
    keep[kept] = True
    if (most == 1).any():
        number = _number_within(instance[kept], np.lexsort((draw[kept], edge_level[kept])))
        keep[kept[number >= max_edges]] = False
    stay = level == 0
    stay[source[keep]] = stay[target[keep]] = True
    return replace(graphs, node_level=level, edge_level=edge_level).keep_edges(keep).keep_nodes(stay)


def _needed_to_reach(
    graphs: ComputationGraphs, source: np.ndarray, target: np.ndarray, place: np.ndarray, both_ways: bool
) -> np.ndarray:
    """Return how many edges nodes must keep so that a node reaches an element in 0, 1, ... messages (hops + 1, N)."""
    needed = [np.where(graphs.node_level == 0, 0, NEVER)]
    for _ in range(graphs.hops):
        before, after = needed[-1], needed[-1].copy()
        np.minimum.at(after, source, np.maximum(before[target], place))
        if both_ways:
            np.minimum.at(after, target, np.maximum(before[source], place))
        needed.append(after)
    return np.stack(needed)


def _largest_within(needed: np.ndarray, ptr: np.ndarray, most: int) -> np.ndarray:
    """Return for each instance the largest number, at least 1, that at most `most` of its values do not exceed."""
    first_too_many = np.full(len(ptr) - 1, NEVER)
    for i, (start, stop) in enumerate(pairwise(ptr)):
        if stop - start > most:
            first_too_many[i] = np.partition(needed[start:stop], most)[most]
    return np.maximum(first_too_many - 1, 1)


def _number_within(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the place of each edge within its group when edges are taken in the given order, from 0."""
    start = offsets(np.bincount(group))
    by_group, ordered = stable_order(group[order], len(start))
    number = np.empty(len(order), dtype=np.int64)
    number[order[by_group]] = np.arange(len(order)) - start[ordered]
    return number
