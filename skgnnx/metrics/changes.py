"""Changes of predictions when explanations, or all but explanations, are taken out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skgnnx.graphs import Explanations, units
from skgnnx.metrics.reducing import Score, reduced
from skgnnx.metrics.removal import Outputs, checked_removal, outputs_of_parts
from skgnnx.metrics.selecting import kept_and_left_out

VERSIONS = ("probability", "accuracy")


@dataclass(frozen=True, eq=False)
class Changes:
    """How much every prediction loses without its explanation (plus) and with nothing else (minus).

    Parameters
    ----------
    full : ndarray of shape (n,)
        What the model says of whole graphs, NaN where the explanation failed.
    plus, minus : ndarray of shape (n,)
        Changes; NaN also where they were not asked for.
    degenerate : ndarray of bool, shape (n,)
        Instances without a unit.
    removal : str
        How units were taken out.
    is_regression : bool
        Whether `full` holds values instead of probabilities.
    """

    full: np.ndarray
    plus: np.ndarray
    minus: np.ndarray
    degenerate: np.ndarray
    removal: str
    is_regression: bool

    @classmethod
    def of_explanations(
        cls,
        E: Explanations,
        wanted: tuple[bool, bool],
        model: Any = None,
        sparsity: float | None = None,
        selection: str = "cut",
        removal: str | None = None,
        of: str = "probability",
        absolute: bool | None = None,
    ) -> Changes:
        """Run the model on what is kept, on what is left out, or on both; parameters as in `fidelity_plus`."""
        check_version(of)
        removal = removal_for(E, selection, removal)
        unit = units(E)
        kept, left_out = kept_and_left_out(E, unit, selection=selection, sparsity=sparsity)
        parts = [part for part, asked in zip((kept, left_out), wanted) if asked]
        # Neighbours that sampling left out are no part of the explanation, but of the graph.
        rest = [there for there, asked in zip((0.0, 1.0), wanted) if asked]
        outputs = outputs_of_parts(E, parts, unlisted=rest, removal=removal, model=model)
        found = changes_of(outputs, of, absolute)
        nothing = np.full(len(E), np.nan)
        minus = found[0] if wanted[0] else nothing
        plus = found[-1] if wanted[1] else nothing
        degenerate = unit.counts == 0
        return cls(outputs.values(outputs.full, of), plus, minus, degenerate, removal, outputs.is_regression)

    def reduced(self, values: np.ndarray, reduce: str | None, sample_weight: Any) -> Score | np.ndarray:
        """Return the values, or their mean with what it is a mean of."""
        return reduced(values, reduce, sample_weight, degenerate=self.degenerate, removal=self.removal)

    def relative(self) -> Changes:
        """Return changes of probabilities as they are, and those of a regression as shares of its output, at most 1."""
        if not self.is_regression:
            return self
        scale = np.maximum(np.abs(self.full), np.finfo(np.float64).tiny)
        plus, minus = ((change / scale).clip(-1, 1) for change in (self.plus, self.minus))
        return replace(self, plus=plus, minus=minus)


def changes_of(outputs: Outputs, of: str, absolute: bool | None) -> list[np.ndarray]:
    """Return for every part how much less than on the whole graph the model says of the target (n,)."""
    full = outputs.values(outputs.full, of)
    losses = [full - outputs.values(part, of) for part in outputs.parts]
    unsigned = outputs.is_regression if absolute is None else absolute
    return [np.abs(loss) for loss in losses] if unsigned else losses


def removal_for(E: Explanations, selection: str, removal: str | None) -> str:
    """Return how units are taken out: what is given, or the default for the kind of scores and the selection."""
    if selection == "soft" and removal is None and E.kind == "edge":
        return "weight"
    removal = checked_removal(E.kind, removal)
    if selection == "soft" and removal in ("drop", "induced"):
        raise ValueError(
            f"selection='soft' needs removal='weight' (edges) or 'zero' (nodes, features). Got {removal!r}, which "
            "cannot take out a part of a unit."
        )
    return removal


def check_version(of: str) -> None:
    """Raise ValueError unless `of` names a version of fidelity; asked before the model runs."""
    if of not in VERSIONS:
        raise ValueError(f"The 'of' parameter must be one of {VERSIONS}. Got {of!r} instead.")
