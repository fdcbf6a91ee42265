"""Running a layer with other parameters than its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

INSIDE = "layer."


class Parameters:
    """The parameters of a layer, each under one name for every place where it is kept.

    Parameters
    ----------
    layer : nn.Module
    forward : callable
        What the layer does when it is called; hooks on the layer are for its caller.
    """

    def __init__(self, layer: nn.Module, forward: Callable[..., Any]) -> None:
        self._bare = _Bare(layer, forward)
        self.values: dict[str, Tensor] = {}
        # Modules that are one and the same have one name: torch would put their parameters back in the wrong order.
        for name, module in layer.named_modules(prefix=INSIDE[:-1]):
            self.values |= dict(module.named_parameters(name, recurse=False))

    def run(self, parameters: dict[str, Tensor], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run the layer with other parameters."""
        return functional_call(self._bare, parameters, tuple(args), kwargs, tie_weights=False)


class _Bare(nn.Module):
    def __init__(self, layer: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.run = layer, forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)


def part(weight: Tensor, sign: int) -> Tensor:
    """Return the positive or negative part of a weight; what has one axis scales, and is left."""
    if weight.dim() < 2:
        return weight
    return weight.clamp(min=0) if sign > 0 else weight.clamp(max=0)
