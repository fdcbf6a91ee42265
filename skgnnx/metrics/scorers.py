"""Metrics in the form that scikit-learn asks for: ``scorer(estimator, X, y) -> float``, higher is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator

from skgnnx.metrics.areas import average_precision, roc_auc
from skgnnx.metrics.fidelity import characterization, fidelity_delta, fidelity_minus, fidelity_plus
from skgnnx.metrics.overlap import jaccard, precision_at_k
from skgnnx.metrics.shared_explaining import explanations_for
from skgnnx.metrics.size import sparsity

METRICS: dict[str, tuple[Callable[..., Any], bool]] = {
    "average_precision": (average_precision, True),
    "characterization": (characterization, True),
    "fidelity_delta": (fidelity_delta, True),
    "fidelity_plus": (fidelity_plus, True),
    "jaccard": (jaccard, True),
    "neg_fidelity_minus": (fidelity_minus, False),
    "precision_at_k": (precision_at_k, True),
    "roc_auc": (roc_auc, True),
    "sparsity": (sparsity, True),
}


class ExplanationScorer(BaseEstimator):
    """A metric of explanations that explains X first; scorers that are called with the same estimator and X share that.

    Parameters
    ----------
    metric : callable
        ``metric(E, y, **metric_params) -> float``.
    greater_is_better : bool, default=True
        If False, the sign of the metric is changed.
    metric_params : dict, default=None
        Passed on to the metric.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.metrics import get_scorer
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> scorer = get_scorer("neg_fidelity_minus", sparsity=0.5)
    >>> bool(-1 <= scorer(SensitivityAnalysis(model, mask="edge"), X) <= 1)
    True
    """

    def __init__(
        self,
        metric: Callable[..., Any],
        *,
        greater_is_better: bool = True,
        metric_params: dict[str, Any] | None = None,
    ) -> None:
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.metric_params = metric_params

    def __call__(self, estimator: Any, X: Any, y: Any = None, **metadata: Any) -> float:
        """Return the score of the explanations that an estimator gives of X.

        Parameters
        ----------
        estimator : explainer, or pipeline that ends in explanations
            Its `explain` is called, or `transform` where it has none.
        X : Instances, or anything `check_instances` accepts
            What to explain.
        y : list of masks, labels or None, default=None
            Masks are truth; metrics against truth otherwise use the one that travels with X.
        **metadata
            ``sample_weight``, where `set_score_request` asks for it.

        Returns
        -------
        float
        """
        E = explanations_for(self, estimator, X)
        value = self.metric(E, y, **(self.metric_params or {}), **metadata)
        return value if self.greater_is_better else -value

    def score(self, estimator: Any, X: Any, y: Any = None, *, sample_weight: Any = None) -> float:
        """Return the same; scikit-learn reads from this signature what metadata a scorer can ask for."""
        return self(estimator, X, y, sample_weight=sample_weight)

    def _accept_sample_weight(self) -> bool:
        """Return False: without metadata routing, weights given to `fit` are the model's, not the scorer's."""
        return False

    def _routing_repr(self) -> str:
        return repr(self)


def make_explanation_scorer(
    metric: Callable[..., Any], *, greater_is_better: bool = True, **kwargs: Any
) -> ExplanationScorer:
    """Make a scorer of a metric.

    Parameters
    ----------
    metric : callable
        ``metric(E, y, **kwargs) -> float``, such as the metrics of this module.
    greater_is_better : bool, default=True
        If False, the sign of the metric is changed, because scikit-learn maximises.
    **kwargs
        Passed on to the metric.

    Returns
    -------
    ExplanationScorer

    Examples
    --------
    >>> from skgnnx.metrics import make_explanation_scorer, precision_at_k
    >>> make_explanation_scorer(precision_at_k, k=5).metric_params
    {'k': 5}
    """
    if not callable(metric):
        raise TypeError(f"'metric' must be callable. Got {type(metric).__name__}; for a name use get_scorer.")
    return ExplanationScorer(metric, greater_is_better=greater_is_better, metric_params=kwargs)


def get_scorer(name: str, **kwargs: Any) -> ExplanationScorer:
    """Return a new scorer by name.

    Parameters
    ----------
    name : str
        One of `get_scorer_names`; those of which less is better start with ``neg_``.
    **kwargs
        Passed on to the metric, for example ``sparsity=0.8``.

    Returns
    -------
    ExplanationScorer

    Raises
    ------
    ValueError
        If there is no such scorer.

    Examples
    --------
    >>> from skgnnx.metrics import get_scorer
    >>> get_scorer("fidelity_plus", of="accuracy").metric_params
    {'of': 'accuracy'}
    """
    if name not in METRICS:
        hint = f"; use {f'neg_{name}'!r}, because scorers are maximised" if f"neg_{name}" in METRICS else ""
        raise ValueError(f"The name of a scorer must be one of {get_scorer_names()}. Got {name!r}{hint}.")
    metric, greater_is_better = METRICS[name]
    return make_explanation_scorer(metric, greater_is_better=greater_is_better, **kwargs)


def get_scorer_names() -> list[str]:
    """Return the names that `get_scorer` knows, in alphabetical order.

    Examples
    --------
    >>> from skgnnx.metrics import get_scorer_names
    >>> "neg_fidelity_minus" in get_scorer_names()
    True
    """
    return sorted(METRICS)
