"""Units of the edges of a batch are those that selections count, in the same order, and loops besides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from skgnnx import Instances, RandomExplainer
from skgnnx.blackbox import BlackBox
from skgnnx.graphs.edge_units import edge_units
from skgnnx.graphs.selection import units
from skgnnx.testing import example
from skgnnx.testing.networks import Network


def repeated(*, undirected):
    ends = torch.tensor([[3, 0, 2, 2, 0, 3, 1], [0, 1, 1, 2, 1, 0, 2]])
    return Data(
        x=torch.ones(4, 3),
        edge_index=torch.cat([ends, ends.flip(0)[:, [2, 5, 4, 3, 1, 0, 6]]], 1) if undirected else ends,
    )


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("level", ["graph", "node"])
def test_units_are_those_of_selections(level, undirected):
    data, model = repeated(undirected=undirected), Network("graph", level)
    X = Instances.from_graphs([data, data]) if level == "graph" else Instances.from_nodes(data, [0, 2])
    selected = units(RandomExplainer(model).explain(X))
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches(removal=True)
        found = edge_units(batch, batch.edge_reach.numpy(), tie_directions=True)
        alone = edge_units(batch, batch.edge_reach.numpy(), tie_directions=False)
    loops = (batch.edge_index[0] == batch.edge_index[1]).numpy()
    plain = found.of_edge[batch.edge_reach.numpy() & ~loops]
    expected = selected.of_entry[selected.of_entry >= 0]
    assert np.array_equal(np.unique(plain, return_inverse=True)[1], expected)
    of_loops = found.of_edge[batch.edge_reach.numpy() & loops]
    assert len(np.unique(of_loops)) == len(of_loops) > 0
    assert (np.diff(found.ptr) >= selected.counts).all()
    assert found.ptr[-1] == len(selected.score) + len(of_loops)
    assert alone.ptr[-1] == batch.edge_reach.sum()
    assert sorted(alone.of_edge[alone.of_edge >= 0]) == list(range(alone.ptr[-1]))


def test_some_edges_only():
    model, X = example("graph")
    with BlackBox(model).open(X[:2]) as gnn:
        (batch,) = gnn.batches(removal=True)
    some = np.zeros(batch.num_edges, dtype=bool)
    some[[1, 3, -1]] = True
    found = edge_units(batch, some, tie_directions=True)
    assert found.of_edge[some].tolist() == [0, 1, 2]
    assert (found.of_edge[~some] == -1).all()
    assert found.ptr.tolist() == [0, 2, 3]
    assert found.instance.tolist() == [0, 0, 1]
