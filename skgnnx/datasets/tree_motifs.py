"""One tree with planted motifs: a node's label is whether it lies in a motif."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from sklearn.utils import Bunch, check_random_state

from skgnnx.datasets.arguments import check_arguments
from skgnnx.datasets.motif_bunch import add_noise, check_planting, node_bunch, places
from skgnnx.datasets.planting import SIX_CYCLE, add_links, binary_tree, plant
from skgnnx.graphs import Instances
from skgnnx.validation import Interval


def make_tree_cycles(
    *,
    height: int = 8,
    n_motifs: int = 60,
    second_link: float = 0.5,
    noise: float = 0.01,
    attach: str = "spaced",
    truth: str = "own",
    random_state: int | RandomState | None = None,
    return_X_y: bool = False,
) -> Bunch | tuple[Instances, np.ndarray]:
    """Make Tree-Cycles: six-cycles joined to a balanced binary tree; a node's label is whether it lies in a cycle.

    With the defaults the graph has the published size: 871 nodes and about 970 undirected edges, 360 of them in cycles.

    Parameters
    ----------
    height : int, default=8
        Height of the tree, at least 1; the tree has ``2 ** (height + 1) - 1`` nodes.
    n_motifs : int, default=60
        Cycles, at least 1; at most as many as the tree has nodes if they are spaced.
    second_link : float, default=0.5
        Probability in [0, 1] that a cycle hangs on the tree by two edges; 0.5 in the code of [1]_.
    noise : float, default=0.01
        Random edges added between non-adjacent pairs over the whole graph, as a share of the edges, rounded down.
        The code of [1]_ uses 1 %.
    attach : {"spaced", "random"}, default="spaced"
        Where cycles hang. "spaced" is that of [1]_: node 0 of cycle k at tree node ``t = k * (n_nodes // n_motifs)``,
        and by the second link its node 1, 2 or 3 at tree node t + 1, t + 2 or t + 3. "random": any nodes.
    truth : {"own", "any"}, default="own"
        The reason of a node's label: the cycle it is in, or every cycle.
    random_state : int, RandomState or None, default=None
        Seed; pass an int for the same graph again.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch
        ``data`` : Instances, one per node, with truth of kinds "node" and "edge"; None for nodes of the tree.
        ``target`` : labels of shape (n_nodes,), 0 in the tree and 1 in a cycle.
        ``graph`` : Data with ten constant features ``x`` and labels ``y``.
        ``node_truth``, ``edge_truth`` : bool, in any cycle; ``feature_truth`` is None.
        ``motif_id``, ``edge_motif_id`` : cycle of each node and of each edge, -1 outside. Links are outside.
        ``evaluation_index`` : nodes explained, per protocol. "gnnexplainer" and "pgexplainer": node 0 of each cycle;
        "all_motif": all nodes of cycles.
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
    >>> from skgnnx.datasets import make_tree_cycles
    >>> cycles = make_tree_cycles(random_state=0)
    >>> cycles.graph.num_nodes, int(cycles.edge_truth.sum()) // 2
    (871, 360)
    """
    name = "make_tree_cycles"
    check_arguments(name, height=(height, Interval(int, 1)), second_link=(second_link, Interval(float, 0, 1)))
    n_base = 2 ** (height + 1) - 1
    check_planting(name, n_base, n_motifs, noise, attach, truth)
    rng = check_random_state(random_state)
    anchors, joints = places(n_base, n_motifs, SIX_CYCLE, attach, rng)
    planted = plant(binary_tree(height), n_base, SIX_CYCLE, anchors, joints)
    first = n_base + len(SIX_CYCLE) * np.arange(n_motifs)
    twice = rng.random_sample(n_motifs) < second_link
    if attach == "spaced":
        tree_nodes, own = (anchors + rng.randint(1, 4, n_motifs)) % n_base, rng.randint(1, 4, n_motifs)
    else:
        tree_nodes, own = rng.randint(n_base, size=n_motifs), joints + rng.randint(1, len(SIX_CYCLE), n_motifs)
    links = np.stack([tree_nodes, first + own % len(SIX_CYCLE)], axis=1)
    planted = add_noise(add_links(planted, links[twice]), noise, rng)
    bunch = node_bunch(planted, truth, _TREE_CYCLES)
    bunch.evaluation_index = {
        "gnnexplainer": first,
        "pgexplainer": first,
        "all_motif": np.flatnonzero(planted.node_motif >= 0),
    }
    return (bunch.data, bunch.target) if return_X_y else bunch


_TREE_CYCLES = """Tree-Cycles: six-cycles on a balanced binary tree, node classification.

With the defaults 871 nodes (a tree of height 8 with 511 nodes and 510 edges, 60 cycles of six nodes and six edges), a
link from each cycle to the tree, a second one from about half of them, and 1 % random edges: about 970 undirected
edges. Ten features, all 1. Labels: 0 in the tree, 1 in a cycle. Truth of a node in a cycle: the six edges of that
cycle (truth="own") or of every cycle (truth="any"); never a link.

Generated after the description of Ying et al., NeurIPS 2019; not their published draw.
"""
