"""GNNRegressor: units of y, several columns, and what explainers make of it."""

import numpy as np
import pytest
import torch
from model_cases import planted_graphs, planted_nodes
from sklearn.base import is_regressor
from sklearn.model_selection import cross_val_score
from torch import nn
from torch_geometric.data import Batch
from torch_geometric.nn import GraphConv, global_add_pool

from skgnnx import Instances, SensitivityAnalysis
from skgnnx.models import GNNRegressor

SMALL = {"hidden": 16, "layers": 1, "epochs": 150, "norm": None, "lr": 0.02}


def sums(graphs):
    """What one layer and a sum can represent exactly: the second feature of the ends of all edges, and of all nodes."""
    return np.array([float(graph.x[:, 1].sum() + graph.x[graph.edge_index[0], 1].sum()) for graph in graphs])


def test_learns_means_over_graphs_in_cross_validation():
    graphs, _ = planted_graphs(60)
    y = [float(graph.x[:, 1].mean()) for graph in graphs]
    reg = GNNRegressor(conv="sage", pool="mean", hidden=16, layers=1, epochs=60, lr=0.02, batch_size=8)
    assert cross_val_score(reg, graphs, y, cv=3).min() > 0.9
    assert is_regressor(GNNRegressor())


def test_units_of_y_change_nothing_else():
    graphs, _ = planted_graphs(20)
    y = sums(graphs)
    plain = GNNRegressor(**SMALL).fit(graphs, y)
    scaled = GNNRegressor(**SMALL).fit(graphs, 1000 * y - 70)
    np.testing.assert_allclose(scaled.predict(graphs), 1000 * plain.predict(graphs) - 70, atol=1)
    batch = Batch.from_data_list(graphs)
    with torch.no_grad():
        raw = scaled.module_(batch.x, batch.edge_index, batch.batch)[:, 0]
    np.testing.assert_allclose(scaled.predict(graphs), raw, rtol=1e-4)


def test_constant_y_is_predicted():
    graphs, _ = planted_graphs(8)
    np.testing.assert_allclose(GNNRegressor(**SMALL).fit(graphs, [5.0] * 8).predict(graphs), 5, atol=0.3)


def test_several_columns_and_nodes():
    data, _ = planted_nodes(60)
    y = np.stack([data.x[:, 1].numpy(), 10 * data.x[:, 0].numpy()], axis=1)
    X = Instances.from_nodes(data)
    reg = GNNRegressor(conv="sage", hidden=16, layers=1, epochs=200, lr=0.02).fit(X[:40], y[:40])
    assert reg.predict(X).shape == (60, 2)
    assert reg.score(X[40:], y[40:]) > 0.8
    with pytest.raises(ValueError, match="say which column"):
        SensitivityAnalysis(reg).explain(X)
    assert (SensitivityAnalysis(reg).explain(X.with_target(1)).targets == 1).all()


def test_explainers_read_one_column_as_regression_without_a_warning():
    graphs, _ = planted_graphs(8)
    reg = GNNRegressor(hidden=4, epochs=2).fit(graphs, sums(graphs))
    E = SensitivityAnalysis(reg).explain(graphs)
    assert E.box["output"] == "regression"
    assert (E.targets == 0).all()


class WholeNetwork(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = GraphConv(in_channels, out_channels)

    def forward(self, x, edge_index, batch):
        return global_add_pool(self.conv(x, edge_index), batch)


def test_a_whole_network_learns_y_in_its_own_units():
    graphs, _ = planted_graphs(20)
    y = 3 * sums(graphs)
    reg = GNNRegressor(conv=WholeNetwork, epochs=300, lr=0.3).fit(graphs, y)
    assert reg.score(graphs, y) > 0.95


@pytest.mark.parametrize("y", [["a"] * 4, [np.nan, 1, 2, 3]])
def test_y_must_be_finite_numbers(y):
    with pytest.raises(ValueError, match="y must hold finite numbers"):
        GNNRegressor().fit(planted_graphs(4)[0], y)
