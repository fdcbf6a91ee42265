"""A forward pass cut between its graph convolutions, so that relevance can be sent back step by step."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skgnnx.blackbox.opening import of_targets
from skgnnx.blackbox.relevance.boundaries import Cuts
from skgnnx.blackbox.relevance.surrogate import RelevancePass, Surrogate
from skgnnx.graphs.batch import GraphBatch

WALKABLE = "walkable"
LARGEST = 2**20  # numbers of what is sent back at once; more do not stay in the cache (benchmarks/backward.py)


class CutPass:
    """Relevance between the states of nodes at neighbouring boundaries: linear, and known from one forward pass.

    Boundary 0 is where the first graph convolution starts, boundary L where the last one ends.

    Parameters
    ----------
    surrogate : Surrogate
    batch : GraphBatch
    """

    def __init__(self, surrogate: Surrogate, batch: GraphBatch) -> None:
        cuts = Cuts()
        self.batch = batch
        self.passed: RelevancePass = surrogate.pass_forward(batch, boundaries=cuts)
        self.states, self.before = cuts.states, cuts.before
        self.num_steps = len(self.states) - 1

    def behind(self, targets: Tensor | None) -> Tensor:
        """Return what the states at the last boundary weigh in the scores of the targets (N, d)."""
        score = of_targets(self.passed.scores, targets).sum()
        last = self.states[-1]
        if not score.requires_grad:
            return torch.zeros_like(last)
        (weights,) = torch.autograd.grad(score, last, retain_graph=True, allow_unused=True)
        return torch.zeros_like(last) if weights is None else weights

    def back(self, step: int, weights: Tensor) -> Tensor:
        """Send weights (K, N, d) of the states at boundary `step` to those of the boundary before."""
        return _products(self.before[step], self.states[step - 1], weights)

    def forth(self, step: int, given: Tensor) -> Tensor:
        """Send what is given (K, N, d) to the states at the boundary before `step` on to those at it."""
        return _forward_products(self.before[step], self.states[step - 1], given)

    def inputs(self) -> Tensor:
        """Return what is known of each node, as it reaches the states at boundary 0 (1, N, d)."""
        x = self.passed.x
        given = x.detach().unsqueeze(0)
        return given if self.before[0] is x else _forward_products(self.before[0], x, given)

    def at_nodes(self, weights: Tensor) -> Tensor:
        """Return the relevance (K, N) of what is known of each node, given weights at boundary 0."""
        x = self.passed.x
        own = self.before[0] is x
        sent = weights if own else _products(self.before[0], x, weights)
        return (sent * x.detach()).reshape(*sent.shape[:2], -1).sum(2)

    def of_subsets(self, targets: Tensor | None, weights: Tensor) -> Tensor:
        """Return the relevance (K, N) by first node of all walks, each times the weights (K, N) of what it visits."""
        last = self.behind(targets)
        size = max(1, LARGEST // max(last.numel(), 1))
        return torch.cat([self._of_subsets(last, part.unsqueeze(-1)) for part in weights.split(size)])

    def _of_subsets(self, last: Tensor, factor: Tensor) -> Tensor:
        sent = last * factor
        for step in range(self.num_steps, 0, -1):
            sent = self.back(step, sent) * factor
        return self.at_nodes(sent)

    def pairs(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs of nodes (from, to) between which one step can carry relevance, sorted by the latter."""
        n = self.batch.num_nodes
        hops = [ends.detach().cpu().numpy() for _, ends in sorted(self.passed.run.links[step - 1].items())]
        key = np.arange(n) * (n + 1)
        if len(hops) == 1:
            key = np.concatenate([key, hops[0][1] * n + hops[0][0]])
        elif hops:
            stay = reach = sparse.identity(n, dtype=bool, format="csr")
            for source, target in hops:
                hop = sparse.csr_matrix((np.ones(len(source), dtype=bool), (target, source)), shape=(n, n))
                reach = (hop + stay) @ reach
            target, source = reach.nonzero()
            key = target.astype(np.int64) * n + source
        key = np.unique(key)
        return key % n, key // n


def check_walks(surrogate: Surrogate) -> None:
    """Raise TypeError if relevance can reach a node by other ways than walks along the messages.

    Parameters
    ----------
    surrogate : Surrogate
        Whose model is asked on a small graph, once.
    """
    memo = surrogate.gnn.memo
    if WALKABLE not in memo:
        cut = CutPass(surrogate, surrogate.small_batch())
        check_chain(cut)
        for step in range(cut.num_steps + 1):
            _check_pairs(cut, step)
        memo[WALKABLE] = True


def check_chain(cut: CutPass) -> None:
    """Raise TypeError unless everything passes every boundary, as states of nodes."""
    _check_states(cut)
    _check_cuts(cut)
    _check_start(cut)


def _check_states(cut: CutPass) -> None:
    """Raise TypeError if what layers hand on is no table of nodes."""
    names, n = cut.passed.run.conv_names, cut.batch.num_nodes
    for number, state in enumerate(cut.states):
        if state.dim() != 2 or len(state) != n:
            raise TypeError(
                "Walks need layers that take and return states of shape (nodes, width). Got "
                f"{tuple(state.shape)} for {n} nodes at {names[min(number, len(names) - 1)]!r}; use LRP, or "
                "mask='edge' without walks."
            )


def _check_cuts(cut: CutPass) -> None:
    """Raise TypeError if something leads past a boundary."""
    earlier = [cut.passed.x, *cut.states]
    for number, output in enumerate([*cut.before[1:], cut.passed.scores], start=1):
        past = earlier[:number]
        if not (past and output.requires_grad):
            continue
        slopes = torch.autograd.grad(output.sum(), past, retain_graph=True, allow_unused=True)
        if any(slope is not None for slope in slopes):
            names = cut.passed.run.conv_names
            raise TypeError(
                f"Walks need a model whose layers are a chain. Got a score path that bypasses the cut after "
                f"{names[min(number, len(names)) - 1]!r} (residual or jumping knowledge); use LRP, or "
                "mask='edge' without walks."
            )


def _check_start(cut: CutPass) -> None:
    """Raise TypeError if the state that a node starts with knows of other nodes; one node of each graph is asked."""
    x = cut.passed.x
    if cut.before[0] is x:
        return
    asked = torch.zeros(cut.batch.num_nodes, dtype=torch.bool, device=x.device)
    asked[cut.batch.ptr[:-1]] = True
    random = torch.Generator().manual_seed(0)
    weights = torch.rand(cut.states[0].shape, generator=random, dtype=torch.float64).to(cut.states[0])
    sent = _products(cut.before[0], x, (weights * asked.unsqueeze(1)).unsqueeze(0))[0]
    if bool((sent[~asked] != 0).any()):
        raise other_ways(f"before {cut.passed.run.conv_names[0]!r}")


def _check_pairs(cut: CutPass, step: int) -> None:
    """Raise TypeError if one step leads farther than the messages of its layer; step 0 is what comes before."""
    names = cut.passed.run.conv_names
    n = cut.batch.num_nodes
    width = cut.states[step].shape[1:]
    random = torch.Generator().manual_seed(0)
    weights = torch.rand((n, n, *width), generator=random, dtype=torch.float64).to(cut.states[step])
    weights = weights * torch.eye(n, device=weights.device).to(weights.dtype).view(n, n, *(1,) * len(width))
    sent = cut.at_nodes(weights) if step == 0 else cut.back(step, weights)
    reached = (sent.flatten(2) != 0).any(2) if step else sent != 0
    allowed = torch.eye(n, dtype=torch.bool, device=reached.device)
    if step:
        source, target = cut.pairs(step)
        allowed[torch.from_numpy(target), torch.from_numpy(source)] = True
    if bool((reached & ~allowed).any()):
        raise other_ways(f"between {names[step - 1]!r} and what follows" if step else f"before {names[0]!r}")


def other_ways(where: str) -> TypeError:
    """Return the error that says that nodes act on each other by other ways than messages."""
    return TypeError(
        f"Walks need layers in which nodes act on each other by messages only. Got others {where}, a normalisation "
        "over the nodes of a graph for example; use LRP, or mask='edge' without walks."
    )


def _products(output: Tensor, given: Tensor, weights: Tensor) -> Tensor:
    """Return the gradients (K, ...) by a tensor of an output, weighted in K ways."""
    if not output.requires_grad:
        return weights.new_zeros(len(weights), *given.shape)
    size = max(1, LARGEST // max(output.numel() + given.numel(), 1))
    parts = [_product(output, given, part) for part in weights.split(size)]
    return torch.cat(parts) if parts else weights.new_zeros(0, *given.shape)


def _forward_products(output: Tensor, given: Tensor, changes: Tensor) -> Tensor:
    """Return how an output changes (K, ...) with a tensor, for K changes of it: the gradient of a gradient."""
    weights = torch.zeros_like(output, requires_grad=True)
    if output.requires_grad:
        (sent,) = torch.autograd.grad(output, given, weights, create_graph=True, allow_unused=True)
        if sent is not None and sent.requires_grad:
            return _products(sent, weights, changes)
    return changes.new_zeros(len(changes), *output.shape)


def _product(output: Tensor, given: Tensor, weights: Tensor) -> Tensor:
    if len(weights) == 1:
        (one,) = torch.autograd.grad(output, given, weights[0].view(output.shape), retain_graph=True, allow_unused=True)
        return torch.zeros_like(given).unsqueeze(0) if one is None else one.unsqueeze(0)
    (found,) = torch.autograd.grad(
        output, given, weights.view(len(weights), *output.shape), retain_graph=True, allow_unused=True,
        is_grads_batched=True,
    )  # fmt: skip
    return weights.new_zeros(len(weights), *given.shape) if found is None else found
