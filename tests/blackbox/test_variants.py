"""Versions of instances that run as copies say what the model says of each changed graph, called by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv, SAGEConv, global_mean_pool

from skgnnx import Instances, config_context
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.plan import PLAN
from skgnnx.blackbox.variants import Variants
from skgnnx.testing import example
from skgnnx.testing.networks import Network


def by_hand(model, instance, keep=None, x=None):
    """Return the model's row for one instance whose whole graph has fewer edges or other features."""
    data = instance.graph
    edges = data.edge_index if keep is None else data.edge_index[:, torch.from_numpy(keep)]
    x = data.x if x is None else x
    with torch.no_grad():
        if instance.level == "graph":
            return model(x, edges, batch=torch.zeros(data.num_nodes, dtype=torch.long))[0]
        if instance.level == "edge":
            return model(x, edges, edge_label_index=torch.tensor(instance.element).reshape(2, 1))[0]
        return model(x, edges)[instance.element]


def versions(gnn, rng):
    """Yield each batch with some versions, and for each version the user's edges that it lacks."""
    for batch in gnn.batches(removal=True):
        owner = rng.integers(0, len(batch), 3 * len(batch) + 1)
        variants = Variants(gnn, batch, owner)
        keep = rng.random(variants.edge_ptr[-1]) < 0.6
        copies = batch.take(owner)
        keep |= ~copies.edge_reach.numpy()
        yield batch, variants, keep, copies


@pytest.mark.parametrize("level", ["node", "graph", "edge"])
@pytest.mark.parametrize("budget", [2_000_000_000, 20_000])
def test_versions_without_edges(level, budget):
    model, X = example(level)
    with config_context(memory_budget=budget), BlackBox(model).open(X) as gnn:
        for batch, variants, keep, copies in versions(gnn, np.random.default_rng(0)):
            outputs = variants.keep_edges(keep)
            for v, owner in enumerate(variants.owner):
                edges = slice(variants.edge_ptr[v], variants.edge_ptr[v + 1])
                position = batch.positions[owner]
                there = np.ones(X[position].graph.num_edges, dtype=bool)
                there[copies.edge_id[edges][~keep[edges]]] = False
                torch.testing.assert_close(outputs[v], by_hand(model, X[position], there), rtol=1e-5, atol=1e-6)


def test_versions_with_other_features():
    model, X = example("graph")
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches()
        variants = Variants(gnn, batch, np.array([1, 0, 1]))
        x = torch.randn(int(variants.node_ptr[-1]), batch.x.shape[1])
        outputs = variants.with_features(lambda copies, part: x[variants.nodes(part)])
        for v, owner in enumerate(variants.owner):
            expected = by_hand(model, X[int(owner)], x=x[variants.nodes(slice(v, v + 1))])
            torch.testing.assert_close(outputs[v], expected, rtol=1e-5, atol=1e-6)


def test_masks_of_versions_are_those_of_the_batch():
    model, X = example("node")
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches()
        variants = Variants(gnn, batch, np.arange(len(batch)))
        mask = torch.rand(batch.num_edges)
        torch.testing.assert_close(variants.under_masks(mask), gnn.forward(batch, edge_mask=mask))
        torch.testing.assert_close(variants.under_masks([mask, mask]), variants.under_masks(mask))
        other = variants.under_masks([mask, torch.ones_like(mask)])
        torch.testing.assert_close(other, gnn.forward(batch, edge_mask=[mask, torch.ones_like(mask)]))


def test_no_versions_have_no_outputs():
    model, X = example("node")
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches(removal=True)
        assert Variants(gnn, batch, np.array([], dtype=int)).keep_edges(np.array([], dtype=bool)).shape == (0, 2)


class Mixing(nn.Module):
    """Subtracts the mean of everything in the batch: copies must not run together."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = SAGEConv(3, 8), nn.Linear(8, 2)

    def forward(self, x, edge_index, batch):
        h = self.conv(x, edge_index).relu()
        return self.head(global_mean_pool(h - h.mean(0), batch) + global_mean_pool(h.square(), batch))


@pytest.mark.filterwarnings("ignore:Mixing mixes")
@pytest.mark.parametrize("number", [1, 4])
def test_copies_that_would_mix_run_one_by_one(number):
    X = example("graph")[1][:number]
    torch.manual_seed(0)
    model = Mixing()
    model.conv = SAGEConv(X[0].graph.x.shape[1], 8)
    with BlackBox(model).open(X) as gnn:
        for batch in gnn.batches(removal=True):
            variants = Variants(gnn, batch, np.zeros(5, dtype=int))
            keep = np.random.default_rng(1).random(variants.edge_ptr[-1]) < 0.5
            outputs = variants.keep_edges(keep)
            for v in range(5):
                edges = keep[variants.edges(slice(v, v + 1))]
                expected = by_hand(model, X[int(batch.positions[0])], edges)
                torch.testing.assert_close(outputs[v], expected, rtol=1e-5, atol=1e-6)


def test_values_of_targets():
    model, X = example("graph")
    with BlackBox(model).open(X.with_target(1)) as gnn:
        (batch,) = gnn.batches()
        variants = Variants(gnn, batch, np.arange(len(batch)))
        outputs = variants.keep_edges(np.ones(batch.num_edges, dtype=bool))
        expected = outputs.double().softmax(1)[:, 1]
        torch.testing.assert_close(variants.values(outputs), expected)
        torch.testing.assert_close(variants.log_values(outputs), expected.log())
        assert torch.equal(variants.predicted(outputs), outputs.argmax(1))


def test_degrees_are_computed_afresh():
    graph = example("node")[1][0].graph
    torch.manual_seed(0)
    model = GCNConv(graph.x.shape[1], 3)
    X = Instances.from_nodes(graph, [0, 1, 2])
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches(removal=True)
        variants = Variants(gnn, batch, np.array([2]))
        keep = ~batch.take(np.array([2])).edge_reach.numpy()
        outputs = variants.keep_edges(keep)
        removed = batch.take(np.array([2])).edge_id[~keep]
        there = np.ones(graph.num_edges, dtype=bool)
        there[removed] = False
        assert len(removed)
        torch.testing.assert_close(outputs[0], by_hand(model, X[2], there))


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("wide", [False, True])
def test_a_single_run_gives_what_planned_runs_give(level, wide):
    """With a plan where one pays, and as the model is elsewhere."""
    graph = example("node")[1][0].graph
    width = 80 if wide else 4
    graph.x = torch.rand(graph.num_nodes, width, generator=torch.Generator().manual_seed(2))
    X = Instances.from_nodes(graph, [0, 3, 9]) if level == "node" else Instances.from_graphs([graph, graph])
    model = Network("graph", level, num_features=width)
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches(removal=True)
        keep = np.arange(batch.num_edges) % 3 > 0
        once, often = batch.keep_edges(keep), batch.keep_edges(keep)
        assert gnn.setup.pays(once) == (wide or level == "node")
        with torch.no_grad():
            found = gnn.forward_once(once)
            torch.testing.assert_close(found, gnn.forward(often), rtol=1e-5, atol=1e-6)
        assert (PLAN in once.memo) == (wide or level == "node")


def test_versions_share_runs_by_the_edges_that_stay(monkeypatch):
    model, X = example("graph")
    sizes = []
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches(removal=True)
        monkeypatch.setattr("skgnnx.blackbox.open_box.ROWS_AT_ONCE", 100)
        forward_once = gnn.forward_once
        monkeypatch.setattr(gnn, "forward_once", lambda part: sizes.append(part) or forward_once(part))
        variants = Variants(gnn, batch, np.repeat(np.arange(len(batch)), 40))
        keep = np.random.default_rng(0).random(variants.edge_ptr[-1]) < 0.3
        outputs = variants.keep_edges(keep)
    assert sum(map(len, sizes)) == len(variants) == len(outputs)
    rows = [part.num_nodes + part.num_edges for part in sizes]
    assert max(rows) <= 100
    assert np.mean(rows[:-1]) > 80
