"""Relevance between pairs of nodes: the blocks from which walks are put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.relevance.cut_pass import CutPass


@dataclass(frozen=True)
class Transitions:
    """One step of walks.

    Parameters
    ----------
    source, target : ndarray of shape (P,)
        Pairs of nodes that relevance can pass between, sorted by target and source.
    ptr : ndarray of shape (N + 1,)
        First pair of each target.
    block : Tensor of shape (P, d, d') or (P, d)
        What each number of the target's state hands to those of the source's; of the first step, to the source.
    """

    source: np.ndarray
    target: np.ndarray
    ptr: np.ndarray
    block: Tensor

    def into(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs that lead to some nodes, and for each the position of its node among them."""
        first, count = self.ptr[nodes], np.diff(self.ptr)[nodes]
        position = np.repeat(np.arange(len(nodes)), count)
        offset = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
        return first[position] + offset, position


def transitions(cut: CutPass) -> list[Transitions]:
    """Return the steps of a batch, the first one first.

    Nodes without a common source are asked at once, one number of their states at a time.
    """
    return [_step(cut, step) for step in range(1, cut.num_steps + 1)]


def _step(cut: CutPass, step: int) -> Transitions:
    source, target = cut.pairs(step)
    n, width = cut.states[step].shape
    colour = colours(source, target, n)
    units = torch.eye(width, dtype=cut.states[step].dtype, device=cut.states[step].device)
    found: Tensor | None = None
    for c in range(int(colour.max(initial=0)) + 1):
        asked = torch.from_numpy(colour == c).to(units.device)
        sent = cut.back(step, units.unsqueeze(1) * asked.to(units.dtype).view(1, -1, 1))
        sent = cut.at_nodes(sent) if step == 1 else sent
        pairs = np.flatnonzero(colour[target] == c)
        if found is None:
            found = sent.new_zeros(len(source), width, *sent.shape[2:])
        found[torch.from_numpy(pairs)] = sent[:, torch.from_numpy(source[pairs])].transpose(0, 1)
    if found is None:
        raise RuntimeError("A batch must hold nodes. Got none.")
    kept = (found != 0).flatten(1).any(1).cpu().numpy()
    source, target = source[kept], target[kept]
    ptr = np.searchsorted(target, np.arange(n + 1))
    return Transitions(source, target, ptr, found[torch.from_numpy(kept)])


def colours(source: np.ndarray, target: np.ndarray, num_nodes: int) -> np.ndarray:
    """Colour nodes (N,) so that those of one colour have no source in common; greedily, larger ones first."""
    ptr = np.searchsorted(target, np.arange(num_nodes + 1))
    used: list[set[int]] = [set() for _ in range(num_nodes)]
    colour = np.zeros(num_nodes, dtype=np.int64)
    for node in np.argsort(-np.diff(ptr), kind="stable"):
        sources = source[ptr[node] : ptr[node + 1]]
        taken = set().union(*(used[m] for m in sources))
        free = next(c for c in range(len(taken) + 1) if c not in taken)
        colour[node] = free
        for m in sources:
            used[m].add(free)
    return colour
