"""Graph convolutions that are linear once attention and winners are kept: they share relevance out as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import MaxAggregation, MinAggregation

from skgnnx.blackbox.hooks import mapped, replaced
from skgnnx.blackbox.relevance.function_rules import dependent, depends
from skgnnx.blackbox.relevance.parameters import Parameters, part
from skgnnx.blackbox.relevance.rules import Contributions

ROUNDING = 1e-4  # what is not linear misses by far more


class Kept:
    """Attention and winners of one call of a layer, so that it can run again with other numbers and the same ones.

    Attention is what a layer computes for its edges before it sends messages; winners are the largest messages of a
    node, each column for itself, of which equal ones share.
    """

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._next: int | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what the call inside computes."""
        self._values, self._next = [], None
        yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """Use what was noted for the call inside."""
        self._next = 0
        try:
            yield
        finally:
            self._next = None

    def _taken(self) -> Any:
        self._next = (self._next or 0) + 1
        return self._values[self._next - 1]

    def attention(self, computed: Any) -> Any:
        """Return attention as it was noted, or note it."""
        if self._next is not None:
            return self._taken()
        self._values.append(mapped(lambda part: part.detach() if torch.is_tensor(part) else part, computed))
        return computed

    def winners(self, original: Callable[..., Tensor], inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the aggregated messages; those of a noted call weigh what they weighed then."""
        if self._next is not None:
            return _weighted_sum(inputs, *self._taken())
        out = original(inputs, *args, **kwargs)
        index, dim = kwargs.get("index", args[0] if args else None), kwargs.get("dim", -2)
        if index is None:
            raise NotLinearError
        best = (inputs == out.index_select(dim, index)).to(inputs.dtype)
        ties = torch.zeros_like(out).index_add(dim, index, best)
        self._values.append((best / ties.index_select(dim, index), index, dim, out.shape[dim]))
        return out


def _weighted_sum(inputs: Tensor, weight: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    shape = list(inputs.shape)
    shape[dim] = size
    return inputs.new_zeros(shape).index_add(dim, index, inputs * weight)


class NotLinearError(Exception):
    """A layer aggregates in a way that cannot be kept, so it is no linear block."""


class ConvCall:
    """One call of a layer, that can be run again with other inputs and parameters.

    Parameters
    ----------
    layer : MessagePassing
    original : callable
        Its own ``forward``.
    args, kwargs
        What it is called with.
    again : callable
        Returns a context in which the layer runs once more, as if it were the first time.
    """

    def __init__(self, layer: MessagePassing, original: Any, args: Any, kwargs: Any, again: Callable[[], Any]) -> None:
        self.layer = layer
        self.given = (args, kwargs)
        self.original = original
        self._again = again
        self._kept = Kept()

    @cached_property
    def _bare(self) -> Parameters:
        return Parameters(self.layer, self.original)

    @property
    def _parameters(self) -> dict[str, Tensor]:
        return self._bare.values

    def value(self) -> Any:
        """Run the layer as it is, and keep attention and winners."""
        with torch.no_grad(), self._steps(), self._kept.noted(), self._again():
            return self.original(*self.given[0], **self.given[1])

    def run(self, parameters: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> Tensor:
        """Run the layer with other parameters, and its inputs changed."""
        args, kwargs = (self._changed(part, change) for part in self.given)
        with self._steps(), self._kept.again(), self._again():
            return self._bare.run(parameters, args, kwargs)

    def _changed(self, given: Any, change: Callable[[Tensor], Tensor]) -> Any:
        def one(value: Any) -> Any:
            return change(value) if depends(value) else value

        if isinstance(given, dict):
            return {key: mapped(one, value) for key, value in given.items()}
        return [mapped(one, value) for value in given]

    @contextmanager
    def _steps(self) -> Iterator[None]:
        extreme = [("", part) for part in self.layer.modules() if isinstance(part, (MaxAggregation, MinAggregation))]

        def winners(name: str, module: nn.Module, original: Any, /, *args: Any, **kwargs: Any) -> Any:
            return self._kept.winners(original, *args, **kwargs)

        def attention(layer: MessagePassing, inputs: Any, output: Any) -> Any:
            return self._kept.attention(output)

        with ExitStack() as stack:
            stack.enter_context(replaced(extreme, "forward", winners))
            handle = self.layer.register_edge_update_forward_hook(attention)
            stack.callback(handle.remove)
            yield

    def with_input(self, state: Tensor, other: Tensor) -> ConvCall:
        """Return the call with another tensor in place of one of its inputs."""
        if other is state:
            return self
        args, kwargs = (self._changed(part, lambda u: other if u is state else u) for part in self.given)
        return ConvCall(self.layer, self.original, tuple(args), kwargs, self._again)

    def inputs(self) -> list[Tensor]:
        """Return the inputs that depend on those of the model."""
        return dependent(list(self.given))

    def contributions(self, biases: frozenset[str], signs: bool) -> Contributions:
        """Return what the inputs add to the output of the layer, and what its biases add."""
        weights = {name: value for name, value in self._parameters.items() if name not in biases}
        none = {name: torch.zeros_like(self._parameters[name]) for name in biases}
        total = self.run({**weights, **none}, lambda u: u)
        bias = None
        if biases:
            with torch.no_grad():
                bias = self.run(self._parameters, torch.zeros_like)
        positive = None
        if signs:
            up, down = ({name: part(value, sign) for name, value in weights.items()} for sign in (1, -1))
            positive = self.run({**up, **none}, lambda u: u * (u > 0))
            if not all(bool((u >= 0).all()) for u in self.inputs()):
                positive = positive + self.run({**down, **none}, lambda u: u * (u < 0))
        return Contributions(total, positive, bias)

    def biases(self) -> frozenset[str] | None:
        """Return the parameters that are added to something, or None if the layer is no linear block.

        A block is linear in its inputs, its weights count once, and no weight is subtracted. The layer is asked with
        numbers that hide nothing.
        """
        given = self.given
        try:
            return self._biases()
        except Exception:  # whatever a layer says about numbers that are not the user's: its parts may be blocks
            return None
        finally:
            self.given = given

    def _biases(self) -> frozenset[str] | None:
        random = torch.Generator().manual_seed(0)

        def draw(u: Tensor) -> Tensor:
            return torch.rand(u.shape, generator=random, dtype=u.dtype).to(u.device) - 0.5

        self.given = tuple(_without_signs(part) for part in self.given)
        first, second = ({id(u): draw(u) for u in self.inputs()} for _ in range(2))
        if not first or not torch.is_tensor(self.value()):
            return None
        asked = {name: value.detach().clone().requires_grad_() for name, value in self._parameters.items()}
        added = self._slopes(self.run(asked, torch.zeros_like), asked)
        biases = frozenset(name for name, slope in added.items() if bool((slope != 0).any()))
        weights = {name: v for name, v in self._parameters.items() if name not in biases}
        # A matrix that acts where all inputs are 0 acts on what an inner bias adds: there are layers inside.
        if any(self._parameters[name].dim() > 1 for name in biases) or all(v.dim() < 2 for v in weights.values()):
            return None
        none = {name: torch.zeros_like(self._parameters[name]) for name in biases}
        linear = self._is_linear(weights, none, first, second)
        return biases if linear and self._adds_up(weights, none, first) else None

    def _is_linear(
        self, weights: dict[str, Tensor], none: dict[str, Tensor], first: dict[int, Tensor], second: dict[int, Tensor]
    ) -> bool:
        """Return True if outputs add up as inputs do and as weights do, and double with the weights."""

        def of(change: Callable[[Tensor], Tensor], *numbers: dict[int, Tensor]) -> Tensor:
            changed = {name: change(value) for name, value in weights.items()}
            return self.run({**changed, **none}, lambda u: torch.stack([given[id(u)] for given in numbers]).sum(0))

        def same(weight: Tensor) -> Tensor:
            return weight

        alone, other, both = of(same, first), of(same, second), of(same, first, second)
        doubled = of(lambda weight: weight * 2 if weight.dim() > 1 else weight, first)
        up, down = of(lambda weight: part(weight, 1), first), of(lambda weight: part(weight, -1), first)
        allowed = ROUNDING * sum(float(output.abs().max()) for output in (alone, other, both))
        misses = (alone + other - both, doubled - 2 * alone, up + down - alone)
        return all(float(miss.abs().max()) <= allowed for miss in misses)

    def _adds_up(self, weights: dict[str, Tensor], none: dict[str, Tensor], numbers: dict[int, Tensor]) -> bool:
        """Return True if no weight is subtracted."""
        positive = {name: value.detach().abs().requires_grad_() for name, value in weights.items()}
        output = self.run({**positive, **none}, lambda u: numbers[id(u)].abs())
        slopes = self._slopes(output, positive)
        lowest = min(float(slope.min()) for name, slope in slopes.items() if weights[name].dim() > 1)
        return lowest >= -ROUNDING * float(output.detach().abs().max())

    @staticmethod
    def _slopes(output: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        if not output.requires_grad:
            return {name: torch.zeros_like(value) for name, value in parameters.items()}
        found = torch.autograd.grad(output.sum(), list(parameters.values()), allow_unused=True)
        return {
            name: torch.zeros_like(value) if slope is None else slope
            for (name, value), slope in zip(parameters.items(), found, strict=True)
        }


def _without_signs(given: Any) -> Any:
    """Return arguments whose constants are positive: the signs of edge weights are the user's, not the layer's."""

    def one(value: Any) -> Any:
        dense = torch.is_tensor(value) and value.is_floating_point() and value.layout == torch.strided
        return value.abs() if dense and not value.requires_grad else value

    if isinstance(given, dict):
        return {key: mapped(one, value) for key, value in given.items()}
    return tuple(mapped(one, value) for value in given)
