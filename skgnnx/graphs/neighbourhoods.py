"""What reaches several instances as one graph: each node once, not one copy per instance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import id_type, offsets, ranges, stable_order
from skgnnx.graphs.computation_graph import ComputationGraphs
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.store import EdgeIndex

ONE_WHOLE_OF, FEWEST_WHOLE, LARGEST_WHOLE = 64, 8, 50_000
MARKS = 1 << 20
LOOKED_AT_ONCE = 1 << 18


def joint_neighbourhood(
    X: Instances, rows: np.ndarray, nodes: np.ndarray, both_ways: bool, device: torch.device
) -> GraphBatch:
    """Return one graph of some nodes and all edges that lead to them, with the output rows of several instances.

    Parameters
    ----------
    X : Instances
        Node or link instances.
    rows : ndarray of int
        Instances whose elements are among the nodes.
    nodes : ndarray of int
        Ids in the whole store, ascending.
    both_ways : bool
        True to take the edges that leave the nodes, too.
    device : torch.device

    Returns
    -------
    GraphBatch
        The level of a node is 0 if it was asked for, 1 if it is only at the other end of an edge.
    """
    store = X.store
    indices = (store.in_edges, store.out_edges) if both_ways else (store.in_edges,)
    counts = [index.ptr[nodes + 1] - index.ptr[nodes] for index in indices]
    found = [index.edge_id[ranges(index.ptr[nodes], count)] for index, count in zip(indices, counts, strict=True)]
    edge_id = np.sort(found[0]) if len(found) == 1 else distinct(np.concatenate(found))
    return _joint(X, rows, nodes, np.zeros(len(nodes), dtype=np.int16), edge_id, device)


class Condensed(NamedTuple):
    """A joint neighbourhood without most of what leads to its outermost nodes.

    Parameters
    ----------
    batch : GraphBatch
        The level of a node is 0 if messages end at it, 1 if it is only asked for, 2 if it is only at the other end
        of an edge.
    stands_for : ndarray of int
        How many edges to the same node each edge stands for, itself included.
    """

    batch: GraphBatch
    stands_for: np.ndarray


def condensed_neighbourhood(
    X: Instances, rows: np.ndarray, nodes: np.ndarray, summing: np.ndarray, device: torch.device
) -> Condensed | None:
    """Return one graph of some nodes, in which most of the outermost have only one of the edges that lead to them.

    Hubs are near to many instances, and most of what leads to them is near to none. One in 64 keeps all of its
    edges, the largest that is not too large among them, so that a model for which they matter gives itself away. So
    does a node that a loop leads to, because layers do not count loops as they count others.

    Parameters
    ----------
    X : Instances
        Node or link instances.
    rows : ndarray of int
        Instances whose elements are among the nodes.
    nodes, summing : ndarray of int
        Ids in the whole store, ascending: all nodes, and those of them that keep all edges that lead to them.
    device : torch.device

    Returns
    -------
    Condensed or None
        None where most edges would stay.
    """
    index = X.store.in_edges
    count, kept = _kept(index, nodes, summing)
    if 2 * kept.sum() > count.sum():
        return None
    condensed = np.flatnonzero(kept < count)
    looped, stand_in = _looked_through(index, nodes, condensed)
    kept[condensed[looped]] = count[condensed[looped]]
    if 2 * kept.sum() > count.sum():
        return None
    condensed, stand_in = condensed[~looped], stand_in[~looped]
    position, place = ranges(index.ptr[nodes], kept), np.cumsum(kept)[condensed] - 1
    position[place] = stand_in
    edge_id, stands_for = index.edge_id[position], np.ones(len(position), dtype=np.int32)
    stands_for[place] = count[condensed]
    order, edge_id = stable_order(edge_id, max(X.store.total_edges, 1))
    level = np.ones(len(nodes), dtype=np.int16)
    level[np.searchsorted(nodes, summing)] = 0
    union = _joint(X, rows, nodes, level, edge_id.astype(id_type(X.store.total_edges)), device)
    return Condensed(union, stands_for[order])


def condensed_size(X: Instances, nodes: np.ndarray, summing: np.ndarray) -> int:
    """Return how many edges a condensed neighbourhood has, or more where there are loops."""
    return int(_kept(X.store.in_edges, nodes, summing)[1].sum())


def _kept(index: EdgeIndex, nodes: np.ndarray, summing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many edges lead to each node, and how many of them stay."""
    count = index.ptr[nodes + 1] - index.ptr[nodes]
    kept = np.minimum(count, 1)
    inner = np.searchsorted(nodes, summing)
    kept[inner] = count[inner]
    condensed = np.flatnonzero(kept < count)
    num_whole = max(len(condensed) // ONE_WHOLE_OF, min(FEWEST_WHOLE, len(condensed) // 2))
    by_degree = condensed[np.argsort(count[condensed], kind="stable")]
    # Some models ask for hubs only, so the largest is among them.
    last = max(int(np.searchsorted(count[by_degree], LARGEST_WHOLE, side="right")), num_whole) - 1
    whole = by_degree[np.linspace(last, 0, num_whole).astype(np.int64)]
    kept[whole] = count[whole]
    return count, kept


def _looked_through(index: EdgeIndex, nodes: np.ndarray, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for some of the nodes whether a loop leads to them, and the position of one edge of each.

    The edge comes from another of the nodes where one does, mostly: marks have room for so many nodes only.
    """
    start, count = index.ptr[nodes[some]], index.ptr[nodes[some] + 1] - index.ptr[nodes[some]]
    group = np.cumsum(count) // LOOKED_AT_ONCE
    looped, stand_in = np.zeros(len(some), dtype=bool), start.copy()
    marked = np.zeros(MARKS, dtype=bool)
    marked[nodes % MARKS] = True
    for part in np.split(np.arange(len(some)), np.flatnonzero(np.diff(group)) + 1):
        position, owner = ranges(start[part], count[part]), np.repeat(part, count[part])
        far_end = index.far_end[position]
        looped[owner[far_end == nodes[some[owner]]]] = True
        near = np.flatnonzero(marked[far_end & (MARKS - 1)])[::-1]
        stand_in[owner[near]] = position[near]
    return looped, stand_in


def _joint(
    X: Instances,
    rows: np.ndarray,
    nodes: np.ndarray,
    level_of_nodes: np.ndarray,
    edge_id: np.ndarray,
    device: torch.device,
) -> GraphBatch:
    """Return one graph of some nodes, some edges, and the other ends of these."""
    store = X.store
    source, target = store.global_edges[:, edge_id]
    order, ordered = stable_order(np.concatenate([nodes, source, target]), max(store.total_nodes, 1))
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    number = np.empty(len(order), dtype=id_type(len(order)))
    number[order] = np.cumsum(first) - 1
    node_id = ordered[first]
    level = np.full(len(node_id), level_of_nodes.max(initial=0) + 1, dtype=np.int16)
    level[number[: len(nodes)]] = level_of_nodes
    graphs = ComputationGraphs(
        offsets([len(node_id)]),
        node_id,
        level,
        offsets([len(edge_id)]),
        edge_id,
        np.zeros(len(edge_id), dtype=np.int16),
        number[len(nodes) :].reshape(2, -1),
        hops=0,
    )
    union = GraphBatch(X, rows[:1], graphs, device=device)
    place = np.searchsorted(node_id, X.element[rows] + store.node_ptr[X.graph_index[rows]][:, None])
    union.rows = torch.from_numpy(place[:, 0] if X.level == "node" else np.ascontiguousarray(place.T)).to(device)
    return union


def distinct(ids: np.ndarray) -> np.ndarray:
    """Return the different values of an array of ids, ascending; by sorting, which beats hashing on so many."""
    ordered = np.sort(ids)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered
