"""Messages find their edges by ends and occurrence."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from blackbox_cases import opened, random_graph, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    DirGNNConv,
    FastRGCNConv,
    GCNConv,
    GraphConv,
    MessagePassing,
    RGCNConv,
    SAGPooling,
    TopKPooling,
    global_add_pool,
)
from torch_geometric.utils import add_self_loops, coalesce, to_undirected

from skgnnx import Instances
from skgnnx.blackbox.edge_matching import CallKind, gates, match_edges, occurrence, split_parallel_edges
from skgnnx.testing import strategies

ENDS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12)


def as_ends(pairs):
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def naive_match(call, edges, kind):
    """A queue of edges for every pair of ends; messages take from the front."""
    queues = defaultdict(list)
    for number, (source, target) in enumerate(edges.T.tolist()):
        if not (kind.replaces_loops and source == target):
            queues[(target, source) if kind.flipped else (source, target)].append(number)
    found = []
    for source, target in call.T.tolist():
        if kind.replaces_loops and source == target:
            found.append(-1)
        elif queues[source, target]:
            found.append(queues[source, target].pop(0))
        else:
            return None
    return found


@given(ENDS, st.booleans(), st.booleans(), st.data())
def test_equals_a_dictionary_of_queues(pairs, replaces, flipped, data):
    edges, kind = as_ends(pairs), CallKind(replaces, flipped)
    rows = data.draw(st.permutations(range(len(pairs))))
    rows = rows[: data.draw(st.integers(0, len(pairs)))]
    call = (edges[::-1] if flipped else edges)[:, rows]
    if data.draw(st.booleans()):  # loops that the layer adds, or an edge from nowhere
        call = np.concatenate([call, np.stack([np.arange(4)] * 2)], axis=1)
    found = match_edges(call, edges, kind)
    assert (None if found is None else found.edge.tolist()) == naive_match(call, edges, kind)


@given(ENDS, st.data())
def test_is_certain_only_if_no_other_order_of_parallel_edges_has_the_same_ends(pairs, data):
    edges = as_ends(pairs)
    rows = data.draw(st.permutations(range(len(pairs))))[: data.draw(st.integers(0, len(pairs)))]
    found = match_edges(edges[:, rows], edges, CallKind())
    if found.certain:
        kept = sorted(rows, key=lambda row: row)
        same_order = edges[:, rows].tolist() == edges[:, kept].tolist()
        assert found.edge.tolist() == list(rows) or (same_order and found.edge.tolist() == kept)


def test_edges_sorted_by_target_are_not_the_reverse_edges():
    # Sorted by source, an undirected graph equals, reversed, what it is sorted by target.
    edges = np.array([[0, 1, 1, 2], [1, 0, 2, 1]])
    by_target = edges[:, np.lexsort(edges)]
    assert np.array_equal(by_target, edges[::-1])
    assert match_edges(by_target, edges, CallKind()).edge.tolist() == [1, 0, 3, 2]
    assert match_edges(by_target, edges, CallKind(flipped=True)).edge.tolist() == [0, 1, 2, 3]


@given(ENDS)
def test_occurrence_counts_what_stands_before(pairs):
    expected = [pairs[:i].count(pair) for i, pair in enumerate(pairs)]
    assert occurrence(as_ends(pairs)).tolist() == expected


@given(ENDS)
def test_split_edges_differ_in_their_ends_and_start_at_copies(pairs):
    edges = as_ends(pairs)
    split, copied = split_parallel_edges(edges, 4)
    assert len({tuple(pair) for pair in split.T.tolist()}) == len(pairs)
    origin = np.concatenate([np.arange(4), copied])
    assert (origin[split[0]] == edges[0]).all()
    assert (split[1] == edges[1]).all()


def test_gates_are_the_mask_of_the_edge_or_one():
    mask = torch.tensor([0.2, 0.4])
    assert gates(mask, torch.tensor([1, -1, 0])).tolist() == pytest.approx([0.4, 1.0, 0.2])


class Sum(MessagePassing):
    """Adds up neighbours."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)


class Rearranged(nn.Module):
    """Adds up neighbours over edges that it has put into another order or form first."""

    def __init__(self, change):
        super().__init__()
        self.change, self.conv = change, Sum()

    def forward(self, x, edge_index):
        return self.conv(x, self.change(x, edge_index))


def loops(x):
    return torch.arange(len(x)).repeat(2, 1)


def chosen(x, edge_index):
    """What a layer for some edges only would take; depends on what nodes hold, not on their numbers."""
    return ~(x[edge_index[0], 0] + x[edge_index[1], 0] < 0)


CHANGES = {
    "none": lambda x, e: e,
    "copied": lambda x, e: e.clone(),
    "loops appended": lambda x, e: add_self_loops(e, num_nodes=len(x))[0],
    "loops first": lambda x, e: torch.cat([loops(x), e], dim=1),
    "loops in the middle": lambda x, e: torch.cat([e[:, :5], loops(x), e[:, 5:]], dim=1),
    "by source": lambda x, e: e[:, (e[0] * 1000 + e[1]).argsort()],
    "by target": lambda x, e: e[:, (e[1] * 1000 + e[0]).argsort()],
    "backwards": lambda x, e: e.flip(1),
    "some": lambda x, e: e[:, chosen(x, e)],
    "turned": lambda x, e: e.flip(0),
    "turned and sorted": lambda x, e: coalesce(e.flip(0)),
    "turned, some": lambda x, e: e.flip(0)[:, chosen(x, e)],
}


@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_the_mask_of_an_edge_scales_its_message_and_no_other(change, undirected):
    data = random_graph(1, undirected=undirected)
    taken = chosen(data.x, data.edge_index) if "some" in change else torch.ones(data.num_edges, dtype=torch.bool)
    ends = data.edge_index.flip(0) if change.startswith("turned") else data.edge_index
    with opened(Rearranged(CHANGES[change]), Instances.from_nodes(data)) as gnn:
        assert gnn.trace.flipped == [change.startswith("turned")]
        for batch in gnn.batches(removal=True):
            mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(0))
            nodes = gnn.X.element[batch.positions, 0]
            expected = data.x[nodes] * ("loops" in change)
            for row, edge in enumerate(batch.edge_id):
                i = batch.edge_instance[row]
                if ends[1, edge] == nodes[i] and taken[edge]:
                    expected[i] += mask[row] * data.x[ends[0, edge]]
            torch.testing.assert_close(gnn.forward(batch, edge_mask=mask), expected)


RELATIONS = {
    "rgcn": lambda: RGCNConv(3, 3, 2, aggr="add"),
    "fast": lambda: FastRGCNConv(3, 3, 2, aggr="add"),
}


class Relational(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, edge_index, edge_type):
        return self.conv(x, edge_index, edge_type)


@pytest.mark.parametrize("kind", RELATIONS)
@given(seed=st.integers(0, 50))
def test_parallel_edges_of_two_relations_have_their_own_messages(kind, seed):
    random = torch.Generator().manual_seed(seed)
    data = random_graph(seed, nodes=5, edges=8)
    again = data.edge_index[:, torch.randperm(data.num_edges, generator=random)[:4]]
    data.edge_index = torch.cat([data.edge_index, again], dim=1)
    data.edge_type = torch.randint(2, (data.num_edges,), generator=random)
    model = seeded(lambda: Relational(RELATIONS[kind]()))
    conv = model.conv
    with opened(model, Instances.from_nodes(data)) as gnn:
        for batch in gnn.batches(removal=True):
            mask = torch.rand(batch.num_edges, generator=random)
            got = gnn.forward(batch, edge_mask=mask)
            for i in range(len(batch)):
                node = gnn.X.element[batch.positions[i], 0]
                expected = data.x[node] @ conv.root + conv.bias
                for row in (batch.edge_instance == i).nonzero().flatten():
                    source, target = data.edge_index[:, batch.edge_id[row]]
                    if target == node:
                        expected = (
                            expected + mask[row] * data.x[source] @ conv.weight[data.edge_type[batch.edge_id[row]]]
                        )
                torch.testing.assert_close(got[i], expected, atol=1e-5, rtol=1e-5)


def test_both_directions_of_dirgnn():
    data = random_graph(3, undirected=True)
    model = seeded(lambda: DirGNNConv(GraphConv(3, 2, bias=False), alpha=0.3, root_weight=False))
    with opened(model, Instances.from_nodes(data)) as gnn:
        assert gnn.trace.flipped == [False, True]
        assert gnn.trace.both_ways
        batch = next(gnn.batches())
        mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(0))
        got = gnn.forward(batch, edge_mask=mask)
    for i, node in enumerate(gnn.X.element[batch.positions, 0]):
        into, out = torch.zeros(3), torch.zeros(3)
        for row in (batch.edge_instance == i).nonzero().flatten():
            source, target = data.edge_index[:, batch.edge_id[row]]
            into += mask[row] * data.x[source] * (target == node)
            out += mask[row] * data.x[target] * (source == node)
        # conv_in and conv_out are copies; the graph conv has a root weight of its own, applied twice.
        root = 0.7 * model.conv_in.lin_root(data.x[node]) + 0.3 * model.conv_out.lin_root(data.x[node])
        expected = 0.7 * model.conv_in.lin_rel(into) + 0.3 * model.conv_out.lin_rel(out) + root
        torch.testing.assert_close(got[i], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("undirected", [False, True])
def test_layers_that_run_from_target_to_source(undirected):
    data = random_graph(4, undirected=undirected)
    model = seeded(lambda: GCNConv(3, 2, flow="target_to_source"))
    turned = Data(x=data.x, edge_index=data.edge_index.flip(0))
    other = seeded(lambda: GCNConv(3, 2))
    with opened(model, Instances.from_nodes(data)) as first, opened(other, Instances.from_nodes(turned)) as second:
        one, two = next(first.batches()), next(second.batches())
        mask = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0))
        masked = [g.forward(b, edge_mask=mask[torch.from_numpy(b.edge_id)]) for g, b in ((first, one), (second, two))]
        torch.testing.assert_close(*masked)
        assert (masked[0] - first.reference).abs().max() > 0.01


class OtherEdges(nn.Module):
    """Passes messages over edges that it makes itself."""

    def __init__(self, make):
        super().__init__()
        self.make, self.dynamic = make, GraphConv(3, 2)

    def forward(self, x, edge_index):
        return self.dynamic(x, self.make(edge_index))


def test_edges_that_do_not_exist_name_the_layer():
    data = Data(x=torch.randn(4, 3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
    model = seeded(lambda: OtherEdges(to_undirected))
    with opened(model, Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        with pytest.raises(ValueError, match="run along an edge of the graph. Got others in layer 'dynamic'"):
            gnn.forward(batch, edge_mask=torch.ones(batch.num_edges))


class ByType(nn.Module):
    """Sorts edges by type, so that parallel edges change places."""

    def __init__(self):
        super().__init__()
        self.conv = GraphConv(3, 3)

    def forward(self, x, edge_index, edge_type, edge_weight):
        order = edge_type.argsort(stable=True)
        return self.conv(x, edge_index[:, order], edge_weight[order])


def test_parallel_edges_in_another_order():
    data = Data(
        x=torch.randn(3, 3),
        edge_index=torch.tensor([[0, 1, 0], [1, 2, 1]]),
        edge_type=torch.tensor([1, 0, 0]),
        edge_weight=torch.tensor([1.0, 2.0, 4.0]),
    )
    model = seeded(ByType)
    with opened(
        model,
        Instances.from_graphs([data]),
        forward=lambda m, b: m(b.x, b.edge_index, b.edge_type, b.edge_weight).sum(0, True),
    ) as gnn:
        batch = next(gnn.batches())
        for edge in range(3):
            mask = torch.ones(3)
            mask[edge] = 0
            weight = data.edge_weight * mask
            expected = model(data.x, data.edge_index, data.edge_type, weight).sum(0, True)
            torch.testing.assert_close(gnn.forward(batch, edge_mask=mask), expected)


@given(strategies.graphs(min_nodes=2), st.integers(0, 2**16))
def test_gated_sum_over_awkward_graphs_equals_a_loop(data, seed):
    with opened(Sum(), Instances.from_nodes(data)) as gnn:
        for batch in gnn.batches(removal=True):
            mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(seed))
            got = gnn.forward(batch, edge_mask=mask)
            expected = torch.zeros(len(batch), 3)
            for row, edge in enumerate(batch.edge_id):
                source, target = data.edge_index[:, edge]
                i = batch.edge_instance[row]
                if target == gnn.X.element[batch.positions[i], 0]:
                    expected[i] += mask[row] * data.x[source]
            torch.testing.assert_close(got, expected)


class Pooled(nn.Module):
    """The second layer runs between the nodes that a pooling has kept, under new numbers."""

    def __init__(self, pool):
        super().__init__()
        self.first, self.pool, self.second = GraphConv(3, 3), pool, GraphConv(3, 2)

    def forward(self, x, edge_index, batch):
        x = self.first(x, edge_index).tanh()
        x, edge_index, _, batch, *_ = self.pool(x, edge_index, None, batch)
        return global_add_pool(self.second(x, edge_index), batch)


POOLS = {
    "top k": lambda: TopKPooling(3, ratio=0.5),
    "most": lambda: TopKPooling(3, ratio=0.9),
    "attention": lambda: SAGPooling(3, ratio=0.5),
}


@pytest.mark.parametrize("nodes", [3, 9])
@pytest.mark.parametrize("pool", POOLS)
def test_layers_after_a_pooling_are_named(pool, nodes):
    """Their edges have other numbers, some of which are edges of the graph by chance."""
    data = random_graph(0, nodes=nodes, edges=20)
    model = seeded(lambda: Pooled(POOLS[pool]()))
    with opened(model, Instances.from_graphs([data])) as gnn:
        batch = next(gnn.batches())
        with pytest.raises(ValueError, match="nodes of the graph. Got . nodes instead of . in layer 'second'.*pooling"):
            gnn.forward(batch, edge_mask=torch.ones(batch.num_edges))
