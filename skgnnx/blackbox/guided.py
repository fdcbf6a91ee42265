"""Guided backpropagation through any model: every ReLU also holds back what is negative on its way back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from skgnnx.blackbox.heads import HeadRecorder
from skgnnx.blackbox.opening import Opening
from skgnnx.blackbox.waking import relu_call

_UNGUIDED = {
    *(
        "celu",
        "elu",
        "gelu",
        "glu",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "logsigmoid",
        "mish",
        "prelu",
    ),
    *("relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh", "tanhshrink", "threshold"),
}
_CLAMPING = frozenset({"clamp", "clamp_min", "clip", "maximum", "fmax", "max"})
_KERNELS = frozenset({torch.ops.aten.relu.default, torch.ops.aten.relu_.default})


class GuidedReLU(torch.autograd.Function):
    r"""A ReLU that sends back :math:`g \, [z > 0] \, [g > 0]` where a gradient :math:`g` arrives."""

    generate_vmap_rule = True  # so that many targets may go back at once

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        """Return what is positive of a tensor."""
        return z.relu()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        """Keep where a tensor is positive."""
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return what is positive of a gradient, where the tensor is positive."""
        (output,) = ctx.saved_tensors
        return torch.where((output > 0) & (gradient > 0), gradient, 0)


class GuidedReLUs(TorchFunctionMode):
    """Runs every ReLU as a guided one, however it is written: as a function, a method or a module, or in place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = relu_call(func, args, kwargs or {})
        if found is None or not found[0].requires_grad:
            return func(*args, **(kwargs or {}))
        z, in_place = found
        return z.copy_(GuidedReLU.apply(z.clone())) if in_place else GuidedReLU.apply(z)


class Activations(NamedTuple):
    """What is not linear in a model.

    Parameters
    ----------
    num_relus : int
        How many ReLUs ran.
    others : list of str
        Other activations that ran, and where, without the head.
    """

    num_relus: int
    others: list[str]


class ActivationRecorder(TorchFunctionMode):
    """Notes which activations run, what they are taken of, and in which module."""

    def __init__(self) -> None:
        super().__init__()
        self.num_relus = 0
        self.others: list[tuple[str, Tensor]] = []
        self._inside: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        name = getattr(func, "__name__", "").rstrip("_")
        value = args[0] if args else given.get("input")
        if relu_call(func, args, given) is not None:
            self.num_relus += 1
        elif torch.is_tensor(value) and (name in _UNGUIDED or (name in _CLAMPING and _is_at_zero(name, args, given))):
            self.others.append((f"{name} in {self._inside[-1] if self._inside else 'the model'}", value))
        return func(*args, **given)

    @contextmanager
    def looking_at(self, model: nn.Module) -> Iterator[None]:
        """Record what runs inside, with the names of the model's parts."""
        with ExitStack() as stack:
            for path, module in model.named_modules():
                enter = module.register_forward_pre_hook(lambda *_, path=path: self._inside.append(path or "forward"))
                leave = module.register_forward_hook(lambda *_: self._leave())
                stack.callback(enter.remove)
                stack.callback(leave.remove)
            with self:
                yield

    def _leave(self) -> None:
        self._inside.pop()


class KernelCounter(TorchDispatchMode):
    """Counts the ReLUs that torch runs, also those of operations that call one without its function."""

    def __init__(self) -> None:
        super().__init__()
        self.num_relus = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_relus += func in _KERNELS
        return func(*args, **(kwargs or {}))


def _is_at_zero(name: str, args: Any, given: Any) -> bool:
    """Return True if a clamp or maximum has a bound at zero: a ReLU in other words, which is not known as one."""
    bounds = [*args[1:], *(value for key, value in given.items() if key not in ("dim", "keepdim", "input"))]
    if name in ("max", "maximum", "fmax"):
        return any(torch.is_tensor(part) and part.is_floating_point() and not part.any() for part in bounds)
    return any(isinstance(bound, (int, float)) and bound == 0 for bound in bounds)


def activations(gnn: Opening) -> Activations:
    """Return which activations run when the first instance is predicted, alone."""
    batch = gnn.look.batch
    recorder, heads, kernels = ActivationRecorder(), HeadRecorder(), KernelCounter()
    with torch.no_grad(), kernels, recorder.looking_at(gnn.box.model), heads:
        head = heads.head_of(gnn.call(batch))
    others = [name for name, argument in recorder.others if head is None or not _is_same(argument, head[0])]
    unseen = kernels.num_relus - recorder.num_relus
    if unseen > 0:
        others.append(f"{unseen} ReLUs inside of other operations")
    return Activations(recorder.num_relus, list(dict.fromkeys(others)))


def _is_same(first: Tensor, second: Tensor) -> bool:
    return first is second or (first.numel() == second.numel() and first.data_ptr() == second.data_ptr())


def check_guidable(gnn: Opening) -> None:
    """Raise TypeError if a model runs no ReLU that could guide; warn of other activations, which cannot.

    Parameters
    ----------
    gnn : Opening
        The model and what is explained.
    """
    found = activations(gnn)
    if not found.num_relus:
        others = f", only {', '.join(found.others)}" if found.others else ""
        raise TypeError(
            f"Guided backpropagation needs a model with ReLUs, but no ReLU was executed in {gnn.name}{others}; use "
            "SensitivityAnalysis or IntegratedGradients."
        )
    if found.others:
        warnings.warn(
            f"Only ReLUs guide the gradient. In {gnn.name} these pass it as it is: {', '.join(found.others)}; use "
            "SensitivityAnalysis for the plain gradient.",
            UserWarning,
            stacklevel=2,
        )
