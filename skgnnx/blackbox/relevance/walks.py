"""Walks and their relevance: all of them, or the largest ones without looking at the others."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.relevance.transitions import Transitions
from skgnnx.graphs.ranking import TIE, rank_order


@dataclass(frozen=True)
class Walks:
    """Walks through the nodes of a batch.

    Parameters
    ----------
    nodes : ndarray of shape (K, L + 1)
        The nodes at each boundary, the first one first.
    scores : ndarray of shape (K,)
        Their relevance.
    is_exact : bool
        False if a search was stopped before it was clear that no other walk is larger.
    bound : float
        No walk that is not listed is larger than this; 0 where all are.
    """

    nodes: np.ndarray
    scores: np.ndarray
    is_exact: bool = True
    bound: float = 0.0

    def ranked(self, rank_by: str, k: int | None = None) -> Walks:
        """Return the largest first; walks within 1e-5 relative are tied and go by their nodes."""
        by_nodes = np.lexsort(self.nodes.T[::-1])
        scores = self.scores[by_nodes]
        key = np.abs(scores) if rank_by == "abs" else scores
        order = rank_order(key.astype(np.float64), np.array([0, len(key)]))
        rest = float(key[order[len(order) if k is None else k :]].max(initial=0))
        order = by_nodes[order[:k]]
        return Walks(self.nodes[order], self.scores[order], self.is_exact, max(self.bound, rest))


def num_walks(steps: list[Transitions], starts: np.ndarray) -> np.ndarray:
    """Return the number of walks that end at each node (N,), which is 0 except at some nodes, given as bools."""
    ways = np.ones(len(starts), dtype=object)  # whole numbers of any size
    for step in steps:
        reached = np.zeros(len(starts), dtype=object)
        np.add.at(reached, step.target, ways[step.source])
        ways = reached
    return np.where(starts, ways, 0)


def sum_of_walks(steps: list[Transitions], last: Tensor) -> Tensor:
    """Return the relevance (N,) of all walks that start at each node, without a list of them."""
    sent = last.detach()
    for step in reversed(steps):
        target, source = (torch.from_numpy(ends).to(sent.device) for ends in (step.target, step.source))
        handed = torch.einsum("pk,pk...->p...", sent[target], step.block)
        sent = sent.new_zeros(len(last), *handed.shape[1:]).index_add(0, source, handed)
    return sent


def all_walks(steps: list[Transitions], last: Tensor, ends: np.ndarray) -> Walks:
    """Return all walks that end at some nodes.

    Every suffix is multiplied once, whatever it is continued with.

    Parameters
    ----------
    steps : list of Transitions
    last : Tensor of shape (N, d)
        What the states at the last boundary weigh in the score.
    ends : ndarray of int
        Where walks end.
    """
    nodes, weights = ends[:, None], last[torch.from_numpy(ends).to(last.device)]
    for step in reversed(steps):
        pairs, position = step.into(nodes[:, 0])
        nodes = np.concatenate([step.source[pairs, None], nodes[position]], axis=1)
        rows, given = (torch.from_numpy(at).to(last.device) for at in (pairs, position))
        block, given = step.block[rows], weights[given]
        weights = (given * block).sum(1) if block.dim() == 2 else torch.einsum("pk,pkc->pc", given, block)
    return Walks(nodes, weights.detach().cpu().numpy().astype(np.float64))


class _Family(NamedTuple):
    """Suffixes that differ in their first node, of which the larger ones come first; the others wait for them."""

    rest: tuple[int, ...]
    first: list[int]
    size: list[float]
    weights: np.ndarray


class WalkSearch:
    r"""The walks of largest relevance, by best-first search from their ends.

    A suffix can become no larger than its weights times the largest that any beginning makes of each of them:

    .. math:: \beta_l[n, k] = \max_m \sum_c \beta_{l - 1}[m, c] \, |T_l[m \to n]_{k c}|

    Parameters
    ----------
    steps : list of Transitions
    """

    def __init__(self, steps: list[Transitions]) -> None:
        self.steps = steps
        self._blocks = [step.block.detach().cpu().numpy().astype(np.float64) for step in steps]
        self._bounds: list[np.ndarray] = []
        for step, block in zip(steps, self._blocks, strict=True):
            size = np.abs(block)
            if self._bounds:
                size = np.einsum("pkc,pc->pk", size, self._bounds[-1][step.source])
            bound = np.zeros((len(step.ptr) - 1, size.shape[1]))
            np.maximum.at(bound, step.target, size)
            self._bounds.append(bound)

    def largest(self, last: Tensor, ends: np.ndarray, k: int, rank_by: str, max_expansions: int) -> Walks:
        """Return the `k` largest walks that end at some nodes, and those tied with the last of them.

        Parameters
        ----------
        last : Tensor of shape (N, d)
            What the states at the last boundary weigh in the score.
        ends : ndarray of int
            Where walks end.
        k : int >= 1
        rank_by : {"abs", "positive"}
            Walks of either sign by their size, or positive ones only.
        max_expansions : int >= 1
            Suffixes that are continued before the search is stopped.
        """
        number, expanded = count(), 0
        heap: list[tuple[float, int, _Family, int]] = []
        found: list[tuple[tuple[int, ...], float]] = []

        def push(family: _Family, at: int) -> None:
            if at < len(family.size):
                heapq.heappush(heap, (-family.size[at], next(number), family, at))

        weights = last.detach().cpu().numpy().astype(np.float64)[ends]
        push(self._family((), ends, weights, rank_by), 0)
        while heap and (len(found) < k or -heap[0][0] >= abs(found[k - 1][1]) * (1 - TIE)):
            _, _, family, at = heap[0]
            nodes, is_walk = (family.first[at], *family.rest), len(family.rest) == len(self.steps)
            if not is_walk and expanded == max_expansions:
                break
            heapq.heappop(heap)
            push(family, at + 1)
            if is_walk:
                found.append((nodes, float(family.weights[at])))
            else:
                expanded += 1
                push(self._continued(nodes, family.weights[at], rank_by), 0)
        walks = np.array([nodes for nodes, _ in found], dtype=np.int64).reshape(len(found), len(self.steps) + 1)
        is_exact = not heap or len(found) >= k
        return Walks(walks, np.array([score for _, score in found]), is_exact, -heap[0][0] if heap else 0.0)

    def _continued(self, nodes: tuple[int, ...], given: np.ndarray, rank_by: str) -> _Family:
        """Return a suffix with one more node before it, in every way."""
        boundary = len(self.steps) + 1 - len(nodes)
        step = self.steps[boundary - 1]
        pairs = slice(step.ptr[nodes[0]], step.ptr[nodes[0] + 1])
        weights = np.tensordot(self._blocks[boundary - 1][pairs], given, (1, 0))
        return self._family(nodes, step.source[pairs], weights, rank_by)

    def _family(self, rest: tuple[int, ...], first: np.ndarray, weights: np.ndarray, rank_by: str) -> _Family:
        """Return suffixes whose walks may have relevance, with the bounds on it."""
        boundary = len(self.steps) - len(rest)
        if boundary == 0:
            size = weights if rank_by == "positive" else np.abs(weights)
        else:
            size = np.einsum("nk,nk->n", np.abs(weights), self._bounds[boundary - 1][first])
        order = np.argsort(-size, kind="stable")
        order = order[: np.count_nonzero(size > 0)]
        return _Family(rest, first[order].tolist(), size[order].tolist(), weights[order])
