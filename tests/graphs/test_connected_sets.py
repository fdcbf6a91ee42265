"""Components, degrees and distances of sets of nodes are those that networkx finds."""

import networkx as nx
import numpy as np
import pytest

from skgnnx.graphs import connected_sets
from skgnnx.graphs.connected_sets import Connections


def case(seed):
    """Return a random directed graph with loops and repeated edges, the undirected one of networkx, and some sets."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    ends = rng.integers(0, n, (2, int(rng.integers(0, 2 * n))))
    plain = nx.Graph()
    plain.add_nodes_from(range(n))
    plain.add_edges_from((a, b) for a, b in ends.T.tolist() if a != b)
    return Connections(ends, n), plain, rng.random((4, n)) < 0.6


@pytest.mark.parametrize("small", [0, 64])
@pytest.mark.parametrize("seed", range(20))
def test_sets_are_looked_at_as_by_networkx(seed, small, monkeypatch):
    monkeypatch.setattr(connected_sets, "SMALL", small)
    connections, plain, sets = case(seed)
    labels, near = connections.components(sets), connections.within(sets, 2)
    for inside, label, reached in zip(sets, labels, near, strict=True):
        members = np.flatnonzero(inside).tolist()
        part = plain.subgraph(members)
        expected = {node: min(component) for component in nx.connected_components(part) for node in component}
        assert label.tolist() == [expected.get(node, -1) for node in plain]
        assert connections.degrees(inside).tolist() == [len(set(plain[node]) & set(members)) for node in plain]
        around = {node for start in members for node in nx.single_source_shortest_path_length(plain, start, cutoff=2)}
        assert set(np.flatnonzero(reached)) == around


@pytest.mark.parametrize("small", [-1, 64])
def test_no_nodes_and_no_sets(small, monkeypatch):
    monkeypatch.setattr(connected_sets, "SMALL", small)
    connections = Connections(np.zeros((2, 0), dtype=int), 0)
    assert connections.components(np.zeros((3, 0), dtype=bool)).shape == (3, 0)
    assert Connections(np.array([[0], [1]]), 2).components(np.zeros((0, 2), dtype=bool)).shape == (0, 2)
