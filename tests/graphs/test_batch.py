"""Disjoint unions as tensors."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from skgnnx import Instances
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import receptive_fields, whole_graphs
from skgnnx.graphs.unions import shared_graphs, with_split_edges
from skgnnx.testing import strategies

GRAPHS = st.lists(strategies.graphs(edge_input="edge_attr"), min_size=1, max_size=4)


def batch_of(X, rows=None):
    rows = np.arange(len(X)) if rows is None else np.array(rows)
    return GraphBatch(X, rows, whole_graphs(X, rows), np.zeros(len(rows), dtype=int))


@given(GRAPHS)
def test_is_the_batch_that_a_loader_makes(graphs):
    for number, graph in enumerate(graphs):
        graph.u = torch.full((1, 2), float(number))
        graph.smiles = f"s{number}"
        graph.link_index = torch.tensor([[0], [graph.num_nodes - 1]])
    batch = batch_of(Instances.from_graphs(graphs))
    union, expected = batch.to_data(), Batch.from_data_list(graphs)
    for key in ("x", "edge_index", "edge_attr", "u", "batch", "ptr", "link_index"):
        assert torch.equal(union[key], expected[key]), key
    assert union.smiles == expected.smiles
    assert union.num_graphs == expected.num_graphs
    assert union.num_nodes == expected.num_nodes


@given(GRAPHS, st.data())
def test_sums_and_splits_are_per_instance(graphs, data):
    X = Instances.from_graphs(graphs)
    rows = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=4))
    batch = batch_of(X, rows)
    edges, nodes = torch.arange(batch.num_edges).double(), torch.arange(batch.num_nodes).double()
    parts = batch.split(edges, "edge")
    assert [len(part) for part in parts] == [graphs[row].num_edges for row in rows]
    assert batch.sum_edges(edges).tolist() == [float(part.sum()) for part in parts]
    assert batch.sum_nodes(nodes).tolist() == [float(part.sum()) for part in batch.split(nodes, "node")]
    assert batch.edge_id.tolist() == [e for row in rows for e in range(graphs[row].num_edges)]
    part = batch.take(np.array([len(rows) - 1]))
    assert torch.equal(part.x, graphs[rows[-1]].x)
    assert torch.equal(part.edge_index, graphs[rows[-1]].edge_index)


@given(strategies.graphs(), st.data())
def test_edges_and_nodes_can_be_left_out(data, draw):
    X = Instances.from_nodes(data)
    rows = np.arange(len(X))
    batch = GraphBatch(X, rows, receptive_fields(X, rows, 2, 1, False))
    flags = st.lists(st.booleans(), min_size=batch.num_nodes, max_size=batch.num_nodes)
    keep = np.array(draw.draw(flags), dtype=bool)
    smaller = batch.keep_nodes(keep)
    roots = set(batch.rows.tolist())
    kept = [v for v in range(batch.num_nodes) if keep[v] or v in roots]
    assert smaller.node_id.tolist() == batch.node_id[kept].tolist()
    assert smaller.node_id[smaller.rows.numpy()].tolist() == rows.tolist()
    pairs = [(e, s, t) for e, (s, t) in enumerate(batch.edge_index.T.tolist()) if s in kept and t in kept]
    # An explained node that is kept in spite of `keep` keeps its own edges only if both ends were asked for.
    allowed = {v for v in range(batch.num_nodes) if keep[v]} | roots
    expected = [e for e, s, t in pairs if s in allowed and t in allowed]
    assert smaller.edge_id.tolist() == batch.edge_id[expected].tolist()
    ends = smaller.node_id[smaller.edge_index.numpy()]
    assert ends.tolist() == data.edge_index[:, smaller.edge_id].tolist()


@given(strategies.graphs(), st.data())
def test_shared_graphs_hold_each_graph_once(data, draw):
    other = Data(x=torch.ones(3, 3), edge_index=torch.tensor([[0], [1]]))
    parts = [Instances.from_nodes(data), Instances.from_nodes(other)]
    X = Instances.concat(parts)[draw.draw(st.permutations(range(len(parts[0]) + 3)))]
    union = shared_graphs(X, torch.device("cpu"))
    assert union.num_nodes == data.num_nodes + 3
    for row, place in enumerate(union.rows.tolist()):
        expected = [data, other][X.graph_index[row]].x[X.element[row, 0]]
        assert torch.equal(union.x[place], expected)


@given(strategies.graphs())
def test_split_edges_start_at_copies_of_their_nodes(data):
    X = Instances.from_nodes(data)
    rows = np.arange(len(X))
    batch = GraphBatch(X, rows, receptive_fields(X, rows, 2, 0, False))
    edges = batch.edge_index.numpy()
    split = edges.copy()
    split[0] = batch.num_nodes + np.arange(batch.num_edges)
    variant = with_split_edges(batch, split, edges[0])
    assert variant.num_nodes == batch.num_nodes + batch.num_edges
    assert (variant.node_instance.diff() >= 0).all()
    assert torch.equal(variant.x[variant.edge_index[0]], batch.x[batch.edge_index[0]])
    assert torch.equal(variant.x[variant.edge_index[1]], batch.x[batch.edge_index[1]])
    assert torch.equal(variant.node_instance[variant.edge_index[0]], batch.edge_instance)
    assert torch.equal(variant.x[variant.rows], batch.x[batch.rows])
    assert len(variant.ptr) == len(batch) + 1


def test_keys_of_the_user_do_not_meet_those_of_the_library():
    graph = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]), adjacency=torch.full((2, 1), 7.0))
    batch = batch_of(Instances.from_graphs([graph]))
    assert batch.adjacency().layout == torch.sparse_csr
    assert batch.attribute("adjacency").tolist() == [[7.0], [7.0]]
    assert batch.adjacency().layout == torch.sparse_csr
