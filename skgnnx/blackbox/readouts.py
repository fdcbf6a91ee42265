"""Where a model sums up the states of its nodes: found by what it computes, not by how it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from skgnnx.graphs.batch import GraphBatch

_TIED = 1e-5
_LOOK_UPS = frozenset({"__getitem__", "index_select", "gather", "repeat_interleave", "expand", "expand_as"})


class Made(NamedTuple):
    """A matrix that a forward pass has made.

    Parameters
    ----------
    value : Tensor of shape (rows, columns)
    edge : GradientEdge or None
        Where its gradient arrives, whatever is done to the tensor in place later.
    step : str
        Name of the function.
    """

    value: Tensor
    edge: GradientEdge | None
    step: str = ""


class LinearCall(NamedTuple):
    """One application of a linear map: what goes in, the parameters, what comes out and how often it was changed."""

    entered: Tensor
    weight: Tensor
    bias: Tensor | None
    left: Tensor
    version: int


class StepRecorder(TorchFunctionMode):
    """Remembers all matrices of floating-point numbers of a forward pass, and its linear maps, in order.

    Where gradients are recorded, looked-up embeddings become inputs that have one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Made] = []
        self.linears: list[LinearCall] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if not torch.is_tensor(result) or not result.is_floating_point() or result.layout != torch.strided:
            return result
        if func in (functional.embedding, functional.embedding_bag) and torch.is_grad_enabled():
            result.requires_grad_()
        if func is functional.linear:
            bound = dict(zip(("input", "weight", "bias"), args), **given)
            self.linears.append(LinearCall(bound["input"], bound["weight"], bound.get("bias"), result, result._version))
        step = getattr(func, "__name__", "")
        # What is read from a table of graphs is no state of a node, though a mean over its nodes gives it back.
        if result.dim() == 2 and not (step in _LOOK_UPS and len(args[0]) != len(result)):
            self.made.append(made(result, step))
        return result


def made(value: Tensor, step: str = "") -> Made:
    """Return a matrix that was just made, with the place where its gradient arrives."""
    # Without gradient mode a function may still hand on an input that requires a gradient.
    has_gradient = value.requires_grad and (value.grad_fn is not None or torch.is_grad_enabled())
    return Made(value, get_gradient_edge(value) if has_gradient else None, step)


def _mean(batch: GraphBatch, states: Tensor) -> Tensor:
    return batch.sum_nodes(states) / _sizes(batch, states)


def _max(batch: GraphBatch, states: Tensor) -> Tensor:
    index = batch.node_instance.view(-1, 1).expand_as(states)
    nothing = states.new_zeros(len(batch), states.shape[1])
    return nothing.scatter_reduce(0, index, states, "amax", include_self=False)


def _sizes(batch: GraphBatch, states: Tensor) -> Tensor:
    counted = batch.sum_nodes(states.new_ones(batch.num_nodes, 1))
    return counted.clamp_min(1)


POOLS = {"mean": _mean, "add": GraphBatch.sum_nodes, "max": _max}


class Pooled(NamedTuple):
    """States of nodes and how they are summed up, to one row per graph.

    Parameters
    ----------
    states : Made
        A matrix (N, k).
    pool : {"mean", "add", "max"}
    """

    states: Made
    pool: str

    def shares(self, batch: GraphBatch) -> Tensor:
        """Return the share (N, k) of each node in what the pool gives; shares of a graph sum to it.

        Nodes within 1e-5 relative of a maximum share it evenly.
        """
        states = self.states.value
        if self.pool == "add":
            return states
        if self.pool == "mean":
            return states / _sizes(batch, states)[batch.node_instance]
        highest = _max(batch, states)
        wins = (states >= (highest - _TIED * highest.abs())[batch.node_instance]).to(states.dtype)
        return wins * (highest / batch.sum_nodes(wins).clamp_min(1))[batch.node_instance]


def pooling_of(rows: Tensor, candidates: Sequence[Made], batch: GraphBatch) -> Pooled | None:
    """Return the newest of the states (N, k) that one of `POOLS` takes to rows (B, k), None if none does."""
    for states in reversed(candidates):
        for pool in POOLS:
            if _gives(states.value, pool, rows, batch):
                return Pooled(states, pool)
    return None


def _gives(states: Tensor, pool: str, rows: Tensor, batch: GraphBatch) -> bool:
    if states.shape[1] != rows.shape[1] or states.dtype != rows.dtype:
        return False
    rounding = {torch.float64: 1e-11, torch.float32: 1e-5}.get(rows.dtype, 2e-2)
    states = states.detach()
    largest = POOLS[pool](batch, states.abs())
    return bool(((POOLS[pool](batch, states) - rows.detach()).abs() <= rounding * largest).all())


def states_of_nodes(recorder: StepRecorder, batch: GraphBatch) -> list[Made]:
    """Return what a forward pass has made that has one row per node."""
    return [one for one in recorder.made if len(one.value) == batch.num_nodes]


def pooled_blocks(rows: Tensor, states: Sequence[Made], batch: GraphBatch) -> list[Pooled] | None:
    """Return what is pooled into rows (B, K): one block of columns after the other, None if that is not all of them.

    Wider blocks go first, so that nothing is taken apart that was pooled at once.
    """
    found, start = [], 0
    while start < rows.shape[1]:
        blocks = (
            pooling_of(rows[:, start : start + k], _of_width(states, k), batch) for k in _widths(states, rows, start)
        )
        block = next((block for block in blocks if block is not None), None)
        if block is None:
            return None
        found.append(block)
        start += block.states.value.shape[1]
    return found


def _widths(states: Sequence[Made], rows: Tensor, start: int) -> Iterator[int]:
    widths = {one.value.shape[1] for one in states}
    return iter(sorted((k for k in widths if 0 < k <= rows.shape[1] - start), reverse=True))


def _of_width(states: Sequence[Made], width: int) -> list[Made]:
    return [one for one in states if one.value.shape[1] == width]
