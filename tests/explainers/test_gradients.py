"""SensitivityAnalysis and InputXGradient against finite differences and the identities of the methods."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, GINConv, GraphConv, SAGEConv, global_add_pool

from skgnnx import InputXGradient, Instances, SensitivityAnalysis


class Net(nn.Module):
    """Two layers and a linear head, without biases if asked."""

    def __init__(self, conv, level="node", bias=True, head=None):
        super().__init__()
        self.convs = nn.ModuleList([conv(3, 8, bias), conv(8, 8, bias)])
        self.out = nn.Linear(8, 3, bias=bias)
        self.level, self.head = level, head

    def forward(self, x, edge_index, batch=None):
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        x = self.out(global_add_pool(x, batch) if self.level == "graph" else x)
        return self.head(x) if self.head else x


CONVS = {
    "gcn": lambda i, o, b: GCNConv(i, o, bias=b),
    "graph": lambda i, o, b: GraphConv(i, o, bias=b),
    "sage": lambda i, o, b: SAGEConv(i, o, bias=b),
    "gin": lambda i, o, b: GINConv(nn.Sequential(nn.Linear(i, o, bias=b), nn.ReLU(), nn.Linear(o, o, bias=b))),
    "gat": lambda i, o, b: GATConv(i, o, bias=b),
}


def graph(seed=0, n=9, e=20, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, e), generator=random)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    return Data(x=torch.randn(n, 3, generator=random, dtype=dtype), edge_index=edge_index)


def model_and_nodes(conv, bias=True, head=None, level="node"):
    torch.manual_seed(1)
    model = Net(CONVS[conv], level, bias, head).double().eval()
    data = graph()
    X = Instances.from_graphs([data], target=1) if level == "graph" else Instances.from_nodes(data, [0, 4], target=1)
    return model, data, X


def central_difference(score, x, step=1e-6):
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        for sign in (1, -1):
            moved = x.clone()
            moved.view(-1)[i] += sign * step
            gradient.view(-1)[i] += sign * score(moved) / (2 * step)
    return gradient.numpy()


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("level", ["node", "graph"])
def test_squared_gradient_equals_finite_differences(conv, level):
    model, data, X = model_and_nodes(conv, level=level)
    E = SensitivityAnalysis(model, mask="node_feature").explain(X)
    with torch.no_grad():
        for i in range(len(X)):
            row = 0 if level == "graph" else X[i].element
            gradient = central_difference(lambda x, row=row: float(model(x, data.edge_index)[row, 1]), data.x)
            np.testing.assert_allclose(E[i], gradient**2, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("conv", ["gin", "graph"])
def test_edge_gradient_equals_finite_differences_of_edge_weights(conv):
    """Where nothing is normalised, a gate on the messages is an edge weight."""
    model, data, X = model_and_nodes(conv)
    E = InputXGradient(model, mask="edge").explain(X)

    def score(weight, row):
        x = data.x
        for layer in model.convs:
            source, target = data.edge_index
            total = torch.zeros_like(x).index_add(0, target, x[source] * weight[:, None])
            if conv == "gin":
                x = layer.nn(x + total).relu()
            else:
                x = (layer.lin_rel(total) + layer.lin_root(x)).relu()
        return float(model.out(x)[row, 1])

    with torch.no_grad():
        for i in range(len(X)):
            ones = torch.ones(data.num_edges, dtype=torch.float64)
            expected = central_difference(lambda w, row=X[i].element: score(w, row), ones)
            np.testing.assert_allclose(E[i], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("norm", ["squared", "absolute", "l2"])
def test_norms_of_the_same_gradient(norm):
    model, _, X = model_and_nodes("gin")
    squares = SensitivityAnalysis(model, mask="node_feature").explain(X)
    node = SensitivityAnalysis(model, mask="node", norm=norm).explain(X)
    entry = SensitivityAnalysis(model, mask="node_feature", norm=norm).explain(X)
    feature = SensitivityAnalysis(model, mask="feature", norm=norm).explain(X)
    for i in range(len(X)):
        size = np.sqrt(squares[i]) if norm == "absolute" else squares[i]
        outer = np.sqrt if norm == "l2" else lambda values: values
        np.testing.assert_allclose(node[i], outer(size.sum(1)), rtol=1e-5)
        np.testing.assert_allclose(feature[i], outer(size.sum(0)), rtol=1e-5)
        np.testing.assert_allclose(entry[i], outer(size), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-22, 1e25])
@pytest.mark.parametrize("per_layer", [False, True])
def test_a_norm_is_as_exact_as_its_gradient_where_squares_leave_float32(scale, per_layer):
    model = model_and_nodes("graph", bias=False)[0].float()
    X = Instances.from_nodes(graph(dtype=torch.float32), [0, 4], target=1)
    layered = {"mask": "edge", "per_layer": True} if per_layer else {"mask": "node"}
    explainer = SensitivityAnalysis(model, norm="l2", output="logits", **layered)
    plain = explainer.explain(X)
    with torch.no_grad():
        model.out.weight *= scale
    scaled = explainer.explain(X)
    assert max(plain[i].max() for i in range(len(X))) > 1e-3
    for i in range(len(X)):
        np.testing.assert_allclose(np.float64(scaled[i]) / scale, plain[i], rtol=1e-5)
        if per_layer:
            np.testing.assert_allclose(np.float64(scaled.layer_masks[i]) / scale, plain.layer_masks[i], rtol=1e-5)


@pytest.mark.parametrize("conv", ["gcn", "graph", "sage", "gin"])
def test_shares_sum_to_the_score_without_biases(conv):
    model, data, X = model_and_nodes(conv, bias=False)
    score = model(data.x, data.edge_index)[:, 1].detach().numpy()
    for mask in ("node_feature", "node", "feature"):
        E = InputXGradient(model, mask=mask).explain(X)
        np.testing.assert_allclose([E[i].sum() for i in range(len(X))], score[X.element[:, 0]], rtol=1e-5)


@pytest.mark.parametrize("head", [nn.LogSoftmax(dim=-1), nn.Softmax(dim=-1), lambda x: x.log_softmax(-1)])
def test_scores_are_taken_before_the_softmax(head):
    model, _, X = model_and_nodes("gin")
    with_head, _, _ = model_and_nodes("gin", head=head)
    plain = SensitivityAnalysis(model, mask="node").explain(X)
    headed = SensitivityAnalysis(with_head, mask="node").explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(headed[i], plain[i], rtol=1e-6)


def test_scaled_scores_scale_squared_gradients():
    model, _, X = model_and_nodes("gcn")
    small = SensitivityAnalysis(model).explain(X)
    with torch.no_grad():
        model.out.weight.mul_(3)
    large = SensitivityAnalysis(model).explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(large[i], 9 * small[i], rtol=1e-5)


def test_nothing_outside_of_the_receptive_field():
    path = Data(x=torch.ones(6, 3), edge_index=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]))
    torch.manual_seed(0)
    model = Net(CONVS["gcn"])
    E = SensitivityAnalysis(model).explain(Instances.from_nodes(path, [5]))
    assert (E[0][:3] == 0).all()
    assert (E[0][3:] > 0).all()
    assert E.entries(0)[0].tolist() == [3, 4]


def by_layers(model, data, gates, conv):
    """The network with gates (2, e) on the messages of each layer, by matrices."""
    x, (source, to) = data.x, data.edge_index
    n, degree = len(x), torch.ones(len(x), dtype=torch.float64).index_add(0, to, torch.ones(len(to)).double())
    for layer, gate in zip(model.convs, gates, strict=True):
        adjacency = torch.zeros(n, n, dtype=torch.float64).index_put((to, source), gate, accumulate=True)
        if conv == "gcn":
            scale = degree.rsqrt()
            loops = torch.eye(n, dtype=torch.float64)
            x = (scale[:, None] * (adjacency + loops) * scale) @ layer.lin(x) + layer.bias
        elif conv == "sage":
            x = layer.lin_l(adjacency @ x / (degree - 1).clamp(min=1)[:, None]) + layer.lin_r(x)
        else:
            x = layer.nn(adjacency @ x + x)
        x = x.relu()
    return model.out(x)


@pytest.mark.parametrize("conv", ["gcn", "sage", "gin"])
@pytest.mark.parametrize("level", ["node", "graph"])
def test_layers_equal_finite_differences_and_sum_to_edges(conv, level):
    model, data, X = model_and_nodes(conv, level=level)
    shares = InputXGradient(model, per_layer=True).explain(X)
    sizes = {
        norm: SensitivityAnalysis(model, norm=norm, per_layer=True).explain(X) for norm in ("squared", "absolute", "l2")
    }
    ones = torch.ones(2, data.num_edges, dtype=torch.float64)
    with torch.no_grad():
        expected_output, largest = model(data.x, data.edge_index), np.zeros(2)
    for i in range(len(X)):

        def score(gates, row=0 if level == "graph" else X[i].element):
            return float(by_layers(pooled(model, level), data, gates, conv)[row, 1])

        with torch.no_grad():
            row = 0 if level == "graph" else X[i].element
            np.testing.assert_allclose(score(ones), float(expected_output[row, 1]), rtol=1e-9)
            ids, values = shares.entries(i)
            expected = central_difference(score, ones)[:, ids]
        np.testing.assert_allclose(shares.layer_masks[i], expected, atol=1e-6, rtol=1e-4)
        np.testing.assert_allclose(values, expected.sum(0), atol=1e-6, rtol=1e-4)
        largest = np.maximum(largest, np.abs(expected).max(axis=1, initial=0))
        for norm, size, outer in (("squared", np.square, np.asarray), ("absolute", np.abs, np.asarray),
                                  ("l2", np.square, np.sqrt)):  # fmt: skip
            E = sizes[norm]
            np.testing.assert_allclose(E.layer_masks[i], outer(size(expected)), atol=1e-6, rtol=1e-4)
            np.testing.assert_allclose(E.entries(i)[1], outer(size(expected.sum(0))), atol=1e-5, rtol=1e-4)
    assert largest.min() > 1e-3


def pooled(model, level):
    """The same network, that sums before its head for graphs."""
    if level == "node":
        return model
    twin = copy.copy(model)
    twin.__dict__["_modules"] = {**model._modules, "out": nn.Sequential(Sum(), model.out)}
    return twin


class Sum(nn.Module):
    """One row: the sum of all."""

    def forward(self, x):
        return x.sum(0, keepdim=True)
