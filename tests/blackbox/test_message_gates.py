"""Gates put other messages in the places of the model's: nothing where open, the right ones where closed."""

import pytest
import torch
from blackbox_cases import LOCAL, Stack, no_warnings, opened, random_graph, seeded
from hypothesis import given
from hypothesis import strategies as st
from test_edge_masking import BETA, PLAIN, Molecules, Pairs, network
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data
from torch_geometric.transforms import ToSparseTensor

from skgnnx import Instances
from skgnnx.blackbox.message_gates import MessageGates
from skgnnx.testing import strategies


def random_of(shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gates_of(gnn, batch, seed=0, opened=None, per_edge=False):
    """Random or open gates of all calls, and random baselines that fit."""
    calls, E = gnn.messages(batch), batch.num_edges
    z = [random_of(E, seed + n) if opened is None else torch.full((E,), opened) for n in range(len(calls))]
    widths = [call.messages.shape[1] for call in calls]
    b = [random_of((E, d) if per_edge else (d,), seed + 50 + n) - 0.5 for n, d in enumerate(widths)]
    return MessageGates([gate.to(gnn.dtype) for gate in z], [one.to(gnn.dtype) for one in b])


@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.parametrize("kind", PLAIN)
def test_open_gates_are_the_model_itself_for_any_baseline(kind, per_edge):
    data = random_graph(0, features=4, undirected=kind == "cheb", loops=2)
    with opened(network(kind), Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        plain = gnn.plain_rows(gnn.call(batch), batch)
        assert torch.equal(gnn.forward(batch, edge_mask=gates_of(gnn, batch, opened=1.0, per_edge=per_edge)), plain)


@pytest.mark.parametrize("kind", PLAIN)
def test_gates_without_baseline_are_edge_masks(kind):
    data = random_graph(1, features=4, undirected=kind == "cheb", loops=2, dtype=torch.float64)
    with opened(network(kind).double(), Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        masks = [random_of(batch.num_edges, n, torch.float64) for n in range(len(gnn.trace.names))]
        expected = gnn.forward(next(gnn.batches()), edge_mask=masks)
        got = gnn.forward(batch, edge_mask=MessageGates(masks, [None] * len(masks)))
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kind", ["gcn", "gat", "sage", "gin", "transformer", "appnp", "arma", "dir"])
def test_the_gradient_is_that_of_finite_differences(kind):
    data = random_graph(2, nodes=5, edges=7, features=4, dtype=torch.float64)
    with opened(network(kind, True).double(), Instances.from_graphs([data])) as gnn:
        batch = next(gnn.batches())
        first = gates_of(gnn, batch, per_edge=True)
        leaves = [leaf.requires_grad_() for leaf in (*first.gates, *first.baselines)]
        count = len(first.gates)

        def score(*given):
            return gnn.forward(batch, edge_mask=MessageGates(given[:count], given[count:])).sum()

        assert torch.autograd.gradcheck(score, leaves)


@given(seed=st.integers(0, 2**10), loops=st.integers(0, 3))
def test_sums_of_replaced_messages_equal_a_loop(seed, loops):
    data = random_graph(seed, nodes=6, edges=9, features=4, loops=loops, dtype=torch.float64)
    data.edge_index = torch.cat([data.edge_index, data.edge_index[:, :2]], dim=1)  # repeated edges
    model = network("graph").double()
    z, b = random_of((2, data.num_edges), seed, torch.float64), random_of((2, 4), seed + 1, torch.float64)
    h = data.x
    for number, layer in enumerate(model.layers):
        h = h.tanh() if number else h
        total = torch.zeros_like(h)
        for e, (source, target) in enumerate(data.edge_index.T.tolist()):
            total[target] += z[number, e] * h[source] + (1 - z[number, e]) * b[number]
        h = layer.lin_rel(total) + layer.lin_root(h)
    with opened(model, Instances.from_nodes(data)) as gnn:
        for batch in gnn.batches(batch_size=2):
            own = [gate[torch.from_numpy(batch.edge_id)] for gate in z]
            got = gnn.forward(batch, edge_mask=MessageGates(own, list(b)))
            torch.testing.assert_close(got, h[batch.positions])


def test_messages_and_states_of_a_run():
    data = random_graph(3, features=4, loops=2)
    model = network("gat", True)
    h = [data.x]
    h.append(model.layers[0](data.x, data.edge_index).tanh().detach())
    with opened(model, Instances.from_graphs([data])) as gnn:
        batch = next(gnn.batches())
        calls = gnn.messages(batch)
        assert [(call.name, call.run) for call in calls] == [("layers.0", 0), ("layers.1", 1)]
        for call, states, layer in zip(calls, h, model.layers):
            own = call.edge >= 0
            assert own.sum() == data.num_edges - 2
            assert (~own).sum() == data.num_nodes
            source, target = data.edge_index[:, call.edge[own]]
            torch.testing.assert_close(call.source[own], states[source])
            torch.testing.assert_close(call.target[own], states[target])
            # Attention weights sum to one, so messages of a head are a share of what the source is there.
            transformed = layer.lin(states).view(-1, 2, 4)
            messages = call.messages[own].view(-1, 2, 4)
            share = messages[..., :1] / transformed[source][..., :1]
            torch.testing.assert_close(messages, share * transformed[source])
            assert not call.messages.requires_grad


class Relations(nn.Module):
    """Relational layers over a graph with parallel edges of different relations."""

    def __init__(self, conv):
        super().__init__()
        self.first, self.second = conv(4, 3, 3), conv(3, 2, 3)

    def forward(self, x, edge_index, edge_type):
        return self.second(self.first(x, edge_index, edge_type).tanh(), edge_index, edge_type)


def related(seed=0, dtype=torch.float64):
    data = random_graph(seed, nodes=7, edges=10, features=4, loops=1, dtype=dtype)
    data.edge_index = torch.cat([data.edge_index, data.edge_index[:, :4]], dim=1)
    data.edge_type = torch.randint(3, (data.num_edges,), generator=torch.Generator().manual_seed(seed))
    return data


@pytest.mark.parametrize("conv", [layers.RGCNConv, layers.FastRGCNConv, layers.RGATConv])
def test_relations_get_the_gates_of_their_edges(conv):
    data, model = related(), seeded(lambda: Relations(conv)).double()
    order = torch.randperm(data.num_edges, generator=torch.Generator().manual_seed(1))
    other = Data(x=data.x, edge_index=data.edge_index[:, order], edge_type=data.edge_type[order])
    outputs = []
    for graph, ids in ((data, torch.arange(data.num_edges)), (other, order)):
        with opened(model, Instances.from_nodes(graph)) as gnn:
            batch = next(gnn.batches())
            calls = gnn.messages(batch)
            of_edge = ids[torch.from_numpy(batch.edge_id)]
            rank = torch.from_numpy(batch.positions)[batch.edge_instance]
            z, b = [], []
            for n, call in enumerate(calls):
                table = random_of((data.num_nodes, data.num_edges, 1 + call.messages.shape[1]), n, torch.float64)
                z.append(table[rank, of_edge, 0])
                b.append(table[rank, of_edge, 1:])
            outputs.append(gnn.forward(batch, edge_mask=MessageGates(z, b)))
            if conv is layers.RGCNConv:
                assert [call.run for call in calls] == [0, 0, 0, 1, 1, 1]
                for relation, call in enumerate(calls):
                    types = torch.from_numpy(batch.X.store.columns["edge_type"].values[batch.graphs.edge_id])
                    assert (types[call.edge] == relation % 3).all()
                assert sum(len(call.edge) for call in calls[:3]) == batch.num_edges
    torch.testing.assert_close(*outputs)


def test_later_calls_of_a_layer_see_what_went_into_them():
    data = random_graph(4, features=4)
    model = Stack(layers.APPNP(2, 0.3, add_self_loops=False), pool=True)
    with opened(model, Instances.from_graphs([data])) as gnn:
        first, second = gnn.messages(next(gnn.batches()))
    assert first.run == second.run == 0
    torch.testing.assert_close(first.source, data.x[data.edge_index[0]])
    total = torch.zeros_like(data.x).index_add(0, data.edge_index[1], first.messages)
    torch.testing.assert_close(second.target, (0.7 * total + 0.3 * data.x)[data.edge_index[1]])


@pytest.mark.filterwarnings(BETA)
@pytest.mark.parametrize("kind", ["gcn", "gin", "sage"])
def test_sparse_graphs_have_the_messages_of_their_values(kind):
    data = random_graph(6, features=4)
    data.edge_weight = random_of(data.num_edges) + 0.5
    sparse = ToSparseTensor(layout=torch.sparse_csr)(data.clone())

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = Stack(PLAIN[kind](4, 4), PLAIN[kind](4, 4))

        def forward(self, x, adj_t):
            return self.stack(x, adj_t)

    with opened(seeded(Sparse), Instances.from_nodes(sparse)) as gnn:
        batch = next(gnn.batches())
        masks = [random_of(batch.num_edges, n) for n in range(2)]
        expected = gnn.forward(next(gnn.batches()), edge_mask=masks)
        torch.testing.assert_close(gnn.forward(batch, edge_mask=MessageGates(masks, [None, None])), expected)
        torch.testing.assert_close(gnn.forward(batch, edge_mask=gates_of(gnn, batch, opened=1.0)), gnn.reference)


def test_parts_of_a_message_get_parts_of_the_baseline():
    data = Data(x=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), edge_index=torch.tensor([[0], [1]]))
    with opened(Pairs(), Instances.from_nodes(data, [1])) as gnn:
        batch = next(gnn.batches())
        (call,) = gnn.messages(batch)
        assert call.messages.tolist() == [[1.0, 2.0, 2.0]]
        closed = MessageGates([torch.zeros(1)], [torch.tensor([10.0, 20.0, 5.0])])
        assert gnn.call(batch)[1].tolist() == [3.0, 4.0]
        assert gnn.forward(batch, edge_mask=closed).tolist() == [[15.0, 25.0]]


def test_readouts_stay():
    graphs = [random_graph(seed, features=4, nodes=6, edges=12) for seed in (0, 1)]
    for graph in graphs:
        graph.edge_attr = random_of((graph.num_edges, 3))
    with no_warnings(), opened(seeded(Molecules), Instances.from_graphs(graphs)) as gnn:
        batch = next(gnn.batches())
        calls = gnn.messages(batch)
        assert [bool((call.edge < 0).all()) for call in calls] == [False, False, True, True]
        closed = gates_of(gnn, batch, opened=0.0)
        only = MessageGates([*closed.gates[:2], None, None], closed.baselines)
        assert torch.equal(gnn.forward(batch, edge_mask=closed), gnn.forward(batch, edge_mask=only))


@given(strategies.instances("node", convs=LOCAL, categories=False), st.integers(0, 2**16))
def test_any_network_is_itself_behind_open_gates(case, seed):
    model, X = case
    with opened(model, X, output="logits") as gnn:
        for batch in gnn.batches():
            plain = gnn.plain_rows(gnn.call(batch), batch)
            assert torch.equal(gnn.forward(batch, edge_mask=gates_of(gnn, batch, seed, opened=1.0)), plain)
            together = gates_of(gnn, batch, seed, per_edge=True)
            whole = gnn.forward(batch, edge_mask=together)
            for i in range(len(batch)):
                own = (batch.edge_instance == i).nonzero().flatten()
                alone = MessageGates([z[own] for z in together.gates], [b[own] for b in together.baselines])
                part = next(gnn.batches(batch.positions[i : i + 1]))
                torch.testing.assert_close(gnn.forward(part, edge_mask=alone)[0], whole[i], atol=1e-5, rtol=1e-5)


def test_nothing_stays_on_the_model():
    model = network("gat")
    before = [set(layer.__dict__) for layer in model.modules()]
    with opened(model, Instances.from_nodes(random_graph(features=4))) as gnn:
        batch = next(gnn.batches())
        gnn.forward(batch, edge_mask=gates_of(gnn, batch))
        hooks = [
            hooks
            for layer in model.layers
            for name, hooks in vars(layer).items()
            if name.endswith("hooks") and isinstance(hooks, dict)
        ]
        assert not any(hooks)
    assert [set(layer.__dict__) for layer in model.modules()] == before
