"""One picture per axes, with its title, colour bar or error, and a legend for all."""

from __future__ import annotations

from dataclasses import replace
from textwrap import fill
from typing import Any

import numpy as np

from skgnnx.graphs import Explanations
from skgnnx.inspection.colours import INK, TRUTH, colour_scale, draw_colour_bar
from skgnnx.inspection.features import draw_features
from skgnnx.inspection.molecules import BOND, draw_molecule
from skgnnx.inspection.networks import draw_network
from skgnnx.inspection.optional import load
from skgnnx.inspection.scene import Scene, make_scene, thin_out, title_of
from skgnnx.inspection.walks import draw_walks, legend_entries, walks_of

FAILURE = "#b00020"
EXPLAINED = {"node": "explained node", "edge": "ends of the explained link"}


def draw_panels(
    axes: np.ndarray, E: Explanations, inputs: list[tuple[Any, Any]], max_nodes: int, walks: int | None = None
) -> None:
    """Draw every explanation into its axes.

    Parameters
    ----------
    axes : ndarray of Axes
        One for each.
    E : Explanations
        What to draw.
    inputs : list of (molecule or None, names or None)
        What else is known about each.
    max_nodes : int
        Most nodes of a graph that is no molecule.
    walks : int, optional
        Number of walks that are drawn instead of scores.
    """
    label = f"{E.kind} score"
    if E.kind == "node_feature":
        E, label = E.to_kind("node", how="sum"), "node score, summed over features"
    signed = bool((E.stored().values < 0).any())
    if E.kind == "feature":
        for i, ax in enumerate(axes):
            _draw_feature_panel(ax, E, i, inputs[i][1], signed)
        return
    scenes = [make_scene(E, i) for i in range(len(E))]
    shown = [
        scene if molecule is not None else thin_out(scene, max_nodes) for scene, (molecule, _) in zip(scenes, inputs)
    ]
    listed = None if walks is None else [walks_of(E, i, walks) for i in range(len(E))]
    for i, (ax, scene, (molecule, names)) in enumerate(zip(axes, shown, inputs)):
        if listed is None:
            scale = colour_scale(scene.scores, signed)
            _draw_graph(ax, scene, molecule, scale, names)
            if scene.error is None:
                draw_colour_bar(ax, scale, label)
        else:
            scene = replace(scene, node_scores=None, edge_scores=None)
            drawn = _draw_graph(ax, scene, molecule, colour_scale(scene.scores, signed), names)
            count = draw_walks(ax, *drawn, *listed[i])
            ax.set_aspect("equal", adjustable="box")  # no bar of colours keeps a margin free
            if count < len(listed[i][1]):
                ax.set_title(f"{ax.get_title()}\n{count} of {len(listed[i][1])} walks stay on them", fontsize=9)
    entries = [] if listed is None else legend_entries([scores for _, scores in listed])
    _draw_legend(axes, scenes, EXPLAINED.get(E.instances.level, ""), entries)


def _draw_graph(ax: Any, scene: Scene, molecule: Any, scale: Any, names: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw a graph, and return its nodes, where they are, and the length of an edge."""
    if molecule is None:
        nodes, place, unit = scene.nodes, draw_network(ax, scene, scale, names), 1.0
    else:
        place, unit = draw_molecule(ax, molecule, scene, scale, names), BOND
        nodes = np.arange(len(place))
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_axis_off()
    _finish(ax, scene.title, scene.error)
    return nodes, place, unit


def _draw_feature_panel(ax: Any, E: Explanations, i: int, names: Any, signed: bool) -> None:
    title, error = title_of(E, i), E.errors[i]
    if error is None:
        drawn = draw_features(ax, E[i], colour_scale(E[i], signed), names)
        if drawn < len(E[i]):
            title += f"\n{drawn} of {len(E[i])} features shown, the largest scores"
    else:
        ax.set_axis_off()
    _finish(ax, title, error)


def _finish(ax: Any, title: str, error: str | None) -> None:
    ax.set_title(title, fontsize=9)
    if error is not None:
        box = {"facecolor": "white", "edgecolor": FAILURE, "alpha": 0.9, "boxstyle": "round,pad=0.5"}
        style = {"ha": "center", "va": "bottom", "fontsize": 8, "color": FAILURE, "bbox": box, "zorder": 10}
        ax.text(0.5, 0.0, fill(f"Not explained. {error}", 38), transform=ax.transAxes, gid="error", **style)


def _draw_legend(axes: np.ndarray, scenes: list[Scene], explained: str, handles: list[Any]) -> None:
    """Say once what the outline and the star mean, where there are any, besides some other lines."""
    lines = load("matplotlib.lines", "viz", "Pictures")
    if any(scene.has_truth for scene in scenes):
        handles.append(lines.Line2D([], [], color=TRUTH, lw=2.5, label="known reason"))
    if explained:
        style = {"color": "white", "markeredgecolor": INK, "linestyle": "none", "markersize": 11}
        handles.append(lines.Line2D([], [], marker="*", label=explained, **style))
    if not handles:
        return
    options = {"handles": handles, "ncols": 2, "frameon": False, "fontsize": 8}
    figure = axes[0].figure
    if len(figure.axes) == len(axes) and len(axes) > 1 and figure.get_layout_engine() is not None:
        figure.legend(loc="outside lower center", **options)
    else:
        axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), **options)
