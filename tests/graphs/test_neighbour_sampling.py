"""Neighbour sampling against loops that say the rule, and the laws of its draws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from skgnnx import Instances
from skgnnx.graphs.computation_graph import receptive_fields, whole_graphs, whole_graphs_in_groups
from skgnnx.graphs.neighbour_sampling import sample_neighbours, thinned
from skgnnx.testing import strategies


def levels(edges, roots, hops, both_ways):
    """Messages from each node to the nearest root, for nodes that are near enough."""
    level = dict.fromkeys(roots, 0)
    for distance in range(1, hops + 1):
        reached = {s for s, t in edges if level.get(t) == distance - 1}
        reached |= {t for s, t in edges if level.get(s) == distance - 1} if both_ways else set()
        level |= {v: distance for v in reached if v not in level}
    return level


def level_of_edge(edge, level, both_ways):
    source, target = edge
    far = 10**6
    return min(level.get(source, far), level.get(target, far)) if both_ways else level.get(target, far)


def by_hand(edges, roots, draw, max_edges, hops, both_ways):
    """Numbers of the edges that stay, and the level of every node that stays."""
    before = levels(edges, roots, hops, both_ways)
    reaching = [e for e, edge in enumerate(edges) if level_of_edge(edge, before, both_ways) < hops]

    def kept_with(f):
        leading_to = {}
        for e in reaching:
            source, target = edges[e]
            hears = target if before.get(target, 10**6) <= before.get(source, 10**6) or not both_ways else source
            leading_to.setdefault(hears, []).append(e)
        some = [e for group in leading_to.values() for e in sorted(group, key=lambda e: draw[e])[:f]]
        level = levels([edges[e] for e in some], roots, hops, both_ways)
        return [e for e in some if level_of_edge(edges[e], level, both_ways) < hops], level

    for f in range(len(edges) + 1, 0, -1):
        kept, level = kept_with(f)
        if len(kept) <= max_edges:
            break
    else:
        kept = sorted(kept, key=lambda e: (level_of_edge(edges[e], level, both_ways), draw[e]))[:max_edges]
    return sorted(kept), levels([edges[e] for e in kept], roots, hops, both_ways)


def require_rule(data, X, graphs, draw, max_edges, hops, both_ways, roots):
    found = thinned(graphs, draw, max_edges, both_ways)
    edges = list(zip(*data.edge_index.tolist(), strict=True))
    for i in range(len(X)):
        old, new = slice(*graphs.edge_ptr[i : i + 2]), slice(*found.edge_ptr[i : i + 2])
        nodes = slice(*found.node_ptr[i : i + 2])
        of_edge = dict(zip(graphs.edge_id[old].tolist(), draw[old].tolist(), strict=True))
        kept, level = by_hand(edges, roots[i], of_edge, max_edges, hops, both_ways)
        assert found.edge_id[new].tolist() == kept
        assert found.node_id[nodes].tolist() == sorted(level)
        assert found.node_level[nodes].tolist() == [level[v] for v in sorted(level)]
        assert found.edge_level[new].tolist() == [level_of_edge(edges[e], level, both_ways) for e in kept]
        ends = found.node_id[nodes][found.ends[:, new]]
        assert ends.tolist() == [[edges[e][end] for e in kept] for end in (0, 1)]
        assert len(kept) <= max_edges


def drawn(num_edges, seed):
    return np.random.RandomState(seed).permutation(num_edges) / max(num_edges, 1)


class Case:
    """A graph with everything that is awkward about edges, and what is explained in it."""

    def __init__(self, draw):
        self.data = draw(strategies.graphs(min_nodes=1, max_nodes=9))
        n = self.data.num_nodes
        self.nodes = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4))
        self.max_edges, self.seed = draw(st.integers(1, 12)), draw(st.integers(0, 100))
        self.hops, self.both_ways = draw(st.integers(0, 4)), draw(st.booleans())


@given(st.data())
def test_nodes_keep_as_many_edges_as_fit(data):
    case = Case(data.draw)
    X = Instances.from_nodes(case.data, case.nodes)
    graphs = receptive_fields(X, np.arange(len(X)), case.hops, 0, case.both_ways)
    draw = drawn(len(graphs.edge_id), case.seed)
    require_rule(
        case.data, X, graphs, draw, case.max_edges, case.hops, case.both_ways, [[v] for v in X.element[:, 0].tolist()]
    )


@given(st.data())
def test_both_ends_of_links_stay(data):
    case = Case(data.draw)
    pairs = np.array([case.nodes, case.nodes[::-1]])
    X = Instances.from_edges(case.data, pairs)
    graphs = receptive_fields(X, np.arange(len(X)), case.hops, 0, case.both_ways)
    draw = drawn(len(graphs.edge_id), case.seed)
    roots = [list(dict.fromkeys(pair)) for pair in X.element.tolist()]
    require_rule(case.data, X, graphs, draw, case.max_edges, case.hops, case.both_ways, roots)


@given(st.data())
def test_whole_graphs_keep_all_nodes(data):
    case = Case(data.draw)
    X = Instances.from_graphs([case.data])
    graphs = whole_graphs(X, np.arange(1))
    roots = [list(range(case.data.num_nodes))]
    draw = drawn(len(graphs.edge_id), case.seed)
    require_rule(case.data, X, graphs, draw, case.max_edges, 1, False, roots)
    assert len(thinned(graphs, draw, case.max_edges, False).node_id) == case.data.num_nodes


def star(leaves, second=0, seed=0):
    """A node that hears of many others, which hear of some each."""
    random = torch.Generator().manual_seed(seed)
    spokes = torch.stack([torch.arange(1, leaves + 1), torch.zeros(leaves, dtype=torch.long)])
    targets = torch.arange(1, leaves + 1).repeat(second)
    further = torch.stack([torch.randint(leaves + 1, (len(targets),), generator=random), targets])
    x = torch.randn(leaves + 1, 3, generator=random)
    return Data(x=x, edge_index=torch.cat([spokes, further], dim=1))


def kept_of(graphs):
    return [ids.tolist() for ids in np.split(graphs.edge_id, graphs.edge_ptr[1:-1])]


def sample(X, rows, seed=0, max_edges=10, hops=2):
    graphs = receptive_fields(X, rows, hops, 0, False)
    return kept_of(sample_neighbours(X, rows, graphs, max_edges, seed, False))


def test_the_draw_belongs_to_the_instance():
    X = Instances.from_nodes(star(20, second=5), np.arange(8))
    together = sample(X, np.arange(8))
    assert sample(X, np.arange(8)[::-1])[::-1] == together
    assert [sample(X, np.array([i]))[0] for i in range(8)] == together
    assert sample(X[[3, 3]], np.arange(2)) == [together[3]] * 2
    assert sample(X.with_target(np.ones(8, dtype=int)), np.arange(8)) == together, "the class must not matter"
    assert sample(X, np.arange(8), seed=1) != together


def test_the_draw_depends_on_the_content():
    """Two instances alike in all but their features do not lose the same edges."""
    first, second = star(40), star(40, seed=1)
    X = Instances.from_graphs([first, second, first])
    graphs = whole_graphs(X, np.arange(3))
    one, other, again = kept_of(sample_neighbours(X, np.arange(3), graphs, 10, 0, False))
    moved = [edge - 80 for edge in again]
    assert one == moved
    assert one != [edge - 40 for edge in other]


def test_every_neighbour_has_the_same_chance():
    X = Instances.from_nodes(star(20), [0])
    counts = np.bincount(np.concatenate([sample(X, np.arange(1), seed=s, max_edges=5)[0] for s in range(400)]))
    assert len(counts) == 20
    assert np.abs(counts - 100).max() < 4.5 * np.sqrt(400 * 0.25 * 0.75)


@pytest.mark.parametrize("max_edges", [19, 20, 21, 10**12])
def test_what_fits_stays_whole(max_edges):
    X = Instances.from_nodes(star(20), [0])
    (kept,) = sample(X, np.arange(1), max_edges=max_edges)
    assert len(kept) == min(max_edges, 20)


def test_groups_of_whole_graphs_are_all_of_them(monkeypatch):
    X = Instances.from_graphs([star(n) for n in (3, 9, 1, 4, 30, 2)])
    monkeypatch.setattr("skgnnx.graphs.computation_graph.EDGES_AT_ONCE", 2)
    groups = list(whole_graphs_in_groups(X, np.arange(6)[::-1]))
    assert len(groups) > 2
    assert np.array_equal(np.concatenate([rows for rows, _ in groups]), np.arange(6)[::-1])
    for rows, graphs in groups:
        assert kept_of(graphs) == kept_of(whole_graphs(X, rows))
