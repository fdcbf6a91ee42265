"""What is the same in every run over a batch is computed once: layers whose input is not masked."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

State = tuple[list[Any], list[int]]


class Constants:
    """Tensors of a batch that no mask changes, and what modules make of them.

    Parameters
    ----------
    tensors : iterable of Tensor
        Inputs that stay.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._kept = {id(tensor): (tensor, tensor._version) for tensor in tensors}
        self._parts: dict[tuple[int, int, int], Tensor] = {}
        self._outputs: dict[tuple[Any, ...], tuple[Tensor, State] | None] = {}

    def __contains__(self, tensor: Any) -> bool:
        # A tensor that was written to is no longer what it was.
        known = self._kept.get(id(tensor))
        return known is not None and known[0] is tensor and known[1] == tensor._version

    def first(self, tensor: Tensor, length: int, dim: int = 0) -> Tensor:
        """Return the first part of a tensor; of one that stays, the same object every time."""
        if length >= tensor.shape[dim]:
            return tensor
        if tensor not in self:
            return tensor.narrow(dim, 0, length)
        key = (id(tensor), length, dim)
        if key not in self._parts:
            self._parts[key] = tensor.narrow(dim, 0, length)
            self._keep(self._parts[key])
        return self._parts[key]

    def _keep(self, value: Tensor) -> None:
        self._kept[id(value)] = (value, value._version)

    def forward(self, name: str, module: nn.Module, original: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return what a module's `forward` returns; from memory where every input is constant."""
        given = [*args, *kwargs.values()]
        if not given or not all(value in self if torch.is_tensor(value) else value is None for value in given):
            return original(*args, **kwargs)
        key, state = (name, tuple(kwargs), *map(id, given)), _state(module)
        if key in self._outputs:
            known = self._outputs[key]
            if known is not None and known[0] in self and _is_same(known[1], state):
                return known[0]
            # The model writes into this output, or into the module. Every run would leave another one behind.
            self._outputs[key] = None
            return original(*args, **kwargs)
        output = original(*args, **kwargs)
        stays = torch.is_tensor(output) and not output.requires_grad and _is_same(_state(module), state)
        # Modules that work in place have changed what they got.
        self._outputs[key] = (output, state) if stays and all(v is None or v in self for v in given) else None
        if self._outputs[key] is not None:
            self._keep(output)
        return output


def _state(module: nn.Module) -> State:
    """Return what a module holds besides its parts, and how often each was written to: some remember an input."""
    held = [*vars(module).items(), *module._buffers.items()]
    values = [value for name, value in held if name != "forward"]
    return values, [v._version if torch.is_tensor(v) and not v.is_inference() else 0 for v in values]


def _is_same(first: State, second: State) -> bool:
    same_length = len(first[0]) == len(second[0])
    return same_length and first[1] == second[1] and all(map(operator.is_, first[0], second[0]))


def foldable_modules(model: nn.Module, layers: set[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Return the named parts of a model that have no parts of their own and pass no messages."""
    parts = [(name, module) for name, module in model.named_modules() if module is not model]
    return [(name, module) for name, module in parts if module not in layers and not any(module.children())]
