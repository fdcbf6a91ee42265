"""How far a prediction sees, measured."""

import pytest
import torch
from blackbox_cases import LOCAL, Stack, no_warnings, opened, random_graph, seeded
from hypothesis import given
from torch import nn
from torch_geometric import nn as layers

from skgnnx import Instances
from skgnnx.testing import strategies


class Same(nn.Module):
    """One layer, three times."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(3, 3)

    def forward(self, x, edge_index):
        return self.conv(self.conv(self.conv(x, edge_index).relu(), edge_index).relu(), edge_index)


class Side(nn.Module):
    """Three layers side by side."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(layers.GCNConv(3, 2) for _ in range(3))

    def forward(self, x, edge_index):
        return sum(conv(x, edge_index).relu() for conv in self.convs)


class Branches(nn.Module):
    """A long and a short branch."""

    def __init__(self):
        super().__init__()
        self.long = nn.ModuleList([layers.GCNConv(3, 3), layers.GCNConv(3, 3), layers.GCNConv(3, 2)])
        self.short = layers.GCNConv(3, 2)

    def forward(self, x, edge_index):
        h = x
        for conv in self.long:
            h = conv(h, edge_index).relu()
        return h + self.short(x, edge_index)


class Dead(nn.Module):
    """No unit of the first layer is ever awake."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.GCNConv(3, 3), layers.GCNConv(3, 2)
        nn.init.constant_(self.first.bias, -1000.0)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


class Zero(nn.Module):
    """The second layer's weights are all zero."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.GraphConv(3, 3), layers.GraphConv(3, 2)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


class Refuses(nn.Module):
    """Does not take NaN."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(3, 2)

    def forward(self, x, edge_index):
        if x.isnan().any():
            raise AssertionError("NaN in x")
        return self.conv(x, edge_index)


class Categories(nn.Module):
    """Integer features."""

    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(4, 3), layers.GCNConv(3, 3)
        self.last = layers.GATConv(3, 2)

    def forward(self, x, edge_index):
        return self.last(self.conv(self.embedding(x[:, 0]), edge_index).relu(), edge_index)


def jumping(mode):
    return layers.GCN(3, 4, num_layers=3, out_channels=2, jk=mode)


HOPS = {
    "one": (lambda: layers.GraphConv(3, 2), 1, [1]),
    "appnp": (lambda: layers.APPNP(5, 0.1), 5, [5, 4, 3, 2, 1]),
    "sg": (lambda: layers.SGConv(3, 2, K=3), 3, [3, 2, 1]),
    "tag": (lambda: layers.TAGConv(3, 2, K=2), 2, [2, 1]),
    "reused": (Same, 3, [3, 2, 1]),
    "side by side": (Side, 1, [1, 1, 1]),
    "branches": (Branches, 3, [3, 2, 1, 1]),
    "jk cat": (lambda: jumping("cat"), 3, [3, 2, 1]),
    "jk max": (lambda: jumping("max"), 3, [3, 2, 1]),
    "jk lstm": (lambda: jumping("lstm"), 3, [3, 2, 1]),
    "dead": (Dead, 2, [2, 1]),
    "zero": (Zero, 2, [2, 1]),
    "sage max": (lambda: Stack(layers.SAGEConv(3, 3, aggr="max"), layers.SAGEConv(3, 2, aggr="max")), 2, [2, 1]),
    "gat": (lambda: Stack(layers.GATConv(3, 3), layers.GATv2Conv(3, 2)), 2, [2, 1]),
    "pna": (
        lambda: layers.PNAConv(3, 2, ["max", "min", "std"], ["identity", "attenuation"], torch.tensor([0, 3, 4])),
        1,
        [1],
    ),
    "softmax": (lambda: layers.GENConv(3, 2, aggr="softmax"), 1, [1]),
}


@pytest.mark.parametrize("kind", HOPS)
def test_hops_and_reach(kind):
    make, hops, reach = HOPS[kind]
    with no_warnings(), opened(seeded(make), Instances.from_nodes(random_graph())) as gnn:
        assert (gnn.trace.hops, gnn.trace.reach) == (hops, reach)
        assert not gnn.trace.both_ways
        assert not gnn.trace.leaks
        assert len(gnn.trace.names) == len(reach)


@pytest.mark.parametrize("first", [0, 1])
def test_each_relation_reaches_as_far_as_its_layer(first):
    class Relational(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.RGCNConv(3, 3, 3), layers.RGCNConv(3, 2, 3)

        def forward(self, x, edge_index, edge_type):
            return self.second(self.first(x, edge_index, edge_type), edge_index, edge_type)

    data = random_graph()
    data.edge_type = (torch.arange(data.num_edges) + first) % 3
    with no_warnings(), opened(seeded(Relational), Instances.from_nodes(data)) as gnn:
        assert (gnn.trace.hops, gnn.trace.reach) == (2, [2, 2, 2, 1, 1, 1])


def test_against_an_edge_and_along_another_one_is_two_messages():
    for flows in (("target_to_source", "source_to_target"), ("source_to_target", "target_to_source")):
        model = seeded(lambda flows=flows: Stack(*(layers.GraphConv(3, 3, flow=flow) for flow in flows)))
        with no_warnings(), opened(model, Instances.from_nodes(random_graph())) as gnn:
            assert (gnn.trace.hops, gnn.trace.reach, gnn.trace.both_ways) == (2, [2, 1], True)
            assert sum(len(batch) for batch in gnn.batches()) == 12


def test_a_model_without_layers_sees_its_node_only():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(3, 2)

        def forward(self, x):
            return self.lin(x)

    with no_warnings(), opened(seeded(Linear), Instances.from_nodes(random_graph())) as gnn:
        assert gnn.trace.hops == 0
        for batch in gnn.batches():
            assert batch.num_nodes == len(batch)
            assert batch.num_edges == 0


def test_integer_features():
    data = random_graph()
    data.x = torch.randint(4, (12, 1))
    with no_warnings(), opened(seeded(Categories), Instances.from_nodes(data)) as gnn:
        assert (gnn.trace.hops, gnn.trace.reach, gnn.trace.replaces_loops) == (2, [2, 1], [True, True])
        assert sum(len(batch) for batch in gnn.batches()) == 12


def test_a_model_that_refuses_nan_is_given_enough():
    with no_warnings(), opened(seeded(Refuses), Instances.from_nodes(random_graph())) as gnn:
        assert gnn.trace.hops == 1
        assert sum(len(batch) for batch in gnn.batches()) == 12


def test_messages_against_the_edges():
    conv = layers.DirGNNConv(layers.GraphConv(3, 2))
    with no_warnings(), opened(seeded(lambda: conv), Instances.from_nodes(random_graph())) as gnn:
        assert (gnn.trace.hops, gnn.trace.both_ways, gnn.trace.flipped) == (1, True, [False, True])
        assert sum(len(batch) for batch in gnn.batches()) == 12


class Mixes(nn.Module):
    """Something that sees all nodes, and a layer."""

    def __init__(self, mix):
        super().__init__()
        self.mix, self.conv = mix, layers.GraphConv(3, 2)

    def forward(self, x, edge_index, batch=None):
        return self.conv(self.mix(x, batch), edge_index)


class VirtualNode(nn.Module):
    def forward(self, x, batch):
        return x + layers.global_mean_pool(x, batch)[batch]


MIXING = {
    "graph norm": lambda: layers.GraphNorm(3),
    "pair norm": layers.PairNorm,
    "layer norm of a graph": lambda: layers.LayerNorm(3),
    "instance norm": lambda: layers.InstanceNorm(3),
    "virtual node": VirtualNode,
}


@pytest.mark.parametrize("kind", MIXING)
def test_what_mixes_all_nodes_needs_the_whole_graph(kind):
    X = Instances.from_nodes(random_graph(), [0, 3, 5])
    with opened(seeded(lambda: Mixes(MIXING[kind]())), X) as gnn:
        assert gnn.trace.hops is None
        with pytest.warns(UserWarning, match="mixes nodes of the whole graph, so every explanation runs on the whole"):
            (batch,) = list(gnn.batches())
        assert batch.num_nodes == 3 * 12
        with no_warnings():
            assert len(list(gnn.batches())) == 1


@given(strategies.instances("node", convs=LOCAL))
def test_nothing_beyond_the_hops_has_a_gradient(case):
    """Counted layers are the oracle, for networks that were built to have a known number."""
    model, X = case
    with opened(model, X, output="logits") as gnn:
        assert gnn.trace.hops == model.hops
        assert max(gnn.trace.reach) == model.hops


@given(strategies.instances("edge", convs=LOCAL))
def test_links_see_as_far_as_their_ends(case):
    model, X = case
    with opened(model, X, output="logits") as gnn:
        assert gnn.trace.hops == model.hops
