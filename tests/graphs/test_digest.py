"""Digests: equal for the same content, different for any change."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from explanation_cases import random_instances
from torch_geometric.nn import GCNConv, Linear

from skgnnx.graphs import Instances, instances_digest, model_digest


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)


def set_bias(net):
    net.conv.bias.data[0] += 1e-7


def count_batch(net):
    net.norm.num_batches_tracked += 1


def swap_class(net):
    net.norm = torch.nn.SyncBatchNorm(4)


@pytest.mark.parametrize(
    "change", [set_bias, count_batch, swap_class, lambda net: net.half(), lambda net: net.bfloat16()]
)
def test_any_change_of_a_model_shows(change):
    net = Net()
    other = copy.deepcopy(net)
    assert model_digest(other) == model_digest(net)
    change(other)
    assert model_digest(other) != model_digest(net)


def test_use_training_mode_and_pickling_do_not_show():
    net = Net()
    before = model_digest(net)
    net.eval()
    net.conv(torch.ones(2, 3), torch.tensor([[0], [1]])).sum().backward()
    assert model_digest(net) == before
    assert model_digest(pickle.loads(pickle.dumps(net))) == before


def test_fitted_estimators_lazy_layers_and_callables():
    class Fitted:
        module_ = Net()

    assert model_digest(Fitted()) == model_digest(Fitted.module_)
    assert model_digest(torch.nn.LazyLinear(3)) != model_digest(Linear(-1, 3))
    assert model_digest(len) == model_digest(len) != model_digest(abs)


def test_a_digest_is_the_same_in_another_process():
    lines = ["import torch", "from skgnnx.graphs import model_digest", "layer = torch.nn.Linear(3, 2)"]
    lines += [
        "torch.nn.init.constant_(layer.weight, 0.3)",
        "torch.nn.init.zeros_(layer.bias)",
        "print(model_digest(layer))",
    ]
    run = [sys.executable, "-W", "ignore", "-c", "; ".join(lines)]
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(layer.weight, 0.3)
    torch.nn.init.zeros_(layer.bias)
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert output.strip() == model_digest(layer)
    assert len(model_digest(layer)) == 64


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_instances_are_known_by_content(level):
    X = random_instances(np.random.default_rng(0), level, 5)
    digest = instances_digest(X)
    assert instances_digest(pickle.loads(pickle.dumps(X))) == digest
    rows = [3, 1]
    assert instances_digest(X[rows]) == instances_digest(X[rows].compact()) == instances_digest(X[[0, 3, 1]][1:])
    assert instances_digest(X[::-1]) != digest
    assert instances_digest(X.with_target(2)) != digest


@pytest.mark.parametrize("key", ["x", "edge_weight", "name"])
def test_any_change_of_a_graph_shows(key):
    X = random_instances(np.random.default_rng(1), "graph", 3)

    def changed(graph):
        value = graph[key]
        graph[key] = value + "!" if isinstance(value, str) else value + 1e-6
        return graph

    assert instances_digest(X.map_graphs(changed)) != instances_digest(X)
    assert instances_digest(X.map_graphs(lambda graph: graph)) == instances_digest(X)


def test_an_excluded_link_is_another_question():
    graph = random_instances(np.random.default_rng(2), "graph", 1).store.graph(0)
    pairs = [[0], [0]]
    kept, left_out = (Instances.from_edges(graph, pairs, exclude_link=value) for value in (False, True))
    assert instances_digest(kept) != instances_digest(left_out)
