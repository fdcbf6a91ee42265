"""What sets of one graph with planted motifs share: their checks, places of motifs, noise, and what is returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.utils import Bunch

from skgnnx.datasets.arguments import check_arguments
from skgnnx.datasets.planting import Motif, PlantedGraph, add_random_edges, as_data
from skgnnx.graphs import Instances
from skgnnx.validation import Interval


def check_planting(function: str, n_base: int, n_motifs: int, noise: float, attach: str, truth: str) -> None:
    """Check the parameters that every set of one graph with motifs has.

    Raises
    ------
    ValueError
        Naming the first one that is out of its range.
    """
    check_arguments(function, n_motifs=(n_motifs, Interval(int, 1)), noise=(noise, Interval(float, 0)))
    check_arguments(function, attach=(attach, ("spaced", "random")), truth=(truth, ("own", "any")))
    if attach == "spaced" and n_motifs > n_base:
        raise ValueError(
            f"'n_motifs' must be at most the number of nodes of the base graph ({n_base}) with attach='spaced'. "
            f"Got {n_motifs}."
        )


def places(n_base: int, n_motifs: int, motif: Motif, attach: str, rng: RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Return the base node that each motif hangs on, and the node of the motif that carries the link."""
    if attach == "spaced":
        return np.arange(n_motifs) * (n_base // n_motifs), np.zeros(n_motifs, dtype=np.int64)
    return rng.randint(n_base, size=n_motifs), rng.randint(len(motif), size=n_motifs)


def add_noise(planted: PlantedGraph, noise: float, rng: RandomState) -> PlantedGraph:
    """Join random pairs over the whole graph, as many as a share of its edges, rounded down."""
    # a share such as 0.29 of 100 is a hair below 29 in floating point
    return add_random_edges(planted, int(noise * len(planted.pairs) + 1e-9), rng)


def node_bunch(planted: PlantedGraph, truth: str, description: str) -> Bunch:
    """Return the graph, its labels and its truth, by node or by all motifs, as the public functions give them."""
    edge_index, edge_motif = planted.directed()
    node_motif, target = planted.node_motif, planted.roles
    graph = as_data(edge_index, len(target), 1.0, target.copy())
    motif_ids = {"node": node_motif, "edge": edge_motif}
    masks: dict[str, Sequence[Any]] = {
        kind: [None if own < 0 else motif_id == own if truth == "own" else motif_id >= 0 for own in node_motif]
        for kind, motif_id in motif_ids.items()
    }
    return Bunch(
        data=Instances.from_nodes(graph, truth=masks),
        target=target,
        graph=graph,
        node_truth=node_motif >= 0,
        edge_truth=edge_motif >= 0,
        feature_truth=None,
        motif_id=node_motif,
        edge_motif_id=edge_motif,
        DESCR=description,
    )
