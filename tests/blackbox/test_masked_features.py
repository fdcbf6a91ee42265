"""Masks of features live where features are not zero, and sparse features give what dense ones give."""

import numpy as np
import pytest
import torch
from blackbox_cases import opened, random_graph, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, GraphConv, SAGEConv, global_add_pool

from skgnnx import Instances
from skgnnx.blackbox import masked_features, plan
from skgnnx.blackbox.feature_matrices import Constant, Entries, Summed

WIDTH = 80
KINDS = ("node", "feature", "node_feature")


class Net(nn.Module):
    """Two layers; `before` and `skip` say what else happens to the features."""

    def __init__(self, conv, before=None, skip=False, first=None, pool=False):
        super().__init__()
        hidden = 8 if first is None else 6
        self.first = None if first is None else nn.Linear(WIDTH, hidden)
        self.one, self.two = conv(WIDTH if first is None else hidden, 8), conv(8, 3)
        self.before, self.pool = before, pool
        self.skip = nn.Linear(WIDTH, 3) if skip else None

    def forward(self, x, edge_index, batch=None):
        h = x if self.before is None else self.before(self, x)
        h = h if self.first is None else self.first(h).tanh()
        h = self.two(self.one(h, edge_index).relu(), edge_index)
        h = h if self.skip is None else h + self.skip(x)[: len(h)]
        return global_add_pool(h, batch) if self.pool else h


def gin(i, o):
    return GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o)), train_eps=True)


def sage_max(i, o):
    return SAGEConv(i, o, aggr="max")


def dropped(net, x):
    return nn.functional.dropout(x, 0.5, training=net.training)


def changed(net, x):
    x[:, 0] += 1.0
    return x


SPARSE = {
    "gcn": lambda: Net(GCNConv),
    "sage": lambda: Net(SAGEConv),
    "graph": lambda: Net(GraphConv),
    "gin": lambda: Net(gin),
    "gat": lambda: Net(GATConv),
    "twice": lambda: Net(GCNConv, skip=True),
    "linear first": lambda: Net(GCNConv, first=True),
    "dropout first": lambda: Net(GCNConv, before=dropped),
    "graphs": lambda: Net(GCNConv, pool=True),
}
DENSE = {
    "abs first": lambda: Net(GCNConv, before=lambda net, x: x.abs()),
    "changed in place": lambda: Net(GCNConv, before=changed),
    "max": lambda: Net(sage_max),
}


def sparse_instances(name, seed=0, density=0.1, dtype=torch.float64):
    """Nodes of a graph, or two graphs, whose features are mostly zero; some nodes have none at all."""
    graphs = [random_graph(seed + i, nodes=20, edges=50, features=WIDTH, dtype=dtype) for i in range(2)]
    for graph in graphs:
        random = torch.Generator().manual_seed(seed)
        graph.x[torch.rand(graph.x.shape, generator=random) >= density] = 0
        graph.x[::5] = 0
    return Instances.from_graphs(graphs) if name == "graphs" else Instances.from_nodes(graphs[0], [0, 3, 7])


def losses(model, X, kinds, edges=True):
    """Losses and their gradients by fixed masks, whichever way features are multiplied."""
    with opened(model, X) as gnn:
        (batch,) = gnn.batches()
        masks = {kind: _fixed(len(gnn.masked_features(batch).units(kind).place), batch.x.dtype) for kind in kinds}
        edge = _fixed(batch.num_edges, batch.x.dtype) if edges else None
        x = gnn.masked_features(batch).under(masks) if kinds else None
        loss = gnn.prediction_loss(batch, x=x, edge_mask=edge)
        wanted = [*masks.values(), *([edge] if edges else [])]
        return loss.detach(), torch.autograd.grad(loss.sum(), wanted, allow_unused=True)


def _fixed(count, dtype):
    random = torch.Generator().manual_seed(count)
    return torch.rand(count, generator=random, dtype=torch.float64).to(dtype).requires_grad_()


def assert_same(found, expected, tolerance):
    assert (found[0] - expected[0]).abs().max() <= tolerance * expected[0].abs().max()
    for one, other in zip(found[1], expected[1], strict=True):
        if other is None or not other.numel():
            assert one is None or not one.any()
        else:
            assert (one - other).abs().max() <= tolerance * max(float(other.abs().max()), 1.0)


@pytest.fixture
def both_ways(monkeypatch):
    """Computes a function with sparse products, then with dense ones."""

    def run(function):
        found = function()
        with monkeypatch.context() as patch:
            patch.setattr(masked_features, "SPARSE", 0.0)
            patch.setattr(plan, "WIDE", 10**9)
            patch.setattr(Entries, "times", lambda self, weight: pytest.fail("a sparse product"))
            return found, function()

    return run


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kinds", [("node_feature",), ("feature",), ("node",), ("node", "feature")])
@pytest.mark.parametrize("name", [*SPARSE, *DENSE])
def test_sparse_features_equal_dense_ones(name, kinds, dtype, tolerance, both_ways):
    model, X = seeded((SPARSE | DENSE)[name]).to(dtype), sparse_instances(name, dtype=dtype)
    assert_same(*both_ways(lambda: losses(model, X, kinds)), tolerance)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), density=st.sampled_from([0.0, 0.01, 0.1, 0.24]))
@pytest.mark.parametrize("name", ["gcn", "sage", "abs first"])
def test_any_density(name, seed, density):
    model, X = seeded((SPARSE | DENSE)[name]).double(), sparse_instances(name, seed, density)
    found = losses(model, X, ("node_feature",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masked_features, "SPARSE", 0.0)
        assert_same(found, losses(model, X, ("node_feature",)), 1e-10)


@pytest.mark.parametrize("name", SPARSE)
def test_no_dense_features_are_made(name, monkeypatch):
    """The product knows the pattern: neither N x F features nor messages of F columns exist."""
    model, X = seeded(SPARSE[name]).double(), sparse_instances(name)
    with opened(model, X) as gnn:
        (batch,) = gnn.batches()
        features = gnn.masked_features(batch)
        mask = _fixed(len(features.units("node_feature").place), torch.float64)
        for kind in (Entries, Summed):
            monkeypatch.setattr(kind, "dense", lambda self: pytest.fail("made dense"))
        gnn.prediction_loss(batch, x=features.under({"node_feature": mask})).sum().backward()
    assert mask.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["sage", "graph", "gin", "gcn", "twice"])
def test_wide_features_that_stay_are_multiplied_before_they_are_summed(name, monkeypatch, both_ways):
    model, X = seeded(SPARSE[name]).double(), sparse_instances(name)
    assert_same(*both_ways(lambda: losses(model, X, ())), 1e-10)
    runs, times = [], Constant.times
    monkeypatch.setattr(Summed, "dense", lambda self: pytest.fail("summed wide rows"))
    monkeypatch.setattr(Constant, "times", lambda self, weight: runs[-1].append(times(self, weight)) or runs[-1][-1])
    with opened(model, X) as gnn:
        runs.append([])
        (batch,) = gnn.batches()
        for _ in range(2):
            runs.append([])
            gnn.prediction_loss(batch, edge_mask=_fixed(batch.num_edges, torch.float64))
        assert all("trimmed" in sentence for sentence in gnn.setup.path(batch))
    assert all(one is other for one, other in zip(runs[1], runs[2], strict=True))
    assert (len(runs[1]) > 0) == (name in ("sage", "graph", "gin"))  # others start with a layer that is computed once


def test_units_exist_where_features_are_not_zero():
    X = sparse_instances("gcn")
    with opened(seeded(SPARSE["gcn"]).double(), X) as gnn:
        (batch,) = gnn.batches(removal=True)  # with a ring that only degrees need
        features, x = gnn.masked_features(batch), batch.x.numpy()
        node, column = np.nonzero(x)
        assert not batch.node_reach.all()
        entries = features.units("node_feature")
        np.testing.assert_array_equal(entries.place, node * WIDTH + column)
        by_instance = {(int(batch.node_instance[n]), f) for n, f in zip(node, column, strict=True)}
        reached = {(int(batch.node_instance[n]), f) for n, f in zip(node, column, strict=True) if batch.node_reach[n]}
        units = features.units("feature")
        assert {divmod(int(place), WIDTH) for place in units.place} == by_instance
        assert {divmod(int(place), WIDTH) for place in units.place[units.reached.numpy()]} == reached
        scores = units.scores(torch.ones(len(units.place)))
        assert {tuple(place) for place in scores.nonzero().tolist()} == reached


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_the_dense_draw_at_the_units(kind):
    with opened(seeded(SPARSE["gcn"]).double(), sparse_instances("gcn")) as gnn:
        (batch,) = gnn.batches()
        units = gnn.masked_features(batch).units(kind)
        whole = batch.noise(3, "instance" if kind == "feature" else "node", 1 if kind == "node" else WIDTH)
        found = gnn.masked_features(batch).noise(batch, kind, 3)
        np.testing.assert_array_equal(found.numpy(), whole.numpy().ravel()[units.place])


@pytest.mark.parametrize("kind", KINDS)
def test_masks_multiply_features(kind):
    with opened(seeded(SPARSE["gcn"]).double(), sparse_instances("gcn")) as gnn:
        (batch,) = gnn.batches()
        features = gnn.masked_features(batch)
        units = features.units(kind)
        mask = _fixed(len(units.place), torch.float64).detach()
        dense = torch.zeros(units.shape, dtype=torch.float64)
        for place, value in zip(units.place, mask, strict=True):
            dense[np.unravel_index(place, units.shape)] = value
        of_nodes = {"node": lambda: dense[:, None], "feature": lambda: dense[batch.node_instance]}
        torch.testing.assert_close(features.under({kind: mask}) + 0, batch.x * of_nodes.get(kind, lambda: dense)())
