"""Hard explanations: which units stay at a size, a share or a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from skgnnx.graphs.entries import is_int
from skgnnx.graphs.explanation_array import ExplanationArray
from skgnnx.graphs.ranking import n_kept
from skgnnx.graphs.selection import Units, units

if TYPE_CHECKING:
    from skgnnx.graphs.explanations import Explanations


def keep_top(E: ExplanationArray, k: int) -> Explanations:
    """Keep the `k` best units of every mask and instance; see `Explanations.top_k`."""
    if not is_int(k) or k < 0:
        raise ValueError(f"The 'k' parameter of top_k must be an int in the range [0, inf). Got {k!r} instead.")
    return _cut(E, lambda unit: unit.top(k))


def keep_share(E: ExplanationArray, sparsity: float) -> Explanations:
    """Leave out a share of the units of every mask and instance; see `Explanations.at_sparsity`."""
    return _cut(E, lambda unit: unit.top(n_kept(unit.counts, sparsity)), sparsity=float(sparsity))


def keep_above(E: ExplanationArray, threshold: float) -> Explanations:
    """Keep the units that score above a threshold; see `Explanations.threshold`."""
    if np.ndim(threshold) or not np.isfinite(threshold):
        raise ValueError(f"The 'threshold' parameter of threshold must be a finite number. Got {threshold!r} instead.")
    return _cut(E, lambda unit: unit.score > threshold)


def _cut(E: ExplanationArray, choose: Callable[[Units], np.ndarray], **changes: Any) -> Explanations:
    masks = {}
    for kind, entries in E.masks.items():
        unit = units(E, kind)
        masks[kind] = entries.with_values(unit.spread(choose(unit).astype(np.float32)))
    return E._with(masks=masks, hard=True, **changes)
