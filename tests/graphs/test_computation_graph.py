"""Computation graphs against a breadth-first search over sets."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgnnx import Instances
from skgnnx.graphs import computation_graph
from skgnnx.graphs.computation_graph import receptive_fields, whole_graphs
from skgnnx.testing import strategies


def naive(data, roots, hops, ring, both_ways, excluded=()):
    """Levels of nodes and edges: the number of messages to the nearest root."""
    pairs = [tuple(pair) for pair in data.edge_index.T.tolist()]
    nodes, edges = dict.fromkeys(roots, 0), {}
    frontier = set(roots)
    for level in range(hops + ring):
        reached = set()
        for number, (source, target) in enumerate(pairs):
            if (source, target) in excluded:
                continue
            ways = [(source, target), (target, source)] if both_ways else [(source, target)]
            for far, near in ways:
                if near in frontier:
                    edges.setdefault(number, level)
                    reached.add(far)
        frontier = {node for node in reached if node not in nodes}
        nodes |= dict.fromkeys(frontier, level + 1)
    return nodes, edges


def check(graphs, i, nodes, edges, hops):
    node, edge = slice(*graphs.node_ptr[i : i + 2]), slice(*graphs.edge_ptr[i : i + 2])
    assert graphs.node_id[node].tolist() == sorted(nodes)
    assert graphs.edge_id[edge].tolist() == sorted(edges)
    assert graphs.node_level[node].tolist() == [nodes[v] for v in sorted(nodes)]
    assert graphs.edge_level[edge].tolist() == [edges[e] for e in sorted(edges)]
    assert graphs.node_reach[node].tolist() == [nodes[v] <= hops for v in sorted(nodes)]
    assert graphs.edge_reach[edge].tolist() == [edges[e] < hops for e in sorted(edges)]


HOW = {"hops": st.integers(0, 3), "ring": st.integers(0, 1), "both_ways": st.booleans()}


@given(strategies.graphs(), st.fixed_dictionaries(HOW), st.data())
def test_nodes(data, how, draw):
    nodes = draw.draw(st.lists(st.integers(0, data.num_nodes - 1), min_size=1, max_size=4))
    X = Instances.from_nodes(data, nodes)
    rows = np.array(draw.draw(st.permutations(range(len(nodes)))))
    graphs = receptive_fields(X, rows, **how)
    for place, row in enumerate(rows):
        check(graphs, place, *naive(data, [nodes[row]], **how), how["hops"])
    part = graphs.take(np.array([len(rows) - 1, 0]))
    check(part, 1, *naive(data, [nodes[rows[0]]], **how), how["hops"])


@given(strategies.graphs(), st.fixed_dictionaries(HOW), st.booleans(), st.data())
def test_links(data, how, exclude, draw):
    node = st.integers(0, data.num_nodes - 1)
    links = draw.draw(st.lists(st.tuples(node, node), min_size=1, max_size=4))
    X = Instances.from_edges(data, torch.tensor(links).T, exclude_link=exclude)
    graphs = receptive_fields(X, np.arange(len(links)), **how)
    whole = whole_graphs(X, np.arange(len(links)))
    for i, (first, second) in enumerate(links):
        excluded = {(first, second), (second, first)} if exclude else ()
        check(graphs, i, *naive(data, [first, second], **how, excluded=excluded), how["hops"])
        kept = [n for n, pair in enumerate(data.edge_index.T.tolist()) if tuple(pair) not in excluded]
        assert whole.edge_id[whole.edge_ptr[i] : whole.edge_ptr[i + 1]].tolist() == kept
    assert whole.node_reach.all()
    assert whole.edge_reach.all()


@given(strategies.graphs(), st.fixed_dictionaries(HOW))
def test_little_scratch_memory_changes_nothing(data, how):
    X = Instances.from_nodes(data)
    rows = np.arange(len(X))
    expected = receptive_fields(X, rows, **how)
    before = computation_graph.SCRATCH_CELLS
    computation_graph.SCRATCH_CELLS = 2 * data.num_nodes
    try:
        got = receptive_fields(X, rows, **how)
    finally:
        computation_graph.SCRATCH_CELLS = before
    for field in ("node_ptr", "node_id", "node_level", "edge_ptr", "edge_id", "edge_level"):
        assert np.array_equal(getattr(got, field), getattr(expected, field))


@given(strategies.graphs(), st.data())
def test_shorter_lists(data, draw):
    X = Instances.from_nodes(data)
    graphs = receptive_fields(X, np.arange(len(X)), 2, 1, False)
    kept = np.array(
        draw.draw(st.lists(st.booleans(), min_size=len(graphs.edge_id), max_size=len(graphs.edge_id))), bool
    )
    shorter = graphs.keep_edges(kept)
    for i in range(len(X)):
        old, new = slice(*graphs.edge_ptr[i : i + 2]), slice(*shorter.edge_ptr[i : i + 2])
        assert shorter.edge_id[new].tolist() == graphs.edge_id[old][kept[old]].tolist()
        assert shorter.edge_level[new].tolist() == graphs.edge_level[old][kept[old]].tolist()
