"""Scores of features, which belong to no place in the graph: bars."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_BARS = 15


def draw_features(ax: Any, scores: np.ndarray, scale: Any, names: Any = None) -> int:
    """Draw a bar per feature, the strongest first.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    scores : ndarray of shape (num_features,)
        What to draw.
    scale : ScalarMappable
        Colours of the scores.
    names : sequence of str, optional
        Names of the features; x0, x1, ... by default.

    Returns
    -------
    int
        Number of bars: at most 15.
    """
    shown = np.argsort(-np.abs(scores), kind="stable")[:MOST_BARS]
    ax.barh(
        np.arange(len(shown)), scores[shown], color=scale.to_rgba(scores[shown]), edgecolor="#666666", linewidth=0.5
    )
    ax.set_yticks(np.arange(len(shown)), [f"x{k}" if names is None else str(names[k]) for k in shown])
    ax.invert_yaxis()
    ax.axvline(0, color="#666666", linewidth=0.5)
    ax.set_xlabel("feature score")
    ax.spines[["top", "right"]].set_visible(False)
    return len(shown)
