"""Explanations do not depend on the shortcuts of a forward pass, for any method, network and level."""

import numpy as np
import pytest
import torch
from blackbox_cases import opened, random_graph, seeded
from torch import nn
from torch_geometric import nn as layers

from skgnnx import GNNExplainer, InputXGradient, Instances, SensitivityAnalysis
from skgnnx.blackbox import plan
from skgnnx.blackbox.shortcuts import Shortcuts
from skgnnx.blackbox.trimming import Trim
from skgnnx.testing.networks import CONVS, EDGE_WIDTH, NUM_RELATIONS, Network

METHODS = {
    "gnn_explainer": lambda model: GNNExplainer(model, epochs=12, output="logits"),
    "gnn_explainer with features": lambda model: GNNExplainer(
        model, feature_mask="feature", epochs=12, preset="pyg", output="logits"
    ),
    "sensitivity of edges": lambda model: SensitivityAnalysis(model, mask="edge", output="logits"),
    "sensitivity of nodes": lambda model: SensitivityAnalysis(model, mask="node_feature", output="logits"),
    "input x gradient of edges": lambda model: InputXGradient(model, mask="edge", output="logits"),
    "input x gradient of features": lambda model: InputXGradient(model, mask="node_feature", output="logits"),
}
KINDS = [kind for kind in CONVS if kind != "mixing"]


def without_shortcuts(monkeypatch):
    monkeypatch.setattr(plan, "fusions", lambda call, batch: [])
    monkeypatch.setattr(plan, "foldable_modules", lambda model, layers: [])
    monkeypatch.setattr(Shortcuts, "of", lambda *given: Trim.NONE)


def full_graph(seed, nodes, edges):
    data = random_graph(seed, nodes, edges, dtype=torch.float64, loops=2)
    parallel = data.edge_index[:, :2]
    data.edge_index = torch.cat([data.edge_index, parallel], dim=1)
    random = torch.Generator().manual_seed(seed)
    data.edge_attr = torch.randn(data.num_edges, EDGE_WIDTH, generator=random, dtype=torch.float64)
    data.edge_weight = torch.rand(data.num_edges, generator=random, dtype=torch.float64) + 0.5
    data.edge_type = torch.arange(data.num_edges) % NUM_RELATIONS
    return data


def instances(level):
    if level == "graph":
        return Instances.from_graphs([full_graph(seed, 8, 16) for seed in range(3)], target=1)
    data = full_graph(0, 30, 50)
    if level == "node":
        return Instances.from_nodes(data, [0, 4, 9, 17, 29], target=1)
    pairs = torch.cat([data.edge_index[:, :2], torch.tensor([[1, 5], [7, 5]])], dim=1)
    return Instances.from_edges(data, pairs, target=1)


def entries(E, i):
    found = [E.entries(i, mask=kind) for kind in ("edge", "node", "feature") if getattr(E, f"{kind}_mask") is not None]
    return [values for _, values in found]


@pytest.mark.filterwarnings("ignore:Self loops cannot be explained")
@pytest.mark.parametrize("level", ["node", "graph", "edge"])
@pytest.mark.parametrize("kind", KINDS)
def test_explanations_are_the_same_without(kind, level, monkeypatch):
    model, X = Network(kind, level).double().eval(), instances(level)
    fast = {name: make(model).explain(X) for name, make in METHODS.items()}
    with monkeypatch.context() as patch:
        without_shortcuts(patch)
        for name, make in METHODS.items():
            slow = make(model).explain(X)
            assert all("general path" in said and said.endswith("whole") for said in slow.extras["path"][0])
            for i in range(len(X)):
                for got, expected in zip(entries(fast[name], i), entries(slow, i), strict=True):
                    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("kind", ["gcn", "graph", "gin", "sage", "sg", "appnp"])
def test_results_say_that_layers_were_fused_and_trimmed(kind):
    E = SensitivityAnalysis(Network(kind, "node").double().eval(), output="logits").explain(instances("node"))
    for paths in E.extras["path"]:
        assert all(": fused" in said and "trimmed" in said for said in paths)


class Wrong(nn.Module):
    """A sum of copies in small batches of small graphs, something else in larger ones."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.GraphConv(3, 4), layers.GraphConv(4, 2)

    def forward(self, x, edge_index, batch):
        return layers.global_add_pool(self.second(self.first(x, edge_index).tanh(), edge_index), batch)


def test_fusing_is_given_up_where_it_gives_other_outputs(monkeypatch):
    """A probe that takes a mean for a sum is found out, and said so."""
    probe = plan.fusions

    def mistaken(call, batch):
        return [fusion._replace(mean=not fusion.mean) for fusion in probe(call, batch)]

    monkeypatch.setattr(plan, "fusions", mistaken)
    X = Instances.from_graphs([random_graph(seed, dtype=torch.float64) for seed in range(3)])
    with opened(seeded(Wrong).double(), X) as gnn:
        (batch,) = gnn.batches()
        assert all("general path (sums of copies give other outputs)" in said for said in gnn.setup.path(batch))
        torch.testing.assert_close(gnn.forward(batch), gnn.reference)


def test_a_batch_that_shows_later_that_fusing_is_wrong_is_still_explained(monkeypatch):
    """The first nodes have no neighbours: on them, a wrong sum cannot be told from a right one."""
    monkeypatch.setattr(Shortcuts, "of", lambda self, batch, elsewhere=None: Trim.ROWS)  # a sample that told nothing
    probe = plan.fusions
    monkeypatch.setattr(plan, "fusions", lambda call, batch: [f._replace(mean=not f.mean) for f in probe(call, batch)])

    class Nodes(Wrong):
        def forward(self, x, edge_index):
            return self.second(self.first(x, edge_index).tanh(), edge_index)

    with opened(seeded(Nodes).double(), Instances.from_nodes(random_graph(dtype=torch.float64))) as gnn:
        for batch in gnn.batches():
            positions = torch.from_numpy(batch.positions)
            torch.testing.assert_close(gnn.forward(batch), gnn.reference[positions])
