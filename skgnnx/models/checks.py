"""Checks of what the estimators are given beside graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgnnx.graphs import Instances


def checked_y(y: Any, n: int, owner: str) -> np.ndarray:
    """Return labels or values as an array with one row per instance.

    Parameters
    ----------
    y : array-like or Tensor of shape (n,) or (n, k)
        As the user gave it.
    n : int
        Number of instances.
    owner : str
        Estimator to name in errors.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        If `y` is None or has another length.
    """
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
    array = y.detach().cpu().numpy() if torch.is_tensor(y) else np.asarray(y)
    if array.ndim == 0 or len(array) != n:
        got = "a single value" if array.ndim == 0 else f"{len(array)}"
        raise ValueError(f"y must have one entry per instance ({n}). Got {got}.")
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def checked_weights(sample_weight: Any, n: int) -> np.ndarray:
    """Return one weight per instance as float32; None means one for each, and a bad weight is a ValueError."""
    if sample_weight is None:
        return np.ones(n, dtype=np.float32)
    weights = np.asarray(sample_weight, dtype=np.float32)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError(
            f"'sample_weight' must be {n} finite numbers, none negative and not all 0. Got an array of shape "
            f"{weights.shape}, {weights.min(initial=0):g} to {weights.max(initial=0):g}."
        )
    return weights


def check_columns(output: Tensor, columns: int, what: str) -> None:
    """Raise ValueError unless a network returned as many columns as are to be learned."""
    if output.shape[1] != columns:
        raise ValueError(
            f"The network must return {what} ({columns}). Got {output.shape[1]}; use the second argument of the 'conv' "
            "factory."
        )


def usable_device(name: Any, owner: str) -> torch.device:
    """Return the torch device of this name, or raise ValueError if there is none on this machine."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"The 'device' parameter of {owner} must name a torch device. Got {name!r} instead."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"The 'device' parameter of {owner} must be available. Got {name!r} without CUDA; use 'cpu'.")
    return device


def width(X: Instances, key: str) -> int:
    """Return how many columns the graphs hold under `key`, such as "x" or "edge_attr"; 0 where they hold none."""
    column = X.store.columns.get(key)
    return 0 if column is None else int(np.prod(column.values.shape[1:]))
