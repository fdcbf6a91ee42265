"""Which message belongs to which edge: by endpoint and occurrence, never by position alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NOT_AN_EDGE = -1


def match_edges(call: np.ndarray, edges: np.ndarray, *, replaces_loops: bool) -> np.ndarray | None:
    """Find the user's edge behind each message of one propagate call.

    Layers append self loops, replace them, drop edges of other relations, sort by row, or run against the edges. In
    turn: the same edges in the same order; the same reversed; a look-up by (source, target) and occurrence; the same
    look-up reversed.

    Parameters
    ----------
    call : ndarray of shape (2, messages)
        Ends of the messages.
    edges : ndarray of shape (2, E)
        Ends of the user's edges.
    replaces_loops : bool
        True if the layer makes its own self loops; loops then belong to no edge of the user's.

    Returns
    -------
    ndarray of shape (messages,) or None
        Edge of each message, -1 for a loop that the layer made, None if some message has no edge.
    """
    message_kept = call[0] != call[1] if replaces_loops else np.ones(call.shape[1], dtype=bool)
    edge_kept = edges[0] != edges[1] if replaces_loops else np.ones(edges.shape[1], dtype=bool)
    found = np.full(call.shape[1], NOT_AN_EDGE)
    messages, candidates = call[:, message_kept], np.flatnonzero(edge_kept)
    known = edges[:, candidates]
    for ends in (known, known[::-1]):
        if np.array_equal(messages, ends):
            found[message_kept] = candidates
            return found
    for ends in (known, known[::-1]):
        position = _look_up(messages, ends)
        if position is not None:
            found[message_kept] = candidates[position]
            return found
    return None


def is_ambiguous(call: np.ndarray, edges: np.ndarray, found: np.ndarray) -> bool:
    """Return True if a call uses only some of several parallel edges, so that occurrence cannot tell which."""
    used = found[found >= 0]
    if len(used) == 0 or len(used) == edges.shape[1]:
        return False
    n = int(edges.max()) + 1
    key = edges[0] * n + edges[1]
    _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
    taken = np.bincount(inverse[used], minlength=len(count))
    return bool(((taken > 0) & (taken < count)).any())


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
