"""Computation graphs against a breadth-first search over sets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgnnx import Instances
from skgnnx.graphs import breadth_first, computation_graph
from skgnnx.graphs.columns import stable_order
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


def check(graphs, i, nodes, edges, hops, data):
    node, edge = slice(*graphs.node_ptr[i : i + 2]), slice(*graphs.edge_ptr[i : i + 2])
    assert graphs.node_id[node].tolist() == sorted(nodes)
    assert graphs.edge_id[edge].tolist() == sorted(edges)
    assert graphs.node_level[node].tolist() == [nodes[v] for v in sorted(nodes)]
    assert graphs.edge_level[edge].tolist() == [edges[e] for e in sorted(edges)]
    assert graphs.node_reach[node].tolist() == [nodes[v] <= hops for v in sorted(nodes)]
    assert graphs.edge_reach[edge].tolist() == [edges[e] < hops for e in sorted(edges)]
    ends = graphs.node_id[node][graphs.ends[:, edge]]
    assert ends.tolist() == data.edge_index[:, sorted(edges)].tolist()


FIELDS = ("node_ptr", "node_id", "node_level", "edge_ptr", "edge_id", "edge_level", "ends")
HOW = {"hops": st.integers(0, 3), "ring": st.integers(0, 1), "both_ways": st.booleans()}


@given(strategies.graphs(), st.fixed_dictionaries(HOW), st.data())
def test_nodes(data, how, draw):
    nodes = draw.draw(st.lists(st.integers(0, data.num_nodes - 1), min_size=1, max_size=4))
    X = Instances.from_nodes(data, nodes)
    rows = np.array(draw.draw(st.permutations(range(len(nodes)))))
    graphs = receptive_fields(X, rows, **how)
    for place, row in enumerate(rows):
        check(graphs, place, *naive(data, [nodes[row]], **how), how["hops"], data)
    part = graphs.take(np.array([len(rows) - 1, 0]))
    check(part, 1, *naive(data, [nodes[rows[0]]], **how), how["hops"], data)


@given(strategies.graphs(), st.fixed_dictionaries(HOW), st.booleans(), st.data())
def test_links(data, how, exclude, draw):
    node = st.integers(0, data.num_nodes - 1)
    links = draw.draw(st.lists(st.tuples(node, node), min_size=1, max_size=4))
    X = Instances.from_edges(data, torch.tensor(links).T, exclude_link=exclude)
    graphs = receptive_fields(X, np.arange(len(links)), **how)
    whole = whole_graphs(X, np.arange(len(links)))
    for i, (first, second) in enumerate(links):
        excluded = {(first, second), (second, first)} if exclude else ()
        check(graphs, i, *naive(data, [first, second], **how, excluded=excluded), how["hops"], data)
        kept = [n for n, pair in enumerate(data.edge_index.T.tolist()) if tuple(pair) not in excluded]
        assert whole.edge_id[whole.edge_ptr[i] : whole.edge_ptr[i + 1]].tolist() == kept
    assert whole.node_reach.all()
    assert whole.edge_reach.all()


@given(st.lists(strategies.graphs(edge_input="edge_attr"), min_size=2, max_size=3), st.fixed_dictionaries(HOW))
def test_nodes_of_several_graphs_never_meet(graphs, how):
    X = Instances.concat([Instances.from_nodes(graph) for graph in graphs])
    rows = np.arange(len(X))[::-1]
    found = receptive_fields(X, rows, **how)
    for place, row in enumerate(rows):
        graph = X.graph_index[row]
        alone = receptive_fields(Instances.from_nodes(graphs[graph], X.element[row]), np.array([0]), **how)
        node, edge = slice(*found.node_ptr[place : place + 2]), slice(*found.edge_ptr[place : place + 2])
        assert np.array_equal(found.node_id[node] - X.store.node_ptr[graph], alone.node_id)
        assert np.array_equal(found.edge_id[edge] - X.store.edge_ptr[graph], alone.edge_id)
        assert np.array_equal(found.ends[:, edge], alone.ends)


@given(strategies.graphs(), st.fixed_dictionaries(HOW), st.integers(1, 3))
def test_cutting_few_instances_at_once_changes_nothing(data, how, group):
    X = Instances.from_nodes(data)
    rows = np.arange(len(X))
    expected = receptive_fields(X, rows, **how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breadth_first, "EDGES_AT_ONCE", 1)
        patch.setattr(computation_graph, "FIRST_GROUP", group)
        got = receptive_fields(X, rows, **how)
    for field in FIELDS:
        assert np.array_equal(getattr(got, field), getattr(expected, field))
        assert getattr(got, field).dtype == getattr(expected, field).dtype


@given(strategies.graphs(), st.fixed_dictionaries(HOW))
def test_ids_too_large_to_be_packed_change_nothing(data, how):
    X = Instances.from_nodes(data)
    rows = np.arange(len(X))
    expected = receptive_fields(X, rows, **how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breadth_first, "stable_order", lambda keys, bound: stable_order(keys, 2**62))
        got = receptive_fields(X, rows, **how)
    for field in FIELDS:
        assert np.array_equal(getattr(got, field), getattr(expected, field))


@given(st.lists(strategies.graphs(edge_input="edge_attr"), min_size=1, max_size=4), st.data())
def test_edges_of_whole_graphs_have_their_own_ends(graphs, draw):
    X = Instances.from_graphs(graphs)
    rows = np.array(draw.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=4)))
    whole = whole_graphs(X, rows)
    for i, row in enumerate(rows):
        ends = whole.ends[:, whole.edge_ptr[i] : whole.edge_ptr[i + 1]]
        assert ends.tolist() == graphs[row].edge_index.tolist()


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


@given(strategies.graphs(), st.fixed_dictionaries(HOW), st.data())
def test_fewer_nodes_keep_the_ends_of_their_edges(data, how, draw):
    X = Instances.from_nodes(data)
    graphs = receptive_fields(X, np.arange(len(X)), **how)
    flags = st.lists(st.booleans(), min_size=len(graphs.node_id), max_size=len(graphs.node_id))
    keep = np.array(draw.draw(flags), bool)
    first = np.repeat(graphs.node_ptr[:-1], np.diff(graphs.edge_ptr))
    fewer = graphs.keep_edges(keep[graphs.ends + first].all(axis=0)).keep_nodes(keep)
    first = np.repeat(fewer.node_ptr[:-1], np.diff(fewer.edge_ptr))
    assert np.array_equal(fewer.node_id[fewer.ends + first], data.edge_index.numpy()[:, fewer.edge_id])


@given(st.lists(st.integers(0, 5), max_size=30), st.sampled_from([1, 2**50, 2**60]))
def test_stable_order_of_keys_of_any_size(keys, factor):
    order, ordered = stable_order(np.array(keys, dtype=np.int64) * factor, 6 * factor)
    assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)
    assert ordered.tolist() == [factor * key for key in sorted(keys)]
