"""Explanations of held-out instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing

from skgnnx.graphs import Explanations, check_instances
from skgnnx.parallel.parcel import Parcel


def cross_val_explain(
    explainer: Any, X: Any, y: Any = None, *, cv: Any = None, n_jobs: int | None = None
) -> Explanations:
    """Explain every instance by an explainer that was fitted without it.

    Parameters
    ----------
    explainer : BaseExplainer or ExplainedEstimator
        Cloned and fitted in every fold.
    X : Instances, or anything `check_instances` accepts
    y : array-like of length n, optional
        Labels, for estimators that need them and for stratified folds.
    cv : int, splitter or iterable, default=None
        As in scikit-learn; None is 5 folds. Test folds must hold every instance once.
    n_jobs : int or None, default=None
        Folds explained at the same time.

    Returns
    -------
    Explanations
        In the order of `X`.

    Raises
    ------
    ValueError
        If the test folds are no partition of `X`.

    Examples
    --------
    >>> from skgnnx import RandomExplainer, cross_val_explain
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> len(cross_val_explain(RandomExplainer(model), X, cv=2)) == len(X)
    True
    """
    X = check_instances(X)
    folds = list(check_cv(cv, y, classifier=is_classifier(explainer)).split(np.arange(len(X)), y))
    rows = np.concatenate([test for _, test in folds])
    if len(rows) != len(X) or not np.array_equal(np.sort(rows), np.arange(len(X))):
        raise ValueError(
            "The test folds of 'cv' must hold every instance exactly once. Got others; use KFold or GroupKFold."
        )
    parcel = Parcel(([clone(explainer) for _ in folds], X, y)).packed_for(n_jobs)
    parts = Parallel(n_jobs=n_jobs)(delayed(_explain_fold)(parcel, i, *fold) for i, fold in enumerate(folds))
    parts = [part.with_instances(X[test]) for part, (_, test) in zip(parts, folds, strict=True)]
    E = Explanations.concat(parts)[np.argsort(rows)]
    network = getattr(explainer, "network", None)
    return E if network is None else E.with_model(network())


def _explain_fold(parcel: Parcel, fold: int, train: np.ndarray, test: np.ndarray) -> Explanations:
    explainers, X, y = parcel.open()
    explainer = explainers[fold]
    explainer.fit(X[train], None if y is None else _safe_indexing(y, train))
    return explainer.explain(X[test]).without_graphs()
