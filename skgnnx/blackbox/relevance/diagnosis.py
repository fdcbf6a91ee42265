"""Finding the module in which relevance gets lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

if TYPE_CHECKING:
    from skgnnx.blackbox.relevance.surrogate import RelevancePass

LOST = 1e-3  # of the relevance that comes in; rounding loses a millionth


class Seen(NamedTuple):
    """One call of a module in a forward pass.

    Parameters
    ----------
    name : str
    module : nn.Module
    inputs : list of Tensor
        Arguments that depend on an input of the model.
    output : Tensor
    factors : list of Tensor
        Factors on the constants that were added inside.
    """

    name: str
    module: nn.Module
    inputs: list[Tensor]
    output: Tensor
    factors: list[Tensor]


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
    calls = [*run.seen, Seen("", run.gnn.box.model, [passed.x], passed.scores, run.shares.factors)]
    outputs = [seen.output for seen in calls]
    on_the_way = (
        torch.autograd.grad(total, outputs, retain_graph=True, allow_unused=True) if total.requires_grad else []
    )
    bypassed = {id(output) for output in run.bypassed}
    for seen, slope in zip(calls, on_the_way):
        is_bypassed = any(id(u) in bypassed for u in seen.inputs)
        if slope is not None and not is_bypassed and _loses(seen):
            raise TypeError(f"{_reason(seen, run.exponentials, name)}; use InputXGradient or IntegratedGradients.")


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
    """Return True if the inputs and constants of a call get another sum than its output has."""
    if not seen.inputs or not seen.output.requires_grad:
        return False
    random = torch.Generator().manual_seed(0)
    weight = torch.rand(seen.output.shape, generator=random, dtype=seen.output.dtype).to(seen.output.device) + 0.5
    total = (seen.output * weight).sum()
    asked = [*seen.inputs, *seen.factors]
    slopes = torch.autograd.grad(total, asked, retain_graph=True, allow_unused=True)
    parts = [(value.detach() * slope) for value, slope in zip(asked, slopes, strict=True) if slope is not None]
    shared = sum((part.sum() for part in parts), total.new_zeros(()))
    size = sum((part.abs().sum() for part in parts), total.detach().abs())
    return bool((total.detach() - shared).abs() > LOST * size)
