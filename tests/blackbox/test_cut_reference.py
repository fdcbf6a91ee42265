"""Graphs that no single forward pass fits: the same explanations from cuts, or a clear error."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import ARMAConv, GATConv, GCNConv, GINConv, GraphNorm

from skgnnx import Instances, SensitivityAnalysis, config_context
from skgnnx.blackbox import BlackBox

CONVS = {
    "gin": lambda i, o: GINConv(nn.Linear(i, o)),
    "gat": GATConv,
    "gcn": GCNConv,
    "arma": ARMAConv,
}


SEEN = []  # outside of the model, whose own lists are restored


class Net(nn.Module):
    """Two layers, and what mixes all nodes if asked."""

    def __init__(self, conv, mixes=False):
        super().__init__()
        self.convs = nn.ModuleList([CONVS[conv](3, 6), CONVS[conv](6, 2)])
        self.norm = GraphNorm(3) if mixes else nn.Identity()

    def forward(self, x, edge_index):
        SEEN.append(len(x))
        x = self.norm(x)
        return self.convs[1](self.convs[0](x, edge_index).relu(), edge_index)


def sparse_graph(n=400):
    random = torch.Generator().manual_seed(0)
    edges = torch.stack([torch.arange(1, n), (torch.rand(n - 1, generator=random) * torch.arange(1, n)).long()])
    return Data(x=torch.randn(n, 3, generator=random), edge_index=torch.cat([edges, edges.flip(0)], dim=1))


def network(conv, mixes=False):
    torch.manual_seed(0)
    model = Net(conv, mixes).eval()
    SEEN.clear()
    return model


@pytest.mark.parametrize("conv", CONVS)
def test_predictions_and_masks_equal_those_with_enough_memory(conv):
    model = network(conv)
    X = Instances.from_nodes(sparse_graph(), np.arange(0, 400, 40))
    whole = SensitivityAnalysis(model).explain(X)
    assert max(SEEN) >= 400
    SEEN.clear()
    with config_context(memory_budget=40_000):
        E = SensitivityAnalysis(model).explain(X)
        with BlackBox(model).open(X) as gnn:
            reference = gnn.reference
    assert E.targets.tolist() == whole.targets.tolist()
    for i in range(len(X)):
        np.testing.assert_allclose(E[i], whole[i], atol=1e-6)
    torch.testing.assert_close(reference, model(sparse_graph().x, sparse_graph().edge_index)[X.element[:, 0]])


def test_no_forward_pass_sees_the_whole_graph():
    model = network("gcn")
    X = Instances.from_nodes(sparse_graph(), [390])
    with config_context(memory_budget=20_000):
        SensitivityAnalysis(model).explain(X)
    assert max(SEEN) < 200


def test_a_prediction_that_needs_the_whole_graph_says_so():
    model = network("gin", mixes=True)
    X = Instances.from_nodes(sparse_graph(), [3])
    with (
        config_context(memory_budget=20_000),
        pytest.raises(MemoryError, match="whole graph.*needed about.*memory_budget"),
    ):
        SensitivityAnalysis(model).explain(X)
