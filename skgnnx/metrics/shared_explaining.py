"""One explain call for all scorers of a fold.

scikit-learn calls scorers one after the other with the same fitted estimator and the same X. The explanations of the
last call are kept with the estimator for as long as it lives, and handed to every scorer once.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from sklearn.base import BaseEstimator

from skgnnx.graphs import Explanations

PLAIN = (str, int, float, bool, bytes, type(None))


@dataclass(eq=False)
class _Kept:
    X: Any
    token: tuple[Any, ...]
    explanations: Explanations
    served: list[weakref.ref[Any]] = field(default_factory=list)

    def is_for(self, X: Any, token: tuple[Any, ...], scorer: Any) -> bool:
        return self.X is X and self.token == token and all(known() is not scorer for known in self.served)


_KEPT: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()


def explanations_for(scorer: Any, estimator: Any, X: Any) -> Explanations:
    """Return explanations of X, from the last call if they are still true and this scorer has not had them.

    Parameters
    ----------
    scorer : object
        Who asks. Asking twice always computes anew, because a change of a network's ``.data`` cannot be seen.
    estimator : explainer, or anything whose `explain` or `transform` returns explanations
        Must be fitted if it has something to learn.
    X : Instances, or anything `check_instances` accepts
        What to explain.

    Returns
    -------
    Explanations

    Raises
    ------
    TypeError
        If the estimator does not return explanations.
    """
    if not _can_be_remembered(estimator):
        return _explain(estimator, X)
    kept = _KEPT.get(estimator)
    if kept is None or not kept.is_for(X, state_token(estimator), scorer):
        # an exception leaves nothing behind: its traceback would hold the estimator for ever
        _KEPT.pop(estimator, None)
        E = _explain(estimator, X)
        kept = _KEPT[estimator] = _Kept(X, state_token(estimator), E)
    kept.served.append(weakref.ref(scorer))
    return kept.explanations


def state_token(estimator: Any) -> tuple[Any, ...]:
    """Return what changes when an estimator does: plain values, identities, and versions of tensors.

    Parameters
    ----------
    estimator : object
        Estimators inside of it (steps of a pipeline, fitted parts) and networks are looked into.

    Returns
    -------
    tuple
    """
    parts: list[Any] = []
    _collect(estimator, parts, set())
    return tuple(parts)


def _collect(value: Any, parts: list[Any], seen: set[int]) -> None:
    if isinstance(value, PLAIN):
        parts.append(value)
        return
    parts.append(id(value))
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.nn.Module):
        for tensor in (*value.parameters(), *value.buffers()):
            parts.append((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version))
    elif isinstance(value, BaseEstimator):
        for name, item in vars(value).items():
            parts.append(name)
            _collect(item, parts, seen)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (BaseEstimator, list, tuple)) for item in value):
        for item in value:
            _collect(item, parts, seen)


def _can_be_remembered(estimator: Any) -> bool:
    try:
        hash(estimator), weakref.ref(estimator)
    except TypeError:
        return False
    return True


def _explain(estimator: Any, X: Any) -> Explanations:
    call = getattr(estimator, "explain", None) or getattr(estimator, "transform", None)
    if call is None:
        raise TypeError(
            f"A scorer of explanations must get an explainer, or a pipeline that ends in explanations. Got "
            f"{type(estimator).__name__}, which has neither explain nor transform."
        )
    E = call(X)
    if not isinstance(E, Explanations):
        raise TypeError(
            f"A scorer of explanations must get an estimator that returns Explanations. Got {type(E).__name__} from "
            f"{type(estimator).__name__}; leave out the steps that make tables of them."
        )
    return E
