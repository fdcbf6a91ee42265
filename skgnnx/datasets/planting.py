"""Plant motifs in a base graph and keep track of which edge belongs to which motif."""

from __future__ import annotations

from dataclasses import dataclass

import networkx
import numpy as np
import torch
from torch_geometric.data import Data

NUM_FEATURES = 10


@dataclass(frozen=True)
class Motif:
    """A small graph whose presence or roles make the labels.

    Parameters
    ----------
    edges : tuple of (int, int)
        Undirected edges between its nodes 0, 1, ...
    roles : tuple of int
        Label of each node.
    """

    edges: tuple[tuple[int, int], ...]
    roles: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.roles)


# roles of the house: 1 in the middle, 2 at the bottom, 3 at the top; its node 0 is one of the middle
HOUSE = Motif(edges=((0, 1), (1, 2), (2, 3), (0, 3), (0, 4), (1, 4)), roles=(1, 1, 2, 2, 3))
FIVE_CYCLE = Motif(edges=((0, 1), (1, 2), (2, 3), (3, 4), (0, 4)), roles=(1, 1, 1, 1, 1))
SIX_CYCLE = Motif(edges=((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)), roles=(1, 1, 1, 1, 1, 1))


@dataclass(frozen=True)
class PlantedGraph:
    """An undirected graph that knows its motifs.

    Parameters
    ----------
    pairs : ndarray of shape (E, 2)
        Undirected edges, smaller id first.
    pair_motif : ndarray of shape (E,)
        Motif of each edge, -1 outside; the link that joins a motif to the base is outside.
    node_motif : ndarray of shape (N,)
        Motif of each node, -1 in the base.
    roles : ndarray of shape (N,)
        Role of each node in its motif, 0 in the base.
    """

    pairs: np.ndarray
    pair_motif: np.ndarray
    node_motif: np.ndarray
    roles: np.ndarray

    def directed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ``edge_index``, both directions sorted by source and target, and the motif of each edge."""
        edge_index = np.concatenate([self.pairs, self.pairs[:, ::-1]]).T
        order = np.lexsort((edge_index[1], edge_index[0]))
        return np.ascontiguousarray(edge_index[:, order]), np.tile(self.pair_motif, 2)[order]


def barabasi_albert(n: int, m: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw a graph of preferential attachment: its (n - m) m undirected edges, smaller id first, sorted."""
    graph = networkx.barabasi_albert_graph(n, m, seed=int(rng.randint(2**31 - 1)))
    return np.unique(np.sort(np.array(graph.edges, dtype=np.int64), axis=1), axis=0)


def binary_tree(height: int) -> np.ndarray:
    """Return the edges of the balanced binary tree, parent first; the children of node v are 2 v + 1 and 2 v + 2."""
    child = np.arange(1, 2 ** (height + 1) - 1)
    return np.stack([(child - 1) // 2, child], axis=1)


def plant(base: np.ndarray, num_base: int, motif: Motif, anchors: np.ndarray, joints: np.ndarray) -> PlantedGraph:
    """Join copies of a motif to a base graph, each by one edge.

    Parameters
    ----------
    base : ndarray of shape (E, 2)
        Undirected edges of the base graph.
    num_base : int
        Its number of nodes; the motifs get the ids that follow.
    motif : Motif
        What to plant.
    anchors : ndarray of shape (K,)
        Base node that each copy is joined to.
    joints : ndarray of shape (K,)
        Node of each copy that carries the link.

    Returns
    -------
    PlantedGraph
    """
    copies = len(anchors)
    first = num_base + len(motif) * np.arange(copies)
    inside = (first[:, None, None] + np.array(motif.edges)).reshape(-1, 2)
    links = np.stack([anchors, first + joints], axis=1)
    outside = np.full(len(base) + copies, -1)
    return PlantedGraph(
        pairs=np.concatenate([base, links, inside]),
        pair_motif=np.concatenate([outside, np.repeat(np.arange(copies), len(motif.edges))]),
        node_motif=np.concatenate([np.full(num_base, -1), np.repeat(np.arange(copies), len(motif))]),
        roles=np.concatenate([np.zeros(num_base, dtype=np.int64), np.tile(motif.roles, copies)]),
    )


def add_random_edges(graph: PlantedGraph, count: int, rng: np.random.RandomState) -> PlantedGraph:
    """Join `count` pairs of nodes that are not neighbours, drawn uniformly over the whole graph.

    Raises
    ------
    ValueError
        If there are fewer such pairs.
    """
    num_nodes = len(graph.node_motif)
    free = num_nodes * (num_nodes - 1) // 2 - len(graph.pairs)
    if count > free:
        raise ValueError(f"'noise' must leave a simple graph: at most {free} edges can be added. Got {count}.")
    taken = set(map(tuple, graph.pairs.tolist()))
    added: list[tuple[int, int]] = []
    while len(added) < count:
        u, v = sorted(rng.randint(num_nodes, size=2).tolist())
        if u != v and (u, v) not in taken:
            taken.add((u, v))
            added.append((u, v))
    return add_links(graph, np.array(added, dtype=np.int64).reshape(-1, 2))


def add_links(graph: PlantedGraph, pairs: np.ndarray) -> PlantedGraph:
    """Join pairs of nodes, smaller id first, by edges that belong to no motif."""
    return PlantedGraph(
        pairs=np.concatenate([graph.pairs, pairs]),
        pair_motif=np.concatenate([graph.pair_motif, np.full(len(pairs), -1)]),
        node_motif=graph.node_motif,
        roles=graph.roles,
    )


def as_data(edge_index: np.ndarray, num_nodes: int, value: float, y: np.ndarray) -> Data:
    """Return a graph whose nodes all have the same ten features, as in the published sets."""
    x = torch.full((num_nodes, NUM_FEATURES), value)
    return Data(x=x, edge_index=torch.from_numpy(edge_index), y=torch.from_numpy(y))
