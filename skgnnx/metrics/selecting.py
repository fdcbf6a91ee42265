"""What of an explanation counts as kept: hard masks as they are, others cut at a sparsity, or as soft weights."""

from __future__ import annotations

import numpy as np

from skgnnx.graphs import Explanations, Units, n_kept

WAYS = ("cut", "soft")
ROUNDING = 1e-6


def kept_and_left_out(
    E: Explanations, unit: Units, *, selection: str = "cut", sparsity: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much of every entry is in the explanation, and how much is in the rest of the graph.

    What is no unit (a self loop) can be neither selected nor taken out: it is in both.

    Parameters
    ----------
    E : Explanations
        What is evaluated.
    unit : Units
        Its units.
    selection : {"cut", "soft"}, default="cut"
        Whether scores are cut to 0 and 1, or are weights m and 1 - m.
    sparsity : float in [0, 1], default=None
        Share of the units that a cut leaves out; None means the one recorded in `E`. Not used for hard masks.

    Returns
    -------
    kept, left_out : ndarray of float, shaped like the stored values
    """
    if selection not in WAYS:
        raise ValueError(f"The 'selection' parameter must be one of {WAYS}. Got {selection!r} instead.")
    is_unit = unit.of_entry >= 0
    values = E.stored().values.astype(np.float64)
    if selection == "soft":
        _check_weights(E, values, is_unit)
        values = values.clip(0, 1)
    elif E.hard:
        values = (values > 0).astype(np.float64)
    else:
        values = cut(unit, E.sparsity if sparsity is None else sparsity)
    return np.where(is_unit, values, 1.0), np.where(is_unit, 1.0 - values, 1.0)


def cut(unit: Units, sparsity: float) -> np.ndarray:
    """Return 1 for every entry whose unit is among those that stay at a sparsity, else 0."""
    return unit.spread(unit.top(n_kept(unit.counts, sparsity)).astype(np.float64))


def _check_weights(E: Explanations, values: np.ndarray, is_unit: np.ndarray) -> None:
    bad = is_unit & ((values < -ROUNDING) | (values > 1 + ROUNDING))
    if not bad.any():
        return
    entry = tuple(np.argwhere(bad)[0])
    raise ValueError(
        f"selection='soft' needs scores in [0, 1]. Got {values[entry]:g} at instance {E.stored().rows[entry[0]]}; use "
        "selection='cut', which cuts scores at a sparsity."
    )
