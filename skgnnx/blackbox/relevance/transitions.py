"""Relevance between pairs of nodes: the blocks from which walks are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.relevance.cut_pass import LARGEST, CutPass
from skgnnx.config import memory_budget

FORWARD = 2  # what a product from the sources costs, in products from the targets


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

    Raises
    ------
    RuntimeError
        If their numbers do not fit into memory; several instances may fit in parts.
    """
    pairs = [cut.pairs(step) for step in range(1, cut.num_steps + 1)]
    _check_memory(cut, [len(source) for source, _ in pairs])
    return [_step(cut, step, *ends) for step, ends in enumerate(pairs, start=1)]


def _check_memory(cut: CutPass, num_pairs: list[int]) -> None:
    width = [1, *(state.shape[1] for state in cut.states[1:])]
    numbers = sum(p * width[step] * width[step + 1] for step, p in enumerate(num_pairs))
    needed = numbers * (8 + 2 * cut.states[0].element_size())  # as found, those that are not 0, and for the search
    if needed > memory_budget():
        raise RuntimeError(
            f"The memory budget must hold what each node hands to each other one in a step of a walk. Got "
            f"{memory_budget() / 2**20:.1f} MB, needed about {needed / 2**20:.1f} MB at index "
            f"{cut.batch.positions[0]}; raise it with config_context(memory_budget=...), or leave 'walks' out: edges, "
            "nodes and E.subgraph_relevance need none."
        )


def _step(cut: CutPass, step: int, source: np.ndarray, target: np.ndarray) -> Transitions:
    """Ask for each pair once: from its target, several targets at a time that have no source in common.

    A source of many targets is asked about itself, several of them at a time that have no target in common.
    """
    state = cut.states[step]
    n, width = state.shape
    units = torch.eye(width, dtype=state.dtype, device=state.device).unsqueeze(1)
    given = cut.inputs() if step == 1 else torch.eye(cut.states[step - 1].shape[1]).to(state).unsqueeze(1)
    is_hub = hubs(source, target, n, width, len(given))[source]
    block = state.new_zeros(len(source), width, *given.shape[:1])

    def back(weights: Tensor) -> Tensor:
        sent = cut.back(step, weights)
        return cut.at_nodes(sent).unsqueeze(2) if step == 1 else sent

    for asked, ends, others, send, seeds in (
        (~is_hub, target, source, back, units),
        (is_hub, source, target, lambda weights: cut.forth(step, weights), given),
    ):
        for pairs, part, found in _answers(send, seeds, ends[asked], others[asked], n):
            rows = torch.from_numpy(np.flatnonzero(asked)[pairs]).to(state.device)
            if send is back:
                block[rows, part] = found
            else:
                block[rows, :, part] = found.transpose(1, 2)
    block = block.squeeze(2) if step == 1 else block
    kept = (block != 0).flatten(1).any(1)
    source, target = (ends[kept.cpu().numpy()] for ends in (source, target))
    return Transitions(source, target, np.searchsorted(target, np.arange(n + 1)), block[kept])


def _answers(
    send: Callable[[Tensor], Tensor], seeds: Tensor, ends: np.ndarray, others: np.ndarray, num_nodes: int
) -> Iterator[tuple[np.ndarray, slice, Tensor]]:
    """Yield for some pairs and some of the S seeds (S, N or 1, d), sent from one end, what arrives at the other one."""
    if not len(ends):
        return
    colour = colours(others, ends, num_nodes)
    size = num_nodes * seeds.shape[2]
    at_once = max(1, LARGEST // (size * len(seeds)))  # colours
    of_seeds = len(seeds) if size * len(seeds) <= LARGEST else max(1, LARGEST // size)
    for first in range(0, int(colour.max()) + 1, at_once):
        which = np.arange(first, min(first + at_once, int(colour.max()) + 1))
        is_asked = torch.from_numpy(which[:, None, None, None] == colour[:, None]).to(seeds.device)
        pairs = np.flatnonzero((colour[ends] >= first) & (colour[ends] < first + at_once))
        row, column = (torch.from_numpy(at).to(seeds.device) for at in (colour[ends[pairs]] - first, others[pairs]))
        for start in range(0, len(seeds), of_seeds):
            part = slice(start, start + of_seeds)
            sent = send((seeds[part] * is_asked.to(seeds.dtype)).flatten(0, 1))
            yield pairs, part, sent.unflatten(0, (len(which), -1))[row, :, column]


def hubs(source: np.ndarray, target: np.ndarray, num_nodes: int, width: int, given: int) -> np.ndarray:
    """Return which nodes (N,) are sources of so many targets that they are better asked about themselves.

    Parameters
    ----------
    source, target : ndarray of shape (P,)
    num_nodes : int
    width, given : int
        How many products it takes to ask about a target, and about a source.
    """
    degree = np.bincount(source, minlength=num_nodes)
    bounds = np.unique(np.append(degree, 0))[::-1]
    costs = []
    for bound in bounds:
        together = np.bincount(target[degree[source] > bound], minlength=num_nodes).max(initial=0)
        costs.append(width * int(bound) + FORWARD * given * int(together))
    return degree > bounds[np.argmin(costs)]


def colours(source: np.ndarray, target: np.ndarray, num_nodes: int) -> np.ndarray:
    """Colour nodes (N,) so that those of one colour have no source in common; greedily, larger ones first.

    Nodes without a source have the colour -1.
    """
    order = np.argsort(target, kind="stable")
    source, ptr = source[order].tolist(), np.searchsorted(target[order], np.arange(num_nodes + 1))
    used: list[set[int]] = [set() for _ in range(num_nodes)]
    colour = np.full(num_nodes, -1)
    for node in np.argsort(-np.diff(ptr), kind="stable")[: np.count_nonzero(np.diff(ptr))]:
        sources = source[ptr[node] : ptr[node + 1]]
        taken = set().union(*(used[m] for m in sources))
        free = next(c for c in range(len(taken) + 1) if c not in taken)
        colour[node] = free
        for m in sources:
            used[m].add(free)
    return colour
