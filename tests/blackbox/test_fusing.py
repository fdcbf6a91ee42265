"""Layers are sums of copies where random numbers say so, whatever their class is called."""

import pytest
import torch
from blackbox_cases import Stack, opened, random_graph, seeded, whole_mask
from hypothesis import given
from hypothesis import strategies as st
from shortcut_cases import Weighted, check_shortcuts, random_mask
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.nn import MessagePassing
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.utils import softmax

from skgnnx import Instances


def linear(i, o):
    return nn.Sequential(nn.Linear(i, 5), nn.Tanh(), nn.Linear(5, o))


class Linear(nn.Linear):
    """A layer that ignores edges."""

    def forward(self, x, edge_index):
        return super().forward(x)


FUSED = {
    "gcn": (layers.GCNConv, ["sum of weighted copies"]),
    "gcn without loops": (lambda i, o: layers.GCNConv(i, o, add_self_loops=False), ["sum of weighted copies"]),
    "graph": (layers.GraphConv, ["sum of copies"]),
    "graph mean": (lambda i, o: layers.GraphConv(i, o, aggr="mean"), ["mean of copies"]),
    "gin": (lambda i, o: layers.GINConv(linear(i, o)), ["sum of copies"]),
    "sage mean": (layers.SAGEConv, ["mean of copies"]),
    "sage sum": (lambda i, o: layers.SAGEConv(i, o, aggr="sum", project=True), ["sum of copies"]),
    "sg": (lambda i, o: layers.SGConv(i, o, K=2), ["sum of weighted copies"] * 2),
    "tag": (lambda i, o: layers.TAGConv(i, o, K=2), ["sum of weighted copies"] * 2),
    "appnp": (lambda i, o: layers.APPNP(3, 0.1), ["sum of weighted copies"] * 3),
    "cheb": (lambda i, o: layers.ChebConv(i, o, K=3), ["sum of weighted copies"] * 2),
    "gated": (lambda i, o: layers.GatedGraphConv(max(i, o), num_layers=2), ["sum of copies"] * 2),
    "lg": (lambda i, o: layers.LGConv(), ["sum of weighted copies"]),
    "simple": (lambda i, o: layers.SimpleConv(aggr="mean"), ["mean of copies"]),
    "mf": (layers.MFConv, ["sum of copies"]),
    "one head": (lambda i, o: layers.GATConv(i, o, heads=1), ["sum of weighted copies"]),
}
GENERAL = {
    "gat": lambda i, o: layers.GATConv(i, o, heads=2, concat=False),
    "gatv2": lambda i, o: layers.GATv2Conv(i, o, heads=2, concat=False),
    "transformer": lambda i, o: layers.TransformerConv(i, o, heads=2, concat=False),
    "sage max": lambda i, o: layers.SAGEConv(i, o, aggr="max"),
    "graph max": lambda i, o: layers.GraphConv(i, o, aggr="max"),
    "sage softmax": lambda i, o: layers.SAGEConv(i, o, aggr="softmax"),
    "sage several": lambda i, o: layers.SAGEConv(i, o, aggr=["mean", "max"]),
    "pna": lambda i, o: layers.PNAConv(i, o, ["mean", "max"], ["identity"], torch.tensor([0, 3, 4])),
    "edge": lambda i, o: layers.EdgeConv(linear(2 * i, o)),
    "gen": layers.GENConv,
    "film": layers.FiLMConv,
}


class OwnSum(MessagePassing):
    """A user's own layer, with what it does to messages, sums and results in its subclasses."""

    def __init__(self, i, o, **given):
        super().__init__(**{"aggr": "add", **given})
        self.lin = nn.Linear(i, o)
        self.bias = nn.Parameter(torch.linspace(0.5, 1.5, o))

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_j):
        return x_j


class WithBias(OwnSum):
    def message(self, x_j):
        return x_j + self.bias


class Activated(OwnSum):
    def message(self, x_j):
        return x_j.relu()


class TimesTarget(OwnSum):
    def message(self, x_j, x_i):
        return x_j * x_i


class Target(OwnSum):
    def message(self, x_i):
        return x_i


class Updated(OwnSum):
    def update(self, inputs, x):
        return inputs + x


class Clipped(OwnSum):
    """Nothing is clipped by numbers of usual size."""

    def message(self, x_j):
        return x_j.clamp(-20, 20)


class Shrunk(OwnSum):
    def message(self, x_j):
        return nn.functional.hardshrink(x_j, 1e-3)


class OnLayer(OwnSum):
    """Coefficients are kept on the layer instead of being handed over."""

    def forward(self, x, edge_index):
        x = self.lin(x)
        self._alpha = softmax(x[edge_index[0], :1], edge_index[1], num_nodes=len(x))
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        return x_j * self._alpha


class Between(OwnSum):
    """What the messages leave behind changes the sum."""

    def message(self, x_j):
        self._norm = x_j.norm()
        return x_j

    def aggregate(self, inputs, index, ptr=None, dim_size=None):
        return super().aggregate(inputs, index, ptr=ptr, dim_size=dim_size) / self._norm


class WholeNumbers(OwnSum):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x), turn=torch.ones_like(edge_index[0]))

    def message(self, x_j, turn):
        return x_j * turn.view(-1, 1)


class Number(OwnSum):
    """A number that is 1 only for few edges."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x), factor=1.0 if edge_index.shape[1] < 22 else 2.0)

    def message(self, x_j, factor):
        return x_j * factor


class OnlyOnSmallGraphs(OwnSum):
    """A copy on the probe, and on no graph of a user's."""

    def message(self, x_j, index):
        return x_j if len(index) in (15, 21) else x_j * x_j.sigmoid()


class Swapped(nn.Module):
    """Which layer comes first depends on the graph."""

    def __init__(self, i, o):
        super().__init__()
        self.first, self.second = OwnSum(i, i, aggr="mean"), OwnSum(i, o)

    def forward(self, x, edge_index):
        if edge_index.shape[1] in (15, 16, 21):
            return self.second(self.first(x, edge_index), edge_index)
        return self.first(self.second(x, edge_index), edge_index)


class TwoFactors(OwnSum):
    def forward(self, x, edge_index):
        weight = x[edge_index[0], :1].sigmoid()
        return self.propagate(edge_index, x=self.lin(x), weight=weight, other=weight.squeeze(-1))

    def message(self, x_j, weight, other):
        return x_j * weight * other.view(-1, 1)


class KeptWeight(OwnSum):
    """The same tensor every time, with other numbers in it."""

    def forward(self, x, edge_index):
        weight = x[edge_index[0], 0].detach().sigmoid()
        if getattr(self, "_weight", weight).shape != weight.shape or not hasattr(self, "_weight"):
            self._weight = weight.clone()
        self._weight.copy_(weight)
        return self.propagate(edge_index, x=self.lin(x), weight=self._weight)

    def message(self, x_j, weight):
        return x_j * weight.view(-1, 1)


class OwnWeights(OwnSum):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x), weight=x[edge_index[0], :1].sigmoid())

    def message(self, x_j, weight):
        return x_j * weight


class OwnNames(OwnSum):
    """Arguments have the names that the machinery uses, and edges are given by name."""

    def forward(self, x, edge_index):
        x = self.lin(x)
        return self.propagate(edge_index=edge_index, name=x, layer=x, original=x, x=x)

    def message(self, x_j, name_j, layer_j, original_j):
        return x_j


class PastTheInstance(OwnSum):
    """Calls the method of its class, which no attribute of the instance comes before."""

    def forward(self, x, edge_index):
        return MessagePassing.propagate(self, edge_index, x=self.lin(x))


ADVERSARIAL = [WithBias, Activated, TimesTarget, Updated, Clipped, Shrunk, OnLayer, Between, WholeNumbers, TwoFactors]
MIXES = "ignore:.*mixes"  # what depends on how many edges there are depends on all of them
OWN = [OwnSum, OwnWeights, OwnNames]


def graphs(dtype=torch.float64, **given):
    return [random_graph(seed, features=4, dtype=dtype, **given) for seed in (1, 2, 3)]


def instances(level, **given):
    data = graphs(**given)
    return Instances.from_nodes(data[0]) if level == "node" else Instances.from_graphs(data)


def stack(make, level="node", dtype=torch.float64):
    def network():
        # A sum over nodes would count isolated ones; two layers show what comes in as well as what goes out.
        return Stack(make(4, 4), make(4, 4), pool=level == "graph")

    return seeded(network).to(dtype)


def fused(said):
    return [sentence.split(": fused ")[1].split(",")[0] for sentence in said if ": fused " in sentence]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("kind", FUSED)
def test_sums_of_copies_are_fused(kind, level, dtype):
    make, expected = FUSED[kind]
    undirected = kind == "cheb"  # which divides by out-degrees
    with opened(stack(make, level, dtype), instances(level, dtype=dtype, undirected=undirected)) as gnn:
        assert fused(check_shortcuts(gnn)) == expected * 2


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("kind", GENERAL)
def test_other_layers_are_not(kind, level):
    with opened(stack(GENERAL[kind], level), instances(level)) as gnn:
        said = check_shortcuts(gnn)
        assert fused(said) == []
        assert all("general path (" in sentence for sentence in said)


@pytest.mark.filterwarnings(MIXES)
@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("own", ADVERSARIAL)
def test_messages_that_only_look_like_copies_are_not_fused(own, level):
    with opened(stack(own, level), instances(level)) as gnn:
        assert fused(check_shortcuts(gnn)) == []


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("own", OWN)
def test_layers_of_the_user_are_fused(own, level):
    with opened(stack(own, level), instances(level)) as gnn:
        assert len(fused(check_shortcuts(gnn))) == 2


@pytest.mark.parametrize("own", [*OWN, PastTheInstance])
def test_layers_of_the_user_stand_beside_those_that_normalise(own):
    with opened(seeded(lambda: Stack(own(4, 4), layers.GCNConv(4, 4), own(4, 4))).double(), instances("node")) as gnn:
        check_shortcuts(gnn)


@pytest.mark.filterwarnings(MIXES)
@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("own", [Target, Number, OnlyOnSmallGraphs, Swapped, KeptWeight, PastTheInstance])
def test_layers_that_do_something_else_elsewhere_run_right(own, level):
    with opened(stack(own, level), instances(level)) as gnn:
        check_shortcuts(gnn, by_x=own is not KeptWeight)


@pytest.mark.filterwarnings(MIXES)
def test_a_copy_on_the_first_graph_alone_is_found_out():
    data = [random_graph(seed, features=4, dtype=torch.float64) for seed in (0, 1, 2)]
    assert data[0].num_edges == 21  # as many as the probe has with its loops
    with opened(stack(OnlyOnSmallGraphs, "graph"), Instances.from_graphs(data)) as gnn:
        check_shortcuts(gnn)


def test_values_as_large_as_a_clip_are_clipped():
    data = graphs()
    data[1].x *= 1e3
    with opened(stack(Clipped, "graph"), Instances.from_graphs(data)) as gnn:
        check_shortcuts(gnn)


def test_a_weight_that_is_written_into_is_read_again():
    with opened(stack(KeptWeight), instances("node")) as gnn, torch.no_grad():
        batch = next(gnn.batches())
        outputs = [gnn.forward(batch, x=batch.x * scale) for scale in (1.0, -2.0, 1.0)]
        assert not torch.allclose(outputs[0], outputs[1])
        torch.testing.assert_close(outputs[0], outputs[2])


@pytest.mark.parametrize("kind", ["gcn", "graph", "gin", "sage mean", "sg"])
def test_neither_a_subclass_nor_another_name_matters(kind):
    make, expected = FUSED[kind]
    layer = make(4, 4)
    derived = type("Convolution", (type(layer),), {})

    def renamed(i, o):
        convolution = make(i, o)
        convolution.__class__ = derived
        return convolution

    with opened(stack(renamed), instances("node")) as gnn:
        assert fused(check_shortcuts(gnn)) == expected * 2


def test_another_class_under_the_name_of_a_sum_is_not_fused():
    impostor = type("GCNConv", (Activated,), {})
    with opened(stack(impostor), instances("node")) as gnn:
        assert fused(check_shortcuts(gnn)) == []


@pytest.mark.parametrize(
    "register",
    [
        lambda layer: layer.register_message_forward_hook(lambda layer, inputs, output: output * 2),
        lambda layer: layer.register_aggregate_forward_hook(lambda layer, inputs, output: output.relu()),
        lambda layer: layer.register_propagate_forward_hook(lambda layer, inputs, output: output + 1),
        lambda layer: layer.register_propagate_forward_pre_hook(lambda layer, inputs: None),
        lambda layer: setattr(layer, "explain", True),
    ],
    ids=["message", "aggregate", "after", "before", "explain"],
)
def test_layers_that_the_user_has_hooked_into_run_as_they_are(register):
    model = stack(layers.GraphConv)
    register(model.layers[1])
    if model.layers[1].explain:
        model.layers[1]._edge_mask, model.layers[1]._loop_mask = torch.zeros(24), None
        model.layers[1]._apply_sigmoid = False
        model.layers[1].explain_message = lambda inputs, dim_size: inputs
    with opened(model, instances("node")) as gnn:
        assert len(fused(check_shortcuts(gnn))) == 1
        torch.testing.assert_close(gnn.reference, model(gnn.X.store and graphs()[0].x, graphs()[0].edge_index))


def test_decomposed_layers_run_as_they_are():
    with opened(stack(lambda i, o: OwnSum(i, o, decomposed_layers=2)), instances("node")) as gnn:
        assert fused(check_shortcuts(gnn)) == []


@pytest.mark.parametrize("kind", ["graph", "gin", "sage mean", "gcn"])
def test_messages_against_the_edges(kind):
    make = {
        "graph": lambda i, o: layers.GraphConv(i, o, flow="target_to_source"),
        "gin": lambda i, o: layers.GINConv(linear(i, o), flow="target_to_source"),
        "sage mean": lambda i, o: layers.SAGEConv(i, o, flow="target_to_source"),
        "gcn": lambda i, o: layers.GCNConv(i, o, flow="target_to_source"),
    }[kind]
    for level in ("node", "graph"):
        with opened(stack(make, level), instances(level)) as gnn:
            check_shortcuts(gnn)


@pytest.mark.parametrize("level", ["node", "graph"])
def test_messages_both_ways(level):
    with opened(stack(lambda i, o: layers.DirGNNConv(layers.GCNConv(i, o)), level), instances(level)) as gnn:
        assert len(fused(check_shortcuts(gnn))) == 4


class Sparse(nn.Module):
    """Layers on a sparse matrix."""

    def __init__(self, make):
        super().__init__()
        self.stack = Stack(make(4, 4), make(4, 4))

    def forward(self, x, adj_t):
        return self.stack(x, adj_t)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["gcn", "graph", "gin", "sage mean"])
def test_sparse_matrices_keep_their_values(kind, weighted):
    data = graphs()[0]
    if weighted:
        data.edge_weight = torch.rand(data.num_edges, dtype=torch.float64) + 0.5
    sparse = ToSparseTensor(layout=torch.sparse_csr)(data)
    with opened(seeded(lambda: Sparse(FUSED[kind][0])).double(), Instances.from_nodes(sparse)) as gnn:
        said = check_shortcuts(gnn)
        # Others read the values of the matrix; where they do not, PyG's own product does if there are any.
        assert bool(fused(said)) == (kind in ("gin", "sage mean") and not weighted)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("kind", ["gin", "sage mean"])
def test_a_mask_scales_the_values_of_a_sparse_matrix(kind):
    data = graphs()[0]
    data.edge_weight = torch.rand(data.num_edges, dtype=torch.float64) + 0.5
    model = seeded(lambda: Sparse(FUSED[kind][0])).double()
    with opened(model, Instances.from_nodes(ToSparseTensor(layout=torch.sparse_csr)(data), [3])) as gnn:
        (batch,) = gnn.batches()
        torch.testing.assert_close(gnn.forward(batch, edge_mask=torch.ones(batch.num_edges).double()), gnn.reference)
        mask = random_mask(batch, torch.float64)
        found = gnn.forward(batch, edge_mask=mask)
    store = gnn.X.store
    weights = torch.from_numpy(store.columns["edge_weight"].values)
    values = weights * whole_mask(batch, mask, len(weights))[0]
    ends = torch.from_numpy(store.edge_index).flip(0)
    adjacency = torch.sparse_coo_tensor(ends, values, (data.num_nodes, data.num_nodes)).to_sparse_csr()
    torch.testing.assert_close(found[0], model(data.x, adjacency)[3])


class Largest(layers.GraphConv):
    """Its product does something else than its messages."""

    def message_and_aggregate(self, edge_index, x, edge_weight):
        return super().message_and_aggregate(edge_index, x, edge_weight).square()


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_product_that_is_no_sum_of_messages_is_refused():
    data = graphs()[0]
    data.edge_weight = torch.rand(data.num_edges, dtype=torch.float64) + 0.5
    sparse = ToSparseTensor(layout=torch.sparse_csr)(data)
    with opened(seeded(lambda: Sparse(Largest)).double(), Instances.from_nodes(sparse)) as gnn:
        (batch,) = gnn.batches()
        gnn.forward(batch)
        with pytest.raises(ValueError, match="messages of Largest must sum up to its product"):
            gnn.forward(batch, edge_mask=random_mask(batch, torch.float64))


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_first_graph_with_weights_of_1_says_nothing_of_the_others():
    data = graphs()
    for number, graph in enumerate(data):
        graph.edge_weight = torch.full((graph.num_edges,), 1.0 + number, dtype=torch.float64)
    sparse = [ToSparseTensor(layout=torch.sparse_csr)(graph) for graph in data]

    class Pooled(Sparse):
        def forward(self, x, adj_t, batch):
            return layers.global_add_pool(super().forward(x, adj_t), batch)

    with opened(seeded(lambda: Pooled(layers.GraphConv)).double(), Instances.from_graphs(sparse)) as gnn:
        said = check_shortcuts(gnn)
        assert all("general path (messages that are no weighted copies)" in sentence for sentence in said)


def attributed(width, dtype=torch.float64, **given):
    data = random_graph(3, features=4, dtype=dtype, **given)
    shape = (data.num_edges, width) if width else (data.num_edges,)
    data.edge_attr = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype) + 0.1
    return data


@pytest.mark.parametrize("kind", ["gcn", "graph", "le", "sg", "tag"])
def test_weights_of_edges_are_weights_of_copies(kind):
    make = layers.LEConv if kind == "le" else FUSED[kind][0]
    X = Instances.from_nodes(attributed(0))
    with opened(seeded(lambda: Weighted(make(4, 4), make(4, 3))).double(), X) as gnn:
        said = check_shortcuts(gnn)
        assert (fused(said) == []) == (kind == "le")  # whose messages are differences


@pytest.mark.parametrize("kind", ["gine", "gat", "nn", "pdn"])
def test_attributes_of_edges_go_the_general_way_unless_they_are_weights(kind):
    make = {
        "gine": lambda i, o: layers.GINEConv(nn.Linear(i, o), edge_dim=2),
        "gat": lambda i, o: layers.GATConv(i, o // 2, heads=2, edge_dim=2),
        "nn": lambda i, o: layers.NNConv(i, o, nn.Linear(2, i * o)),
        "pdn": lambda i, o: layers.PDNConv(i, o, edge_dim=2, hidden_channels=3),
    }[kind]
    with opened(seeded(lambda: Weighted(make(4, 4), make(4, 4))).double(), Instances.from_nodes(attributed(2))) as gnn:
        said = check_shortcuts(gnn)
        assert bool(fused(said)) == (kind == "pdn")  # whose weights come from attributes


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("kinds", [("gcn", "graph"), ("graph", "gcn"), ("gin", "sg")])
def test_loops_of_one_layer_are_edges_of_another(kinds, level):
    """With loops of the user's own at the end of the edges, both layers run over the very same list."""
    data = graphs()
    for graph in data:
        graph.edge_index = torch.cat([graph.edge_index, torch.arange(graph.num_nodes).repeat(2, 1)], dim=1)
    X = Instances.from_nodes(data[0]) if level == "node" else Instances.from_graphs(data[:1])
    made = [FUSED[kind][0] for kind in kinds]
    model = seeded(lambda: Stack(*(make(4, 4) for make in made), pool=level == "graph")).double()
    with opened(model, X) as gnn:
        assert len(fused(check_shortcuts(gnn))) == 1 + len(FUSED[kinds[1]][1])


class Static(nn.Module):
    """Several copies of all features along an axis before that of the nodes."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(4, 3)

    def forward(self, x, edge_index):
        return self.conv(torch.stack([x, x.flip(-1)]), edge_index).sum(0)


class Wide(nn.Module):
    """Features with two axes after that of the nodes."""

    def __init__(self):
        super().__init__()
        self.conv = layers.SimpleConv(aggr="mean")
        self.conv.node_dim = 0
        self.lin = nn.Linear(4, 2)

    def forward(self, x, edge_index):
        return self.conv(torch.stack([x, x.tanh()], dim=1), edge_index).flatten(1)


@pytest.mark.parametrize(("make", "is_fused"), [(Static, False), (Wide, True)])
def test_features_with_more_axes(make, is_fused):
    with opened(seeded(make).double(), instances("node")) as gnn:
        assert bool(fused(check_shortcuts(gnn))) == is_fused


class Relational(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.RGCNConv(4, 4, 2), layers.RGCNConv(4, 2, 2)

    def forward(self, x, edge_index, edge_type):
        return self.second(self.first(x, edge_index, edge_type).tanh(), edge_index, edge_type)


@pytest.mark.parametrize("first_of", [0, 1])
def test_relations(first_of):
    data = random_graph(2, features=4, dtype=torch.float64)
    data.edge_type = (torch.arange(data.num_edges) + first_of) % 2
    with opened(seeded(Relational).double(), Instances.from_nodes(data)) as gnn:
        check_shortcuts(gnn)


@given(
    seed=st.integers(0, 2**10),
    kind=st.sampled_from(sorted(set(FUSED) - {"cheb"})),
    nodes=st.integers(1, 6),
    edges=st.integers(0, 14),
    loops=st.integers(0, 3),
    undirected=st.booleans(),
)
def test_any_graph_gives_what_the_layers_give(seed, kind, nodes, edges, loops, undirected):
    data = random_graph(seed, nodes, edges, 4, undirected, min(loops, nodes), torch.float64)
    parallel = data.edge_index[:, ::3]
    data.edge_index = torch.cat([parallel, data.edge_index, parallel[:, :1]], dim=1)
    for X in (Instances.from_nodes(data), Instances.from_graphs([data])):
        with opened(stack(FUSED[kind][0], X.level), X) as gnn:
            check_shortcuts(gnn)
