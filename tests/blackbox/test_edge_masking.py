"""Edge masks scale messages: nothing at 1, like a dense matrix, for every kind of layer."""

import numpy as np
import pytest
import torch
from blackbox_cases import LOCAL, Stack, no_warnings, opened, random_graph, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric import nn as gnn_layers
from torch_geometric.data import Data
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.utils import to_dense_adj

from skgnnx import Instances
from skgnnx.testing import strategies


def mlp(i, o):
    return nn.Sequential(nn.Linear(i, 5), nn.Tanh(), nn.Linear(5, o))


PLAIN = {
    "gcn": gnn_layers.GCNConv,
    "gcn without loops": lambda i, o: gnn_layers.GCNConv(i, o, add_self_loops=False),
    "graph": gnn_layers.GraphConv,
    "graph max": lambda i, o: gnn_layers.GraphConv(i, o, aggr="max"),
    "sage": gnn_layers.SAGEConv,
    "sage max": lambda i, o: gnn_layers.SAGEConv(i, o, aggr="max", project=True),
    "gin": lambda i, o: gnn_layers.GINConv(mlp(i, o)),
    "gat": lambda i, o: gnn_layers.GATConv(i, o, heads=2, concat=False),
    "gatv2": lambda i, o: gnn_layers.GATv2Conv(i, o, heads=2, concat=False),
    "transformer": lambda i, o: gnn_layers.TransformerConv(i, o, heads=2, concat=False),
    "sg": lambda i, o: gnn_layers.SGConv(i, o, K=2),
    "tag": lambda i, o: gnn_layers.TAGConv(i, o, K=2),
    "cheb": lambda i, o: gnn_layers.ChebConv(i, o, K=3),
    "arma": lambda i, o: gnn_layers.ARMAConv(i, o, num_stacks=2, num_layers=2),
    "le": gnn_layers.LEConv,
    "gated": lambda i, o: gnn_layers.GatedGraphConv(max(i, o), num_layers=2),
    "dir": lambda i, o: gnn_layers.DirGNNConv(gnn_layers.GCNConv(i, o)),
    "resgated": gnn_layers.ResGatedGraphConv,
    "general": gnn_layers.GeneralConv,
    "cluster": gnn_layers.ClusterGCNConv,
    "edge": lambda i, o: gnn_layers.EdgeConv(mlp(2 * i, o)),
    "mf": gnn_layers.MFConv,
    "pna": lambda i, o: gnn_layers.PNAConv(i, o, ["mean", "max"], ["identity"], torch.tensor([0, 3, 4])),
    "supergat": lambda i, o: gnn_layers.SuperGATConv(i, o),
    "gen": gnn_layers.GENConv,
    "film": gnn_layers.FiLMConv,
    "eg": lambda i, o: gnn_layers.EGConv(i, 4, num_heads=2, num_bases=2),
    "appnp": lambda i, o: gnn_layers.Sequential(
        "x, edge_index", [(nn.Linear(i, o), "x -> x"), (gnn_layers.APPNP(3, 0.1), "x, edge_index -> x")]
    ),
}
UNNORMALISED = ["graph", "gin", "le", "gated"]
BETA = "ignore:Sparse"  # torch calls its sparse tensors a beta


def network(kind, pool=False):
    return seeded(lambda: Stack(PLAIN[kind](4, 4), PLAIN[kind](4, 4), pool=pool))


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("kind", PLAIN)
def test_a_mask_of_ones_changes_nothing_and_every_edge_counts(kind, level):
    data = random_graph(0, features=4, undirected=kind == "cheb")  # which divides by out-degrees
    X = Instances.from_nodes(data) if level == "node" else Instances.from_graphs([data, random_graph(1, features=4)])
    with no_warnings(), opened(network(kind, level == "graph"), X) as gnn:
        batch = next(gnn.batches())
        ones = torch.ones(batch.num_edges, requires_grad=True)
        output = gnn.forward(batch, edge_mask=ones)
        torch.testing.assert_close(output, gnn.reference[torch.from_numpy(batch.positions)], atol=1e-6, rtol=1e-6)
        (gradient,) = torch.autograd.grad((output * torch.arange(1, 5)).sum(), ones)
        if level == "graph":
            assert (gradient != 0).float().mean() > 0.6
        assert (gradient[~batch.edge_reach] == 0).all()


@pytest.mark.parametrize("kind", PLAIN)
def test_the_gradient_is_that_of_finite_differences(kind):
    data = random_graph(2, nodes=6, edges=9, features=4, dtype=torch.float64)
    with opened(network(kind, True).double(), Instances.from_graphs([data])) as gnn:
        batch = next(gnn.batches())
        weight = torch.arange(1, 5)

        def score(mask):
            return (gnn.forward(batch, edge_mask=mask) * weight).sum()

        mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        mask.requires_grad_()
        (gradient,) = torch.autograd.grad(score(mask), mask)
        for edge in range(batch.num_edges):
            step = torch.zeros_like(mask)
            step[edge] = 1e-6
            with torch.no_grad():
                slope = (score(mask + step) - score(mask - step)) / 2e-6
            assert slope.item() == pytest.approx(gradient[edge].item(), abs=2e-6)


@pytest.mark.parametrize("kind", UNNORMALISED)
def test_a_mask_of_zero_is_removal_where_nothing_is_normalised(kind):
    data = random_graph(3, features=4)
    with opened(network(kind), Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches(removal=True))
        mask = (torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(0)) > 0.4).float()
        removed = gnn.forward(batch.keep_edges(mask.numpy() > 0))
        torch.testing.assert_close(gnn.forward(batch, edge_mask=mask), removed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", PLAIN)
def test_reordered_edges_reorder_the_mask(kind):
    data = random_graph(4, features=4, loops=3)
    order = torch.randperm(data.num_edges, generator=torch.Generator().manual_seed(1))
    other = Data(x=data.x, edge_index=data.edge_index[:, order])
    mask = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0))
    outputs = []
    for graph, values in ((data, mask), (other, mask[order])):
        with opened(network(kind, True), Instances.from_graphs([graph])) as gnn:
            outputs.append(gnn.forward(next(gnn.batches()), edge_mask=values))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


def dense_gcn(x, weights, layers):
    """Self loops of weight 1 are the layer's own, and degrees are those without a mask."""
    adjacency = (weights > 0).float()
    adjacency.fill_diagonal_(0)
    full = adjacency + torch.eye(len(x))
    scale = full.sum(0).rsqrt()
    masked = weights.clone().fill_diagonal_(0) + torch.eye(len(x))
    matrix = scale[:, None] * masked * scale[None]
    for number, layer in enumerate(layers):
        x = layer.lin(x.tanh() if number else x)
        x = matrix.T @ x + layer.bias
    return x


def dense_graph(x, weights, layers):
    for number, layer in enumerate(layers):
        x = x.tanh() if number else x
        x = layer.lin_rel(weights.T @ x) + layer.lin_root(x)
    return x


def dense_gin(x, weights, layers):
    for number, layer in enumerate(layers):
        x = x.tanh() if number else x
        x = layer.nn((1 + layer.eps) * x + weights.T @ x)
    return x


@pytest.mark.parametrize(("kind", "dense"), [("gcn", dense_gcn), ("graph", dense_graph), ("gin", dense_gin)])
@given(seed=st.integers(0, 2**10), undirected=st.booleans(), loops=st.integers(0, 3))
def test_equals_a_dense_matrix(kind, dense, seed, undirected, loops):
    data = random_graph(seed, nodes=7, edges=10, features=4, undirected=undirected, loops=loops)
    mask = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.1
    model = network(kind)
    weights = torch.zeros(7, 7)
    weights[data.edge_index[0], data.edge_index[1]] = mask
    expected = dense(data.x, weights, model.layers)
    with opened(model, Instances.from_nodes(data)) as gnn:
        for batch in gnn.batches():
            got = gnn.forward(batch, edge_mask=mask[torch.from_numpy(batch.edge_id)])
            torch.testing.assert_close(got, expected[batch.positions], atol=1e-5, rtol=1e-5)


def test_one_mask_per_call():
    data = random_graph(5, features=4)
    model = network("graph")
    adjacency = to_dense_adj(data.edge_index, max_num_nodes=12)[0]
    first, second = torch.rand(2, data.num_edges, generator=torch.Generator().manual_seed(0))
    weights = [adjacency.clone(), adjacency.clone()]
    for weight, mask in zip(weights, (first, second)):
        weight[data.edge_index[0], data.edge_index[1]] = mask
    h = data.x
    for number, (layer, weight) in enumerate(zip(model.layers, weights)):
        h = dense_graph(h.tanh() if number else h, weight, [layer])
    with opened(model, Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        masks = [mask[torch.from_numpy(batch.edge_id)] for mask in (first, second)]
        torch.testing.assert_close(gnn.forward(batch, edge_mask=masks), h[batch.positions], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("kind", ["gcn", "graph", "gin", "sage"])
@pytest.mark.filterwarnings(BETA)
def test_sparse_graphs_take_the_mask_of_the_same_edges(kind, undirected):
    data = random_graph(6, features=4, undirected=undirected)

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = Stack(PLAIN[kind](4, 4), PLAIN[kind](4, 4))

        def forward(self, x, adj_t):
            return self.stack(x, adj_t)

    model, other = seeded(Sparse), seeded(lambda: Stack(PLAIN[kind](4, 4), PLAIN[kind](4, 4)))
    sparse = ToSparseTensor(layout=torch.sparse_csr)(data.clone())
    weights = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    outputs = []
    for graph, network in ((sparse, model), (data, other), (data, model)):
        with opened(network, Instances.from_nodes(graph)) as gnn:
            batch = next(gnn.batches())
            source, target = gnn.X.store.edges(0)[:, batch.edge_id]
            outputs.append(gnn.forward(batch, edge_mask=weights[source, target]))
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[2], outputs[1])


@pytest.mark.filterwarnings(BETA)
def test_weights_of_a_sparse_matrix_count():
    data = random_graph(7, features=4)
    data.edge_weight = torch.rand(data.num_edges) + 0.5
    sparse = ToSparseTensor(layout=torch.sparse_csr)(data.clone())
    model = seeded(lambda: gnn_layers.GCNConv(4, 2))
    with opened(model, Instances.from_nodes(sparse)) as gnn:
        torch.testing.assert_close(gnn.reference, model(sparse.x, sparse.adj_t))
        torch.testing.assert_close(gnn.reference, model(data.x, data.edge_index, data.edge_weight))


class Dense(nn.Module):
    """No message passing: a matrix product."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 2)

    def forward(self, x, edge_index, batch=None):
        return to_dense_adj(edge_index, max_num_nodes=len(x))[0].T @ self.lin(x)


@pytest.mark.filterwarnings("ignore:Dense mixes nodes")
def test_a_model_without_message_passing_is_told_so():
    with opened(seeded(Dense), Instances.from_nodes(random_graph(features=4))) as gnn:
        batch = next(gnn.batches())
        with pytest.raises(TypeError, match="need a model with PyG MessagePassing layers. Got Dense.*node_feature"):
            gnn.forward(batch, edge_mask=torch.ones(batch.num_edges))


class HalfHidden(nn.Module):
    """The second layer is in a plain list, where torch does not find it."""

    def __init__(self):
        super().__init__()
        self.first = gnn_layers.GraphConv(4, 4)
        self.others = [gnn_layers.GraphConv(4, 2)]

    def forward(self, x, edge_index):
        return self.others[0](self.first(x, edge_index), edge_index)


def test_layers_that_no_hook_reaches_are_told_of_once():
    with opened(seeded(HalfHidden), Instances.from_nodes(random_graph(features=4))) as gnn:
        batch = next(gnn.batches())
        with pytest.warns(UserWarning, match="outside of its registered MessagePassing layers.*ModuleList"):
            gnn.forward(batch, edge_mask=torch.ones(batch.num_edges))
        with no_warnings():
            gnn.forward(batch, edge_mask=torch.ones(batch.num_edges))


class Pairs(gnn_layers.MessagePassing):
    """Messages that are pairs of tensors, as in equivariant networks."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        return x_j, x_j[:, :1] * 2

    def aggregate(self, inputs, index, dim_size=None):
        whole = super().aggregate(inputs[0], index, dim_size=dim_size)
        return whole + super().aggregate(inputs[1], index, dim_size=dim_size)


def test_tuples_of_messages_are_scaled_in_all_parts():
    data = random_graph(8, nodes=5, edges=8)
    with opened(Pairs(), Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        zero = gnn.forward(batch, edge_mask=torch.zeros(batch.num_edges))
        half = gnn.forward(batch, edge_mask=torch.full((batch.num_edges,), 0.5))
    assert (zero == 0).all()
    torch.testing.assert_close(half * 2, gnn.reference)


@given(strategies.instances("node", convs=LOCAL, categories=False), st.integers(0, 2**16))
def test_masks_on_any_network_act_on_messages_alone(case, seed):
    model, X = case
    with opened(model, X, output="logits") as gnn:
        for batch in gnn.batches():
            mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(seed), dtype=gnn.dtype)
            masked = gnn.forward(batch, edge_mask=mask)
            fresh = gnn.forward(next(gnn.batches(batch.positions)), edge_mask=mask)
            assert torch.equal(masked, fresh)
            assert np.isfinite(masked.numpy()).all()
            torch.testing.assert_close(gnn.forward(batch, edge_mask=torch.ones_like(mask)), gnn.forward(batch))


class Molecules(nn.Module):
    """Attentive FP reads a graph out by messages from its atoms to one node for all."""

    def __init__(self):
        super().__init__()
        self.net = gnn_layers.AttentiveFP(4, 5, 2, edge_dim=3, num_layers=2, num_timesteps=2)

    def forward(self, x, edge_index, edge_attr, batch):
        return self.net(x, edge_index, edge_attr, batch)


def test_messages_of_a_readout_run_along_no_edge():
    graphs = [
        random_graph(seed, features=4, nodes=n, edges=12, loops=2, dtype=torch.float64) for seed, n in ((0, 6), (1, 5))
    ]
    random = torch.Generator().manual_seed(0)
    for graph in graphs:
        graph.edge_attr = torch.randn(graph.num_edges, 3, dtype=torch.float64, generator=random)
    model = seeded(Molecules).double()
    with no_warnings(), opened(model, Instances.from_graphs(graphs)) as gnn:
        assert [kind.readout for kind in gnn.trace.kinds] == [False, False, True, True]
        batch = next(gnn.batches())
        assert gnn.explained_edges(batch).all()
        ones = torch.ones(batch.num_edges, dtype=torch.float64)
        torch.testing.assert_close(gnn.forward(batch, edge_mask=ones), gnn.reference)
        for edge in range(batch.num_edges):
            mask = ones.clone()
            mask[edge] = 0
            changed = (gnn.forward(batch, edge_mask=mask) - gnn.reference).abs().amax(1) > 1e-12
            assert changed.nonzero().flatten().tolist() == [batch.edge_instance[edge].item()]
