"""What a picture of one explanation shows, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from skgnnx.graphs import Explanations, units
from skgnnx.graphs.instance_array import is_excluded

NOUN = {"graph": "graph", "node": "node", "edge": "link"}


@dataclass(frozen=True, eq=False)
class Scene:
    """The parts of one explained prediction.

    Parameters
    ----------
    title : str
        What was explained.
    error : str or None
        Why it failed; then there are no scores.
    nodes : ndarray of shape (n,)
        Ids of the nodes of the computation graph.
    edges : ndarray of shape (2, m)
        Ends of each unit: the two directions of an undirected edge are one.
    edge_ids : ndarray of shape (m,)
        Edge that stands for each unit.
    directed : bool
        Whether edges have a direction.
    node_scores, edge_scores : ndarray or None
        One score per node, or per edge; None where the explanation holds none.
    true_nodes, true_edges : ndarray of bool
        Known reasons; all False where none is known.
    explained : ndarray of int
        The explained node, the two ends of the explained link, or nothing.
    """

    title: str
    error: str | None
    nodes: np.ndarray
    edges: np.ndarray
    edge_ids: np.ndarray
    directed: bool
    node_scores: np.ndarray | None
    edge_scores: np.ndarray | None
    true_nodes: np.ndarray
    true_edges: np.ndarray
    explained: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """The scores that are drawn; empty if there are none."""
        parts = [values for values in (self.node_scores, self.edge_scores) if values is not None]
        return np.concatenate(parts) if parts else np.zeros(0)

    @property
    def has_truth(self) -> bool:
        """Whether a reason is known."""
        return bool(self.true_nodes.any() or self.true_edges.any())


def title_of(E: Explanations, i: int) -> str:
    """Return the name of an instance and the class or output column that was explained."""
    name = E.ids[i]
    if not isinstance(name, str):
        name = f"{NOUN[E.instances.level]} {name}"
    return f"{name}, target {E.targets[i]}"


def make_scene(E: Explanations, i: int) -> Scene:
    """Collect what the picture of one instance shows.

    Parameters
    ----------
    E : Explanations
        With edge or node scores.
    i : int
        Position of the instance.

    Returns
    -------
    Scene
    """
    E = E[[i]]
    X = E.instances
    nodes = _nodes(E)
    edge_ids = _edges_of_picture(E, nodes)
    graph = int(X.graph_index[0])
    true_nodes, true_edges = _truth(E)
    failed = E.errors[0] is not None
    return Scene(
        title=title_of(E, 0),
        error=E.errors[0],
        nodes=nodes,
        edges=X.store.edges(graph)[:, edge_ids],
        edge_ids=edge_ids,
        directed=not X.store.is_undirected(graph),
        node_scores=None if failed or E.kind == "edge" else E[0][nodes],
        edge_scores=None if failed or E.kind != "edge" else _edge_scores(E)[edge_ids],
        true_nodes=true_nodes[nodes],
        true_edges=true_edges[edge_ids],
        explained=X.element[0],
    )


def thin_out(scene: Scene, max_nodes: int) -> Scene:
    """Keep the nodes with the strongest scores, and say in the title how many there are.

    Parameters
    ----------
    scene : Scene
        From `make_scene`.
    max_nodes : int
        Most nodes to keep; the explained ones stay in any case.

    Returns
    -------
    Scene
        The same one if it is small enough.
    """
    if len(scene.nodes) <= max_nodes:
        return scene
    ranked = [scene.explained]
    if scene.node_scores is not None:
        ranked.append(scene.nodes[np.argsort(-np.abs(scene.node_scores), kind="stable")])
    if scene.edge_scores is not None:
        ranked.append(scene.edges[:, np.argsort(-np.abs(scene.edge_scores), kind="stable")].T.ravel())
    ranked.append(scene.nodes)
    candidates, first = np.unique(np.concatenate(ranked), return_index=True)
    kept = np.sort(candidates[np.argsort(first)][:max_nodes])
    on_node = np.isin(scene.nodes, kept)
    on_edge = np.isin(scene.edges, kept).all(axis=0)
    return replace(
        scene,
        title=f"{scene.title}\n{len(kept):,} of {len(scene.nodes):,} nodes shown, the strongest scores",
        nodes=kept,
        edges=scene.edges[:, on_edge],
        edge_ids=scene.edge_ids[on_edge],
        node_scores=None if scene.node_scores is None else scene.node_scores[on_node],
        edge_scores=None if scene.edge_scores is None else scene.edge_scores[on_edge],
        true_nodes=scene.true_nodes[on_node],
        true_edges=scene.true_edges[on_edge],
    )


def _nodes(E: Explanations) -> np.ndarray:
    """Return the nodes of the computation graph."""
    X = E.instances
    graph = int(X.graph_index[0])
    if X.level == "graph":
        return np.arange(X.store.num_nodes(graph))
    ids, _ = E.entries(0)
    reached = X.store.edges(graph)[:, ids].ravel() if E.kind == "edge" else ids
    return np.union1d(reached, X.element[0])


def _edges_of_picture(E: Explanations, nodes: np.ndarray) -> np.ndarray:
    """Return one edge for each unit: those with a score, or all among the nodes where nodes are scored."""
    X = E.instances
    graph = int(X.graph_index[0])
    ends = X.store.edges(graph)
    if E.kind == "edge" and E.errors[0] is None:
        ids = np.unique(E.entries(0)[0])
    else:
        inside = np.isin(ends, nodes).all(axis=0)
        ids = np.flatnonzero(inside & ~is_excluded(X, np.zeros(ends.shape[1], dtype=np.int64), ends))
    partner = X.store.partner(graph)[ids]
    first = np.where(partner < 0, ids, np.minimum(ids, partner))
    return ids[np.unique(first, return_index=True)[1]]


def _edge_scores(E: Explanations) -> np.ndarray:
    """Return for every edge of the graph the score of its unit; a loop, which is no unit, keeps its own."""
    unit = units(E, "edge")
    ids, values = E.entries(0, "edge")
    scores = np.zeros(E.instances.num_units("edge", 0))
    scores[ids] = np.where(unit.of_entry >= 0, unit.spread(unit.score), values)
    return scores


def _truth(E: Explanations) -> tuple[np.ndarray, np.ndarray]:
    """Return which nodes and which edges are a true reason: of several, the one that fits the scores best."""
    X = E.instances
    masks = {kind: np.zeros(X.num_units(kind, 0), dtype=bool) for kind in ("node", "edge")}
    known = {
        kind: X.truth[kind][0] for kind in masks if X.truth is not None and X.truth.get(kind, [None])[0] is not None
    }
    if known:
        kind = E.kind if E.kind in known else next(iter(known))
        choice = _best_fit(E, kind, known[kind])
        # the alternatives of both kinds are the same ones if there are as many
        masks |= {other: found[choice] for other, found in known.items() if len(found) == len(known[kind])}
    return masks["node"], masks["edge"]


def _best_fit(E: Explanations, kind: str, alternatives: tuple[np.ndarray, ...]) -> int:
    """Return the alternative with the highest ROC-AUC, the first of equals."""
    if E.errors[0] is not None or len(alternatives) == 1:
        return 0
    ids, values = E.to_kind(kind).entries(0)
    ranks = rankdata(values)
    areas = []
    for alternative in alternatives:
        true = alternative[ids]
        inside, outside = int(true.sum()), int((~true).sum())
        surplus = ranks[true].sum() - inside * (inside + 1) / 2
        areas.append(surplus / (inside * outside) if inside and outside else -1.0)
    return int(np.argmax(areas))
