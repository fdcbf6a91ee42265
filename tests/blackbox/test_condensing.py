"""Neighbourhoods without most of what leads to hubs: references from them are the whole graph's, or not used."""

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, opened, seeded
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data
from torch_geometric.utils import add_self_loops, degree

from skgnnx import Instances, config_context
from skgnnx.blackbox import normalisation
from skgnnx.blackbox.cut_reference import CutReference
from skgnnx.blackbox.normalisation import Normaliser
from skgnnx.graphs.computation_graph import receptive_fields
from skgnnx.graphs.neighbourhoods import condensed_neighbourhood, condensed_size, distinct

NODES = [250, 255, 270, 299]


def hubs(loops=0, undirected=False, seed=0):
    """Two messages from nodes 250 to 299 there are hubs, to which many edges lead, some of them parallel."""
    random = np.random.default_rng(seed)
    hub, between, explained, others = np.arange(50), np.arange(50, 250), np.arange(250, 300), np.arange(300, 1000)
    links = [
        (random.choice(between, 400), random.choice(explained, 400)),
        (random.choice(hub, 500), random.choice(between, 500)),
        (random.choice(others, 3000), random.choice(hub, 3000)),
        (random.choice(others, 250), np.full(250, 7)),
        (random.choice(others, 1000), random.choice(others, 1000)),
    ]
    edges = np.concatenate([np.stack(link) for link in links], axis=1)
    edges = edges[:, edges[0] != edges[1]]
    edges = np.concatenate([edges, edges[::-1]], axis=1) if undirected else edges
    own = random.choice(1000, loops, replace=False)
    edges = np.concatenate([edges, np.stack([own, own])], axis=1)
    edges = torch.from_numpy(edges[:, random.permutation(edges.shape[1])])
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Data(x=x, edge_index=edges)


class CountBlind(layers.GCNConv):
    """Takes weights, and divides by how many edges there are all the same."""

    def forward(self, x, edge_index, edge_weight=None):
        if self._cached_edge_index is None:
            edges, _ = add_self_loops(edge_index, num_nodes=len(x))
            count = degree(edges[1], len(x), dtype=x.dtype)
            kept = edges, 1 / (count[edges[0]] * count[edges[1]]).sqrt()
            if self.cached:
                self._cached_edge_index = kept
        else:
            kept = self._cached_edge_index
        return self.propagate(kept[0], x=self.lin(x), edge_weight=kept[1]) + self.bias


class KeepsOther(layers.GraphConv):
    """Keeps something else under the name under which others keep normalised edges."""

    def __init__(self, inside, outside, keep):
        super().__init__(inside, outside)
        self.keep, self.cached, self._cached_edge_index = keep, False, None

    def forward(self, x, edge_index):
        if self.cached:
            self._cached_edge_index = self.keep(edge_index)
        return super().forward(x, edge_index)


class NoSwitch(layers.GraphConv):
    """Keeps nothing, and says so where others can be told."""

    cached, _cached_edge_index = property(lambda self: False), None


class Relative(CountBlind):
    """Divides weights by the largest weight of all."""

    def message(self, x_j, edge_weight):
        return x_j * (edge_weight / edge_weight.max()).unsqueeze(1)


class OwnDegrees(nn.Module):
    """Divides features by the logarithm of degrees, none of which is less than 2."""

    def __init__(self, weighted):
        super().__init__()
        self.weighted = weighted
        self.convs = nn.ModuleList([layers.GraphConv(3, 4), layers.GraphConv(4, 2)])

    def forward(self, x, edge_index):
        size = degree(edge_index[1], len(x), dtype=x.dtype).clamp(min=2).log()
        weight = 1 / size[edge_index[0]] if self.weighted else None
        x = x if self.weighted else x / size.unsqueeze(1)
        for conv in self.convs:
            x = conv(x, edge_index, weight).tanh()
        return x


class HubsOnly(nn.Module):
    """Changes features of nodes of which there are few: those whose degree is in a range."""

    def __init__(self, fewest, most):
        super().__init__()
        self.fewest, self.most = fewest, most
        self.convs = nn.ModuleList([layers.GraphConv(3, 4), layers.GraphConv(4, 2)])

    def forward(self, x, edge_index):
        size = degree(edge_index[1], len(x)).unsqueeze(1)
        x = x * (1 + ((size >= self.fewest) & (size < self.most)).to(x.dtype))
        for conv in self.convs:
            x = conv(x, edge_index).tanh()
        return x


class WithStart(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.convs = nn.ModuleList([layers.GCN2Conv(4, alpha=0.2) for _ in range(2)])

    def forward(self, x, edge_index):
        start = x = self.first(x)
        for conv in self.convs:
            x = conv(x, start, edge_index).tanh()
        return x


class WithoutMessages(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

    def forward(self, x, edge_index):
        return super().forward(x)


def gcn(**given):
    return Stack(layers.GCNConv(3, 4, **given), layers.GCNConv(4, 2, **given))


COUNTED = {
    "gcn": gcn,
    "gcn without loops": lambda: gcn(add_self_loops=False),
    "gcn without norm, and with": lambda: Stack(layers.GCNConv(3, 4, normalize=False), layers.GCNConv(4, 2)),
    "gcn2": WithStart,
    "appnp": lambda: Stack(WithoutMessages(), layers.APPNP(2, 0.1)),
}
OTHERS = {
    "gin": lambda: Stack(layers.GINConv(nn.Linear(3, 4)), layers.GINConv(nn.Linear(4, 2))),
    "gat": lambda: Stack(layers.GATConv(3, 4), layers.GATConv(4, 2)),
    "sage": lambda: Stack(layers.SAGEConv(3, 4), layers.SAGEConv(4, 2)),
    "arma": lambda: Stack(layers.ARMAConv(3, 4), layers.ARMAConv(4, 2)),
    "gcn and arma": lambda: Stack(layers.GCNConv(3, 4), layers.ARMAConv(4, 2)),
    "gcn improved": lambda: gcn(improved=True),  # whose loops weigh more as soon as edges have weights, of one even
    "against edges": lambda: gcn(flow="target_to_source"),
    "both ways": lambda: Stack(layers.GCNConv(3, 4), layers.GCNConv(4, 2, flow="target_to_source")),
    "count blind": lambda: Stack(CountBlind(3, 4), CountBlind(4, 2)),
    "own degrees": lambda: OwnDegrees(weighted=False),
    "own degrees as weights": lambda: OwnDegrees(weighted=True),
    "hubs only": lambda: HubsOnly(200, 1000),
    "some hubs only": lambda: HubsOnly(57, 60),
    "no switch": lambda: Stack(NoSwitch(3, 4), NoSwitch(4, 2)),
    **{
        f"keeps {kept}": lambda keep=keep: Stack(KeepsOther(3, 4, keep), KeepsOther(4, 2, keep))
        for kept, keep in {
            "edges only": lambda edges: edges,
            "names": lambda edges: {"edges": edges, "weight": None},
            "three": lambda edges: (edges, None, 1.0),
            "weight first": lambda edges: (torch.ones(edges.shape[1]), edges),
            "one weight": lambda edges: (edges, torch.ones(1)),
        }.items()
    },
}


def reference(model, data, monkeypatch, budget=200_000):
    """The reference without a run on the whole graph, and whether condensed neighbourhoods were learned from."""
    learned = []
    learn = Normaliser.learn_condensed
    monkeypatch.setattr(normalisation, "WORTH_CONDENSING", 0)
    monkeypatch.setattr(Normaliser, "learn_condensed", lambda *args: learned.append(learn(*args)) or learned[-1])
    X = Instances.from_nodes(data, NODES)
    with config_context(memory_budget=budget), opened(model, X) as gnn:
        outputs = CutReference(gnn._runs, gnn.setup, gnn._normaliser).outputs()
        for batch in gnn.batches():
            found = gnn.forward(batch)
            torch.testing.assert_close(found, outputs[torch.from_numpy(batch.positions)], atol=1e-9, rtol=1e-6)
    return outputs, learned


@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("loops", [0, 60])
@pytest.mark.parametrize("kind", [*COUNTED, *OTHERS])
def test_references_are_the_whole_graphs(kind, loops, undirected, monkeypatch):
    model, data = seeded((COUNTED | OTHERS)[kind]).double(), hubs(loops, undirected)
    outputs, learned = reference(model, data, monkeypatch)
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(data.x, data.edge_index)[NODES], atol=1e-9, rtol=1e-6)
    if kind in COUNTED:
        assert learned
        assert all(learned)
    else:
        assert not any(learned) or kind == "gcn and arma"


@pytest.mark.parametrize(("budget", "kept"), [(10**9, True), (20_000, False)])
@pytest.mark.parametrize("kind", ["gcn", "gin"])
def test_batches_that_the_reference_was_compared_with_are_used_once_where_there_is_room(kind, budget, kept):
    model, X = seeded((COUNTED | OTHERS)[kind]).double(), Instances.from_nodes(hubs(), NODES)
    with config_context(memory_budget=budget), opened(model, X) as gnn:
        outputs = CutReference(gnn._runs, gnn.setup, gnn._normaliser).outputs()
        before = list(gnn._runs.compared)
        assert bool(before) == kept
        first, again = list(gnn.batches()), list(gnn.batches())
        assert [any(batch is one for one in before) for batch in first] == [kept] * len(first)
        assert not any(batch is one for batch in again for one in before)
        assert not gnn._runs.compared
        for one, other in zip(first, again, strict=True):
            mask = torch.rand(one.num_edges, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            torch.testing.assert_close(gnn.scores(one, edge_mask=mask), gnn.scores(other, edge_mask=mask))
            torch.testing.assert_close(gnn.forward(one), outputs[torch.from_numpy(one.positions)])


def test_batches_that_would_run_otherwise_now_are_made_again():
    model, X = seeded(COUNTED["gcn"]).double(), Instances.from_nodes(hubs(), NODES)
    with opened(model, X) as gnn:
        CutReference(gnn._runs, gnn.setup, gnn._normaliser).outputs()
        before = list(gnn._runs.compared)
        gnn._batcher._settle()
        gnn.setup.give_up_fusing()
        assert before
        assert not any(batch is one for batch in gnn.batches() for one in before)


def condensed(X, hops=2):
    rows = np.arange(len(X))
    graphs = receptive_fields(X, rows, hops, 0, both_ways=False)
    nodes, summing = distinct(graphs.node_id), distinct(graphs.summing_nodes)
    return nodes, summing, condensed_neighbourhood(X, rows, nodes, summing, torch.device("cpu"))


@pytest.mark.parametrize("loops", [0, 100])
def test_edges_that_stay_stand_for_all_that_lead_to_a_node(loops):
    data = hubs(loops)
    X = Instances.from_nodes(data, NODES)
    nodes, summing, found = condensed(X)
    graphs, source = found.batch.graphs, data.edge_index[0].numpy()
    target = data.edge_index[1].numpy()
    np.testing.assert_array_equal(graphs.node_id[graphs.ends], data.edge_index[:, graphs.edge_id])
    assert (np.diff(graphs.edge_id) > 0).all()
    whole = 0
    for node in nodes:
        here = target[graphs.edge_id] == node
        assert found.stands_for[here].sum() == (target == node).sum()
        kept_all = here.sum() == (target == node).sum()
        assert kept_all or (here.sum() == 1 and node not in summing)
        assert kept_all or not ((source == node) & (target == node)).any()
        whole += kept_all and node not in summing and (target == node).sum() > 1
    assert whole >= 8
    assert graphs.node_id[graphs.node_level == 0].tolist() == summing.tolist()
    assert graphs.node_id[graphs.node_level <= 1].tolist() == nodes.tolist()
    assert found.batch.graphs.node_id[found.batch.rows].tolist() == NODES
    assert len(graphs.edge_id) >= condensed_size(X, nodes, summing)
    assert loops or len(graphs.edge_id) == condensed_size(X, nodes, summing)


def test_edges_that_stay_come_from_near_nodes_where_they_can():
    X = Instances.from_nodes(hubs(), NODES)
    nodes, _, found = condensed(X)
    graphs = found.batch.graphs
    index = X.store.in_edges
    for edge in np.flatnonzero(found.stands_for > 1):
        source, target = graphs.node_id[graphs.ends[:, edge]]
        near = np.isin(index.far_end[index.ptr[target] : index.ptr[target + 1]], nodes)
        assert np.isin(source, nodes) == near.any()


def test_nothing_is_condensed_where_most_edges_would_stay():
    ring = torch.stack([torch.arange(30), (torch.arange(30) + 1) % 30])
    assert condensed(Instances.from_nodes(Data(x=torch.ones(30, 1), edge_index=ring), [3, 9]))[2] is None


def test_weights_relative_to_the_largest_need_the_whole_graph(monkeypatch):
    with pytest.raises(MemoryError, match="whole graph"):
        reference(seeded(lambda: Stack(Relative(3, 4), Relative(4, 2))).double(), hubs(), monkeypatch, budget=100_000)
