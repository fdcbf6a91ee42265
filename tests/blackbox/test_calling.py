"""Networks are called as their users call them."""

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, no_warnings, opened, random_graph, seeded
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GAE, VGAE, GCNConv, GraphConv, global_add_pool
from torch_geometric.transforms import ToSparseTensor

from skgnnx import Instances, SensitivityAnalysis


class Full(nn.Module):
    """Takes everything by name, in an unusual order."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GINEConv(nn.Linear(3, 4), edge_dim=2)
        self.last = nn.Linear(4 + 2, 3)

    def forward(self, batch, edge_attr, x, edge_index, *, u, dropout: float = 0.0, **ignored):
        if dropout or ignored:
            raise AssertionError("must not be filled")
        return self.last(torch.cat([global_add_pool(self.conv(x, edge_index, edge_attr), batch), u], dim=1))


def full_graph(seed):
    data = random_graph(seed)
    random = torch.Generator().manual_seed(seed)
    data.edge_attr = torch.randn(data.num_edges, 2, generator=random)
    data.u = torch.randn(1, 2, generator=random)
    data.smiles = f"C{seed}"
    data.y = torch.tensor([seed % 2])
    return data


class TakesData(nn.Module):
    def __init__(self, sparse=False):
        super().__init__()
        self.full, self.seen = Full(), None

    def forward(self, data):
        self.check(data)
        return self.full(data.batch, data.edge_attr, data.x, data.edge_index, u=data.u)

    def check(self, data):
        if not isinstance(data, Batch) or len(data.smiles) != data.num_graphs or len(data.y) != data.num_graphs:
            raise AssertionError("not the batch that a loader makes")
        if data.num_nodes != len(data.x) or data.ptr[-1] != len(data.x):
            raise AssertionError("wrong sizes")


class NamedGraph(TakesData):
    def forward(self, anything: Data):
        return super().forward(anything)


class ReturnsTuple(Full):
    def forward(self, batch, edge_attr, x, edge_index, u):
        return [super().forward(batch, edge_attr, x, edge_index, u=u)], x


def expected_of(model, graphs):
    full = getattr(model, "full", model)
    rows = [
        Full.forward(full, torch.zeros(12, dtype=torch.long), g.edge_attr, g.x, g.edge_index, u=g.u) for g in graphs
    ]
    return torch.cat(rows)


@pytest.mark.parametrize("make", [Full, TakesData, NamedGraph, ReturnsTuple])
def test_forward_is_filled_by_name_or_given_the_data(make):
    graphs = [full_graph(seed) for seed in range(4)]
    model = seeded(make)
    with no_warnings(), opened(model, Instances.from_graphs(graphs)) as gnn:
        torch.testing.assert_close(gnn.reference, expected_of(model, graphs), atol=1e-5, rtol=1e-5)
        (batch,) = gnn.batches()
        x = batch.x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(gnn.forward(batch, x=x).sum(), x)
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(gnn.forward(batch, edge_mask=torch.ones(batch.num_edges)), gnn.reference)


def test_a_callable_replaces_the_call():
    graphs = [full_graph(seed) for seed in range(3)]

    class Strange(Full):
        def forward(self, one, two):
            raise AssertionError("not called")

    model = seeded(Strange)

    def call(module, batch):
        return Full.forward(module, batch.batch, batch.edge_attr, batch.x, batch.edge_index, u=batch.u)

    with opened(model, Instances.from_graphs(graphs), forward=call) as gnn:
        torch.testing.assert_close(gnn.reference, expected_of(model, graphs), atol=1e-5, rtol=1e-5)


def test_torch_geometric_sequential():
    model = seeded(
        lambda: layers.Sequential(
            "x, edge_index, batch",
            [(GCNConv(3, 4), "x, edge_index -> x"), nn.ReLU(), (global_add_pool, "x, batch -> x"), nn.Linear(4, 2)],
        )
    )
    graphs = [random_graph(seed) for seed in range(3)]
    with opened(model, Instances.from_graphs(graphs)) as gnn:
        expected = torch.cat([model(g.x, g.edge_index, torch.zeros(12, dtype=torch.long)) for g in graphs])
        torch.testing.assert_close(gnn.reference, expected, atol=1e-5, rtol=1e-5)


def test_a_missing_argument_is_named_with_what_there_is():
    with (
        opened(seeded(Full), Instances.from_graphs([random_graph()])) as gnn,
        pytest.raises(
            TypeError, match="Full needs 'edge_attr', which the graphs do not hold. Got keys .*'x'.*forward="
        ),
    ):
        _ = gnn.reference


def test_a_wrong_number_of_features_is_named_on_both_sides():
    model = seeded(lambda: Stack(GraphConv(5, 2), pool=True))
    with (
        opened(model, Instances.from_graphs([random_graph()])) as gnn,
        pytest.raises(ValueError, match="must have the 5 node features that Stack was built for. Got 3 in graph 0"),
    ):
        _ = gnn.reference


class CustomError(RuntimeError):
    def __init__(self, code, text):
        super().__init__(text)


@pytest.mark.parametrize(
    "error", [RuntimeError("why"), IndexError("why"), CustomError(3, "why"), NotImplementedError("why")]
)
def test_errors_of_the_model_say_so(error):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(3, 2)

        def forward(self, x, edge_index):
            raise error

    expected = IndexError if isinstance(error, IndexError) else RuntimeError
    with opened(Broken(), Instances.from_nodes(random_graph())) as gnn, pytest.raises(expected) as raised:
        _ = gnn.reference
    assert str(raised.value) == "The model Broken raised: why"
    assert raised.value.__cause__ is error


class Rough(nn.Module):
    """Changes what it is given in place."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GINEConv(nn.Linear(3, 3), edge_dim=2)

    def forward(self, x, edge_index, edge_attr):
        return self.conv(x.mul_(2), edge_index.flip(1).flip(1), edge_attr.mul_(0.5))


def test_a_model_that_changes_its_inputs_does_no_harm():
    data = full_graph(0)
    copy = data.clone()
    model = seeded(Rough)
    expected = model(copy.x.clone(), copy.edge_index.clone(), copy.edge_attr.clone())
    with opened(model, Instances.from_nodes(data)) as gnn:
        torch.testing.assert_close(gnn.reference, expected)
        for batch in gnn.batches():
            for _ in range(2):
                torch.testing.assert_close(gnn.forward(batch), expected[batch.positions])
                mask = torch.ones(batch.num_edges)
                torch.testing.assert_close(gnn.forward(batch, edge_mask=mask), expected[batch.positions])
            x = batch.x.clone().requires_grad_()
            assert torch.autograd.grad(gnn.forward(batch, x=x).sum(), x)[0].abs().sum() > 0
    for key in ("x", "edge_index", "edge_attr"):
        assert torch.equal(data[key], copy[key])


class Encoder(nn.Module):
    def __init__(self, variational=False):
        super().__init__()
        self.conv, self.spread = GCNConv(3, 4), GCNConv(3, 4) if variational else None

    def forward(self, x, edge_index):
        mean = self.conv(x, edge_index)
        return mean if self.spread is None else (mean, self.spread(x, edge_index))


class EncodeDecode(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()

    def encode(self, x, edge_index):
        return self.encoder(x, edge_index)

    def decode(self, z, edge_label_index):
        return (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(-1).sigmoid()


class WithForward(EncodeDecode):
    """Has a head of its own that only its forward knows."""

    def forward(self, x, edge_index, edge_label_index):
        return 2 * self.decode(self.encode(x, edge_index), edge_label_index).logit()


LINKS = {
    "torch geometric's": lambda: GAE(Encoder()),
    "variational": lambda: VGAE(Encoder(variational=True)),
    "own": EncodeDecode,
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_by_encode_and_decode(kind):
    data, pairs = random_graph(), torch.tensor([[0, 1, 2], [3, 4, 5]])
    model = seeded(LINKS[kind])
    z = model.encode(data.x, data.edge_index)
    with no_warnings(), opened(model, Instances.from_edges(data, pairs)) as gnn:
        assert gnn.kind_of_output == "binary_prob"
        torch.testing.assert_close(gnn.reference[:, 0], model.decode(z, pairs))
        for batch in gnn.batches():
            torch.testing.assert_close(gnn.forward(batch), gnn.reference[batch.positions])
    assert SensitivityAnalysis(model).explain(Instances.from_edges(data, pairs))[0].any()


def test_forward_comes_before_decode_where_it_takes_links():
    data, pairs = random_graph(), torch.tensor([[0, 1, 2], [3, 4, 5]])
    model = seeded(WithForward)
    with opened(model, Instances.from_edges(data, pairs), output="binary_logit") as gnn:
        torch.testing.assert_close(gnn.reference[:, 0], model(data.x, data.edge_index, pairs))


def test_a_model_that_takes_no_links_is_told_so():
    X = Instances.from_edges(random_graph(), [[0], [1]])
    with (
        opened(seeded(lambda: Stack(GraphConv(3, 2))), X) as gnn,
        pytest.raises(TypeError, match="must take 'edge_label_index' or have encode and decode. Got Stack"),
    ):
        _ = gnn.reference


def test_rows_that_do_not_fit_say_what_to_do():
    pooled = seeded(lambda: Stack(GraphConv(3, 2), pool=True))
    with (
        opened(pooled, Instances.from_nodes(random_graph())) as gnn,
        pytest.raises(ValueError, match=r"one row per node \(12 here\). Got shape \(1, 2\); pool with the 'batch'"),
    ):
        _ = gnn.reference
    flat = seeded(lambda: Stack(GraphConv(3, 2)))
    graphs = Instances.from_graphs([random_graph(), random_graph()])
    with (
        opened(flat, graphs) as gnn,
        pytest.raises(ValueError, match=r"one row per graph \(2 here\). Got shape \(24, 2"),
    ):
        _ = gnn.reference


@pytest.mark.parametrize("columns", [1, 3])
def test_a_squeezed_single_row_is_one_row(columns):
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(3, columns)

        def forward(self, x, edge_index, batch):
            return global_add_pool(self.conv(x, edge_index), batch).squeeze()

    X = Instances.from_graphs([random_graph(0), random_graph(1)])
    output = "regression" if columns == 1 else "logits"
    with opened(seeded(Squeezed), X, output=output) as gnn:
        both = gnn.reference
        for batch in gnn.batches(batch_size=1):
            torch.testing.assert_close(gnn.forward(batch), both[batch.positions])


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", ["adj_t", "edge_index", "data"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_graphs_reach_the_model_in_their_own_form(name, dtype):
    data = random_graph(dtype=dtype)
    sparse = ToSparseTensor(layout=torch.sparse_csr)(data.clone())

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(3, 2)

        def run(self, x, matrix):
            if matrix.layout != torch.sparse_csr:
                raise AssertionError("not sparse")
            return self.conv(x, matrix)

    class ByName(Sparse):
        def forward(self, x, adj_t):
            return self.run(x, adj_t)

    class AsEdges(Sparse):
        def forward(self, x, edge_index):
            return self.run(x, edge_index)

    class InData(Sparse):
        def forward(self, data):
            return self.run(data.x, data.adj_t)

    model = seeded({"adj_t": ByName, "edge_index": AsEdges, "data": InData}[name]).to(dtype)
    expected = model.conv(data.x, data.edge_index)
    X = Instances.from_nodes(sparse)
    for instances in (X, Instances.concat([X[:4], Instances.from_nodes(sparse)[4:]]), X.map_graphs(lambda g: g)):
        with opened(model, instances) as gnn:
            torch.testing.assert_close(gnn.reference, expected)
            for batch in gnn.batches():
                torch.testing.assert_close(gnn.forward(batch), expected[batch.positions])


def test_a_plain_callable_gets_a_list_of_graphs():
    graphs = [full_graph(seed) for seed in range(3)]
    seen = []

    def predict(items):
        seen.append(items)
        return [[float(g.x.sum()), float(g.num_edges)] for g in items]

    with opened(predict, Instances.from_graphs(graphs), outputs_only=True, output="logits") as gnn:
        expected = [[float(g.x.sum()), float(g.num_edges)] for g in graphs]
        np.testing.assert_allclose(gnn.reference, expected, rtol=1e-6)
        (batch,) = gnn.batches()
        np.testing.assert_allclose(
            gnn.forward(batch.keep_edges(np.arange(batch.num_edges) > 0))[0, 1], expected[0][1] - 1
        )
    for item, graph in zip(seen[0], graphs):
        assert item.smiles == graph.smiles
        for key in ("x", "edge_index", "edge_attr", "u", "y"):
            assert torch.equal(item[key], graph[key])


def test_what_is_no_tensor_is_named():
    class Words(nn.Module):
        def forward(self, x):
            return {"logits": x}

    with (
        opened(Words(), Instances.from_nodes(random_graph())) as gnn,
        pytest.raises(TypeError, match="Words must return a"),
    ):
        _ = gnn.reference


@pytest.mark.parametrize("extra", [0, 5])
def test_links_of_a_random_split_do_not_get_into_the_way(extra):
    data = random_graph()
    data.edge_label_index = torch.cat([data.edge_index, torch.randint(12, (2, extra))], dim=1)
    data.edge_label = torch.ones(data.num_edges + extra)
    model, pairs = seeded(WithForward), torch.tensor([[0, 1], [3, 4]])
    with no_warnings(), opened(model, Instances.from_edges(data, pairs), output="binary_logit") as gnn:
        torch.testing.assert_close(gnn.reference[:, 0], model(data.x, data.edge_index, pairs))
        for batch in gnn.batches():
            torch.testing.assert_close(gnn.forward(batch), gnn.reference[batch.positions])
    nodes = seeded(lambda: Stack(GCNConv(3, 2)))
    with no_warnings(), opened(nodes, Instances.from_nodes(data)) as gnn:
        assert sum(len(batch) for batch in gnn.batches()) == 12


@pytest.mark.parametrize("columns", [1, 2])
def test_rows_of_nodes_are_not_read_as_columns_of_one_graph(columns):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(3, columns)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index).squeeze()

    with (
        opened(seeded(Flat), Instances.from_graphs([random_graph()])) as gnn,
        pytest.raises(ValueError, match=r"one row per graph \(1 here\)"),
    ):
        _ = gnn.reference
