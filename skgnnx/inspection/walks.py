"""Walks over a graph: bent lines, one node per layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from skgnnx.graphs import Explanations
from skgnnx.inspection.colours import NEGATIVE, POSITIVE
from skgnnx.inspection.optional import load

WIDEST = 3.0  # points, of the most relevant walk
ASIDE = (0.08, 0.22)  # of an edge, from where a walk starts to where it ends: steps may stay or return
COLOURS = {True: POSITIVE[-1], False: NEGATIVE[0]}
LABELS = {True: "walk for the target", False: "walk against it"}


def check_walks(E: Explanations) -> None:
    """Raise ValueError if explanations list no walks: those of other methods, or of `GNNLRP` without ``walks``."""
    if "walks" not in E.extras:
        raise ValueError(
            f"'walks' needs explanations that list walks. Got those of {E.explainer or 'an unknown method'} without; "
            "use GNNLRP(model, walks=5)."
        )


def walks_of(E: Explanations, i: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first walks of an instance (K, L + 1), and their relevance (K,); none where it failed."""
    if E.errors[i] is not None:
        return np.zeros((0, 1), dtype=np.int64), np.zeros(0)
    return np.asarray(E.walks[i])[:count], np.asarray(E.walk_scores[i])[:count]


def draw_walks(
    ax: Any, nodes: np.ndarray, place: np.ndarray, unit: float, walks: np.ndarray, scores: np.ndarray
) -> int:
    """Draw walks, each as a line that starts at a dot: its colour is the sign, its width the size of its relevance.

    Parameters
    ----------
    ax : Axes
        Where the graph is drawn.
    nodes : ndarray of shape (n,)
        Ids of the nodes that are drawn; a walk over others is left out.
    place : ndarray of shape (n, 2)
        Where they are.
    unit : float
        Length of an edge.
    walks : ndarray of shape (K, L + 1)
    scores : ndarray of shape (K,)

    Returns
    -------
    int
        Number of walks that were drawn.
    """
    patches, paths = (load(f"matplotlib.{name}", "viz", "Pictures") for name in ("patches", "path"))
    order = np.argsort(nodes)
    largest = np.abs(scores).max(initial=0) or 1.0
    shown = np.flatnonzero(np.isin(walks, nodes).all(axis=1))
    for k in shown[::-1]:  # the largest on top
        turn = 2 * np.pi * k / len(walks)
        aside = np.linspace(*ASIDE, walks.shape[1])[:, None] * unit * np.array([np.cos(turn), np.sin(turn)])
        points = place[order[np.searchsorted(nodes[order], walks[k])]] + aside
        # corners are rounded: a line goes straight to the middle of a step, and bends around its end to the next
        middles = (points[:-1] + points[1:]) / 2
        bends = np.stack([points[1:-1], middles[1:]], axis=1).reshape(-1, 2)
        codes = [paths.Path.MOVETO, paths.Path.LINETO, *[paths.Path.CURVE3] * len(bends), paths.Path.LINETO]
        line = paths.Path(np.concatenate([points[:1], middles[:1], bends, points[-1:]]), codes)
        colour, width = COLOURS[bool(scores[k] > 0)], 0.8 + (WIDEST - 0.8) * abs(scores[k]) / largest
        style = {"edgecolor": colour, "linewidth": width, "capstyle": "round", "joinstyle": "round"}
        ax.add_patch(patches.PathPatch(line, fill=False, alpha=0.75, zorder=5, gid=f"walk {k}", **style))
        dot = patches.Circle(points[0], 0.07 * unit, facecolor=colour, edgecolor="white", linewidth=0.4, zorder=5.1)
        dot.set_gid(f"start {k}")
        ax.add_patch(dot)
    return len(shown)


def legend_entries(scores: list[np.ndarray]) -> list[Any]:
    """Return lines that say what the colours of walks are, of those that there are."""
    lines = load("matplotlib.lines", "viz", "Pictures")
    signs = {bool(value > 0) for part in scores for value in part}
    return [
        lines.Line2D([], [], color=COLOURS[sign], lw=2.5, label=LABELS[sign]) for sign in (True, False) if sign in signs
    ]
