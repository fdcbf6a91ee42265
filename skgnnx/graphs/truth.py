"""Ground truth of instances: which edges, nodes or features are known to be the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from skgnnx.graphs.instances import Instances

Truth = dict[str, np.ndarray]
KINDS = ("edge", "node", "feature")


def checked_truth(truth: dict[str, Sequence[Any]] | None, X: Instances) -> Truth | None:
    """Return truth as object arrays of None or tuples of alternative bool arrays.

    Parameters
    ----------
    truth : dict or None
        As given to a constructor of `Instances`.
    X : Instances
        What the truth is about.

    Returns
    -------
    dict or None

    Raises
    ------
    ValueError
        If a kind is unknown or an array has the wrong length; the message names the instance.
    """
    if truth is None:
        return None
    checked = {}
    for kind, values in truth.items():
        if kind not in KINDS:
            raise ValueError(f"The keys of 'truth' must be among {KINDS}. Got {kind!r}.")
        if values is None:
            continue
        if len(values) != len(X):
            raise ValueError(f"truth[{kind!r}] must have one entry per instance ({len(X)}). Got {len(values)}.")
        column = np.empty(len(X), dtype=object)
        for i, value in enumerate(values):
            column[i] = as_alternatives(value, X.num_units(kind, i), f"truth[{kind!r}][{i}]")
        checked[kind] = column
    return checked or None


def as_alternatives(value: Any, length: int, name: str) -> tuple[np.ndarray, ...] | None:
    """Return one truth as a tuple of bool arrays of the given length, or None."""
    if value is None:
        return None
    several = isinstance(value, (list, tuple)) and len(value) > 0 and np.ndim(_plain(value[0])) == 1
    masks = tuple(np.asarray(_plain(mask)) for mask in (value if several else [value]))
    for mask in masks:
        if mask.shape != (length,):
            raise ValueError(f"{name} must be a bool array of shape ({length},). Got shape {mask.shape}.")
        if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
            raise ValueError(f"{name} must be a bool array. Got dtype {mask.dtype}.")
    return tuple(mask.astype(bool) for mask in masks)


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if torch.is_tensor(value) else value
