"""From what a user gives as `model=` to the module that runs."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.base import is_regressor
from sklearn.exceptions import NotFittedError
from torch import nn


def resolve_model(model: Any, *, outputs_only: bool = False) -> Any:
    """Return the network behind a `model=` parameter.

    Parameters
    ----------
    model : nn.Module, fitted estimator with ``module_``, FrozenEstimator around one, or callable
        A callable is accepted only if `outputs_only`.
    outputs_only : bool, default=False
        Whether outputs are all that is needed of the model.

    Returns
    -------
    nn.Module or callable

    Raises
    ------
    TypeError
        If `model` is None, a pipeline, or nothing that can be explained.
    NotFittedError
        If an estimator has no ``module_`` yet.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"'model' must be an nn.Module whose layers run in Python. Got {type(model).__name__}; give the module "
            "that was scripted or traced."
        )
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return resolve_model(model.module)
    if isinstance(model, nn.Module):
        return getattr(model, "_orig_mod", model)
    if hasattr(model, "steps"):
        raise TypeError(
            "'model' must be a network, not a pipeline, whose earlier steps would be skipped. Got Pipeline; use "
            "model=pipe[-1] and explain(pipe[:-1].transform(X))."
        )
    inner = _inside(model)
    if inner is not None:
        return resolve_model(inner, outputs_only=outputs_only)
    if isinstance(getattr(model, "module_", None), nn.Module):
        return resolve_model(model.module_)
    if hasattr(model, "fit") and hasattr(model, "get_params"):
        raise NotFittedError(
            f"'model' must be fitted. Got {type(model).__name__} without a network in 'module_'; call fit first."
        )
    if outputs_only and callable(model) and not isinstance(model, type):
        return model
    wanted = (
        "an nn.Module, a fitted estimator with 'module_', or a callable"
        if outputs_only
        else ("an nn.Module or a fitted estimator with 'module_'")
    )
    raise TypeError(f"'model' must be {wanted}. Got {type(model).__name__}.")


def is_regression(model: Any) -> bool:
    """Return True if the estimator around the network is a regressor."""
    inner = _inside(model)
    if inner is not None:
        return is_regression(inner)
    return not isinstance(model, nn.Module) and hasattr(model, "__sklearn_tags__") and is_regressor(model)


def _inside(model: Any) -> Any:
    """Return the estimator that a frozen estimator or a fitted search holds, None for anything else."""
    if type(model).__name__ == "FrozenEstimator":
        return model.estimator
    return None if isinstance(model, (nn.Module, type)) else getattr(model, "best_estimator_", None)
