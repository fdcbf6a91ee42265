"""Colours of scores: one map for scores that cannot be negative, one for those that can, never rescaled in silence."""

from __future__ import annotations

from typing import Any

import numpy as np

from skgnnx.inspection.optional import load

# the strongest colours stay light enough for black letters on top
POSITIVE = ("#ffffff", "#fff0d9", "#ffc375", "#ff8a3c", "#e8502a")
NEGATIVE = ("#3f7fd6", "#74a9ee", "#b3d1f7", "#e3eefc")
TRUTH = "#1b7f3b"
INK = "#222222"
FAINT = "#9a9a9a"


def colour_scale(scores: np.ndarray, signed: bool) -> Any:
    """Return the mappable that colours scores.

    Zero is white. Without signs the scale runs from 0 to the largest score, with signs it is symmetric around 0, so
    that equally strong scores of both signs are equally strong colours.

    Parameters
    ----------
    scores : ndarray
        What will be coloured; finite.
    signed : bool
        Whether scores may be negative.

    Returns
    -------
    ScalarMappable
    """
    colours = load("matplotlib.colors", "viz", "Pictures")
    largest = float(np.abs(scores).max(initial=0)) or 1.0
    if signed:  # an odd number of colours: the one in the middle is white
        colour_map = colours.LinearSegmentedColormap.from_list("signed scores", NEGATIVE + POSITIVE, N=257)
        norm = colours.Normalize(-largest, largest)
    else:
        colour_map = colours.LinearSegmentedColormap.from_list("scores", POSITIVE)
        norm = colours.Normalize(0, largest)
    mappable = load("matplotlib.cm", "viz", "Pictures").ScalarMappable(norm, colour_map)
    mappable.set_array(np.asarray(scores, dtype=float))
    return mappable


def draw_colour_bar(ax: Any, mappable: Any, label: str) -> Any:
    """Draw a bar below an axes whose ticks are the smallest and the largest score, and 0.

    Parameters
    ----------
    ax : Axes
        Where the scores are drawn; it keeps its size.
    mappable : ScalarMappable
        From `colour_scale`.
    label : str
        What the scores are.

    Returns
    -------
    Colorbar
    """
    bar = ax.figure.colorbar(mappable, cax=ax.inset_axes([0.2, -0.05, 0.6, 0.03]), orientation="horizontal")
    scores = np.asarray(mappable.get_array())
    ticks = [float(scores.min()), float(scores.max())] if len(scores) else []
    span = mappable.norm.vmax - mappable.norm.vmin
    kept: list[float] = []
    for tick in [*ticks, 0.0]:  # the range first: 0 is left out where its label would run into another
        if all(abs(tick - other) > 0.18 * span for other in kept):
            kept.append(tick)
    bar.set_ticks(sorted(kept), labels=[f"{tick:.2g}" for tick in sorted(kept)])
    bar.ax.tick_params(labelsize=7, length=2, pad=1.5)
    bar.outline.set_linewidth(0.5)
    bar.set_label(label, fontsize=8, labelpad=1)
    return bar
