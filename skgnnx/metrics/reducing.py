"""From one value per instance to one number that says how many instances it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np


class Score(float):
    """A mean over instances that remembers what it is a mean of; everywhere else it is a plain float.

    Parameters
    ----------
    value : float
        The mean, NaN if no instance had a value.
    n : int, default=0
        Instances that had one.
    n_skipped : int, default=0
        Instances that had none: the explanation failed, or the metric is not defined for them.
    n_degenerate : int, default=0
        Instances among the `n` without anything to select, such as a node without edges.
    removal : str or None, default=None
        How units were taken out, for metrics that do so.

    Examples
    --------
    >>> from skgnnx.metrics import Score
    >>> score = Score(0.5, n=8, n_skipped=2)
    >>> score + 1, score.n_skipped
    (1.5, 2)
    """

    n: int
    n_skipped: int
    n_degenerate: int
    removal: str | None

    def __new__(
        cls, value: float, *, n: int = 0, n_skipped: int = 0, n_degenerate: int = 0, removal: str | None = None
    ) -> Score:
        """Make a float and attach what it is a mean of."""
        score = super().__new__(cls, value)
        score.n, score.n_skipped, score.n_degenerate, score.removal = n, n_skipped, n_degenerate, removal
        return score


def reduced(
    values: np.ndarray,
    reduce: str | None,
    sample_weight: Any = None,
    *,
    degenerate: np.ndarray | None = None,
    removal: str | None = None,
) -> Score | np.ndarray:
    """Return the values of all instances, or their mean over those that have one.

    Parameters
    ----------
    values : ndarray of shape (n,)
        NaN where an instance has no value.
    reduce : {"mean", None}
        None returns `values`.
    sample_weight : array-like of shape (n,), default=None
        Weights of the instances, at least 0.
    degenerate : ndarray of bool, shape (n,), default=None
        Instances without anything to select.
    removal : str, default=None
        Recorded in the result.

    Returns
    -------
    Score or ndarray of shape (n,)
    """
    weight = weights_of(sample_weight, len(values))
    if reduce is None:
        return values
    if reduce != "mean":
        raise ValueError(f"The 'reduce' parameter must be 'mean' or None. Got {reduce!r} instead.")
    valid = ~np.isnan(values)
    n = int(valid.sum())
    return Score(
        mean_of(values, weight),
        n=n,
        n_skipped=len(values) - n,
        n_degenerate=0 if degenerate is None else int((degenerate & valid).sum()),
        removal=removal,
    )


def mean_of(values: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted mean of what is not NaN; NaN if nothing is left, or weighs anything."""
    valid = ~np.isnan(values)
    total = weight[valid].sum()
    return float(values[valid] @ weight[valid] / total) if total > 0 else float("nan")


def weights_of(sample_weight: Any, n: int) -> np.ndarray:
    """Return checked weights of `n` instances, ones if None is given."""
    if sample_weight is None:
        return np.ones(n)
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n,):
        raise ValueError(f"'sample_weight' must have one weight per instance ({n}). Got shape {weight.shape}.")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        i = int(np.argmin(np.isfinite(weight) & (weight >= 0)))
        raise ValueError(f"'sample_weight' must be finite and at least 0. Got {weight[i]} at index {i}.")
    return weight
