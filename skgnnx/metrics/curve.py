"""Fidelity over sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skgnnx.graphs import Explanations, Units, n_kept, units
from skgnnx.metrics.changes import changes_of, check_version
from skgnnx.metrics.reducing import weights_of
from skgnnx.metrics.removal import checked_removal, outputs_of_parts
from skgnnx.metrics.selecting import cut

GRID = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
LEAST_UNITS = 2


def fidelity_curve(
    E: Explanations,
    sparsities: Sequence[float] | None = None,
    *,
    sample_weight: Any = None,
    model: Any = None,
    removal: str | None = None,
    of: str = "probability",
    absolute: bool | None = None,
    confidence: float = 0.95,
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> Bunch:
    """Return Fid+ and Fid- of soft explanations cut at several sparsities.

    Parameters
    ----------
    E : Explanations
        Soft scores; instances with fewer than 2 units, and failed ones, are left out and counted.
    sparsities : sequence of float in [0, 1], default=None
        Shares of the units left out; None means 0.5, 0.55, ..., 0.9, the range of the survey.
    sample_weight : array-like of shape (n,), default=None
        Weights of the instances.
    model, removal, of, absolute
        As in `fidelity_plus`.
    confidence : float in (0, 1), default=0.95
        Coverage of the interval.
    n_bootstrap : int >= 1, default=1000
        Resamples of the instances.
    random_state : int, default=0
        Seed of the resampling.

    Returns
    -------
    Bunch
        ``sparsity`` (achieved, mean over instances: rounding keeps it from what was asked for), ``plus`` and ``minus``:
        arrays of shape (k,). ``low``, ``high``: percentile bootstrap interval over instances, shape (2, k), row 0 for
        ``plus`` and row 1 for ``minus``. ``n``, ``n_skipped``: instances used and left out; ``removal``: how units were
        taken out. All NaN if no instance is left.

    Raises
    ------
    ValueError
        If masks are hard, or a parameter does not fit.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.metrics import fidelity_curve
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> curve = fidelity_curve(SensitivityAnalysis(model, mask="edge").explain(X), [0.5, 0.9])
    >>> curve.plus.shape, curve.low.shape
    ((2,), (2, 2))
    """
    if E.hard:
        raise ValueError(
            "fidelity_curve must have scores to rank. Got a hard mask, which is the same at every sparsity; pass the "
            "explanations from before the selection."
        )
    grid = _checked_grid(sparsities)
    _check_interval(confidence, n_bootstrap)
    check_version(of)
    removal = checked_removal(E.kind, removal)
    weight = weights_of(sample_weight, len(E))
    unit = units(E)
    used = np.flatnonzero(E.ok & (unit.counts >= LEAST_UNITS))
    achieved = np.array([1 - n_kept(unit.counts[used], s) / unit.counts[used] for s in grid])
    plus, minus = _changes(E[used], grid, model, removal, of, absolute)
    values = np.stack([achieved, plus, minus])
    mean, low, high = _bootstrap(values, weight[used], confidence, n_bootstrap, random_state)
    return Bunch(
        sparsity=mean[0],
        plus=mean[1],
        minus=mean[2],
        low=low[1:],
        high=high[1:],
        n=len(used),
        n_skipped=len(E) - len(used),
        removal=removal,
    )


def _changes(
    E: Explanations, grid: Sequence[float], model: Any, removal: str, of: str, absolute: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return Fid+ and Fid- of every instance at every sparsity (k, n); one pass over the batches."""
    unit = units(E)
    parts = [part for sparsity in grid for part in _both_parts(unit, sparsity)]
    rest = [0.0, 1.0] * len(grid)
    found = changes_of(outputs_of_parts(E, parts, unlisted=rest, removal=removal, model=model), of, absolute)
    return np.stack(found[1::2]), np.stack(found[::2])


def _both_parts(unit: Units, sparsity: float) -> tuple[np.ndarray, np.ndarray]:
    is_unit = unit.of_entry >= 0
    kept = cut(unit, sparsity)
    return np.where(is_unit, kept, 1.0), np.where(is_unit, 1.0 - kept, 1.0)


def _bootstrap(
    values: np.ndarray, weight: np.ndarray, confidence: float, n_bootstrap: int, random_state: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weighted mean over the last axis and its percentile interval."""
    if not weight.sum() > 0:
        nothing = np.full(values.shape[:-1], np.nan)
        return nothing, nothing, nothing
    n = len(weight)
    stream = np.random.default_rng(random_state)
    tail = (1 - confidence) / 2
    # counts are stacked: one product with the values makes all means
    drawn = stream.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) * weight
    drawn = drawn[drawn.sum(axis=1) > 0]
    means = (values @ drawn.T) / drawn.sum(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail], axis=-1)
    mean = values @ weight / weight.sum()
    return mean, np.minimum(low, mean), np.maximum(high, mean)  # equal values differ by rounding


def _checked_grid(sparsities: Sequence[float] | None) -> list[float]:
    grid = [float(s) for s in (GRID if sparsities is None else sparsities)]
    if not grid or not all(0 <= s <= 1 for s in grid):
        raise ValueError(f"'sparsities' must hold numbers in the range [0, 1]. Got {grid}.")
    return grid


def _check_interval(confidence: float, n_bootstrap: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"The 'confidence' parameter must be a float in the range (0, 1). Got {confidence!r} instead.")
    if n_bootstrap < 1:
        raise ValueError(
            f"The 'n_bootstrap' parameter must be an int in the range [1, inf). Got {n_bootstrap!r} instead."
        )
