"""Scores of different instances on one scale."""

from __future__ import annotations

from typing import Literal

import numpy as np

from skgnnx.graphs import Entries, Explanations, units
from skgnnx.preprocessing.steps import SelectionStep, step


@step
class Normalize(SelectionStep):
    """Scales the scores of every instance by themselves.

    With scores v of the explained entries of one instance:

    - "max": v / max |v|, "sum": v / sum |v|, "l2": v / sqrt(sum v^2), which keep signs and zeros;
    - "minmax": (v - min v) / (max v - min v), which makes the least important entry 0;
    - "rank": the share of the units that do not score better, from 1 for the best to 1 / n.

    The order of the scores stays. Where the divisor is 0 the scores become 0. All masks are scaled, each on its own;
    loops stay 0, failed instances stay NaN.

    Parameters
    ----------
    how : {"max", "sum", "l2", "minmax", "rank"}, default="max"
        The scale.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.preprocessing import Normalize
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = make_pipeline(SensitivityAnalysis(model), Normalize("minmax")).transform(X)
    >>> [(float(mask.min()), float(mask.max())) for mask in E][:2]
    [(0.0, 1.0), (0.0, 1.0)]
    """

    how: Literal["max", "sum", "l2", "minmax", "rank"] = "max"

    def _transform(self, E: Explanations) -> Explanations:
        masks = {kind: entries.with_values(self._scaled(E, kind, entries)) for kind, entries in E.masks.items()}
        # only these two leave every 0/1 mask 0/1
        return E._with(masks=masks, hard=E.hard and self.how in ("max", "minmax"))

    def _scaled(self, E: Explanations, kind: str, entries: Entries) -> np.ndarray:
        unit = units(E, kind)
        if self.how == "rank":
            share = 1 - unit.rank / np.repeat(np.maximum(unit.counts, 1), unit.counts)
            return unit.spread(share)
        values = entries.values.astype(np.float64)
        is_unit = unit.of_entry >= 0
        instance = np.broadcast_to(entries.rows.reshape(-1, *[1] * (values.ndim - 1)), values.shape)[is_unit]
        scaled = np.where(is_unit, values, 0.0)
        scaled[is_unit] = self._of_groups(values[is_unit], instance, len(E))
        return scaled

    def _of_groups(self, values: np.ndarray, group: np.ndarray, n: int) -> np.ndarray:
        if self.how == "minmax":
            low, high = np.full(n, np.inf), np.full(n, -np.inf)
            np.minimum.at(low, group, values)
            np.maximum.at(high, group, values)
            return _divided(values - low[group], (high - low)[group])
        if self.how == "max":
            largest = np.zeros(n)
            np.maximum.at(largest, group, np.abs(values))
            return _divided(values, largest[group])
        power = 1 if self.how == "sum" else 2
        total = np.bincount(group, weights=np.abs(values) ** power, minlength=n)
        return _divided(values, total[group] ** (1 / power))


def _divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)
