"""How relevance passes the functions of torch: linear ones, sums with constants, products, divisors, activations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from skgnnx.blackbox.relevance.rules import Contributions, Rule, positive_part

if TYPE_CHECKING:
    from skgnnx.blackbox.relevance.surrogate import SurrogateRun

ADDING = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
SUBTRACTING = (torch.sub, torch.subtract, Tensor.sub, Tensor.__sub__, Tensor.__rsub__, torch.rsub)
JOINING = (torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack, torch.vstack)
MULTIPLYING = (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__)
MATRIX_PRODUCTS = (torch.matmul, torch.mm, torch.bmm, torch.mv, torch.dot, torch.inner, Tensor.matmul, Tensor.mm,
                   Tensor.bmm, Tensor.mv, Tensor.dot, Tensor.inner, Tensor.__matmul__, Tensor.__rmatmul__)  # fmt: skip
DIVIDING = (torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.divide, Tensor.true_divide,
            Tensor.__truediv__, Tensor.__rtruediv__)  # fmt: skip
EXPONENTIALS = (torch.exp, Tensor.exp, torch.softmax, Tensor.softmax, functional.softmax)
INVERTING = (torch.rsqrt, Tensor.rsqrt, torch.reciprocal, Tensor.reciprocal)
# Elementwise, and 0 at 0: a unit hands on what it gets. ReLU and LeakyReLU do so by themselves.
ACTIVATIONS = (functional.elu, functional.celu, functional.selu, functional.gelu, functional.silu, functional.mish,
               functional.hardtanh, functional.relu6, functional.hardswish, functional.softsign, functional.tanhshrink,
               torch.tanh, Tensor.tanh, functional.tanh, torch.selu, torch.celu)  # fmt: skip
# What they do is put into their first operand afterwards, which others may hold as well.
IN_PLACE = {Tensor.add_: torch.add, Tensor.__iadd__: torch.add, Tensor.sub_: torch.sub, Tensor.__isub__: torch.sub,
            Tensor.mul_: torch.mul, Tensor.__imul__: torch.mul, Tensor.div_: torch.div, Tensor.__itruediv__: torch.div,
            functional.elu_: functional.elu, functional.celu_: functional.celu, functional.selu_: functional.selu,
            torch.tanh_: torch.tanh, Tensor.tanh_: torch.tanh}  # fmt: skip
OPERANDS = ("input", "tensors", "other")  # names of those that rules know by their position


def depends(value: Any) -> bool:
    """Return True if a value is a tensor that depends on an input of the model, and not a constant."""
    return torch.is_tensor(value) and value.requires_grad


def dependent(value: Any) -> list[Tensor]:
    """Return the tensors in a value, and in what it holds, that depend on an input of the model; each once."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (tuple, list)):
        return [value] if depends(value) else []
    found = [tensor for part in value for tensor in dependent(part)]
    return [tensor for i, tensor in enumerate(found) if all(tensor is not other for other in found[:i])]


def _is_constant(value: Any) -> bool:
    return torch.is_tensor(value) and value.is_floating_point() and not value.requires_grad


class FunctionRules(TorchFunctionMode):
    """Replaces torch functions by ones of the same value, whose gradients share relevance out.

    Parameters
    ----------
    run : SurrogateRun
        The forward pass in which they are called.
    """

    def __init__(self, run: SurrogateRun) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.run.paused or (func not in _RULES and func not in IN_PLACE):
            return func(*args, **kwargs)
        args = (*args, *(kwargs[name] for name in OPERANDS if name in kwargs))
        kwargs = {name: value for name, value in kwargs.items() if name not in OPERANDS}
        if func not in IN_PLACE and not kwargs.get("inplace"):
            return _RULES[func](self.run, func, args, kwargs)
        if not any(map(depends, args)):
            return func(*args, **kwargs)
        kept = [value.clone() if value is args[0] else value for value in args]
        func, kwargs = IN_PLACE.get(func, func), {name: value for name, value in kwargs.items() if name != "inplace"}
        return args[0].copy_(_RULES[func](self.run, func, kept, kwargs))


Call = Callable[["SurrogateRun", Any, Any, Any], Any]


def _of_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


def _linear(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    u, weight, bias = _of_linear(*args, **kwargs)
    value = func(*args, **kwargs)
    return value if not depends(u) else _block(run, value, u, weight, bias, functional.linear)


def _block(
    run: SurrogateRun, value: Tensor, u: Tensor, weight: Tensor, bias: Tensor | None, block: Callable[..., Tensor]
) -> Tensor:
    rule = run.rule_here()
    run.note_rule(rule)
    run.check_input(u)
    positive = positive_part(block, u, weight) if rule.needs_signs else None
    return run.passed(value, Contributions(block(u, weight), positive, bias), rule)


def _matrix_product(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    if len(args) < 2:
        return func(*args, **kwargs)
    first, second = args[:2]
    if depends(first) and _is_constant(second) and first.dim() > 1 < second.dim():
        return _block(run, func(*args, **kwargs), first, second, None, func)
    return _product(run, func, args, kwargs)


def _product(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    """Give each of two factors half of the relevance of their product."""
    if len(args) < 2 or not (depends(args[0]) and depends(args[1])):
        return func(*args, **kwargs)
    return _halves(lambda a, b: func(a, b, *args[2:], **kwargs), args[0], args[1])


def _halves(product: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    value = product(first.detach(), second.detach())
    flowing = (product(first, second.detach()) + product(first.detach(), second) - 2 * value) / 2
    return value + flowing


def _einsum(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    operands = args[1:] if len(args) != 2 or torch.is_tensor(args[1]) else tuple(args[1])
    if len(operands) == 2 and depends(operands[0]) and isinstance(operands[1], nn.Parameter):
        return _block(run, func(*args, **kwargs), operands[0], operands[1], None, lambda u, w: func(args[0], u, w))
    if len(operands) != 2 or not (depends(operands[0]) and depends(operands[1])):
        return func(*args, **kwargs)
    return _halves(lambda a, b: func(args[0], a, b), *operands)


def _sum(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    """Count constants that are added to something that depends on an input."""
    if len(args) < 2 or not (depends(args[0]) or depends(args[1])):
        return func(*args, **kwargs)
    run.check_terms(args[:2], subtracted=func in SUBTRACTING)
    first, second = (run.counted(value, like) for value, like in ((args[0], args[1]), (args[1], args[0])))
    return func(first, second, *args[2:], **kwargs)


def _joined(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    parts = args[0]
    if not any(map(depends, parts)):
        return func(*args, **kwargs)
    counted = [run.shares.counted(part, part) if _is_constant(part) else part for part in parts]
    return func(counted, *args[1:], **kwargs)


def _quotient(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    """Take divisors for constants: they are sizes, of statistics for example."""
    divisor = 0 if func is Tensor.__rtruediv__ else 1
    given = [value.detach() if i == divisor and depends(value) else value for i, value in enumerate(args)]
    return func(*given, **kwargs)


def _inverse(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    return func(*args, **kwargs).detach()


def _activation(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    if not (args and depends(args[0])):
        return func(*args, **kwargs)
    u = args[0]
    before = u.detach()
    value = func(before.clone(), *args[1:], **kwargs)
    ratio = torch.where(before == 0, 0.0, value / torch.where(before == 0, 1.0, before))
    return value + (u - before) * ratio


def _batch_norm(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    """Fold a normalisation into the linear block before it, or take it for a block of its own."""
    given = inspect.signature(func).bind(*args, **kwargs)
    given.apply_defaults()
    u, mean, variance, weight, bias, training, _, eps = given.args
    value = func(*args, **kwargs)
    if not depends(u):
        return value
    if training or mean is None:
        run.refuse("normalises by statistics of the batch; keep running statistics (track_running_stats=True)")
    factor = (variance + eps).rsqrt() if weight is None else weight * (variance + eps).rsqrt()
    shift = -mean * factor if bias is None else bias - mean * factor
    columns = [-1 if axis == 1 else 1 for axis in range(u.dim())]
    factor, shift = factor.view(columns), shift.view(columns)
    folded = run.folded(u, value, factor, shift)
    return _block(run, value, u, factor, shift, torch.mul) if folded is None else folded


def _layer_norm(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    """Take the standard deviation for a constant: what is left is linear."""
    given = inspect.signature(func).bind(*args, **kwargs)
    given.apply_defaults()
    u, shape, weight, bias, eps = given.args
    value = func(*args, **kwargs)
    if not depends(u):
        return value
    axes = tuple(range(-len(shape), 0))
    centred = u - u.mean(axes, keepdim=True)
    deviation = (centred.detach().square().mean(axes, keepdim=True) + eps).sqrt()
    total = centred / deviation if weight is None else centred / deviation * weight
    return run.passed(value, Contributions(total, bias=bias), Rule("zero"))


def _normalised(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    u = args[0]
    value = func(*args, **kwargs)
    if not depends(u):
        return value
    before, constant = u.detach(), value.detach()
    ratio = torch.where(before == 0, 0.0, constant / torch.where(before == 0, 1.0, before))
    return constant + (u - before) * ratio


def _exponential(run: SurrogateRun, func: Any, args: Any, kwargs: Any) -> Any:
    run.note_exponential()
    return func(*args, **kwargs)


def _all(functions: Iterable[Any], rule: Call) -> dict[Any, Call]:
    return dict.fromkeys(functions, rule)


_RULES: dict[Any, Call] = {
    functional.linear: _linear,
    functional.batch_norm: _batch_norm,
    functional.layer_norm: _layer_norm,
    functional.normalize: _normalised,
    torch.einsum: _einsum,
    **_all(ADDING + SUBTRACTING, _sum),
    **_all(JOINING, _joined),
    **_all(MULTIPLYING, _product),
    **_all(MATRIX_PRODUCTS, _matrix_product),
    **_all(DIVIDING, _quotient),
    **_all(INVERTING, _inverse),
    **_all(ACTIVATIONS, _activation),
    **_all(EXPONENTIALS, _exponential),
}
