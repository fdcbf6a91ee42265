"""LRP against dense matrices by hand, and the laws of its rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from relevance_oracles import CONVS, random_network, relevance
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GINConv, GraphConv, GraphNorm, global_add_pool

from skgnnx import LRP, Instances

RULES = {
    "zero": ({"rule": "zero"}, lambda number: ("zero", 0)),
    "epsilon": ({"rule": "epsilon", "epsilon": 0.3}, lambda n: ("zero", 0) if n == "head" else ("epsilon", 0.3)),
    "epsilon everywhere": ({"rule": "epsilon", "epsilon": 0.3, "head": "same"}, lambda n: ("epsilon", 0.3)),
    "zplus": ({"rule": "zplus"}, lambda n: ("zero", 0) if n == "head" else ("zplus", 0)),
    "gamma": ({}, lambda n: ("zero", 0) if n == "head" else ("gamma", (3, 0)[n])),
    "one gamma": ({"gamma": 0.7}, lambda n: ("zero", 0) if n == "head" else ("gamma", 0.7)),
    "two gammas": (
        {"gamma": [0.5, 2.0], "head": "same"},
        lambda n: ("gamma", {0: 0.5, 1: 2.0, "head": 2.0}[n]),
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", CONVS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000), positive=st.booleans())
def test_equals_dense_matrices_by_hand(kind, rule, seed, positive):
    model, x, edge_index = random_network(kind, seed)
    x = x.abs() if positive else x
    params, rule_of = RULES[rule]
    X = Instances.from_graphs([Data(x=x, edge_index=edge_index)])
    for target, E in enumerate(LRP(model, mask="node_feature", **params).explain_targets(X)):
        expected, biases = relevance(model, x.numpy(), edge_index.numpy(), target, rule_of)
        np.testing.assert_allclose(E[0], expected, rtol=1e-5, atol=1e-6)
        assert E.bias_share[0] == pytest.approx(biases, rel=1e-9, abs=1e-9)
        assert E.score[0] == pytest.approx(float(model(x, edge_index)[0, target].detach()), rel=1e-12)


def test_rules_say_how_relevance_passed_each_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = GraphConv(3, 4), nn.BatchNorm1d(4)
            self.second = GINConv(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
            self.head = nn.Linear(4, 2)

        def forward(self, x, edge_index, batch):
            h = self.second(self.norm(self.first(x, edge_index)).relu(), edge_index).relu()
            return self.head(global_add_pool(h, batch))

    X = Instances.from_graphs([Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0, 1], [1, 2]]))] * 2)
    E = LRP(Net().eval(), gamma=[2, 1]).explain(X)
    assert E.rules == [
        ["first: as a whole, gamma 2", "norm: folded into the block before", "second: its parts",
         "second.nn.0: gamma 1", "second.nn.2: gamma 1", "head: zero"]
    ] * 2  # fmt: skip
    with pytest.raises(ValueError, match="'gamma' must hold a number >= 0 for each of the 2 graph convolutions"):
        LRP(Net().eval(), gamma=[2, 1, 0]).explain(X)
    with pytest.raises(ValueError, match="'gamma' parameter of LRP must be a float in the range"):
        LRP(Net().eval(), gamma="2").explain(X)


def test_layers_that_mix_the_nodes_of_a_graph_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = GraphConv(3, 4), GraphNorm(4), nn.Linear(4, 2)

        def forward(self, x, edge_index, batch):
            return self.head(global_add_pool(self.norm(self.conv(x, edge_index), batch).relu(), batch))

    X = Instances.from_graphs([Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0, 1], [1, 2]]))] * 2)
    with pytest.warns(UserWarning, match="Layers of Net normalise over the nodes of a graph: norm. Their means"):
        E = LRP(Net().eval()).explain(X)
    np.testing.assert_allclose(E[0].sum() + E.bias_share[0], E.score[0], atol=1e-4)
