"""Batches in another order: what is near comes first, and nothing else changes."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgnnx import Instances
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import receptive_fields
from skgnnx.graphs.unions import by_distance
from skgnnx.testing import strategies


def ordered(X, hops, ring, both_ways):
    rows = np.arange(len(X))
    batch = GraphBatch(X, rows, receptive_fields(X, rows, hops, ring, both_ways), np.zeros(len(X), dtype=int))
    return batch, *by_distance(batch)


@given(strategies.graphs(edge_input="edge_attr"), st.integers(0, 3), st.integers(0, 1), st.booleans(), st.booleans())
def test_the_same_batch_with_what_is_near_first(data, hops, ring, both_ways, links):
    n = data.num_nodes
    pairs = torch.tensor([[0, n - 1, 0], [n - 1, 0, 0]])
    X = Instances.from_edges(data, pairs, target=0) if links else Instances.from_nodes(data)
    batch, near, node_order, edge_order = ordered(X, hops, ring, both_ways)
    assert sorted(node_order.tolist()) == list(range(batch.num_nodes))
    assert sorted(edge_order.tolist()) == list(range(batch.num_edges))
    assert (np.diff(near.graphs.node_level) >= 0).all()
    assert (np.diff(near.graphs.edge_level) >= 0).all()
    for name in ("node_instance", "node_reach"):
        assert torch.equal(getattr(near, name), getattr(batch, name)[node_order])
    for name in ("edge_instance", "edge_reach"):
        assert torch.equal(getattr(near, name), getattr(batch, name)[edge_order])
    assert torch.equal(near.x, batch.x[node_order])
    assert torch.equal(near.attribute("edge_attr"), batch.attribute("edge_attr")[edge_order])
    assert torch.equal(node_order[near.edge_index], batch.edge_index[:, edge_order])
    assert torch.equal(node_order[near.rows], batch.rows)
    assert torch.equal(near.targets, batch.targets)
    # Every explained element stands before all that is not.
    assert (near.graphs.node_level[near.rows.numpy()] == 0).all()


@given(strategies.graphs(), st.integers(1, 3))
def test_the_first_edges_run_between_the_first_nodes(data, hops):
    batch, near, _, edge_order = ordered(Instances.from_nodes(data), hops, 0, False)
    ends, level = near.edge_index.numpy(), near.graphs.edge_level
    for distance in range(1, hops + 1):
        nodes = int((near.graphs.node_level <= distance).sum())
        first = ends[:, : int((level < distance).sum())]
        assert (first < nodes).all()
        # No edge to a node that still needs its sum is missing.
        needed = near.graphs.node_level[ends[1]] < distance
        assert needed.sum() == first.shape[1]
        assert needed[: first.shape[1]].all()
    # Edges that lead to one node keep their order, so that parallel ones stay apart.
    target = batch.edge_index[1][edge_order]
    for node in target.unique():
        assert (edge_order[target == node].diff() > 0).all()


@given(strategies.graphs())
def test_the_batch_itself_stays(data):
    batch, near, *_ = ordered(Instances.from_nodes(data), 2, 1, False)
    again, *_ = ordered(Instances.from_nodes(data), 2, 1, False)
    near.memo["x"] = None
    near.edge_index.fill_(0)
    assert torch.equal(batch.edge_index, again.edge_index)
    assert torch.equal(batch.x, again.x)
    assert batch.edge_id.tolist() == again.edge_id.tolist()
    assert torch.equal(batch.rows, again.rows)
