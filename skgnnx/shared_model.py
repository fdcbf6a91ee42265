"""Estimators around a trained model that clones share and that no parameter reaches into."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import clone

_CARRIED_BY_CLONES = ("_metadata_request", "_sklearn_output_config", "_skl_callbacks")


class SharedModelMixin:
    """Parameters and cloning of an estimator whose `model` is trained already.

    scikit-learn would copy the model with every clone, and let a grid write into a fitted estimator that is given as
    `model`. Here clones refer to the same model, and its parameters are neither listed nor set.
    """

    model: Any

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; those of the model are not among them."""
        model = self.model
        try:
            self.model = None
            params = super().get_params(deep=deep)  # type: ignore[misc]
        finally:
            self.model = model
        return {**params, "model": model}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; those of the model are refused, because the model is fitted and shared."""
        nested = [name for name in params if name.startswith("model__")]
        if nested:
            raise ValueError(
                f"Parameters of the model must be set before it is trained. Got {nested[0]!r} for "
                f"{type(self).__name__}; "
                "tune a model together with its explainer in ExplainedEstimator (estimator__...)."
            )
        return super().set_params(**params)  # type: ignore[misc]

    def __sklearn_clone__(self) -> Self:
        params = {name: value for name, value in self.get_params(deep=False).items() if name != "model"}
        copy = type(self)(model=self.model, **{name: clone(value, safe=False) for name, value in params.items()})  # type: ignore[call-arg]
        for name in _CARRIED_BY_CLONES:
            if name in self.__dict__:
                setattr(copy, name, self.__dict__[name])
        return copy


def shallow_copy(estimator: Any) -> Any:
    """Return a clone that also holds what was learned: parameters may then be set without a change of the original."""
    copy = clone(estimator)
    copy.__dict__.update(estimator.__dict__)
    return copy


def plain_params(estimator: Any) -> dict[str, Any]:
    """Return all parameters but the model, as numbers, strings and sequences of these, or else their repr."""
    params = {name: value for name, value in estimator.get_params(deep=False).items() if name != "model"}
    listed = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in params.items()}
    return {name: value if _is_plain(value) else repr(value) for name, value in listed.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (int, float, str, bool, type(None)))
