"""Node features that a linear map multiplies in their own form, and that are dense for anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map_only

from skgnnx.blackbox.feature_matrices import Added, Entries, Matrix, Scaled, Summed
from skgnnx.blackbox.masked_sum import Pattern, masked_sum

WIDE = 64  # columns from which it pays to multiply before rows are summed
_NOT_CHEAP = object()


class LazyFeatures(Tensor):
    """Features (N, F) of which no dense tensor is made unless the model does more than multiply them by a weight.

    Made by `lazy`. Gradients reach what the features are made of on every way, also through functions that torch
    does not let a tensor override.
    """

    matrix: Matrix
    _dense: Tensor | None
    _dense_version: int

    @staticmethod
    def __new__(cls, matrix: Matrix, like: Tensor, shape: tuple[int, int]) -> LazyFeatures:
        """Return features that hold no numbers."""
        features = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        features.matrix, features._dense, features._dense_version = matrix, None, 0
        return features

    def dense(self) -> Tensor:
        """Return the dense features: always the same tensor, which a model may change in place."""
        if self._dense is None:
            # A model that recomputes a part in the backward pass counts what is saved, and finds nothing saved then.
            with torch.autograd.graph.saved_tensors_hooks(_unchanged, _unchanged):
                self._dense = self.matrix.dense()
            self._dense_version = self._dense._version
        return self._dense

    @property
    def is_changed(self) -> bool:
        """Whether a model has changed the dense features in place."""
        return self._dense is not None and self._dense._version > self._dense_version

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what is cheap, and hand dense tensors to everything else."""
        kwargs = kwargs or {}
        if func in _ABOUT:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        cheap = _CHEAP.get(getattr(func, "__name__", ""))
        if cheap is not None:
            result = cheap(*args, **kwargs)
            if result is not _NOT_CHEAP:
                return result
        args, kwargs = tree_map_only(LazyFeatures, LazyFeatures.dense, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Hand dense tensors to what torch does not let a tensor override."""
        args, kwargs = tree_map_only(LazyFeatures, LazyFeatures.dense, (args, kwargs or {}))
        return func(*args, **kwargs)


class _Attached(torch.autograd.Function):
    """The features as a function of what they are made of."""

    @staticmethod
    def forward(ctx: Any, matrix: Matrix, shape: tuple[int, int], *tensors: Tensor) -> LazyFeatures:
        ctx.matrix = matrix
        return LazyFeatures(matrix, tensors[0], shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = [tensor for tensor in ctx.matrix.tensors if tensor.requires_grad]
        with torch.enable_grad():
            found = iter(torch.autograd.grad(ctx.matrix.dense(), needed, gradient, retain_graph=True))
        return None, None, *(next(found) if tensor.requires_grad else None for tensor in ctx.matrix.tensors)


def _unchanged(saved: Tensor) -> Tensor:
    return saved


def lazy(matrix: Matrix, shape: tuple[int, int]) -> Tensor:
    """Return features in the form of a matrix.

    Parameters
    ----------
    matrix : Matrix
    shape : tuple of two int
        Its numbers of rows and columns.
    """
    return _Attached.apply(matrix, shape, *matrix.tensors)


def rows_of(x: Tensor, rows: Tensor) -> Tensor:
    """Return some rows of features; of lazy ones cheap for a tensor that has been given before."""
    if not isinstance(x, LazyFeatures) or x.is_changed or not isinstance(x.matrix, Entries):
        return x.index_select(0, rows)
    return lazy(x.matrix.take(rows), (len(rows), x.shape[1]))


def summed(values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
    """Return for each target the sum over its messages of value times source row, lazy where the features are."""
    if not isinstance(x, LazyFeatures) or x.is_changed:
        return masked_sum(values, x, pattern)
    return lazy(Summed(values, x.matrix, pattern), (pattern.shape[0], x.shape[1]))


def _times(x: Any, weight: Any) -> Any:
    """Return features times the transpose of a weight."""
    if not isinstance(x, LazyFeatures) or isinstance(weight, LazyFeatures) or x.is_changed:
        return _NOT_CHEAP
    # A product that is wider than the features is cheaper behind their sums than before.
    is_weight = torch.is_tensor(weight) and weight.dim() == 2 and weight.dtype == x.dtype
    if not is_weight or not 0 < weight.shape[0] <= x.shape[1] == weight.shape[1]:
        return _NOT_CHEAP
    return _NOT_CHEAP if torch.is_autocast_enabled(x.device.type) else x.matrix.times(weight)


def _linear(input: Any, weight: Any, bias: Tensor | None = None) -> Any:
    product = _times(input, weight)
    return product if product is _NOT_CHEAP or bias is None else product + bias


def _matmul(x: Any, other: Any, **given: Any) -> Any:
    return _times(x, other.t()) if not given and torch.is_tensor(other) and other.dim() == 2 else _NOT_CHEAP


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return _NOT_CHEAP if training else input


def _narrow(x: Any, dim: Any, start: Any, length: Any) -> Any:
    if not isinstance(x, LazyFeatures) or x.is_changed or (dim, start) != (0, 0):
        return _NOT_CHEAP
    part = x.matrix.first(length)
    return _NOT_CHEAP if part is None else lazy(part, (length, x.shape[1]))


def _add(one: Any, other: Any, **given: Any) -> Any:
    both = isinstance(one, LazyFeatures) and isinstance(other, LazyFeatures)
    if given or not both or one.is_changed or other.is_changed or one.dtype != other.dtype or one.shape != other.shape:
        return _NOT_CHEAP
    return lazy(Added(one.matrix, other.matrix), tuple(one.shape))


def _mul(one: Any, other: Any, **given: Any) -> Any:
    x, factor = (one, other) if isinstance(one, LazyFeatures) else (other, one)
    if given or isinstance(factor, LazyFeatures) or x.is_changed:
        return _NOT_CHEAP
    if not torch.is_tensor(factor):
        factor = torch.as_tensor(factor, dtype=x.dtype, device=x.device)
    if factor.numel() != 1 or factor.dim() > x.dim() or torch.result_type(factor, x) != x.dtype:
        return _NOT_CHEAP
    return lazy(Scaled(x.matrix, factor), tuple(x.shape))


_CHEAP: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(["linear"], _linear),
    **dict.fromkeys(["matmul", "__matmul__", "mm"], _matmul),
    **dict.fromkeys(["mul", "__mul__", "__rmul__"], _mul),
    **dict.fromkeys(["add", "__add__", "__radd__"], _add),
    "dropout": _dropout,
    "narrow": _narrow,
}
_ABOUT = {
    *(getattr(Tensor, name).__get__ for name in
      ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_cuda", "is_sparse", "_version", "grad_fn",
       "is_leaf", "is_quantized", "is_meta", "is_nested")),
    Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement, Tensor.__len__, Tensor.is_floating_point,
    Tensor.is_complex, torch.is_floating_point, torch.is_complex, torch.numel, torch.result_type,
}  # fmt: skip
