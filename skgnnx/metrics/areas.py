"""Areas under curves: how well the scores of explanations rank what is known to be the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from skgnnx.graphs import Explanations
from skgnnx.metrics.reducing import Score, reduced, weights_of
from skgnnx.metrics.truth import Judged, judged

AVERAGES = ("instance", "pooled")
Value = Callable[[np.ndarray, np.ndarray], float]


def roc_auc(
    E: Explanations,
    y: Any = None,
    *,
    reduce: str | None = "mean",
    sample_weight: Any = None,
    model: Any = None,
    over: str = "explained",
    include_target: bool = False,
    average: str = "instance",
) -> Score | np.ndarray:
    r"""Return the area under the ROC curve of the scores against truth, in [0, 1]; 0.5 is random, higher is better.

    .. math:: \Pr(s_u > s_v) + \tfrac12 \Pr(s_u = s_v), \quad u \text{ true}, v \text{ not}

    An undirected edge is one unit: scored by the mean of its directions, true if one of them is. Instances that failed,
    have no truth, or whose truth is all or nothing, are left out and counted in ``n_skipped`` of the result. Of
    alternative truths the best one counts.

    Parameters
    ----------
    E : Explanations
        What is evaluated, by its primary mask.
    y : list of bool arrays, or of lists of alternatives, default=None
        Truth in the user's edge, node or feature order, None where unknown. Labels and None mean the truth that
        travels with the instances.
    reduce : {"mean", None}, default="mean"
        None returns one value per instance, NaN where it is left out.
    sample_weight : array-like of shape (n,), default=None
        Weights of the instances.
    model : ignored
        For the sake of one signature.
    over : {"explained", "all"}, default="explained"
        Units of the computation graph, or of the whole graph, where what is out of reach scores 0.
    include_target : bool, default=False
        Whether the explained node, or the ends of the explained link, are among the nodes to be found.
    average : {"instance", "pooled"}, default="instance"
        Mean over instances, or one ranking of the units of all instances (PGExplainer's), whose scores must then be
        comparable. In the latter, instances whose truth is all or nothing take part.

    Returns
    -------
    float, or ndarray of shape (n,)
        NaN if no instance is defined.

    Raises
    ------
    ValueError
        If there is no truth for the kind of scores.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx.graphs import Entries, Explanations, Instances
    >>> from skgnnx.metrics import roc_auc
    >>> X = Instances.from_graphs([Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))])
    >>> E = Explanations(X, {"edge": Entries([0, 3], [0, 1, 2], [0.1, 0.7, 0.4])}, "edge", targets=[1])
    >>> roc_auc(E, [np.array([False, True, False])]), roc_auc(E, [[[1, 0, 0], [0, 0, 1]]])
    (1.0, 0.5)
    """
    options = {"over": over, "include_target": include_target}
    if _is_pooled(average, reduce):
        return _pooled(E, y, roc_auc_score, sample_weight, options)
    return reduced(_of_instances(E, y, _auc_of, options), reduce, sample_weight)


def average_precision(
    E: Explanations,
    y: Any = None,
    *,
    reduce: str | None = "mean",
    sample_weight: Any = None,
    model: Any = None,
    over: str = "explained",
    include_target: bool = False,
    average: str = "instance",
) -> Score | np.ndarray:
    r"""Return the area under the precision-recall steps, in (0, 1]; higher is better.

    .. math:: \sum_k (R_k - R_{k-1}) P_k

    over the distinct scores from the highest on. Random scores get the share of true units.

    Parameters
    ----------
    E, y, reduce, sample_weight, model, over, include_target, average
        As in `roc_auc`.

    Returns
    -------
    float, or ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx.graphs import Entries, Explanations, Instances
    >>> from skgnnx.metrics import average_precision
    >>> X = Instances.from_graphs([Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))])
    >>> E = Explanations(X, {"edge": Entries([0, 3], [0, 1, 2], [0.1, 0.7, 0.4])}, "edge", targets=[1])
    >>> average_precision(E, [np.array([False, False, True])])
    0.5
    """
    options = {"over": over, "include_target": include_target}
    if _is_pooled(average, reduce):
        return _pooled(E, y, average_precision_score, sample_weight, options)
    return reduced(_of_instances(E, y, _precision_of, options), reduce, sample_weight)


def _auc_of(scores: np.ndarray, truth: np.ndarray) -> float:
    true = int(truth.sum())
    below = rankdata(scores)[truth].sum() - true * (true + 1) / 2
    return float(below / (true * (len(truth) - true)))


def _precision_of(scores: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # tied units come in together
    return float((np.diff(hits[last], prepend=0) * hits[last] / (last + 1)).sum() / hits[-1])


def _best(instance: Judged, value: Value) -> tuple[float, int]:
    """Return the best value over the alternatives with units of both classes, NaN if there is none, and which it is."""
    values = [value(instance.scores, t) if 0 < t.sum() < len(t) else np.nan for t in instance.truths]
    if np.isnan(values).all():
        return np.nan, 0
    best = int(np.nanargmax(values))
    return values[best], best


def _of_instances(E: Explanations, y: Any, value: Value, options: dict[str, Any]) -> np.ndarray:
    values = np.full(len(E), np.nan)
    for i, instance in judged(E, y, **options):
        values[i] = _best(instance, value)[0]
    return values


def _is_pooled(average: str, reduce: str | None) -> bool:
    if average not in AVERAGES:
        raise ValueError(f"The 'average' parameter must be one of {AVERAGES}. Got {average!r} instead.")
    if average == "pooled" and reduce is None:
        raise ValueError("reduce=None needs average='instance'. Got average='pooled', which has one value in all.")
    return average == "pooled"


def _pooled(E: Explanations, y: Any, value: Callable[..., float], sample_weight: Any, options: dict[str, Any]) -> Score:
    """Return the value of one ranking of all units."""
    weight = weights_of(sample_weight, len(E))
    parts = [(i, part.scores, part.truths[_best(part, _auc_of)[1]]) for i, part in judged(E, y, **options)]
    parts = [part for part in parts if weight[part[0]] > 0]
    sizes = [len(scores) for _, scores, _ in parts]
    n = len(parts)
    truth = np.concatenate([truth for _, _, truth in parts]) if parts else np.zeros(0, dtype=bool)
    if not 0 < truth.sum() < len(truth):
        return Score(np.nan, n=n, n_skipped=len(E) - n)
    scores = np.concatenate([scores for _, scores, _ in parts])
    weights = np.repeat([weight[i] for i, _, _ in parts], sizes)
    return Score(float(value(truth, scores, sample_weight=weights)), n=n, n_skipped=len(E) - n)
