"""Node features that are categories: every gradient method scores nodes at the outputs of the embeddings."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GraphConv, global_mean_pool

from skgnnx import GuidedBackprop, InputXGradient, Instances, SensitivityAnalysis
from skgnnx.testing import all_explainers

GRADIENTS = [cls for _, cls in all_explainers({"family": "gradients"}) if "node_feature" in cls.masks_]


class Rest(nn.Module):
    """What comes after the embeddings: a network that takes their outputs side by side."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, edge_index, batch=None):
        return self.model.after(self.model.combined(list(x.split(6, dim=1))), edge_index, batch)


class Molecules(nn.Module):
    """Embeddings of three columns, one of them shared by two, as encoders of atoms have them."""

    def __init__(self, level="graph", conv=GraphConv):
        super().__init__()
        torch.manual_seed(0)
        self.level = level
        self.tables = nn.ModuleList([nn.Embedding(5, 6), nn.Embedding(4, 6)])
        self.bonds = nn.Embedding(3, 1)
        self.conv1, self.conv2, self.out = conv(6, 8), conv(8, 8), nn.Linear(8, 2)

    def columns(self, x):
        return [self.tables[0](x[:, 0].long()), self.tables[1](x[:, 1]), self.tables[1](x[:, 2].clone())]

    def combined(self, parts):
        return parts[0] + parts[1] * parts[2]

    def forward(self, x, edge_index, batch=None):
        return self.after(self.combined(self.columns(x)), edge_index, batch)

    def after(self, h, edge_index, batch):
        h = self.conv1(h, edge_index).relu()
        h = self.conv2(h, edge_index).relu()
        return self.out(global_mean_pool(h, batch) if self.level == "graph" else h)


def graph(seed, n=7, e=16, columns=3):
    random = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, e), generator=random)
    return Data(x=torch.randint(4, (n, columns), generator=random), edge_index=edge_index)


def instances(level, graphs):
    if level == "graph":
        return Instances.from_graphs(graphs, target=1)
    return Instances.from_nodes(graphs[0], [0, 2, 3, 6], target=1)


@pytest.mark.filterwarnings("ignore:.*have no score:UserWarning")
@pytest.mark.parametrize("cls", GRADIENTS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("level", ["graph", "node"])
@pytest.mark.parametrize("conv", [GraphConv, GCNConv])
def test_equals_the_rest_of_the_network_on_embedded_features(cls, level, conv):
    model, graphs = Molecules(level, conv).double().eval(), [graph(seed) for seed in range(3)]
    with torch.no_grad():
        embedded = [Data(x=torch.cat(model.columns(g.x), dim=1), edge_index=g.edge_index) for g in graphs]
    ours = cls(model, mask="node").explain_targets(instances(level, graphs))
    expected = cls(Rest(model), mask="node").explain_targets(instances(level, embedded))
    for target in (0, 1):
        for i in range(len(ours[target])):
            np.testing.assert_allclose(ours[target][i], expected[target][i], rtol=1e-5, atol=1e-8)
            assert np.abs(ours[target][i]).max() > 1e-4


def test_sums_to_the_score_of_a_network_without_biases():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.conv = nn.Embedding(4, 8), GraphConv(8, 2, bias=False)

        def forward(self, x, edge_index):
            return self.conv(self.embedding(x).sum(dim=1).relu(), edge_index)

    model, data = Bare().double(), graph(1)
    E = InputXGradient(model, mask="node").explain(Instances.from_nodes(data, target=0))
    score = model(data.x, data.edge_index)[:, 0].detach().numpy()
    np.testing.assert_allclose([E[i].sum() for i in range(len(E))], score, rtol=1e-6)


def test_embeddings_of_edges_are_left_alone():
    class Bonds(Molecules):
        def forward(self, x, edge_index, bond, batch=None):
            weight = self.bonds(bond).view(-1)
            h = self.conv1(self.combined(self.columns(x)), edge_index, weight).relu()
            return self.out(global_mean_pool(h, batch))

    graphs = [graph(seed) for seed in range(3)]
    for g in graphs:
        g.bond = torch.arange(g.num_edges) % 3
    model = Bonds().double().eval()
    E = InputXGradient(model, mask="node").explain(Instances.from_graphs(graphs, target=0))
    for i, g in enumerate(graphs):
        parts = [part.detach().requires_grad_() for part in model.columns(g.x)]
        h = model.conv1(model.combined(parts), g.edge_index, model.bonds(g.bond).view(-1).detach()).relu()
        gradients = torch.autograd.grad(model.out(h.mean(0))[0], parts)
        expected = sum((p * d).sum(1) for p, d in zip(parts, gradients, strict=True))
        np.testing.assert_allclose(E[i], expected.detach().numpy(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("cls", GRADIENTS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("mask", ["node_feature", "feature"])
def test_categories_have_no_gradient_of_their_own(cls, mask):
    X = instances("graph", [graph(0)])
    with pytest.raises(TypeError, match="floating-point node features.*int64; use mask='node' where embeddings read"):
        cls(Molecules(), mask=mask).explain(X)
    assert np.abs(cls(Molecules(), mask="edge").explain(X)[0]).max() > 0


class Counts(nn.Module):
    """Reads categories without an embedding."""

    def __init__(self):
        super().__init__()
        self.conv, self.table = GraphConv(3, 2), nn.Embedding(4, 3)

    def forward(self, x, edge_index):
        return self.conv((x.float() + self.table(torch.zeros(1, dtype=torch.long))).relu(), edge_index)


class Flat(Counts):
    """Looks all columns up as one long list."""

    def forward(self, x, edge_index):
        return self.conv(self.table(x.view(-1)).view(len(x), -1, 3).sum(1).relu(), edge_index)


@pytest.mark.parametrize("cls", GRADIENTS, ids=lambda cls: cls.__name__)
def test_nodes_that_no_embedding_reads_are_refused(cls):
    X = Instances.from_nodes(graph(0, n=4), [0], target=0)
    with pytest.raises(TypeError, match="nn.Embedding that reads them.*int64.*no such embedding in Counts; use mask="):
        cls(Counts(), mask="node").explain(X)
    with pytest.raises(TypeError, match=r"one row per node .\d here.*from table; use mask='edge'"):
        cls(Flat(), mask="node").explain(X)


def test_nothing_outside_of_the_receptive_field():
    path = Data(x=torch.ones(6, 3, dtype=torch.long), edge_index=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]))
    for cls in (SensitivityAnalysis, GuidedBackprop):
        E = cls(Molecules("node"), mask="node").explain(Instances.from_nodes(path, [5]))
        assert (E[0][:3] == 0).all()
        assert (E[0][3:] != 0).any()
