"""Sums of weighted copies of neighbours, as one sparse product that is differentiable in weights and features."""

from __future__ import annotations

import warnings
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array
from torch import Tensor
from torch.autograd.function import once_differentiable

PRODUCT_TYPES = (torch.float32, torch.float64)  # what torch's sparse kernels take on every device


class Pattern:
    """Where messages run from and to: the places of a sparse matrix with one entry per message.

    Messages have an order of their own, in which `order` names them by their positions in the call.

    Parameters
    ----------
    ends : ndarray of shape (2, messages)
        Source and target of each message.
    num_sources, num_targets : int
        Numbers of rows of what is copied, and of what comes out.
    device : torch.device

    Raises
    ------
    IndexError
        If a message runs between other rows.
    """

    def __init__(self, ends: np.ndarray, num_sources: int, num_targets: int, device: torch.device) -> None:
        _hide_beta_warning()
        if ends.size and (ends[0].max() >= num_sources or ends[1].max() >= num_targets):
            # The kernels would read whatever lies there.
            raise IndexError(
                f"Messages must run between the {num_sources} sources and {num_targets} targets that there are. Got "
                f"source {ends[0].max()} and target {ends[1].max()}."
            )
        self.device = device
        self.shape = (num_targets, num_sources)
        ptr, order = sorted_by(ends[1], num_targets)
        self.order = torch.from_numpy(order).to(device)
        self.targets = torch.from_numpy(ends[1][order]).to(device)
        self._ptr, self._sources = self._indices(ptr), self._indices(ends[0][order])
        self._ends = ends[:, order]

    def __len__(self) -> int:
        return len(self.order)

    def _indices(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.int32)).to(self.device)

    @cached_property
    def _transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        ptr, order = sorted_by(self._ends[0], self.shape[1])
        return self._indices(ptr), self._indices(self._ends[1][order]), torch.from_numpy(order).to(self.device)

    @cached_property
    def _empty(self) -> Tensor:
        return self.matrix(torch.zeros(len(self), device=self.device))

    def matrix(self, values: Tensor) -> Tensor:
        """Return the matrix with the given entries."""
        return torch.sparse_csr_tensor(self._ptr, self._sources, values, self.shape, check_invariants=False)

    def transposed(self, values: Tensor) -> Tensor:
        """Return the transposed matrix with the given entries."""
        ptr, targets, order = self._transposed
        size = (self.shape[1], self.shape[0])
        return torch.sparse_csr_tensor(ptr, targets, values.index_select(0, order), size, check_invariants=False)

    def inner_products(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return for each entry the inner product of its row of one array and its column of another one."""
        if len(self) > self.shape[0] * self.shape[1]:  # so many parallel edges that torch's kernel refuses
            return (rows.index_select(0, self.targets) * columns.index_select(0, self._sources)).sum(1)
        empty = self._empty.to(rows.dtype)
        return torch.sparse.sampled_addmm(empty, rows, columns.t(), beta=0).values()


class _Product(torch.autograd.Function):
    """``matrix(values) @ x``; no array with one row per message is ever made."""

    @staticmethod
    def forward(values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
        if not len(pattern) or not x.numel():
            return x.new_zeros(pattern.shape[0], x.shape[1])
        return pattern.matrix(values) @ x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Pattern], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.pattern = inputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, x = ctx.saved_tensors
        if not len(ctx.pattern) or not x.numel():  # zero, but still a gradient: outputs depend on what they sum
            return torch.zeros_like(values), torch.zeros_like(x), None
        gradient = gradient.contiguous()
        by_values = ctx.pattern.inner_products(gradient, x) if ctx.needs_input_grad[0] else None
        by_x = ctx.pattern.transposed(values) @ gradient if ctx.needs_input_grad[1] else None
        return by_values, by_x, None


def masked_sum(values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
    """Return for each target the sum over its messages of value times source row.

    Parameters
    ----------
    values : Tensor of shape (messages,)
        Weight of each message, in the order of the pattern.
    x : Tensor of shape (sources, ...)
        What is copied.
    pattern : Pattern
        Where messages run.

    Returns
    -------
    Tensor of shape (targets, ...)
    """
    if x.dim() == 2:
        return _Product.apply(values, x.contiguous(), pattern)
    sums = _Product.apply(values, x.flatten(1).contiguous(), pattern)
    return sums.view(pattern.shape[0], *x.shape[1:])


def sorted_by(keys: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each key starts, and the order that sorts by keys in [0, size), by counting instead of comparing."""
    incidence = csc_array((np.ones(len(keys), dtype=np.int8), keys, np.arange(len(keys) + 1)), shape=(size, len(keys)))
    by_row = incidence.tocsr()
    return by_row.indptr, by_row.indices.astype(np.int64)


@cache
def _hide_beta_warning() -> None:
    """Make torch say once, where nobody hears it, that sparse matrices are in a beta state."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")
        torch.eye(1).to_sparse_csr()
