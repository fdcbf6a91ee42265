"""Overlap of the best units of explanations with what is known to be the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skgnnx.graphs import Explanations, select_top
from skgnnx.graphs.ranking import TIE, TINY
from skgnnx.metrics.reducing import Score, reduced
from skgnnx.metrics.truth import judged

TIES = ("first", "average")


def precision_at_k(
    E: Explanations,
    y: Any = None,
    *,
    reduce: str | None = "mean",
    sample_weight: Any = None,
    model: Any = None,
    k: int | None = None,
    ties: str = "first",
    over: str = "explained",
    include_target: bool = False,
) -> Score | np.ndarray:
    """Return the share of true units among the k best, in [0, 1]; higher is better.

    Instances that failed, or without a true unit, are left out and counted. Of alternatives the best one counts.

    Parameters
    ----------
    E, y, reduce, sample_weight, model, over, include_target
        As in `roc_auc`.
    k : int >= 1, default=None
        None means as many as are true (R-precision, which is then also the recall). Where there are fewer units, all
        are taken.
    ties : {"first", "average"}, default="first"
        Whether scores within 1e-5 relative are ranked by id, as in ``E.top_k``, or in random order, of which the
        expected value is returned.

    Returns
    -------
    float, or ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx.graphs import Entries, Explanations, Instances
    >>> from skgnnx.metrics import precision_at_k
    >>> X = Instances.from_graphs([Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))])
    >>> E = Explanations(X, {"edge": Entries([0, 3], [0, 1, 2], [0.4, 0.7, 0.4])}, "edge", targets=[1])
    >>> truth = [np.array([False, True, True])]
    >>> precision_at_k(E, truth, k=1), precision_at_k(E, truth), precision_at_k(E, truth, ties="average")
    (1.0, 0.5, 0.75)
    """
    _check_k(k, "precision_at_k")
    if ties not in TIES:
        raise ValueError(f"The 'ties' parameter must be one of {TIES}. Got {ties!r} instead.")

    def value(scores: np.ndarray, truth: np.ndarray) -> float:
        size = min(int(truth.sum()) if k is None else k, len(scores))
        if ties == "first":
            return float(truth[select_top(scores, size)].mean())
        return _expected_hits(scores, truth, size) / size

    values = _of_instances(E, y, value, over, include_target)
    return reduced(values, reduce, sample_weight)


def jaccard(
    E: Explanations,
    y: Any = None,
    *,
    reduce: str | None = "mean",
    sample_weight: Any = None,
    model: Any = None,
    k: int | None = None,
    over: str = "explained",
    include_target: bool = False,
) -> Score | np.ndarray:
    r"""Return the overlap of selected and true units, in [0, 1]; higher is better.

    .. math:: \max_T \frac{|S \cap T|}{|S \cup T|}

    over the alternative truths T. Hard masks are taken as they are, of others the k best units are selected. Instances
    that failed, or without a true unit, are left out and counted; they never count as 0.

    Parameters
    ----------
    E, y, reduce, sample_weight, model, over, include_target
        As in `roc_auc`.
    k : int >= 1, default=None
        Units to select of soft scores; None means as many as are true.

    Returns
    -------
    float, or ndarray of shape (n,)

    Notes
    -----
    Agarwal et al., "Evaluating Explainability for Graph Neural Networks", Scientific Data 2023, where it is called GEA
    and counts instances with an empty truth as 0.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx.graphs import Entries, Explanations, Instances
    >>> from skgnnx.metrics import jaccard
    >>> X = Instances.from_graphs([Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))])
    >>> E = Explanations(X, {"edge": Entries([0, 3], [0, 1, 2], [0.1, 0.7, 0.4])}, "edge", targets=[1])
    >>> jaccard(E, [np.array([False, True, False])]), jaccard(E.top_k(2), [np.array([False, True, False])])
    (1.0, 0.5)
    """
    _check_k(k, "jaccard")

    def value(scores: np.ndarray, truth: np.ndarray) -> float:
        selected = scores > 0
        if not E.hard:
            selected = np.zeros(len(scores), dtype=bool)
            selected[select_top(scores, int(truth.sum()) if k is None else k)] = True
        return float((selected & truth).sum() / (selected | truth).sum())

    values = _of_instances(E, y, value, over, include_target)
    return reduced(values, reduce, sample_weight)


def _of_instances(
    E: Explanations, y: Any, value: Callable[[np.ndarray, np.ndarray], float], over: str, include_target: bool
) -> np.ndarray:
    """Return the value of the best alternative with a true unit for every instance, NaN where there is none."""
    values = np.full(len(E), np.nan)
    for i, instance in judged(E, y, over=over, include_target=include_target):
        found = [value(instance.scores, truth) for truth in instance.truths if truth.any()]
        values[i] = max(found, default=np.nan)
    return values


def _expected_hits(scores: np.ndarray, truth: np.ndarray, size: int) -> float:
    """Return how many of the `size` best units are true on average, if tied ones come in random order."""
    order = np.argsort(-scores, kind="stable")
    falling, hit = scores[order], truth[order]
    start = end = 0
    while end < size:  # the last group of ties is the one that the cut goes through
        start = end
        limit = falling[start] - TIE * max(abs(falling[start]), TINY)
        end = int(np.searchsorted(-falling, -limit, side="right"))
    return float(hit[:start].sum() + (size - start) * hit[start:end].mean())


def _check_k(k: int | None, name: str) -> None:
    if k is None:
        return
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(
            f"The 'k' parameter of {name} must be None or an int in the range [1, inf). Got {k!r} instead."
        )
