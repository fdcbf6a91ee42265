"""Columns of graphs: indices and pairs against plain loops."""

import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch_geometric.data import Data

from skgnnx.graphs.columns import offsets, ranges
from skgnnx.graphs.store import GraphStore
from skgnnx.testing import strategies

GRAPHS = st.lists(strategies.graphs(), min_size=1, max_size=4)


def naive_undirected(pairs):
    plain = [pair for pair in pairs if pair[0] != pair[1]]
    return sorted(plain) == sorted((t, s) for s, t in plain)


@given(GRAPHS)
@example([Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))])  # degrees like both ways
def test_undirected_graphs_and_partners(graphs):
    store = GraphStore.from_graphs(graphs)
    for g, data in enumerate(graphs):
        pairs = [tuple(pair) for pair in data.edge_index.T.tolist()]
        undirected = naive_undirected(pairs)
        assert store.is_undirected(g) == undirected
        partner = store.partner(g)
        assert (
            partner.tolist()
            == (
                store.all_partners[store.edge_ptr[g] : store.edge_ptr[g + 1]]
                - np.where(partner < 0, 0, store.edge_ptr[g])
            ).tolist()
        )
        for edge, (source, target) in enumerate(pairs):
            if source == target:
                assert partner[edge] == -1
            elif not undirected:
                assert partner[edge] == edge
            else:
                other = partner[edge]
                assert partner[other] == edge
                assert pairs[other] == (target, source)
                assert pairs[:edge].count((source, target)) == pairs[:other].count((target, source))


@given(GRAPHS)
def test_edges_by_their_ends(graphs):
    store = GraphStore.from_graphs(graphs)
    source, target = store.global_edges
    for index, near, far in ((store.in_edges, target, source), (store.out_edges, source, target)):
        for node in range(store.total_nodes):
            rows = slice(index.ptr[node], index.ptr[node + 1])
            assert index.edge_id[rows].tolist() == np.flatnonzero(near == node).tolist()
            assert index.far_end[rows].tolist() == far[near == node].tolist()


@given(GRAPHS, st.data())
def test_a_selection_holds_the_selected_graphs(graphs, data):
    for number, graph in enumerate(graphs):
        graph.smiles = str(number)
        graph.u = torch.full((1, 2), float(number))
    store = GraphStore.from_graphs(graphs)
    chosen = data.draw(st.lists(st.integers(0, len(graphs) - 1), min_size=1, max_size=5))
    part = store.select(np.array(chosen))
    assert part.num_graphs == len(chosen)
    for place, g in enumerate(chosen):
        assert torch.equal(part.graph(place).x, graphs[g].x)
        assert torch.equal(part.graph(place).edge_index, graphs[g].edge_index)
        assert part.value(place, "smiles") == str(g)
        assert part.value(place, "u").tolist() == [[g, g]]
        assert part.num_edges(place) == graphs[g].num_edges


def test_edges_as_many_as_nodes_are_told_apart_by_name():
    ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
    graphs = [Data(x=torch.ones(3, 1), edge_index=ring, edge_attr=torch.rand(3, 2)) for _ in range(2)]
    columns = GraphStore.from_graphs(graphs).columns
    assert (columns["x"].slot, columns["edge_attr"].slot) == ("node", "edge")


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), max_size=5))
def test_ranges_and_offsets(spans):
    expected = [start + step for start, count in spans for step in range(count)]
    assert (
        ranges(np.array([s for s, _ in spans], dtype=int), np.array([c for _, c in spans], dtype=int)).tolist()
        == expected
    )
    assert offsets(c for _, c in spans).tolist() == [sum(c for _, c in spans[:i]) for i in range(len(spans) + 1)]
