"""Graphs that no single forward pass fits: the same explanations from cuts, or a clear error."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import ARMAConv, GATConv, GCNConv, GINConv, GraphConv, GraphNorm
from torch_geometric.utils import degree, scatter

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


class Degrees(nn.Module):
    """Looks at edges besides the messages along them."""

    def __init__(self, end, relative):
        super().__init__()
        self.end, self.relative = end, relative
        self.convs = nn.ModuleList([GraphConv(3, 6), GraphConv(6, 2)])

    def forward(self, x, edge_index):
        size = degree(edge_index[self.end], len(x))
        x = x * (size / size.max() if self.relative else size.log1p()).unsqueeze(1)
        return self.convs[1](self.convs[0](x, edge_index).tanh(), edge_index)


class OfNeighbours(nn.Module):
    """Weighs edges by degrees that are farther away than messages go."""

    def __init__(self, conv):
        super().__init__()
        self.convs = nn.ModuleList([conv(3, 6), conv(6, 2)])

    def forward(self, x, edge_index):
        source, target = edge_index
        size = scatter(degree(target, len(x)).sqrt()[source], target, 0, len(x)) + 1
        for conv in self.convs:
            x = conv(x, edge_index, 1 / size[source]).tanh()
        return x


def one_way(n=400):
    data = sparse_graph(n)
    data.edge_index = data.edge_index[:, : n - 1].flip(0)
    return data


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


@pytest.mark.parametrize("data", [one_way(), sparse_graph()], ids=["one way", "both ways"])
def test_edges_that_leave_what_reaches_a_prediction_count_where_the_model_counts_them(data):
    torch.manual_seed(0)
    model, nodes = Degrees(end=0, relative=False).eval(), np.arange(0, 40, 5)
    X = Instances.from_nodes(data, nodes, target=1)
    with pytest.warns(UserWarning, match="whole graph"):
        whole = SensitivityAnalysis(model, output="logits").explain(X)
    with config_context(memory_budget=40_000):
        E = SensitivityAnalysis(model, output="logits").explain(X)
        with BlackBox(model).open(X) as gnn:
            torch.testing.assert_close(gnn.reference, model(data.x, data.edge_index)[nodes])
    for i in range(len(X)):
        np.testing.assert_allclose(E[i], whole[i], atol=1e-6)


@pytest.mark.parametrize("end", [0, 1])
def test_edges_from_everywhere_need_the_whole_graph(end):
    torch.manual_seed(0)
    model, X = Degrees(end, relative=True).eval(), Instances.from_nodes(sparse_graph(), [390])
    with config_context(memory_budget=20_000), pytest.raises(MemoryError, match="whole graph"):
        SensitivityAnalysis(model).explain(X)


@pytest.mark.parametrize("data", [one_way(), sparse_graph()], ids=["one way", "both ways"])
@pytest.mark.parametrize("conv", [GCNConv, GraphConv])
def test_degrees_that_are_felt_from_farther_than_messages_are_true(conv, data):
    torch.manual_seed(0)
    model, nodes = OfNeighbours(conv).eval(), np.arange(0, 40, 5)
    with config_context(memory_budget=40_000), BlackBox(model).open(Instances.from_nodes(data, nodes)) as gnn:
        torch.testing.assert_close(gnn.reference, model(data.x, data.edge_index)[nodes])
