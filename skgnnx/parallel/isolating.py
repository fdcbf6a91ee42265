"""Finding the instances that a model cannot take, without losing the others."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.exceptions import NotFittedError

from skgnnx.graphs import Entries, Explanations, Instances

ERRORS_OF_INSTANCES = (RuntimeError, ValueError, IndexError, ArithmeticError)


def explain_survivors(explain: Callable[[Instances], Explanations], X: Instances, kind: str) -> Explanations:
    """Explain what can be explained; instances that raise become NaN with their message.

    Halves are tried until the ones that raise are alone, so one bad instance among n costs log n more calls.

    Parameters
    ----------
    explain : callable
        From instances to explanations; raises if one of them is bad.
    X : Instances
        What to explain.
    kind : str
        Primary mask of the result.

    Returns
    -------
    Explanations
        One warning if all of several instances failed, because then something else is wrong.
    """
    E = _explained(explain, X, kind)
    if len(X) > 1 and not E.ok.any():
        warnings.warn(f"All {len(X)} instances failed. The first says: {E.errors[0]}", UserWarning, stacklevel=3)
    return E


def _explained(explain: Callable[[Instances], Explanations], X: Instances, kind: str) -> Explanations:
    try:
        return explain(X)
    except NotFittedError:
        raise
    except ERRORS_OF_INSTANCES as error:
        if len(X) == 1:
            return _failed(X, kind, f"{type(error).__name__}: {error}")
    middle = len(X) // 2
    return Explanations.concat([_explained(explain, part, kind) for part in (X[:middle], X[middle:])])


def _failed(X: Instances, kind: str, message: str) -> Explanations:
    """Return one instance without scores; its target is 0 where only the model could have told it."""
    if kind == "feature":
        empty = Entries(None, None, np.zeros((1, X.num_units("feature", 0)), dtype=np.float32))
    else:
        shape = (0, X.num_units("feature", 0)) if kind == "node_feature" else (0,)
        ids = np.zeros(0, dtype=np.int64)
        empty = Entries(np.zeros(2, dtype=np.int64), ids, np.zeros(shape, dtype=np.float32))
    targets = np.zeros(1, dtype=np.int64) if X.target is None else X.target
    return Explanations(X, {kind: empty}, kind, targets=targets, errors=[message])
