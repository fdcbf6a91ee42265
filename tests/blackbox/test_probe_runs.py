"""Many questions in one run: the same answers as one by one, and one by one where parts do not stay apart."""

import pytest
import torch
from blackbox_cases import Stack, random_graph, seeded
from hypothesis import given
from test_receptive_field import HOPS, MIXING, Categories, Mixes, Refuses
from torch import nn
from torch_geometric import nn as layers

from skgnnx import Instances
from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.frozen import frozen
from skgnnx.blackbox.probe_runs import SideBySide
from skgnnx.blackbox.receptive_field import trace
from skgnnx.testing import strategies


class Counted(ModelCall):
    """Knows how often the model ran."""

    runs = 0

    def __call__(self, batch, x=None):
        self.runs += 1
        return super().__call__(batch, x)


def traces(model, X):
    """What is measured side by side, what one by one, and how many runs the first took."""
    call = Counted(model)
    with frozen(model), pytest.MonkeyPatch.context() as patch:
        together, runs = trace(call, X, torch.device("cpu")), call.runs
        patch.setattr(SideBySide, "_run", lambda *args: None)
        return together, trace(call, X, torch.device("cpu")), runs


class Limited(nn.Module):
    """Knows so many nodes by their numbers."""

    def __init__(self, most):
        super().__init__()
        self.places, self.conv, self.last = nn.Embedding(most, 3), layers.GCNConv(3, 3), layers.GCNConv(3, 2)

    def forward(self, x, edge_index):
        x = x + self.places(torch.arange(len(x)))
        return self.last(self.conv(x, edge_index).relu(), edge_index)


class Hidden(nn.Module):
    """Passes messages that nobody sees, drops NaN, and gives all nodes the same."""

    def __init__(self):
        super().__init__()
        self.conv, self.lin = [layers.GraphConv(3, 4)], nn.Linear(4, 2)

    def forward(self, x, edge_index):
        return self.lin(self.conv[0](x, edge_index).relu().nan_to_num().mean(0)).expand(len(x), -1)


class Listed(nn.Module):
    """A layer in a plain list, and one that is known."""

    def __init__(self):
        super().__init__()
        self.convs, self.last = [layers.GraphConv(3, 3)], layers.GraphConv(3, 2)

    def forward(self, x, edge_index):
        return self.last(self.convs[0](x, edge_index), edge_index)


class Drops(nn.Module):
    """Knows no NaN in features; messages tell how far it sees."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.GraphConv(3, 3), layers.GraphConv(3, 2)

    def forward(self, x, edge_index):
        return self.second(self.first(x.nan_to_num(), edge_index), edge_index)


class Complete(nn.Module):
    """Sends messages between all nodes."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(3, 2)

    def forward(self, x):
        return self.conv(x, torch.ones(len(x), len(x)).nonzero().T)


class Flipped(nn.Module):
    """Adds up the first and the last node, the second and the last but one, and so on."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(3, 2)

    def forward(self, x, edge_index):
        h = self.conv(x, edge_index)
        return h + h.flip(0)


class Pooled(nn.Module):
    """Works on the best half of the nodes, and hands that back."""

    def __init__(self):
        super().__init__()
        self.first, self.inner = layers.GraphConv(3, 3), layers.GraphConv(3, 2)
        self.pool = layers.TopKPooling(3, 0.5)

    def forward(self, x, edge_index):
        x = self.first(x, edge_index)
        inner, edges, _, _, kept, _ = self.pool(x, edge_index)
        return x[:, :2].index_add(0, kept, self.inner(inner, edges))


class Rooted(nn.Module):
    """Every node listens to one that the graph names."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(3, 2)

    def forward(self, x, edge_index, root_index):
        return self.conv(x + x[root_index], edge_index)


class OneRow(nn.Module):
    """Returns a vector with one number per node."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(3, 1)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index).squeeze(1)


class OneGraph(nn.Module):
    """Takes one graph at a time."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(3, 2)

    def forward(self, x, edge_index, batch):
        if batch.max() > 0:
            raise ValueError("one graph at a time")
        return self.conv(x, edge_index).mean(0, keepdim=True)


def mixing(kind):
    return lambda: Mixes(MIXING[kind]())


def rooted():
    data = random_graph()
    data.root_index = torch.tensor([5])
    return data


APART = {**{kind: make for kind, (make, _, _) in HOPS.items()}, "one row": OneRow, "drops": Drops}
DEPENDENT = {
    "few places": lambda: Limited(30),
    "fewer places": lambda: Limited(20),
    "as many places as nodes": lambda: Limited(12),
    "hidden": Hidden,
    "listed": Listed,
    "complete": Complete,
    "flipped": Flipped,
    "pooled": Pooled,
    "refuses nan": Refuses,
    **{kind: mixing(kind) for kind in MIXING},
}


@pytest.mark.parametrize("kind", APART)
def test_two_runs_tell_what_one_by_one_tells(kind):
    together, alone, runs = traces(seeded(APART[kind]), Instances.from_nodes(random_graph()))
    assert together == alone
    assert runs == 2


@pytest.mark.parametrize("kind", DEPENDENT)
def test_parts_that_depend_on_each_other_are_asked_one_by_one(kind):
    together, alone, runs = traces(seeded(DEPENDENT[kind]), Instances.from_nodes(random_graph()))
    assert together == alone
    assert runs > 2


def test_leaks_are_found_behind_a_mean_over_everything():
    """Two cycles in one graph would have the same mean: the second run has other neighbours, beside other parts."""
    for model in (Hidden, Listed):
        assert traces(seeded(model), Instances.from_nodes(random_graph()))[0].leaks


def test_nodes_that_graphs_name_belong_to_one_part():
    together, alone, _ = traces(seeded(Rooted), Instances.from_nodes(rooted()))
    assert together == alone
    assert together.hops is None


@pytest.mark.parametrize("flows", [("target_to_source", "source_to_target"), ("target_to_source",) * 2])
def test_both_directions(flows):
    model = seeded(lambda: Stack(*(layers.GraphConv(3, 3, flow=flow) for flow in flows)))
    together, alone, runs = traces(model, Instances.from_nodes(random_graph()))
    assert (together, runs) == (alone, 2)


def test_whole_numbers_have_no_nan():
    data = random_graph()
    data.x = torch.randint(4, (12, 1))
    together, alone, runs = traces(seeded(Categories), Instances.from_nodes(data))
    assert (together, runs) == (alone, 2)


def test_every_part_has_the_same_attributes():
    class Relational(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.RGCNConv(3, 3, 3), layers.RGCNConv(3, 2, 3)

        def forward(self, x, edge_index, edge_type):
            return self.second(self.first(x, edge_index, edge_type), edge_index, edge_type)

    data = random_graph()
    data.edge_type = torch.arange(data.num_edges) % 3
    together, alone, runs = traces(seeded(Relational), Instances.from_nodes(data))
    assert (together, runs) == (alone, 2)


def test_graphs():
    X = Instances.from_graphs([random_graph()])
    for pooled, expected in ((lambda: Stack(layers.GINConv(nn.Linear(3, 2)), pool=True), 2), (OneGraph, 4)):
        together, alone, runs = traces(seeded(pooled), X)
        assert together == alone
        assert runs == expected


@given(strategies.instances("node"))
def test_any_network_for_nodes(case):
    together, alone, _ = traces(*case)
    assert together == alone


@given(strategies.instances("edge"))
def test_any_network_for_links(case):
    together, alone, _ = traces(*case)
    assert together == alone


@given(strategies.instances("graph"))
def test_any_network_for_graphs(case):
    together, alone, _ = traces(*case)
    assert together == alone
