"""Many graphs with a planted motif each: the motif makes the label."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from sklearn.utils import Bunch, check_random_state

from skgnnx.datasets.arguments import check_arguments
from skgnnx.datasets.planting import FIVE_CYCLE, HOUSE, Motif, PlantedGraph, as_data, barabasi_albert, plant
from skgnnx.graphs import Instances
from skgnnx.validation import Interval


def make_ba_2motifs(
    *,
    n_graphs: int = 1000,
    n_base: int = 20,
    m: int = 1,
    link: str = "random",
    random_state: int | RandomState | None = None,
    return_X_y: bool = False,
) -> Bunch | tuple[Instances, np.ndarray]:
    """Make BA-2Motifs: graphs with a five-cycle (label 0) or a house (label 1) on a Barabasi-Albert graph.

    With the defaults the size is the published one: 1,000 graphs of 25 nodes, the cycles first. Each motif is joined to
    its base by one edge; in 40 graphs of the published draw that edge is a self loop and the motif lies apart.

    Parameters
    ----------
    n_graphs : int, default=1000
        Graphs, at least 2; the first half, rounded up, have a cycle.
    n_base : int, default=20
        Nodes of each base graph, more than `m`.
    m : int, default=1
        Edges that each new node of the base graph brings, at least 1.
    link : {"random", "published"}, default="random"
        "published": from base node 0 to node 0 of the motif, as in the published graphs; "random": between any two.
    random_state : int, RandomState or None, default=None
        Seed; pass an int for the same graphs again.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch
        ``data`` : Instances, one per graph, with truth of kinds "node" and "edge", the motif without its link.
        ``target`` : labels of shape (n_graphs,).
        ``graphs`` : list of Data with ten constant features ``x`` and the label ``y``.
        ``node_truth``, ``edge_truth`` : per graph a bool array; ``feature_truth`` is None.
        ``motif_id``, ``edge_motif_id`` : per graph an int array, 0 in the motif and -1 outside.
        ``evaluation_index`` : graphs explained, per protocol. "pgexplainer": the first 100; "re_pgexplainer": the first
        100 of each label; "all_motif": all.
        ``DESCR`` : description.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    References
    ----------
    Luo et al., Parameterized explainer for graph neural network, NeurIPS 2020.

    Examples
    --------
    >>> from skgnnx.datasets import make_ba_2motifs
    >>> motifs = make_ba_2motifs(n_graphs=4, random_state=0)
    >>> motifs.target, [int(mask.sum()) // 2 for mask in motifs.edge_truth]
    (array([0, 0, 1, 1]), [5, 5, 6, 6])
    """
    name = "make_ba_2motifs"
    check_arguments(name, n_graphs=(n_graphs, Interval(int, 2)), m=(m, Interval(int, 1)))
    check_arguments(name, n_base=(n_base, Interval(int, m + 1)), link=(link, ("random", "published")))
    rng = check_random_state(random_state)
    target = np.arange(n_graphs) >= (n_graphs + 1) // 2
    planted = [_one_motif(HOUSE if house else FIVE_CYCLE, n_base, m, link, rng) for house in target]
    bunch = _graph_bunch(planted, target.astype(np.int64), _BA_2MOTIFS)
    by_label = [np.flatnonzero(target == label)[:100] for label in (0, 1)]
    bunch.evaluation_index = {
        "pgexplainer": np.arange(min(n_graphs, 100)),
        "re_pgexplainer": np.concatenate(by_label),
        "all_motif": np.arange(n_graphs),
    }
    return (bunch.data, bunch.target) if return_X_y else bunch


def _one_motif(motif: Motif, n_base: int, m: int, link: str, rng: RandomState) -> PlantedGraph:
    base = barabasi_albert(n_base, m, rng)
    anchor, joint = (0, 0) if link == "published" else (rng.randint(n_base), rng.randint(len(motif)))
    return plant(base, n_base, motif, np.array([anchor]), np.array([joint]))


def _graph_bunch(planted: list[PlantedGraph], target: np.ndarray, description: str) -> Bunch:
    edges = [graph.directed() for graph in planted]
    graphs = [
        as_data(edge_index, len(graph.roles), 0.1, label[None].copy())
        for (edge_index, _), graph, label in zip(edges, planted, target)
    ]
    node_truth = [graph.node_motif >= 0 for graph in planted]
    edge_truth = [edge_motif >= 0 for _, edge_motif in edges]
    return Bunch(
        data=Instances.from_graphs(graphs, truth={"node": node_truth, "edge": edge_truth}),
        target=target,
        graphs=graphs,
        node_truth=node_truth,
        edge_truth=edge_truth,
        feature_truth=None,
        motif_id=[graph.node_motif for graph in planted],
        edge_motif_id=[edge_motif for _, edge_motif in edges],
        DESCR=description,
    )


_BA_2MOTIFS = """BA-2Motifs: a five-cycle or a house on a Barabasi-Albert graph, graph classification.

With the defaults 1,000 graphs of 25 nodes (20 in the base, m=1), 25 edges with a cycle (label 0) and 26 with a house
(label 1), 25,500 undirected edges in all, 5,500 of them true. Ten features, all 0.1. Truth: the edges of the motif,
never the link. In 40 graphs of the published draw the motif is not attached; here it always is.

Generated after the description of Luo et al., NeurIPS 2020; not their published draw.
"""
