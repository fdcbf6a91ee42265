"""LRP against dense matrices by hand, and the laws of its rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relevance_oracles import CONVS, random_network, relevance
from torch_geometric.data import Data

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
