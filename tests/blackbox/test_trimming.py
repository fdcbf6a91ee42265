"""Layers compute only what can still reach a prediction, and the prediction does not notice."""

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, no_warnings, opened, random_graph, seeded
from hypothesis import given
from hypothesis import strategies as st
from shortcut_cases import Weighted, check_shortcuts, random_mask
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

from skgnnx import GNNExplainer, Instances
from skgnnx.blackbox import trimming
from skgnnx.blackbox.constants import Constants
from skgnnx.blackbox.masked_sum import Pattern
from skgnnx.blackbox.trimming import Prefixes, Trim


def linear(i, o):
    return nn.Sequential(nn.Linear(i, 5), nn.Tanh(), nn.Linear(5, o))


PLAIN = {
    "gcn": layers.GCNConv,
    "graph": layers.GraphConv,
    "graph mean": lambda i, o: layers.GraphConv(i, o, aggr="mean"),
    "gin": lambda i, o: layers.GINConv(linear(i, o)),
    "sage": layers.SAGEConv,
    "sage sum": lambda i, o: layers.SAGEConv(i, o, aggr="sum"),
    "sage max": lambda i, o: layers.SAGEConv(i, o, aggr="max"),
    "gat": lambda i, o: layers.GATConv(i, o, heads=2, concat=False),
    "gatv2": lambda i, o: layers.GATv2Conv(i, o, heads=2, concat=False),
    "transformer": lambda i, o: layers.TransformerConv(i, o),
}
SEVERAL = {
    "sg": lambda i, o: layers.SGConv(i, o, K=3),
    "tag": lambda i, o: layers.TAGConv(i, o, K=3),
    "appnp": lambda i, o: layers.APPNP(3, 0.1),
}


def distances(data, root, hops, flipped=False):
    """Messages from each node to an element, found level by level; `hops` + 1 where there are more."""
    source, target = data.edge_index.flip(0) if flipped else data.edge_index
    level = torch.full((data.num_nodes,), hops + 1)
    level[root] = 0
    for step in range(hops):
        for s, t in zip(source.tolist(), target.tolist(), strict=True):
            if level[t] == step and level[s] > step + 1:
                level[s] = step + 1
    return level


def large_graph(dtype=torch.float64, **given):
    return random_graph(0, nodes=60, edges=90, features=4, dtype=dtype, **given)


def rows_seen(gnn, batch):
    """Rows in, rows out and messages of each layer in one masked run."""
    seen = []

    def enter(layer, args, kwargs):
        rows = args[0][0] if isinstance(args[0], tuple) else args[0]  # of (sources, targets)
        seen.append([len(rows)])

    def leave(layer, args, output):
        seen[-1].append(len(output))

    handles = []
    setup, run = gnn.setup, type(gnn.setup.plan(batch))

    def counted(self, number, layer, edge_index, nodes, given):
        call = fused_call(self, number, layer, edge_index, nodes, given)
        if call is not None:
            messages.append(len(call.pattern))
        return call

    def message(layer, inputs, output):
        messages.append(output.shape[layer.node_dim])

    messages, fused_call = [], run.fused_call
    real = setup.trimmed_layers

    def hooked(trim):
        # What is counted must be seen after the cut of inputs and of outputs.
        found = real(trim)
        return [*found, *(_Counter(layer, enter, leave) for _, layer in setup.layers)]

    setup.trimmed_layers, run.fused_call = hooked, counted
    for _, layer in setup.layers:
        handles.append(layer.register_message_forward_hook(message))
    try:
        gnn.forward(batch, edge_mask=random_mask(batch, gnn.dtype))
    finally:
        del setup.trimmed_layers
        run.fused_call = fused_call
        for handle in handles:
            handle.remove()
    return seen, messages


class _Counter:
    """Takes the hooks that trimming would register, and registers others."""

    def __init__(self, layer, enter, leave):
        self.layer, self.enter, self.leave = layer, enter, leave

    def register_forward_pre_hook(self, hook, with_kwargs):
        return self.layer.register_forward_pre_hook(self.enter, with_kwargs=with_kwargs)

    def register_forward_hook(self, hook):
        return self.layer.register_forward_hook(self.leave)


@pytest.fixture
def exact_rows(monkeypatch):
    """Let layers see only the rows that count, also where they are few."""
    monkeypatch.setattr(trimming, "FEWEST_ROWS", 1)


@pytest.mark.usefixtures("exact_rows")
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", PLAIN)
def test_each_layer_of_a_plain_stack_sees_what_still_counts(kind, depth):
    data, roots = large_graph(), [3, 8, 21, 22]
    model = seeded(lambda: Stack(*(PLAIN[kind](4, 4) for _ in range(depth)))).double()
    levels = torch.stack([distances(data, root, depth) for root in roots])
    target = data.edge_index[1]
    with no_warnings(), opened(model, Instances.from_nodes(data, roots)) as gnn:
        (batch,) = gnn.batches()
        assert batch.trim <= Trim.ROWS
        seen, messages = rows_seen(gnn, batch)
        for number in range(depth):
            reach = depth - number
            assert seen[number] == [int((levels <= reach).sum()), int((levels <= reach - 1).sum())]
            along_edges = int((levels[:, target] < reach).sum())
            own = int((levels < reach).sum()) if kind in ("gcn", "gat", "gatv2") else 0
            # Loops of rows that come in but need not come out may be summed, too.
            outer = int((levels == reach).sum()) if kind in ("gat", "gatv2") else 0
            assert along_edges + own <= messages[number] <= along_edges + own + outer
        check_shortcuts(gnn)


@pytest.mark.parametrize("kind", SEVERAL)
def test_each_step_of_a_layer_sums_what_still_counts(kind):
    data, roots = large_graph(), [3, 8, 21]
    levels = torch.stack([distances(data, root, 3) for root in roots])
    target = data.edge_index[1]
    with opened(seeded(lambda: Stack(SEVERAL[kind](4, 4))).double(), Instances.from_nodes(data, roots)) as gnn:
        (batch,) = gnn.batches()
        _, messages = rows_seen(gnn, batch)
        expected = [int((levels[:, target] < reach).sum() + (levels < reach).sum()) for reach in (3, 2, 1)]
        if kind == "tag":  # which adds no loops
            expected = [int((levels[:, target] < reach).sum()) for reach in (3, 2, 1)]
        assert messages == expected
        check_shortcuts(gnn)


def test_nothing_is_trimmed_where_a_graph_is_predicted():
    model = seeded(lambda: Stack(layers.GraphConv(4, 4), layers.GraphConv(4, 4), pool=True)).double()
    with opened(model, Instances.from_graphs([large_graph()])) as gnn:
        (batch,) = gnn.batches()
        assert rows_seen(gnn, batch) == ([[60, 60]] * 2, [batch.num_edges] * 2)
        assert [said.split(", ")[1] for said in gnn.setup.path(batch)] == ["whole"] * 2


class Attributed(Weighted):
    """Edge attributes by name."""

    def forward(self, x, edge_index, edge_attr):
        for number, layer in enumerate(self.layers):
            x = layer(torch.tanh(x) if number else x, edge_index, edge_attr=edge_attr)
        return x


@pytest.mark.parametrize("model", [Weighted, Attributed])
@pytest.mark.parametrize("kind", ["gine", "gat", "gatv2", "transformer", "nn"])
def test_attributes_of_edges_are_cut_with_them(kind, model):
    make = {
        "gine": lambda: layers.GINEConv(linear(4, 4), edge_dim=2),
        "gat": lambda: layers.GATConv(4, 2, heads=2, edge_dim=2),
        "gatv2": lambda: layers.GATv2Conv(4, 2, heads=2, edge_dim=2),
        "transformer": lambda: layers.TransformerConv(4, 2, heads=2, edge_dim=2),
        "nn": lambda: layers.NNConv(4, 4, nn.Linear(2, 16)),
    }[kind]
    data = large_graph(loops=4 if kind not in ("gat", "gatv2") else 0)
    data.edge_attr = torch.randn(data.num_edges, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with opened(seeded(lambda: model(make(), make())).double(), Instances.from_nodes(data, [3, 8, 21])) as gnn:
        said = check_shortcuts(gnn)
        if kind not in ("gat", "gatv2"):  # whose loops get the mean attribute of the edges that lead to a node
            assert all("trimmed" in sentence for sentence in said)


class Jumping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = layers.GCNConv(4, 4), layers.GCNConv(4, 4), layers.GCNConv(4, 4)
        self.jump = layers.JumpingKnowledge("cat")

    def forward(self, x, edge_index):
        a = self.first(x, edge_index).tanh()
        b = self.second(a, edge_index).tanh()
        return self.jump([a, b, self.third(b, edge_index)])


class Skipping(Jumping):
    def forward(self, x, edge_index):
        a = x + self.first(x, edge_index).tanh()
        b = a + self.second(a, edge_index).tanh()
        return b * self.third(b, edge_index)


class SkippingTwo(Jumping):
    """The state before two layers is added after them."""

    def forward(self, x, edge_index):
        a = self.first(x, edge_index).tanh()
        return a + self.third(self.second(a, edge_index).tanh(), edge_index)


class Twice(Jumping):
    def forward(self, x, edge_index):
        a = self.first(x, edge_index).tanh()
        return self.second(self.first(a, edge_index).tanh(), edge_index)


class Normed(Jumping):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([layers.BatchNorm(4), nn.BatchNorm1d(4), layers.LayerNorm(4, mode="node")])
        for norm in self.norms[:2]:
            module = getattr(norm, "module", norm)
            module.running_mean.copy_(torch.arange(4.0))
            module.running_var.copy_(torch.arange(1.0, 5.0))

    def forward(self, x, edge_index):
        h = x
        for conv, norm in zip((self.first, self.second, self.third), self.norms, strict=True):
            h = norm(conv(h, edge_index)).relu()
        return h


class Branches(nn.Module):
    """A long and a short way, in either order."""

    def __init__(self, short_first=False):
        super().__init__()
        self.long = nn.ModuleList([layers.GraphConv(4, 4), layers.SAGEConv(4, 4, aggr="max"), layers.GraphConv(4, 2)])
        self.short = layers.GraphConv(4, 2)
        self.short_first = short_first

    def forward(self, x, edge_index):
        short = self.short(x, edge_index) if self.short_first else None
        h = x
        for conv in self.long:
            h = torch.tanh(conv(h, edge_index))
        return h + (self.short(x, edge_index) if short is None else short)


class Batched(Jumping):
    """Reads the instance of each node, and what belongs to it alone."""

    def forward(self, x, edge_index, batch):
        h = self.first(x, edge_index).tanh() + 0 * batch.view(-1, 1)
        return self.second(h, edge_index)


class Asserting(Jumping):
    """Says that no row may be missing."""

    def forward(self, x, edge_index):
        h = self.first(x, edge_index)
        if len(h) != len(x):
            raise AssertionError("rows are missing")
        return self.second(h.tanh(), edge_index)


class Expecting(MessagePassing):
    """A layer that knows how many nodes there are."""

    def forward(self, x, edge_index):
        self.sizes = {len(x)}
        return self.propagate(edge_index, x=x, size=(len(x), len(x)))

    def message(self, x_j):
        return x_j.tanh()


class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Expecting(), Expecting()

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index), edge_index)


class Attentive(nn.Module):
    """Layers that return their attention, too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.GATConv(4, 2, heads=2), layers.GATConv(4, 2, heads=2)

    def forward(self, x, edge_index):
        h, _ = self.first(x, edge_index, return_attention_weights=True)
        return self.second(h.tanh(), edge_index)


class Nested(MessagePassing):
    """A layer that runs another one inside."""

    def __init__(self):
        super().__init__()
        self.inner, self.lin = layers.GraphConv(4, 4), nn.Linear(4, 4)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x)) + self.inner(x, edge_index).tanh()

    def message(self, x_j):
        return x_j.relu()


MODELS = {
    "jumping": Jumping,
    "skipping": Skipping,
    "skipping two": SkippingTwo,
    "twice": Twice,
    "normed": Normed,
    "long first": Branches,
    "short first": lambda: Branches(short_first=True),
    "batched": Batched,
    "asserting": Asserting,
    "sized": Sized,
    "attentive": Attentive,
    "nested": lambda: Stack(Nested(), Nested()),
    "both ways": lambda: Stack(layers.DirGNNConv(layers.GATConv(4, 4)), layers.DirGNNConv(layers.GCNConv(4, 4))),
    "flipped": lambda: Stack(
        layers.SAGEConv(4, 4, aggr="max", flow="target_to_source"), layers.GraphConv(4, 2, flow="target_to_source")
    ),
    "one flipped": lambda: Stack(layers.GCNConv(4, 4, flow="target_to_source"), layers.SAGEConv(4, 4, aggr="max")),
}


@pytest.mark.parametrize("nodes", [[3], [3, 8, 21, 22, 40]], ids=["one", "several"])
@pytest.mark.parametrize("kind", MODELS)
def test_any_model_gives_what_it_gives_untrimmed(kind, nodes):
    with opened(seeded(MODELS[kind]).double(), Instances.from_nodes(large_graph(loops=5), nodes)) as gnn:
        check_shortcuts(gnn)


@pytest.mark.parametrize("kind", ["gcn", "graph", "gin", "sage", "gat", "sage max"])
def test_flipped_stacks_are_trimmed(kind):
    flow = {"flow": "target_to_source"}
    make = {
        "gcn": lambda: layers.GCNConv(4, 4, **flow),
        "graph": lambda: layers.GraphConv(4, 4, **flow),
        "gin": lambda: layers.GINConv(linear(4, 4), **flow),
        "sage": lambda: layers.SAGEConv(4, 4, **flow),
        "gat": lambda: layers.GATConv(4, 4, heads=2, concat=False, **flow),
        "sage max": lambda: layers.SAGEConv(4, 4, aggr="max", **flow),
    }[kind]
    with opened(seeded(lambda: Stack(make(), make())).double(), Instances.from_nodes(large_graph(), [3, 8])) as gnn:
        check_shortcuts(gnn)


class Links(nn.Module):
    def __init__(self):
        super().__init__()
        self.stack = Stack(layers.GCNConv(4, 4), layers.SAGEConv(4, 4, aggr="max"))

    def encode(self, x, edge_index):
        return self.stack(x, edge_index)

    def decode(self, z, edge_label_index):
        return (z[edge_label_index[0]] * z[edge_label_index[1]])[:, :2]


class LabelledLinks(Links):
    def forward(self, x, edge_index, edge_label_index):
        return self.decode(self.encode(x, edge_index), edge_label_index)


@pytest.mark.parametrize("exclude_link", [False, True])
@pytest.mark.parametrize("make", [Links, LabelledLinks])
def test_links(make, exclude_link):
    data = large_graph()
    # Two that are there, one between neighbours of each, one that is not, and a node with itself.
    links = torch.cat([data.edge_index[:, :2], torch.tensor([[1, 2, 5], [7, 9, 5]])], dim=1)
    X = Instances.from_edges(data, links, target=1, exclude_link=exclude_link)
    with opened(seeded(make).double(), X, output="logits") as gnn:
        assert all("trimmed" in sentence for sentence in check_shortcuts(gnn))


def test_rows_of_single_nodes_are_not_spread_over_others():
    """Nodes without neighbours have one row each in every layer; one row fits to any number of rows."""
    edges = torch.tensor([[1, 2, 3, 4, 4, 5, 5, 5], [2, 3, 4, 4, 5, 5, 5, 5]])
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for make in MODELS.values():
        for nodes in ([0], [1], [4], [5], [0, 1], [6, 7, 4], None):
            X = Instances.from_nodes(Data(x=x, edge_index=edges), nodes)
            with opened(seeded(make).double(), X) as gnn:
                check_shortcuts(gnn)


@pytest.mark.parametrize("kind", ["gcn", "graph", "gat", "sage max"])
def test_as_many_edges_as_nodes(kind):
    """Rows of nodes and of edges cannot be told apart by their number."""
    nodes = torch.arange(12)
    cycle = torch.stack([nodes, (nodes + 1) % 12])
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for some in ([0], [0, 5, 6], None):
        X = Instances.from_nodes(Data(x=x, edge_index=cycle), some)
        with opened(seeded(lambda: Stack(PLAIN[kind](4, 4), PLAIN[kind](4, 4))).double(), X) as gnn:
            check_shortcuts(gnn)


@pytest.mark.parametrize("kind", ["gine", "rgcn", "gat"])
def test_edges_are_removed_until_there_are_as_many_as_nodes(kind):
    """A batch that is made of another one has no sample of its own to show that rows are mistaken."""
    make = {
        "gine": lambda: layers.GINEConv(nn.Linear(4, 4), edge_dim=1),
        "rgcn": lambda: layers.RGCNConv(4, 4, 2),
        "gat": lambda: layers.GATConv(4, 4, edge_dim=1),
    }[kind]
    data = random_graph(1, nodes=30, edges=90, features=4, dtype=torch.float64)
    data.edge_attr = torch.rand(data.num_edges, 1, dtype=torch.float64)
    if kind == "rgcn":
        data.edge_attr = torch.randint(2, (data.num_edges,))
    with opened(seeded(lambda: Weighted(make(), make())).double(), Instances.from_nodes(data, [0, 7])) as gnn:
        (batch,) = gnn.batches(removal=True)
        assert batch.num_edges >= batch.num_nodes
        for count in range(batch.num_edges + 1):
            keep = np.arange(batch.num_edges) < count
            few = batch.keep_edges(keep)
            expected = gnn.call(few.keep_edges(np.ones(count, dtype=bool)))[few.rows]
            torch.testing.assert_close(gnn.forward(few), expected)


@given(
    seed=st.integers(0, 2**10),
    kind=st.sampled_from(sorted(PLAIN) + sorted(MODELS)),
    nodes=st.integers(1, 8),
    edges=st.integers(0, 12),
    loops=st.integers(0, 3),
    undirected=st.booleans(),
    some=st.booleans(),
)
def test_any_graph_gives_what_it_gives_untrimmed(seed, kind, nodes, edges, loops, undirected, some):
    make = MODELS.get(kind, lambda: Stack(PLAIN[kind](4, 4), PLAIN[kind](4, 4)))
    data = random_graph(seed, nodes, edges, 4, undirected, min(loops, nodes), torch.float64)
    parallel = data.edge_index[:, ::3]
    data.edge_index = torch.cat([parallel, data.edge_index], dim=1)
    with opened(seeded(make).double(), Instances.from_nodes(data, [0] if some else None)) as gnn:
        check_shortcuts(gnn)


def prefixes(level, edge_level, *constants):
    class Batch:
        pass

    batch = Batch()
    batch.graphs = Batch()
    batch.graphs.node_level, batch.graphs.edge_level = np.array(level), np.array(edge_level)
    return Prefixes(batch, Constants(constants))


@pytest.mark.usefixtures("exact_rows")
def test_what_is_cut():
    edge_index, weight = torch.arange(10).view(2, 5), torch.arange(5.0)
    found = prefixes([0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 1, 1], edge_index)
    assert [found.nodes(d) for d in range(4)] == [2, 5, 7, 7]
    assert [found.edges(d) for d in range(4)] == [0, 3, 5, 5]
    x = torch.arange(7.0)
    given = ([x, (x.view(7, 1), None)], edge_index, weight, "text", torch.tensor(1.0), torch.zeros(3))
    nodes, edges, weights, *others = found.cut(given, 1, nodes=7, edges=5)
    assert [len(nodes[0]), len(nodes[1][0]), nodes[1][1]] == [5, 5, None]
    assert edges.tolist() == [[0, 1, 2], [5, 6, 7]]
    assert edges is found.cut(edge_index, 1, nodes=7, edges=5)  # so that layers recognise it
    assert weights.tolist() == [0, 1, 2]
    assert all(one is other for one, other in zip(others, given[3:], strict=True))
    assert found.cut(x, 1, nodes=None, edges=5) is x


@pytest.mark.usefixtures("exact_rows")
def test_named_tuples_keep_their_names():
    from collections import namedtuple

    State = namedtuple("State", ["h", "c"])
    found = prefixes([0, 1], [0])
    cut = found.cut(State(torch.ones(2), 3), 0, nodes=2, edges=1)
    assert (len(cut.h), cut.c) == (1, 3)


def test_messages_from_rows_that_are_cut_off_are_an_error_before_they_are_read():
    found = prefixes([0, 1], [0])
    found.check_ends(0, torch.tensor([[1], [0]]), 2)
    found.check_ends(0, torch.empty(2, 0, dtype=torch.int64), 0)
    with pytest.raises(IndexError, match="between the 1 rows of call 0. Got 1"):
        found.check_ends(0, torch.tensor([[1], [0]]), 1)
    with pytest.raises(IndexError, match="source 1 and target 0"):
        Pattern(np.array([[1], [0]]), 1, 1, torch.device("cpu"))


def test_few_rows_are_filled_up_so_that_batches_of_one_are_rounded_like_others():
    data = large_graph(torch.float32)
    model = seeded(lambda: Stack(layers.GCNConv(4, 20), layers.GCNConv(20, 20))).float()
    X = Instances.from_nodes(data)
    with opened(model, X) as gnn:
        for batch in gnn.batches(batch_size=1):
            prefixes = gnn.setup.plan(batch).prefixes
            assert prefixes.nodes(0) == min(trimming.FEWEST_ROWS, batch.num_nodes)
    together = GNNExplainer(model, epochs=100, output="logits").explain(X)
    alone = GNNExplainer(model, epochs=100, output="logits", batch_size=1).explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(together[i], alone[i], rtol=0, atol=1e-6)
