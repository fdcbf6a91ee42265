"""Graphs that are no molecules, laid out by networkx."""

from __future__ import annotations

from collections import Counter
from typing import Any

import networkx as nx
import numpy as np

from skgnnx.inspection.colours import FAINT, INK, TRUTH
from skgnnx.inspection.optional import load
from skgnnx.inspection.scene import Scene

SMALLEST_WITH_TEXT = 9  # points, of a node
MARGIN = 0.12
STAR = 2.0  # size of a star, in nodes
WIDEST = 4.5  # points, of the strongest edge


def draw_network(ax: Any, scene: Scene, scale: Any, labels: Any = None) -> np.ndarray:
    """Draw a graph: scores as colour and width, true nodes and edges outlined, what was explained as a star.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    scene : Scene
        What is shown.
    scale : ScalarMappable
        Colours of the scores.
    labels : sequence of str, optional
        Name of every node of the whole graph; ids by default, left out where they do not fit inside.

    Returns
    -------
    ndarray of shape (num_nodes, 2)
        Where the nodes of the scene are; an edge is about one unit long.
    """
    place = layout(scene)
    size = _node_size(ax, place)
    _draw_edges(ax, scene, scale, place, size)
    _draw_nodes(ax, scene, scale, place, size)
    names = [str(node if labels is None else labels[node]) for node in scene.nodes.tolist()]
    inside = max(map(len, names), default=0) <= 3 and size >= SMALLEST_WITH_TEXT
    if inside or labels is not None:
        _write_names(ax, names, place, size, inside)
    ax.margins(MARGIN)
    return place


def layout(scene: Scene) -> np.ndarray:
    """Return a place for every node, the same in every run; separate parts stand side by side.

    Parameters
    ----------
    scene : Scene
        What is shown.

    Returns
    -------
    ndarray of shape (num_nodes, 2)
        An edge is about one unit long.
    """
    graph = nx.Graph()
    graph.add_nodes_from(scene.nodes.tolist())
    graph.add_edges_from(scene.edges.T.tolist())
    parts = sorted(nx.connected_components(graph), key=lambda part: (-len(part), min(part)))
    blocks = [_layout_of_part(graph.subgraph(sorted(part))) for part in parts]
    widest = max([np.ptp(block, axis=0)[0] for block in blocks] + [np.sqrt(2 * len(graph))], default=0.0)
    corner, row_height = np.zeros(2), 0.0
    place: dict[int, np.ndarray] = {}
    for part, block in zip(parts, blocks):
        extent = np.ptp(block, axis=0)
        if corner[0] > 0 and corner[0] + extent[0] > widest:
            corner, row_height = np.array([0.0, corner[1] - row_height - 1]), 0.0
        shift = corner - [block[:, 0].min(), block[:, 1].max()]
        place.update(zip(sorted(part), block + shift))
        corner += np.array([extent[0] + 1, 0.0])
        row_height = max(row_height, extent[1])
    return np.array([place[node] for node in scene.nodes.tolist()]).reshape(-1, 2)


def _layout_of_part(part: Any) -> np.ndarray:
    start = nx.spring_layout(part, seed=0, iterations=200)
    place = nx.kamada_kawai_layout(part, pos=start) if len(part) > 1 else start
    points = np.array([place[node] for node in sorted(part)])
    lengths = [np.hypot(*(place[u] - place[v])) for u, v in part.edges if u != v]
    return points / np.mean(lengths) if lengths else points


def _node_size(ax: Any, place: np.ndarray) -> float:
    """Return a diameter in points at which most neighbours do not touch."""
    box = ax.get_position()
    room = 72 * np.array([box.width, box.height]) * ax.figure.get_size_inches()
    scale = float((room / (np.ptp(place, axis=0) * (1 + 2 * MARGIN) + 1)).min())
    distance = np.hypot(*(place[:, None] - place).T)
    np.fill_diagonal(distance, 1.0)
    return float(np.clip(0.6 * scale * np.quantile(distance.min(axis=0), 0.25), 4, 15))


def _draw_nodes(ax: Any, scene: Scene, scale: Any, place: np.ndarray, size: float) -> None:
    colours = np.ones((len(place), 4)) if scene.node_scores is None else scale.to_rgba(scene.node_scores)
    starred = np.isin(scene.nodes, scene.explained)
    style = {"edgecolors": INK, "linewidths": 0.7, "zorder": 4}
    for name, rows, marker, width in (("nodes", ~starred, "o", size), ("explained", starred, "*", STAR * size)):
        true = rows & scene.true_nodes
        ring = {"s": (width + 5) ** 2, "color": TRUTH, "zorder": 3, "gid": f"true {name}"}
        ax.scatter(*place[true].T, marker=marker, **ring)
        ax.scatter(*place[rows].T, s=width**2, c=colours[rows], marker=marker, gid=name, **style)


def _write_names(ax: Any, names: list[str], place: np.ndarray, size: float, inside: bool) -> None:
    """Write short names into the nodes, longer ones below them."""
    effects = load("matplotlib.patheffects", "viz", "Pictures")
    halo = [effects.withStroke(linewidth=2, foreground="white")]
    style = {"ha": "center", "va": "center" if inside else "top", "fontsize": 0.5 * size + 1 if inside else 7}
    for name, point in zip(names, place):
        ax.annotate(
            name, point, (0, -0.05 * size if inside else -0.6 * size), textcoords="offset points", color=INK, zorder=6,
            path_effects=[] if inside else halo, **style,
        )  # fmt: skip


def _draw_edges(ax: Any, scene: Scene, scale: Any, place: np.ndarray, size: float) -> None:
    patches = load("matplotlib.patches", "viz", "Pictures")
    rows = np.searchsorted(scene.nodes, scene.edges if scene.directed else np.sort(scene.edges, axis=0))
    scores = np.zeros(rows.shape[1]) if scene.edge_scores is None else scene.edge_scores
    strength = np.abs(scores) / scale.norm.vmax
    colours = scale.to_rgba(scores)
    gap = np.where(np.isin(scene.nodes, scene.explained), 0.4 * STAR, 0.5) * size * scene.directed
    bends = _bends(scene)
    head = "-|>" if scene.directed else "-"
    for k in np.argsort(strength, kind="stable"):
        source, target = rows[:, k]
        width = WIDEST * strength[k]
        true = bool(scene.true_edges[k])
        under = {"color": TRUTH if true else FAINT, "lw": width + (4 if true else 0.9), "zorder": 1}
        over = {"color": colours[k], "lw": width, "zorder": 2, "gid": f"edge {scene.edge_ids[k]}"}
        under["gid"] = f"{'true' if true else 'below'} {over['gid']}"
        for style in (under, over):
            if source == target:
                ax.add_patch(patches.Circle(*_loop(place, source), fill=False, **style))
                continue
            arrow = {
                "arrowstyle": head,
                "mutation_scale": 7 + 1.5 * style["lw"],
                "capstyle": "butt",
                "joinstyle": "miter",
            }
            arrow |= {"connectionstyle": f"arc3,rad={bends[k]}", "shrinkA": gap[source], "shrinkB": gap[target]}
            ax.add_patch(patches.FancyArrowPatch(place[source], place[target], **arrow, **style))


def _bends(scene: Scene) -> list[float]:
    """Return how far each edge bends, so that edges with the same ends do not cover each other."""
    pairs = [tuple(pair) if scene.directed else tuple(sorted(pair)) for pair in scene.edges.T.tolist()]
    total, seen = Counter(pairs), Counter[tuple[int, ...]]()
    bends = []
    for pair in pairs:
        if scene.directed:
            bends.append(0.15 * (seen[pair] + (pair[::-1] in total)))
        else:
            bends.append(0.25 * (seen[pair] - (total[pair] - 1) / 2))
        seen[pair] += 1
    return bends


def _loop(place: np.ndarray, node: int) -> tuple[np.ndarray, float]:
    """Return centre and radius of a circle that touches a node from outside."""
    away = place[node] - place.mean(axis=0)
    length = float(np.hypot(*away))
    away = away / length if length > 1e-9 else np.array([0.0, 1.0])
    return place[node] + 0.22 * away, 0.22
