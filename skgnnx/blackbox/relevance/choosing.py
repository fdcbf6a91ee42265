"""Which rule each linear block of a model gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skgnnx.blackbox.relevance.layout import Place
from skgnnx.blackbox.relevance.rules import Rule

STEEPEST = 3.0  # gamma of the first convolution, as the authors of GNN-LRP have it


@dataclass(frozen=True)
class Rules:
    """The parameters of LRP, as a function from places to rules.

    Parameters
    ----------
    rule : {"gamma", "zero", "epsilon", "zplus"}
    gamma : float, sequence of float, or None
        For all convolutions, or for each; None falls linearly from 3 to 0.
    epsilon : float
    head : {"zero", "same"}
        What comes behind the last convolution shares by the zero rule, or by the same.
    """

    rule: str
    gamma: float | Sequence[float] | np.ndarray | None = None
    epsilon: float = 0.01
    head: str = "zero"

    def __call__(self, place: Place) -> Rule:
        """Return the rule of a block."""
        if place.is_head and self.head == "zero":
            return Rule("zero")
        if self.rule == "gamma":
            return Rule("gamma", self._gamma(place))
        return Rule(self.rule, self.epsilon if self.rule == "epsilon" else 0.0)

    def _gamma(self, place: Place) -> float:
        given: Any = self.gamma
        if given is None:
            given = np.linspace(STEEPEST, 0, place.num_convs)
        if isinstance(given, (int, float)):
            return float(given)
        if len(given) != place.num_convs or min(given) < 0:
            raise ValueError(
                f"'gamma' must hold a number >= 0 for each of the {place.num_convs} graph convolutions. Got {given!r}; "
                "one number serves all."
            )
        return float(given[place.conv])
