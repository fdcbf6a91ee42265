"""GradCAM against gradients taken by hand from the states, on every layer, and what it refuses."""

import warnings

import numpy as np
import pytest
import torch
from pooled_networks import CONVS, FUNCTIONS, WIRINGS, Pooling, graphs, made
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    AttentionalAggregation,
    GCN2Conv,
    GraphConv,
    MessagePassing,
    Set2Set,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

from skgnnx import CAM, GradCAM, Instances
from skgnnx.testing import example
from skgnnx.testing.planted import check_right_entries

X = Instances.from_graphs(graphs(), target=1)


def by_hand(states, rest, variant="gradcam"):
    """The map of one graph, given its states and what follows them up to the score."""
    states = states.detach().clone().requires_grad_()
    rest(states).backward()
    weight = states.grad.mean(dim=0, keepdim=True) if variant == "gradcam" else states.grad
    return (states.detach() * weight).sum(dim=1).numpy()


def same(E, expected):
    for i in range(len(expected)):
        np.testing.assert_allclose(E[i], expected[i], rtol=1e-4, atol=1e-6)
    assert max(np.abs(values).max() for values in expected) > 1e-3


def after(model, number, edge_index):
    """What follows the states after a layer of a pooling network, up to the score of class 1."""

    def rest(h):
        for later in range(number + 1, len(model.convs)):
            h = model.activated(model.convs[later](h, edge_index), later)
        return model.head(model.pool(h, torch.zeros(len(h), dtype=torch.long)))[0, 1]

    return rest


def maps_by_hand(model, number, variant):
    found = []
    for data in graphs():
        states = model.layers(data.x, data.edge_index)[number]
        found.append(by_hand(states, after(model, number, data.edge_index), variant))
    return found


@pytest.mark.parametrize("variant", ["gradcam", "hirescam"])
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("conv", CONVS)
def test_states_after_each_layer_are_weighted_by_their_gradients(conv, wiring, variant):
    pool = list(FUNCTIONS)[WIRINGS.index(wiring) % 3]
    model = made(lambda: Pooling(conv, pool, wiring))
    for number in (0, 1):
        E = GradCAM(model, variant=variant, layers=number, relu=False).explain(X)
        same(E, maps_by_hand(model, number, variant))


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("pool", FUNCTIONS)
def test_one_pool_and_one_linear_make_it_cam(pool, wiring):
    model = made(lambda: Pooling("sage", pool, wiring))
    shares = CAM(model).explain(X)
    same(GradCAM(model, variant="hirescam", layers="last").explain(X), [shares[i] for i in range(len(X))])
    if pool != "max":
        same(GradCAM(model, relu=False).explain(X), [shares[i] for i in range(len(X))])


def test_defaults_are_those_of_the_papers():
    model = made(Pooling)
    E = GradCAM(model).explain(X)
    same(E, [np.maximum(values, 0) for values in maps_by_hand(model, 1, "gradcam")])
    signed = GradCAM(model, variant="hirescam").explain(X)
    assert any((signed[i] < 0).any() for i in range(len(X)))
    positive = GradCAM(model, variant="hirescam", relu=True).explain(X)
    same(positive, [np.maximum(signed[i], 0) for i in range(len(X))])
    nodes, parts = example("node")
    for one, other in ((GradCAM(nodes), GradCAM(nodes, variant="hirescam", layers="mean", relu=False)),):
        for left, right in zip(one.explain(parts), other.explain(parts)):
            np.testing.assert_array_equal(left, right)


def test_every_instance_has_its_own_target():
    model, targets = made(lambda: Pooling("gin", "max")), [0, 1, 2, 0, 1, 2]
    for explainer in (GradCAM(model), CAM(model)):
        mixed = explainer.explain(Instances.from_graphs(graphs(), target=targets))
        for i, target in enumerate(targets):
            np.testing.assert_allclose(mixed[i], explainer.explain(X[[i]].with_target(target))[0], rtol=1e-6)


@pytest.mark.parametrize("variant", ["gradcam", "hirescam"])
def test_mean_is_the_mean_of_the_maps_of_all_layers(variant):
    model = made(lambda: Pooling("gcn"))
    first, last = (GradCAM(model, variant=variant, layers=number).explain(X) for number in (0, 1))
    mean = GradCAM(model, variant=variant, layers="mean").explain(X)
    counted = GradCAM(model, variant=variant, layers=-2).explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(mean[i], (first[i] + last[i]) / 2, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(counted[i], first[i])


@pytest.mark.parametrize("layers", [0, "last", "mean"])
@pytest.mark.parametrize("variant", ["gradcam", "hirescam"])
def test_batches_give_what_single_graphs_give(variant, layers):
    """One of them is a single node, whose state is its own pool."""
    model = made(lambda: Readout(lambda net, layers, batch: net.head(
        net.relu(net.extra(global_mean_pool(layers[1], batch))))))  # fmt: skip
    with torch.no_grad():
        model.extra.bias.fill_(20)  # all units are awake: what comes before and after them is the same
    together, alone = (GradCAM(model, variant=variant, layers=layers, batch_size=size).explain(X) for size in (6, 1))
    for i in range(len(X)):
        np.testing.assert_allclose(together[i], alone[i], rtol=1e-6, atol=1e-7)


class Readout(Pooling):
    """A pooling network whose readout is given as a function of (network, states of all layers, batch)."""

    def __init__(self, readout, **options):
        super().__init__(**options)
        self.readout, self.extra, self.wide = readout, nn.Linear(6, 6), nn.Linear(12, 3)
        self.set2set, self.attention = Set2Set(6, 2), AttentionalAggregation(nn.Linear(6, 1))

    def forward(self, x, edge_index, batch=None):
        batch = torch.zeros(len(x), dtype=torch.long) if batch is None else batch
        return self.readout(self, self.layers(x, edge_index), batch)


READOUTS = {
    "two maps": lambda net, h, batch: net.head(net.relu(net.extra(global_add_pool(h, batch)))),
    "set2set": lambda net, h, batch: net.wide(net.set2set(h, batch)),
    "attention": lambda net, h, batch: net.head(net.attention(h, batch)),
    "two pools": lambda net, h, batch: net.wide(torch.cat([global_mean_pool(h, batch), global_max_pool(h, batch)], 1)),
    "root": lambda net, h, batch: net.head(global_add_pool(h, batch).clamp_min(0.1).sqrt()),
}


@pytest.mark.parametrize("variant", ["gradcam", "hirescam"])
@pytest.mark.parametrize("kind", READOUTS)
def test_what_other_readouts_are_given_is_found(kind, variant):
    model, expected = made(lambda: Readout(lambda net, layers, batch: READOUTS[kind](net, layers[1], batch))), []
    for data in graphs():

        def rest(h):
            return READOUTS[kind](model, h, torch.zeros(len(h), dtype=torch.long))[0, 1]

        expected.append(by_hand(model.states(data.x, data.edge_index), rest, variant))
    same(GradCAM(model, variant=variant, relu=False).explain(X), expected)


def test_concatenated_layers_are_one_state():
    model = made(lambda: Readout(lambda net, layers, batch: net.wide(global_add_pool(torch.cat(layers, 1), batch))))
    expected = []
    for data in graphs():
        states = torch.cat(model.layers(data.x, data.edge_index), dim=1).detach()
        expected.append((states @ model.wide.weight[1].detach()).numpy())
    same(GradCAM(model, relu=False).explain(X), expected)


def test_a_layer_that_is_used_twice_has_two_states():
    model = made(lambda: Pooling("graph", twice=True))
    for number in (0, 1):
        same(GradCAM(model, layers=number, relu=False).explain(X), maps_by_hand(model, number, "gradcam"))
    with pytest.raises(ValueError, match="'layers' must be .*in .-2, 2. for Pooling. Got 2"):
        GradCAM(model, layers=2).explain(X)


class Residual(nn.Module):
    """States are added to in place; the first ones are read from categories, if asked."""

    def __init__(self, level="graph", categories=False):
        super().__init__()
        self.lift = nn.Embedding(5, 6) if categories else nn.Linear(4, 6)
        self.convs, self.head = nn.ModuleList([GraphConv(6, 6), GraphConv(6, 6)]), nn.Linear(6, 2)
        self.level, self.categories = level, categories

    def lifted(self, x):
        return self.lift(x.view(-1) if self.categories else x)

    def rest(self, h, number, edge_index, batch, *, in_place=False):
        for conv in self.convs[number:]:
            if in_place:
                h += conv(h, edge_index).relu_()
            else:
                h = h + conv(h, edge_index).relu()
        return self.head(global_add_pool(h, batch) if self.level == "graph" else h)

    def forward(self, x, edge_index, batch=None):
        return self.rest(self.lifted(x).clone(), 0, edge_index, batch, in_place=True)


@pytest.mark.parametrize("categories", [False, True])
def test_gradients_of_states_go_around_layers_too(categories):
    model, data = made(lambda: Residual(categories=categories)), graphs(3)
    for one in data:
        one.x = torch.arange(one.num_nodes).view(-1, 1) % 5 if categories else one.x
    expected = []
    for one in data:
        h = model.lifted(one.x)
        h = h + model.convs[0](h, one.edge_index).relu()
        expected.append(by_hand(h, lambda h, one=one: model.rest(h, 1, one.edge_index, None)[0, 1]))
    same(GradCAM(model, layers=0, relu=False).explain(Instances.from_graphs(data, target=1)), expected)


@pytest.mark.parametrize("categories", [False, True])
@pytest.mark.parametrize("number", [0, 1])
def test_nodes_are_scored_by_what_goes_into_a_layer(number, categories):
    model, data = made(lambda: Residual("node", categories)), graphs(3)[2]
    data.x = torch.arange(data.num_nodes).view(-1, 1) % 5 if categories else data.x
    E = GradCAM(model, layers=number).explain(Instances.from_nodes(data, [0, 3], target=1))
    h = model.lifted(data.x)
    if number == 1:
        h = h + model.convs[0](h, data.edge_index).relu()
    rest = [lambda h, v=v: model.rest(h, number, data.edge_index, None)[v, 1] for v in (0, 3)]
    same(E, [by_hand(h, one, "hirescam") for one in rest])


@pytest.mark.parametrize("conv", CONVS)
def test_nothing_outside_of_the_receptive_field(conv):
    class Nodes(Pooling):
        def forward(self, x, edge_index):
            return self.head(self.states(x, edge_index))

    path = Data(x=torch.rand(7, 4) + 0.5, edge_index=torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]))
    X = Instances.from_nodes(path, [6], target=0)
    torch.manual_seed(2)
    model = Nodes(conv).eval()
    for number, seen in ((1, {5, 6}), (0, {4, 5, 6})):
        assert set(np.flatnonzero(GradCAM(model, layers=number).explain(X)[0])) == seen
    everywhere = GradCAM(model, variant="gradcam", allow_global=True, layers=1, relu=False).explain(X)
    assert set(np.flatnonzero(everywhere[0])) > {5, 6}


@pytest.mark.parametrize("number", [0, 1])
def test_shares_of_nodes_sum_to_the_score_without_biases(number):
    class Nodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList([GraphConv(4, 6, bias=False), GraphConv(6, 3, bias=False)])

        def forward(self, x, edge_index):
            return self.convs[1](self.convs[0](x, edge_index).relu(), edge_index)

    model, data = made(Nodes), graphs(3)[2]
    E = GradCAM(model, layers=number).explain(Instances.from_nodes(data, target=2))
    for node in range(data.num_nodes):
        assert E[node].sum() == pytest.approx(float(model(data.x, data.edge_index)[node, 2].detach()), rel=1e-5)


class Ready(nn.Module):
    """One of PyG's own networks, pooled."""

    def __init__(self, kind, **options):
        super().__init__()
        self.network, self.head = kind(4, 6, num_layers=3, out_channels=6, **options), nn.Linear(6, 2)

    def forward(self, x, edge_index, batch):
        return self.head(global_mean_pool(self.network(x, edge_index), batch))


class OwnConv(MessagePassing):
    """A layer of the user's own, whose states have another name."""

    def __init__(self):
        super().__init__(aggr="add")
        self.lin = nn.Linear(4, 6)

    def forward(self, edge_index, states):
        return self.propagate(edge_index, h=self.lin(states)).relu()

    def message(self, h_j):
        return h_j


@pytest.mark.parametrize("options", [{}, {"jk": "cat"}, {"norm": "batch_norm", "act": "elu"}])
@pytest.mark.parametrize("kind", [GCN, GIN, GAT])
def test_networks_of_pyg_are_explained(kind, options):
    model = made(lambda: Ready(kind, **options))
    shares = CAM(model).explain(X)
    same(GradCAM(model, relu=False).explain(X), [shares[i] for i in range(len(X))])
    assert np.isfinite(GradCAM(model, layers="mean").explain(X)[0]).all()
    with pytest.raises(ValueError, match="in .-3, 3."):
        GradCAM(model, layers=3).explain(X)


def test_layers_of_ones_own_are_explained():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = OwnConv(), nn.Linear(6, 2)

        def forward(self, x, edge_index, batch):
            return self.head(global_max_pool(self.conv(edge_index, states=x), batch))

    model = made(Own)
    shares = CAM(model).explain(X)
    same(GradCAM(model, variant="hirescam").explain(X), [shares[i] for i in range(len(X))])


def test_sparse_matrices_are_no_states():
    """Neither where they come before the states, nor where they have as many columns as these."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = OwnConv(), GraphConv(6, 6), nn.Linear(6, 2)

        def rest(self, h, adj_t, batch):
            return self.head(global_add_pool(self.second(h, adj_t).relu(), batch))

        def forward(self, x, adj_t, batch):
            return self.rest(self.first(adj_t, states=x), adj_t, batch)

    data = graphs(3)
    for one in data:
        n, edges = one.num_nodes, one.edge_index.unique(dim=1).flip(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its sparse matrices a beta
            ones = torch.ones(edges.shape[1], dtype=torch.float64)
            one.adj_t = torch.sparse_coo_tensor(edges, ones, (n, n)).to_sparse_csr()
        del one.edge_index
    model, sparse = made(Own), Instances.from_graphs(data, target=1)
    shares = CAM(model).explain(sparse)
    same(GradCAM(model, relu=False).explain(sparse), [shares[i] for i in range(len(sparse))])
    same(GradCAM(model, layers=0, relu=False).explain(sparse), [
        by_hand(model.first(one.adj_t, states=one.x), lambda h, one=one: model.rest(h, one.adj_t, None)[0, 1])
        for one in data
    ])  # fmt: skip


def test_the_law_of_right_entries_holds_for_states_too():
    class Elsewhere(GradCAM):
        def _backward(self, gnn, batch, passed):
            masks = super()._backward(gnn, batch, passed)
            masks.node = masks.node.flip(0)
            return masks

    class Nowhere(GradCAM):
        def _backward(self, gnn, batch, passed):
            masks = super()._backward(gnn, batch, passed)
            masks.node = masks.node * 0
            return masks

    check_right_entries(GradCAM)
    for broken in (Elsewhere, Nowhere):
        with pytest.raises(AssertionError, match="Only the node that matters"):
            check_right_entries(broken)


@pytest.mark.parametrize("level", ["node", "edge"])
def test_global_weights_are_refused_for_parts_of_a_graph(level):
    model, parts = example(level)
    with pytest.raises(TypeError, match=f"does not depend on which {level} .*variant='hirescam', or allow_global=True"):
        GradCAM(model, variant="gradcam").explain(parts)
    assert (GradCAM(model, variant="gradcam", allow_global=True).explain(parts)[0] >= 0).all()


def test_models_without_layers_or_pools_are_refused():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 2)

        def forward(self, x, edge_index, batch):
            return global_add_pool(self.lin(x), batch)

    with pytest.raises(TypeError, match="between PyG MessagePassing layers. Got Dense.*InputXGradient"):
        GradCAM(made(Dense)).explain(X)
    strange = made(lambda: Readout(lambda net, layers, batch: net.head(
        torch.stack([layers[1][batch == g].median(dim=0).values for g in range(int(batch.max()) + 1)]))))  # fmt: skip
    with pytest.raises(TypeError, match="Got none of these in Readout; use InputXGradient"):
        GradCAM(strange).explain(X)


def test_layers_that_take_the_first_states_again():
    class Initial(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.conv, self.head = nn.Linear(3, 4), GCN2Conv(4, 0.1, 0.5, 1), nn.Linear(4, 2)

        def forward(self, x, edge_index, batch=None):
            first = self.lift(x)
            return self.head(global_add_pool(self.conv(first, first, edge_index).relu(), batch))

    torch.manual_seed(0)
    model, X = (
        Initial().eval(),
        Instances.from_graphs([Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0, 1], [1, 2]]))]),
    )
    np.testing.assert_allclose(GradCAM(model, variant="hirescam").explain(X)[0], CAM(model).explain(X)[0], atol=1e-6)
