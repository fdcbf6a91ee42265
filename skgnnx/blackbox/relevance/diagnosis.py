"""Finding the module in which relevance gets lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.relevance.function_rules import dependent

if TYPE_CHECKING:
    from skgnnx.blackbox.relevance.surrogate import RelevancePass

LOST = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the relevance that comes in; rounding loses less


class Entered:
    """A call of a module that has begun.

    Values and places in the graph of gradients are kept at once: what a model changes in place has others later.

    Parameters
    ----------
    inputs : list of Tensor
        Arguments that depend on an input of the model.
    start : int
        How many constants were counted before.
    """

    def __init__(self, inputs: list[Tensor], start: int) -> None:
        self.inputs, self.start = inputs, start
        self.values = [u.detach().clone() for u in inputs]
        self.places = [_place(u) for u in inputs]

    def left(self, name: str, module: nn.Module, output: Any, factors: list[Tensor]) -> Seen:
        """Return the call, now that it is over."""
        outputs = dependent(output)
        random = torch.Generator().manual_seed(0)
        total = torch.stack([_weighted(tensor, random) for tensor in outputs]).sum()
        return Seen(name, module, self, total, [_place(tensor) for tensor in outputs], factors[self.start :])


class Seen(NamedTuple):
    """One call of a module in a forward pass.

    Parameters
    ----------
    name : str
    module : nn.Module
    entered : Entered
    total : Tensor
        Its outputs, times random weights.
    places : list
        Where its outputs are in the graph of gradients.
    factors : list of Tensor
        Factors on the constants that were added inside.
    """

    name: str
    module: nn.Module
    entered: Entered
    total: Tensor
    places: list[Any]
    factors: list[Tensor]


def _place(tensor: Tensor) -> Any:
    return tensor if tensor.is_leaf else get_gradient_edge(tensor)


def _weighted(tensor: Tensor, random: torch.Generator) -> Tensor:
    weight = torch.rand(tensor.shape, generator=random, dtype=tensor.dtype).to(tensor.device) + 0.5
    return (tensor * weight).sum()


def check_conservation(passed: RelevancePass, name: str) -> None:
    """Raise TypeError, naming the module, if relevance gets lost anywhere on the way from the scores.

    Units that are asleep may hide it in the model as a whole, so every module is looked at.

    Parameters
    ----------
    passed : RelevancePass
        A run in which calls were noted.
    name : str
        Name of the model.
    """
    run, total = passed.run, passed.scores.sum()
    if not total.requires_grad:
        return
    whole = Entered([passed.x], 0).left("", run.gnn.box.model, passed.scores, run.shares.factors)
    bypassed = {id(output) for output in run.bypassed}
    for seen in (*run.seen, whole):
        is_bypassed = any(id(u) in bypassed for u in seen.entered.inputs)
        if not is_bypassed and _loses(seen) and _is_on_the_way(seen, total):
            raise TypeError(f"{_reason(seen, run.exponentials, name)}; use InputXGradient or IntegratedGradients.")


def _is_on_the_way(seen: Seen, total: Tensor) -> bool:
    slopes = torch.autograd.grad(total, seen.places, retain_graph=True, allow_unused=True)
    return any(slope is not None for slope in slopes)


def _reason(seen: Seen, exponentials: set[str], name: str) -> str:
    kind = type(seen.module).__name__
    if not seen.name:
        return f"Relevance must be able to pass a model. Got {name}, in which it gets lost between the layers"
    if isinstance(seen.module, MessagePassing) and seen.name in exponentials:
        return (
            "Attention must be constant for relevance to pass a layer. Got attention that is computed inside message "
            f"of {seen.name!r} ({kind})"
        )
    return (
        "A layer must be linear in its input, or a rectifier, for relevance to pass it. Got "
        f"{seen.name!r} ({kind}), which is neither"
    )


def _loses(seen: Seen) -> bool:
    """Return True if the inputs and constants of a call get another sum than its outputs have."""
    values, total = [*seen.entered.values, *seen.factors], seen.total
    if not seen.entered.values or not total.requires_grad:
        return False
    asked = [*seen.entered.places, *seen.factors]
    slopes = torch.autograd.grad(total, asked, retain_graph=True, allow_unused=True)
    parts = [(value.detach() * slope) for value, slope in zip(values, slopes, strict=True) if slope is not None]
    shared = sum((part.sum() for part in parts), total.new_zeros(()))
    size = sum((part.abs().sum() for part in parts), total.detach().abs())
    return bool((total.detach() - shared).abs() > LOST.get(total.dtype, 1e-2) * size)
