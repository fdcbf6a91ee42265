"""One Barabasi-Albert graph with planted motifs: a node's label is its role in a motif."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from sklearn.utils import Bunch, check_random_state

from skgnnx.datasets.arguments import check_arguments
from skgnnx.datasets.motif_bunch import add_noise, check_planting, node_bunch, places
from skgnnx.datasets.planting import HOUSE, barabasi_albert, plant
from skgnnx.graphs import Instances
from skgnnx.validation import Interval


def make_ba_shapes(
    *,
    n_base: int = 300,
    n_motifs: int = 80,
    m: int = 5,
    noise: float = 0.01,
    attach: str = "spaced",
    truth: str = "own",
    random_state: int | RandomState | None = None,
    return_X_y: bool = False,
) -> Bunch | tuple[Instances, np.ndarray]:
    """Make BA-Shapes: houses joined to a Barabasi-Albert graph; a node's label is its role in a house.

    Labels are 0 in the base, 1 in the middle of a house, 2 at its bottom and 3 at its top. With the
    defaults the graph has the published size: 700 nodes, 2,055 undirected edges, 480 of them in houses.

    Parameters
    ----------
    n_base : int, default=300
        Nodes of the base graph, more than `m`.
    n_motifs : int, default=80
        Houses, at least 1; at most `n_base` if they are spaced.
    m : int, default=5
        Edges that each new node of the base graph brings, at least 1.
    noise : float, default=0.01
        Random edges added between non-adjacent pairs over the whole graph, as a share of the edges, rounded down.
        The code of [1]_ uses 1 %.
    attach : {"spaced", "random"}, default="spaced"
        Where houses hang. "spaced" is that of [1]_: node 0 of house k, one of its middle, at base node
        ``k * (n_base // n_motifs)``. "random": any node of the house at any base node.
    truth : {"own", "any"}, default="own"
        The reason of a node's label: the house it is in, or every house (the reason that some evaluations count, within
        the computation graph of the node).
    random_state : int, RandomState or None, default=None
        Seed; pass an int for the same graph again.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch
        ``data`` : Instances, one per node, with truth of kinds "node" and "edge"; None for nodes of the base.
        ``target`` : labels of shape (n_nodes,).
        ``graph`` : Data with ten constant features ``x`` and labels ``y``.
        ``node_truth``, ``edge_truth`` : bool, in any house; ``feature_truth`` is None.
        ``motif_id``, ``edge_motif_id`` : house of each node and of each edge, -1 outside. The link between a house and
        the base is outside.
        ``evaluation_index`` : nodes explained, per protocol. "gnnexplainer" and "pgexplainer": node 0 of each house
        but those of the first quarter; "all_motif": all nodes of houses.
        ``DESCR`` : description.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    References
    ----------
    .. [1] Ying et al., GNNExplainer: Generating explanations for graph neural networks, NeurIPS 2019.

    Examples
    --------
    >>> from skgnnx.datasets import make_ba_shapes
    >>> shapes = make_ba_shapes(random_state=0)
    >>> shapes.graph.num_nodes, shapes.graph.num_edges // 2, int(shapes.edge_truth.sum()) // 2
    (700, 2055, 480)
    """
    name = "make_ba_shapes"
    check_arguments(name, m=(m, Interval(int, 1)))
    check_arguments(name, n_base=(n_base, Interval(int, m + 1)))
    check_planting(name, n_base, n_motifs, noise, attach, truth)
    rng = check_random_state(random_state)
    base = barabasi_albert(n_base, m, rng)
    anchors, joints = places(n_base, n_motifs, HOUSE, attach, rng)
    planted = add_noise(plant(base, n_base, HOUSE, anchors, joints), noise, rng)
    bunch = node_bunch(planted, truth, _BA_SHAPES)
    first = n_base + len(HOUSE) * np.arange(n_motifs)
    protocol = first[n_motifs // 4 :]
    bunch.evaluation_index = {
        "gnnexplainer": protocol,
        "pgexplainer": protocol,
        "all_motif": np.flatnonzero(planted.node_motif >= 0),
    }
    return (bunch.data, bunch.target) if return_X_y else bunch


_BA_SHAPES = """BA-Shapes: houses on a Barabasi-Albert graph, node classification.

With the defaults 700 nodes and 2,055 undirected edges: 1,475 of the base graph (300 nodes, m=5), 480 in 80 houses, 80
links and 20 random edges. Ten features, all 1. Labels: 0 base, 1 middle, 2 bottom, 3 top of a house. Truth of a node in
a house: the six edges of that house (truth="own") or of every house (truth="any"); never the link.

Generated after the description of Ying et al., NeurIPS 2019; not their published draw.
"""
