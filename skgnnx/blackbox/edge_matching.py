"""Which message belongs to which edge: by endpoint and occurrence, never by position alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NOT_AN_EDGE = -1


class CallKind(NamedTuple):
    """What is known of a propagate call before it runs.

    Parameters
    ----------
    replaces_loops : bool
        True if the layer makes its own self loops; loops then belong to no edge of the user's.
    flipped : bool
        True if messages run against the edges. Ends cannot tell: in an undirected graph sorted by source, the edges
        sorted by target are the edges reversed.
    coarsened : bool
        True if messages run between other nodes than the graph's, after a pooling for example.
    readout : bool
        True if messages run from the graph's nodes to something else, a node for the whole graph for example. They run
        along no edge, and no mask acts on them.
    """

    replaces_loops: bool = False
    flipped: bool = False
    coarsened: bool = False
    readout: bool = False


class Found(NamedTuple):
    """The edge of each message, -1 for a loop that the layer made; and whether it can be no other one."""

    edge: np.ndarray
    certain: bool


def match_edges(call: np.ndarray, edges: np.ndarray, kind: CallKind) -> Found | None:
    """Find the user's edge behind each message of one propagate call, by its ends and occurrence.

    Layers append self loops, replace them, drop edges of other relations, sort by row, or run against the edges.

    Parameters
    ----------
    call : ndarray of shape (2, messages)
        Source and target of the messages.
    edges : ndarray of shape (2, E)
        Ends of the user's edges.
    kind : CallKind
        What is known of the call.

    Returns
    -------
    Found or None
        None if some message has no edge. Not certain where a call uses only some of several parallel edges, or all of
        them in another order: occurrence does not tell which is which then.
    """
    message_kept = call[0] != call[1] if kind.replaces_loops else np.ones(call.shape[1], dtype=bool)
    edge_kept = edges[0] != edges[1] if kind.replaces_loops else np.ones(edges.shape[1], dtype=bool)
    candidates = np.flatnonzero(edge_kept)
    known = (edges[::-1] if kind.flipped else edges)[:, candidates]
    messages = call[:, message_kept]
    first = messages.shape[1]
    in_order = np.array_equal(messages, known[:, :first])
    same = in_order and first == len(candidates)
    position = np.arange(first) if in_order else _look_up(messages, known)
    if position is None:
        return None
    edge = np.full(call.shape[1], NOT_AN_EDGE)
    edge[message_kept] = candidates[position]
    return Found(edge, same or _is_certain(position, known))


def _is_certain(position: np.ndarray, known: np.ndarray) -> bool:
    """Return True if messages can have no other edge: no parallel edges, or all of them in the order of the edges."""
    if len(position) == 0:
        return True
    key = known[0] * (int(known.max()) + 1) + known[1]
    _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
    taken = np.bincount(inverse[position], minlength=len(count))
    parallel = (taken > 0) & (count > 1)
    if not parallel.any():
        return True
    return bool((taken[parallel] == count[parallel]).all() and (np.diff(position) > 0).all())


def split_parallel_edges(edges: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Give every repeated edge a source of its own, so that each edge is known by its ends.

    Returns
    -------
    edges : ndarray of shape (2, E)
        Edges in the same order; repeated ones start at new nodes, numbered from `num_nodes`.
    copied : ndarray
        The node that each new node is a copy of.
    """
    again = occurrence(edges) > 0
    split = edges.copy()
    split[0, again] = num_nodes + np.arange(int(again.sum()))
    return split, edges[0, again]


def occurrence(edges: np.ndarray) -> np.ndarray:
    """Return for each edge how many edges with the same ends stand before it."""
    if edges.shape[1] == 0:
        return np.zeros(0, dtype=np.int64)
    key = edges[0] * (int(edges.max()) + 1) + edges[1]
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rank = np.empty(len(key), dtype=np.int64)
    rank[order] = np.arange(len(key)) - np.repeat(start, np.diff(np.r_[start, len(key)]))
    return rank


def _look_up(messages: np.ndarray, edges: np.ndarray) -> np.ndarray | None:
    """Return the position in `edges` of each message, by ends and occurrence."""
    if messages.shape[1] == 0:
        return np.zeros(0, dtype=np.int64)
    if edges.shape[1] == 0:
        return None
    n = int(max(messages.max(), edges.max())) + 1
    width = max(messages.shape[1], edges.shape[1]) + 1
    message_key = (messages[0] * n + messages[1]) * width + occurrence(messages)
    edge_key = (edges[0] * n + edges[1]) * width + occurrence(edges)
    order = np.argsort(edge_key)
    position = np.searchsorted(edge_key[order], message_key)
    inside = position < len(order)
    if not inside.all() or (edge_key[order[position]] != message_key).any():
        return None
    return order[position]


def gates(mask: Tensor, found: Tensor) -> Tensor:
    """Return one factor per message: the mask of its edge, 1 where it has none."""
    padded = torch.cat([mask, mask.new_ones(1)])
    return padded.index_select(0, torch.where(found < 0, len(mask), found))


def is_same(first: Tensor, second: Tensor) -> bool:
    """Return True if two edge lists are one object, or hold the same edges in the same order."""
    if first is second:
        return True
    same_kind = first.layout == second.layout == torch.strided and first.shape == second.shape
    return same_kind and torch.equal(first, second)
