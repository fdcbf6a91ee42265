"""Stars whose edges have colours: the label compares how often two of them occur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from sklearn.utils import Bunch, check_random_state
from torch_geometric.data import Data

from skgnnx.datasets.arguments import check_arguments
from skgnnx.graphs import Instances
from skgnnx.validation import Interval


def make_star_graphs(
    *,
    n_graphs: int = 1000,
    n_colours: int = 6,
    min_leaves: int = 6,
    max_leaves: int = 12,
    random_state: int | RandomState | None = None,
    return_X_y: bool = False,
) -> Bunch | tuple[Instances, np.ndarray]:
    """Make the star graphs of GraphMask: the label is 1 if a star has more edges of colour x than of colour y.

    Every graph is a star whose edges, from leaves to the centre, have random colours, and asks about two of them. A
    model has to count both, so all edges of colour x or y are its reason, although few are enough to keep an answer.

    Parameters
    ----------
    n_graphs : int, default=1000
        Graphs, at least 1. In [1]_ there are 10,000 to train on and 500 to explain.
    n_colours : int, default=6
        Colours, at least 2, drawn uniformly for each edge.
    min_leaves, max_leaves : int, default=6 and 12
        Least and most leaves, drawn uniformly; 1 <= `min_leaves` <= `max_leaves`.
    random_state : int, RandomState or None, default=None
        Seed; pass an int for the same graphs again.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch
        ``data`` : Instances, one per graph, with truth of kind "edge": the edges of colour x or y, None where there is
        none.
        ``target`` : labels of shape (n_graphs,); about 38 % are 1.
        ``graphs`` : list of Data. Node 0 is the centre, all features -1; the features of leaves are x and y, one-hot
        side by side; ``edge_type`` are colours and ``y`` is the label.
        ``edge_truth`` : per graph a bool array. ``node_truth`` and ``feature_truth`` are None.
        ``query`` : the colours x and y of each graph, int of shape (n_graphs, 2).
        ``evaluation_index`` : graphs explained, per protocol. "graphmask": all; "all_motif": those with a true edge.
        ``DESCR`` : description.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    References
    ----------
    .. [1] Schlichtkrull, De Cao & Titov, Interpreting graph neural networks for NLP with differentiable edge masking,
       ICLR 2021.

    Examples
    --------
    >>> from skgnnx.datasets import make_star_graphs
    >>> stars = make_star_graphs(n_graphs=3, random_state=0)
    >>> [graph.num_nodes - 1 == graph.num_edges == len(mask) for graph, mask in zip(stars.graphs, stars.edge_truth)]
    [True, True, True]
    """
    name = "make_star_graphs"
    check_arguments(name, n_graphs=(n_graphs, Interval(int, 1)), n_colours=(n_colours, Interval(int, 2)))
    check_arguments(name, min_leaves=(min_leaves, Interval(int, 1)))
    check_arguments(name, max_leaves=(max_leaves, Interval(int, min_leaves)))
    rng = check_random_state(random_state)
    drawn = [_star(n_colours, rng.randint(min_leaves, max_leaves + 1), rng) for _ in range(n_graphs)]
    graphs, edge_truth = [graph for graph, _, _ in drawn], [asked for _, asked, _ in drawn]
    target = np.array([int(graph.y) for graph in graphs])
    truth: dict[str, Sequence[Any]] = {"edge": [mask if mask.any() else None for mask in edge_truth]}
    data = Instances.from_graphs(graphs, truth=truth)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        graphs=graphs,
        node_truth=None,
        edge_truth=edge_truth,
        feature_truth=None,
        query=np.array([query for _, _, query in drawn]),
        evaluation_index={
            "graphmask": np.arange(n_graphs),
            "all_motif": np.flatnonzero([mask.any() for mask in edge_truth]),
        },
        DESCR=_STAR_GRAPHS,
    )


def _star(n_colours: int, n_leaves: int, rng: RandomState) -> tuple[Data, np.ndarray, np.ndarray]:
    colour = rng.randint(n_colours, size=n_leaves)
    query = rng.permutation(n_colours)[:2]
    x = np.zeros((1 + n_leaves, 2, n_colours), dtype=np.float32)
    x[0] = -1
    x[1:, [0, 1], query] = 1
    counts = (colour[:, None] == query).sum(axis=0)
    graph = Data(
        x=torch.from_numpy(x.reshape(1 + n_leaves, -1)),
        edge_index=torch.stack([torch.arange(1, 1 + n_leaves), torch.zeros(n_leaves, dtype=torch.long)]),
        edge_type=torch.from_numpy(colour),
        y=torch.tensor([int(counts[0] > counts[1])]),
    )
    return graph, np.isin(colour, query), query


_STAR_GRAPHS = """Star graphs: does a star have more edges of one colour than of another? Graph classification.

With the defaults six colours, drawn uniformly for each of 6 to 12 edges, all of which run from a leaf to the centre,
node 0. Features of a leaf: the two colours that are asked about, one-hot (12); of the centre: all -1. Label: 1 if the
first occurs more often than the second, 0 also when they are level. Truth: the edges of both colours, a third of all;
about 3 % of the graphs have none.

Generated after the description of Schlichtkrull et al., ICLR 2021.
"""
