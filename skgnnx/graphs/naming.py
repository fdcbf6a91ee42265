"""Names of node features, as scikit-learn asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError


def feature_names_out(estimator: Any, input_features: Sequence[str] | None) -> np.ndarray:
    """Return one name per node feature.

    Parameters
    ----------
    estimator : estimator
        Knows the number of features as ``n_features_in_`` once it is fitted.
    input_features : sequence of str, optional
        The user's names of the features. A single name is that of a column that holds graphs, as a `ColumnTransformer`
        passes it, unless there is one feature.

    Returns
    -------
    ndarray of str
        The given names, or ``x0``, ``x1``, ...

    Raises
    ------
    NotFittedError
        If the number is not known yet.
    ValueError
        If there are more or fewer names than features.
    """
    n = getattr(estimator, "n_features_in_", None)
    if n is None:
        raise NotFittedError(
            f"{type(estimator).__name__} must be fitted to know the number of features; call fit first."
        )
    if input_features is None or (len(input_features) == 1 and n != 1):
        return np.asarray([f"x{i}" for i in range(n)], dtype=object)
    if len(input_features) != n:
        raise ValueError(f"'input_features' must hold {n} names, one per node feature. Got {len(input_features)}.")
    return np.asarray(input_features, dtype=object)


def width_of(X: Any, key: str) -> int:
    """Return how many numbers a column of the graphs holds per row, 0 where there is none of this name."""
    column = X.store.columns.get(key)
    return 0 if column is None else int(np.prod(column.values.shape[1:]))
