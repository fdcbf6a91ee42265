"""Excitation: probability mass that starts at one unit and goes to positive contributions only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.relevance.layout import Place
from skgnnx.blackbox.relevance.rules import Rule
from skgnnx.blackbox.relevance.surrogate import RelevancePass, Surrogate
from skgnnx.blackbox.relevance.surrogate_run import SurrogateRun
from skgnnx.graphs.batch import GraphBatch

ROUNDING = 1e-5  # of a mass of 1


class ExcitationRun(SurrogateRun):
    """A forward pass in which nothing negative may go into a linear block."""

    def check_input(self, u: Tensor) -> None:
        """Refuse negative activations."""
        if bool((u < 0).any()):
            self.refuse("gets negative activations: no share of a mass can be told for them")

    def check_terms(self, terms: Sequence[Any], *, subtracted: bool) -> None:
        """Refuse differences, and sums with something negative."""
        if subtracted or any(bool((torch.as_tensor(term) < 0).any()) for term in terms):
            self.refuse("subtracts, or adds something negative: no share of a mass can be told for it")


class Mass(NamedTuple):
    """Where the mass of the explained unit arrives.

    Parameters
    ----------
    x : Tensor of shape (N, F)
    gates : Tensor of shape (L, E) or None
    """

    x: Tensor
    gates: Tensor | None

    def less(self, other: Mass) -> Mass:
        """Return what is more than in another, 0 elsewhere."""
        gates = None if self.gates is None or other.gates is None else (self.gates - other.gates).clamp(min=0)
        return Mass((self.x - other.x).clamp(min=0), gates)


class ExcitationPass:
    """Forward passes whose masses can be asked for, target by target.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    x : Tensor of shape (N, F)
        Node features, none of them negative.
    gated : bool
        Whether masses of edges will be asked for.
    with_other : bool
        Whether the mass of the unit with negated weights will be asked for.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, x: Tensor, *, gated: bool, with_other: bool) -> None:
        self.gnn, self.batch = gnn, batch
        # One column stands for two classes: the score of class 0 is the negated output.
        self.is_binary = gnn.kind_of_output.startswith("binary")
        kinds = ("mass", "against") if with_other or self.is_binary else ("mass",)
        self._passes = [self._pass(kind, x, gated) for kind in kinds]

    def _pass(self, kind: str, x: Tensor, gated: bool) -> RelevancePass:
        def choice(place: Place) -> Rule:
            return Rule(kind) if place.is_last else Rule("zplus")

        surrogate = Surrogate(self.gnn, choice, ExcitationRun)
        if not surrogate.layout.ends_in_block:
            raise TypeError(
                f"Excitation BP starts at a unit of a linear layer. Got {self.gnn.name}, whose scores are made "
                "from the last layer by something else, as a pool or a product; use LRP or InputXGradient."
            )
        return surrogate.pass_forward(self.batch, x, gated=gated)

    def masses(self, targets: Tensor | None) -> tuple[Mass, Mass | None]:
        """Return the mass of each instance's target, and that of the unit with negated weights if there is one."""
        found = [Mass(*one.flows(targets)) for one in self._passes]
        if self.is_binary and targets is not None:
            found = self._turned(found, targets)
        return self._checked(found[0]), self._checked(found[1]) if len(found) > 1 else None

    def _turned(self, found: list[Mass], targets: Tensor) -> list[Mass]:
        """Exchange and negate masses where class 0 is explained, which is the unit with negated weights."""
        is_zero = targets == 0

        def turned(one: Tensor, other: Tensor, index: Tensor, axis: int) -> Tensor:
            negated = is_zero[index].unsqueeze(1 - axis) if one.dim() > 1 else is_zero[index]
            return torch.where(negated, -other, one)

        result = []
        for one, other in (found, reversed(found)):
            gates = None
            if one.gates is not None and other.gates is not None:
                gates = turned(one.gates, other.gates, self.batch.edge_instance, 1)
            result.append(Mass(turned(one.x, other.x, self.batch.node_instance, 0), gates))
        return result

    def _checked(self, mass: Mass) -> Mass:
        parts = [mass.x, *([] if mass.gates is None else [mass.gates])]
        if any(bool((part < -ROUNDING).any()) for part in parts):
            raise TypeError(
                f"Excitation BP needs layers in which nothing is subtracted. Got {self.gnn.name}, in which something "
                "is, as in normalisation layers or ChebConv; use LRP or InputXGradient."
            )
        return Mass(mass.x.clamp(min=0), None if mass.gates is None else mass.gates.clamp(min=0))


def nonnegative(batch: GraphBatch, x: Tensor, *, shift: bool) -> Tensor:
    """Return node features without negative entries.

    Parameters
    ----------
    batch : GraphBatch
    x : Tensor of shape (N, F)
    shift : bool
        Subtract from the features of an instance the smallest of those that reach its prediction, if that is negative.

    Raises
    ------
    ValueError
        If there are negative ones that reach a prediction, unless they are to be shifted.
    """
    reaches = torch.from_numpy(batch.graphs.node_reach).to(x.device)
    of_nodes = torch.where(reaches, x.flatten(1).amin(1), 0.0)
    lowest = of_nodes.new_zeros(len(batch)).scatter_reduce(0, batch.node_instance, of_nodes, "amin")
    if not shift and bool((lowest < 0).any()):
        i = int((lowest < 0).nonzero()[0])
        raise ValueError(
            f"Excitation BP needs node features, or outputs of embeddings, that are not negative. Got "
            f"{float(lowest[i]):.3g} at index {batch.positions[i]}; pass shift_input=True, or use LRP."
        )
    shifted = x - lowest[batch.node_instance].view(-1, *[1] * (x.dim() - 1))
    return shifted.clamp(min=0)  # what reaches no prediction may be anything
