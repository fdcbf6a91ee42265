"""Batches give the model's own predictions, also under masks, whoever else is in them."""

import warnings

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, no_warnings, opened, random_graph, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data

from skgnnx import Instances, config_context
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.batching import Cut
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import whole_graphs
from skgnnx.testing import strategies
from skgnnx.testing.networks import Network


class Reused(nn.Module):
    """One normalising layer twice, another one after it, and all states side by side."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = layers.GCNConv(3, 3), layers.GCNConv(3, 3)

    def forward(self, x, edge_index):
        a = self.conv(x, edge_index).relu()
        b = self.conv(a, edge_index).relu()
        return torch.cat([a, b, self.last(b, edge_index)], dim=1)


class Branches(nn.Module):
    """Branches of different depth, normalised and not."""

    def __init__(self):
        super().__init__()
        self.long = nn.ModuleList([layers.GCNConv(3, 3), layers.GINConv(nn.Linear(3, 3)), layers.GCNConv(3, 2)])
        self.short = layers.GCNConv(3, 2, add_self_loops=False)

    def forward(self, x, edge_index):
        h = x
        for conv in self.long:
            h = torch.tanh(conv(h, edge_index))
        return h + self.short(x, edge_index)


class Dead(nn.Module):
    """Nothing passes the first layer, until a mask wakes it up."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.GCNConv(3, 4), layers.GCNConv(4, 2)
        nn.init.constant_(self.first.bias, -3.0)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


def stack(make, **options):
    return lambda: Stack(make(3, 3), make(3, 2), **options)


EXACT = {
    "gin": (stack(lambda i, o: layers.GINConv(nn.Linear(i, o))), Cut.HOPS),
    "sage": (stack(layers.SAGEConv), Cut.HOPS),
    "gat": (stack(layers.GATConv), Cut.HOPS),
    "gcn": (stack(layers.GCNConv), Cut.NORMALISED),
    "gcn without loops": (stack(lambda i, o: layers.GCNConv(i, o, add_self_loops=False)), Cut.NORMALISED),
    "gcn from target to source": (stack(lambda i, o: layers.GCNConv(i, o, flow="target_to_source")), Cut.NORMALISED),
    "appnp": (lambda: layers.APPNP(3, 0.2), Cut.NORMALISED),
    "reused": (Reused, Cut.NORMALISED),
    "branches": (Branches, Cut.NORMALISED),
    "dead": (Dead, Cut.NORMALISED),
    "jk cat": (lambda: layers.GCN(3, 4, num_layers=3, out_channels=2, jk="cat"), Cut.NORMALISED),
    "eg": (lambda: layers.EGConv(3, 4, ["symnorm", "max"], num_heads=2, num_bases=2), Cut.NORMALISED),
    "sg": (lambda: layers.SGConv(3, 2, K=2), Cut.RING),
    "arma": (stack(layers.ARMAConv), Cut.RING),
    "tag": (stack(lambda i, o: layers.TAGConv(i, o, K=2)), Cut.RING),
    "norm": (
        lambda: layers.GCN(3, 4, num_layers=2, out_channels=2, norm="GraphNorm"),
        Cut.WHOLE,
    ),
}


def whole_batch(gnn, batch):
    rows = batch.positions
    return GraphBatch(gnn.X, rows, whole_graphs(gnn.X, rows), gnn.targets[rows])


def spread(batch, whole, mask):
    """The mask of a batch on the edges of whole graphs, 1 where the batch has none."""
    place = {}
    for row, key in enumerate(zip(whole.edge_instance.tolist(), whole.edge_id.tolist())):
        place[key] = row
    rows = [place[key] for key in zip(batch.edge_instance.tolist(), batch.edge_id.tolist())]
    return torch.ones(whole.num_edges, dtype=mask.dtype).index_put((torch.tensor(rows, dtype=torch.long),), mask)


def ignoring_whole_graphs():
    return warnings.catch_warnings(action="ignore", category=UserWarning)


@pytest.mark.parametrize("kind", EXACT)
@given(seed=st.integers(0, 2**10), undirected=st.booleans(), loops=st.integers(0, 3))
@settings(max_examples=8)
def test_masked_batches_equal_masked_whole_graphs(kind, seed, undirected, loops):
    make, _ = EXACT[kind]
    data = random_graph(seed, nodes=14, edges=18, undirected=undirected, loops=loops)
    model = seeded(make, seed)
    random = torch.Generator().manual_seed(seed)
    with ignoring_whole_graphs(), opened(model, Instances.from_nodes(data)) as gnn:
        torch.testing.assert_close(gnn.reference, model(data.x, data.edge_index), atol=1e-6, rtol=1e-5)
        for batch in gnn.batches(batch_size=5):
            whole = whole_batch(gnn, batch)
            mask = (torch.rand(batch.num_edges, generator=random) * 4 - 1).requires_grad_()
            output = gnn.forward(batch, edge_mask=mask)
            expected = gnn.forward(whole, edge_mask=spread(batch, whole, mask))
            torch.testing.assert_close(output, expected, atol=2e-5, rtol=1e-5)
            weights = torch.rand(output.shape, generator=random)
            (got,) = torch.autograd.grad((output * weights).sum(), mask, retain_graph=True)
            (wanted,) = torch.autograd.grad((expected * weights).sum(), mask)
            torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)
            # What is said to be out of reach must be so in the whole graph.
            assert (wanted[~batch.edge_reach] == 0).all()


@pytest.mark.parametrize("kind", [kind for kind in EXACT if EXACT[kind][1] is not None])
def test_the_cut_is_no_larger_than_it_has_to_be(kind):
    make, cut = EXACT[kind]
    data = random_graph(1, nodes=30, edges=60, undirected=True)
    with ignoring_whole_graphs(), opened(seeded(make), Instances.from_nodes(data)) as gnn:
        list(gnn.batches())
        assert gnn._batcher._least == cut


@pytest.mark.parametrize("kind", ["gcn", "reused", "branches", "gin", "sg"])
def test_a_part_of_a_batch_gives_what_the_batch_gives(kind):
    data = random_graph(2, nodes=30, edges=60)
    with opened(seeded(EXACT[kind][0]), Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(0))
        output = gnn.forward(batch, edge_mask=mask)
        chosen = np.array([7, 2, 19])
        part = batch.take(chosen)
        rows = torch.cat([(batch.edge_instance == i).nonzero().flatten() for i in chosen])
        assert part.edge_id.tolist() == batch.edge_id[rows.numpy()].tolist()
        torch.testing.assert_close(gnn.forward(part, edge_mask=mask[rows]), output[chosen], atol=1e-6, rtol=1e-5)
        again = part.take(np.array([1]))
        torch.testing.assert_close(gnn.forward(again), gnn.reference[again.positions], atol=1e-6, rtol=1e-5)


def test_edges_leave_only_batches_made_for_it():
    data = random_graph(2, nodes=30, edges=60)
    model = seeded(EXACT["gcn"][0])
    with opened(model, Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        with pytest.raises(RuntimeError, match="ask for batches\\(removal=True\\)"):
            batch.keep_edges(np.zeros(batch.num_edges, dtype=bool))
        for batch in gnn.batches(removal=True):
            gone = int(batch.edge_id[0])
            kept = batch.edge_id != gone
            other = model(data.x, data.edge_index[:, np.arange(data.num_edges) != gone])
            torch.testing.assert_close(
                gnn.forward(batch.keep_edges(kept)), other[batch.positions], atol=1e-6, rtol=1e-5
            )


@pytest.mark.parametrize("kind", ["gcn", "gin"])
def test_small_outputs_are_judged_by_their_own_size(kind):
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = Stack(layers.SGConv(3, 1, K=2)) if kind == "gcn" else seeded(EXACT["gin"][0])

        def forward(self, x, edge_index):
            return 1e-7 * self.stack(x, edge_index)

    X = Instances.from_nodes(random_graph(3, nodes=30, edges=60), target=0)
    with opened(seeded(Tiny), X, output="regression") as gnn:
        for batch in gnn.batches():
            got, expected = gnn.forward(batch) * 1e7, gnn.reference[batch.positions] * 1e7
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_alike_nodes_do_not_hide_a_wrong_cut():
    ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
    data = Data(x=torch.ones(12, 3), edge_index=torch.cat([ring, ring.flip(0)], dim=1))
    with opened(seeded(EXACT["arma"][0]), Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        whole = whole_batch(gnn, batch)
        mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(0))
        got, expected = gnn.forward(batch, edge_mask=mask), gnn.forward(whole, edge_mask=spread(batch, whole, mask))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


class BatchStatistics(nn.Module):
    """A norm over everything in the batch, whatever `batch` says."""

    def __init__(self, level, norm):
        super().__init__()
        self.level, self.norm = level, norm
        self.conv, self.last = layers.GraphConv(3, 4), layers.GraphConv(4, 2)

    def forward(self, x, edge_index, batch):
        x = self.last(self.norm(self.conv(x, edge_index)).relu(), edge_index)
        return layers.global_add_pool(x, batch) if self.level == "graph" else x


class Center(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Total(nn.Module):
    def forward(self, x):
        return x + x.sum(0)


NORMS = {"statistics": lambda: nn.BatchNorm1d(4, track_running_stats=False), "mean": Center, "sum": Total}


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("norm", NORMS)
def test_models_that_mix_a_batch_are_run_on_one_instance_at_a_time(norm, level, copies):
    model = seeded(lambda: BatchStatistics(level, NORMS[norm]()))
    data = random_graph(4)
    if level == "node":
        X = Instances.from_nodes(data, [3, 3, 3] if copies else [0, 3, 5])
    else:
        X = Instances.from_graphs([data] * 3 if copies else [random_graph(seed) for seed in range(3)])
    with warnings.catch_warnings(record=True) as caught, opened(model, X, output="logits") as gnn:
        warnings.simplefilter("always")
        batches = list(gnn.batches())
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert sum("explained one at a time" in str(warning.message) for warning in caught) == 1
    with ignoring_whole_graphs(), opened(model, X, output="logits") as gnn:
        for i, batch in enumerate(gnn.batches()):
            own = X.store.graph(X.graph_index[i])
            expected = model.eval()(own.x, own.edge_index, torch.zeros(12, dtype=torch.long))
            torch.testing.assert_close(gnn.forward(batch)[0], expected[X.element[i, 0] if level == "node" else 0])


class Memory(nn.Module):
    """Has one vector for each node of the one graph that it was trained on."""

    def __init__(self):
        super().__init__()
        self.nodes, self.conv = nn.Embedding(12, 3), layers.GCNConv(3, 2)

    def forward(self, edge_index):
        return self.conv(self.nodes.weight, edge_index)


def test_models_of_one_size_are_run_on_one_whole_graph_at_a_time():
    data = random_graph(5)
    model = seeded(Memory)
    with ignoring_whole_graphs(), opened(model, Instances.from_nodes(data, [1, 4])) as gnn:
        batches = list(gnn.batches())
        assert [(len(batch), batch.num_nodes) for batch in batches] == [(1, 12), (1, 12)]
        torch.testing.assert_close(gnn.forward(batches[1])[0], model(data.edge_index)[4])


def test_graphs_of_one_size_share_a_batch():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = layers.GraphConv(3, 2), nn.Linear(24, 2)

        def forward(self, x, edge_index):
            return self.last(self.conv(x, edge_index).view(-1, 24))

    with no_warnings(), opened(seeded(Flat), Instances.from_graphs([random_graph(s) for s in range(3)])) as gnn:
        (batch,) = list(gnn.batches())
        assert gnn.forward(batch, edge_mask=torch.ones(batch.num_edges)).shape == (3, 2)


def test_batch_size_and_memory_budget_bound_a_batch():
    X = Instances.from_graphs([random_graph(seed, nodes=20, edges=60) for seed in range(20)])
    model = seeded(stack(layers.GraphConv, pool=True))
    with opened(model, X) as gnn:
        assert [len(batch) for batch in gnn.batches(batch_size=7)] == [7, 7, 6]
        assert [len(batch) for batch in gnn.batches(np.array([5, 3]), batch_size=1)] == [1, 1]
        assert [batch.positions.tolist() for batch in gnn.batches(np.array([5, 3]))] == [[5, 3]]
        assert list(gnn.batches(np.array([], dtype=int))) == []
    with config_context(memory_budget=100_000), opened(model, X) as gnn:
        sizes = [len(batch) for batch in gnn.batches()]
        assert sum(sizes) == 20
        assert 1 < max(sizes) < 10
    with config_context(memory_budget=1), opened(model, X) as gnn:
        assert [len(batch) for batch in gnn.batches()] == [1] * 20


def test_random_outputs_are_refused():
    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = layers.GraphConv(3, 2)

        def forward(self, x, edge_index):
            return self.conv(nn.functional.dropout(x), edge_index)

    with (
        opened(seeded(Random), Instances.from_nodes(random_graph())) as gnn,
        pytest.raises(ValueError, match="same output twice in evaluation mode. .*training=self.training"),
    ):
        list(gnn.batches())


def test_an_output_that_is_not_finite_names_its_instance():
    class Log(nn.Module):
        def forward(self, x, batch):
            return layers.global_add_pool(x, batch).log()

    graphs = [Data(x=torch.ones(3, 2), edge_index=torch.empty(2, 0, dtype=torch.long)) for _ in range(30)]
    graphs[23].x = -graphs[23].x
    with (
        config_context(memory_budget=4_000),
        opened(Log(), Instances.from_graphs(graphs)) as gnn,
        pytest.raises(ValueError, match="finite. Got NaN or infinity for instance 23"),
    ):
        list(gnn.batches())


class Links(nn.Module):
    def __init__(self, conv=layers.GCNConv):
        super().__init__()
        self.first, self.second = conv(3, 4), conv(4, 4)

    def forward(self, x, edge_index, edge_label_index):
        z = self.second(self.first(x, edge_index).tanh(), edge_index)
        return (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(1)


@pytest.mark.parametrize("conv", [layers.GCNConv, layers.GraphConv, layers.ARMAConv])
@pytest.mark.parametrize("exclude", [False, True])
@given(seed=st.integers(0, 200), undirected=st.booleans())
@settings(max_examples=8)
def test_links_in_and_outside_of_the_graph(conv, exclude, seed, undirected):
    data = random_graph(seed, undirected=undirected, loops=2)
    pairs = torch.cat([data.edge_index[:, :3], torch.tensor([[0, 5, 7], [0, 6, 1]])], dim=1)
    model = seeded(lambda: Links(conv))
    X = Instances.from_edges(data, pairs, exclude_link=exclude)
    with ignoring_whole_graphs(), opened(model, X, output="binary_logit") as gnn:
        for i in range(6):
            first, second = pairs[:, i]
            source, target = data.edge_index
            link = ((source == first) & (target == second)) | ((source == second) & (target == first))
            kept = data.edge_index[:, ~link] if exclude else data.edge_index
            expected = model(data.x, kept, pairs[:, i : i + 1])
            torch.testing.assert_close(gnn.reference[i], expected, atol=1e-6, rtol=1e-5)
        for batch in gnn.batches(batch_size=4):
            whole = whole_batch(gnn, batch)
            mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(seed))
            got, wanted = gnn.forward(batch, edge_mask=mask), gnn.forward(whole, edge_mask=spread(batch, whole, mask))
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
            if exclude:
                ends = X.element[batch.positions][batch.edge_instance.numpy()]
                source, target = data.edge_index[:, batch.edge_id].numpy()
                assert not (
                    ((source == ends[:, 0]) & (target == ends[:, 1]))
                    | ((source == ends[:, 1]) & (target == ends[:, 0]))
                ).any()


def test_nodes_of_several_graphs_in_any_order():
    graphs = [random_graph(seed, nodes=10 + seed) for seed in range(3)]
    model = seeded(EXACT["gcn"][0])
    X = Instances.concat([Instances.from_nodes(graph, [1, 8]) for graph in graphs])[[5, 0, 3, 2]]
    expected = torch.stack([model(graphs[g].x, graphs[g].edge_index)[v] for g, v in [(2, 8), (0, 1), (1, 8), (1, 1)]])
    with opened(model, X) as gnn:
        torch.testing.assert_close(gnn.reference, expected)
        for batch in gnn.batches(batch_size=3):
            torch.testing.assert_close(gnn.forward(batch), expected[batch.positions], atol=1e-6, rtol=1e-5)
            graph = X.graph_index[batch.positions][batch.edge_instance.numpy()]
            for row in range(batch.num_edges):
                ends = batch.edge_index[:, row].numpy()
                assert batch.node_id[ends].tolist() == graphs[graph[row]].edge_index[:, batch.edge_id[row]].tolist()


def noise_by_id(batch, shape="edge"):
    values = batch.noise(3, shape)
    ids = batch.edge_id if shape == "edge" else batch.node_id
    instance, reach = (
        (batch.edge_instance, batch.edge_reach) if shape == "edge" else (batch.node_instance, batch.node_reach)
    )
    assert (values[~reach] == 0).all()
    found = {}
    for position, entry, value, reaches in zip(batch.positions[instance.numpy()], ids, values.tolist(), reach.tolist()):
        if reaches:
            found[int(position), int(entry)] = value
    return found


@pytest.mark.parametrize("shape", ["edge", "node"])
@given(strategies.instances("node", max_size=5), st.integers(1, 3), st.randoms(use_true_random=False))
def test_noise_of_an_instance_is_the_same_everywhere(shape, case, batch_size, shuffle):
    model, X = case
    order = list(range(len(X)))
    shuffle.shuffle(order)
    drawn = []
    with ignoring_whole_graphs(), opened(model, X, output="logits") as gnn:
        for options in ({}, {"batch_size": batch_size}, {"removal": True}, {"positions": np.array(order)}):
            found = {}
            for batch in gnn.batches(**options):
                found |= noise_by_id(batch, shape)
            drawn.append(found)
    alone = {}
    for i in range(len(X)):
        target = gnn.targets[i : i + 1]
        with ignoring_whole_graphs(), opened(model, X[i : i + 1].with_target(target), output="logits") as single:
            for batch in single.batches():
                alone |= {(i, entry): value for (_, entry), value in noise_by_id(batch, shape).items()}
    for found in [*drawn[1:], alone]:
        assert found == drawn[0]


def test_noise_differs_between_seeds_kinds_and_contents():
    X = Instances.from_graphs([random_graph(0), random_graph(0), random_graph(1)], target=[0, 0, 0])
    with opened(seeded(stack(layers.GraphConv, pool=True)), X) as gnn:
        batch = next(gnn.batches())
    noise = batch.sum_edges(batch.noise(0, "edge"))
    assert noise[0] == noise[1] != noise[2]
    assert (noise != batch.sum_edges(batch.noise(1, "edge"))).all()
    assert batch.noise(0, "instance").shape == (3,)
    assert batch.noise(0, "node", 4).shape == (batch.num_nodes, 4)


@given(strategies.instances("graph"))
def test_batches_of_graphs_equal_the_model_on_each(case):
    model, X = case
    with ignoring_whole_graphs(), opened(model, X, output="logits") as gnn:
        for batch in gnn.batches(batch_size=2):
            output = gnn.forward(batch)
            for row, position in enumerate(batch.positions):
                data = X.store.graph(X.graph_index[position])
                given = {model.edge_input: data[model.edge_input]} if model.edge_input else {}
                alone = model(data.x, data.edge_index, batch=torch.zeros(data.num_nodes, dtype=torch.long), **given)
                torch.testing.assert_close(output[row], alone[0], atol=1e-5, rtol=1e-5)


@given(strategies.instances("node"))
def test_batches_of_nodes_equal_the_model_on_the_graph(case):
    model, X = case
    data = X.store.graph(0)
    given = {model.edge_input: data[model.edge_input]} if model.edge_input else {}
    with ignoring_whole_graphs(), opened(model, X, output="logits") as gnn:
        whole = model(data.x, data.edge_index, **given)
        for batch in gnn.batches(batch_size=2):
            expected = whole[X.element[batch.positions, 0]]
            torch.testing.assert_close(gnn.forward(batch), expected, atol=1e-5, rtol=1e-5)
            assert batch.node_id[batch.rows.numpy()].tolist() == X.element[batch.positions, 0].tolist()


class NoBatch(nn.Module):
    """Written for one graph: pools over everything, or adds one vector to all nodes."""

    def __init__(self, pools):
        super().__init__()
        self.conv, self.pools = layers.GraphConv(3, 2), pools

    def forward(self, x, edge_index, u):
        h = self.conv(x, edge_index)
        return h.mean(0, keepdim=True) if self.pools else h + u


@pytest.mark.parametrize("level", ["graph", "node"])
def test_models_that_take_no_batch_are_run_on_one_instance_at_a_time(level):
    graphs = [random_graph(seed) for seed in range(3)]
    for number, graph in enumerate(graphs):
        graph.u = torch.full((1, 2), float(number))
    model = seeded(lambda: NoBatch(level == "graph"))
    if level == "graph":
        X, rows = Instances.from_graphs(graphs), [model(g.x, g.edge_index, g.u)[0] for g in graphs]
    else:
        X = Instances.from_nodes(graphs[1], [2, 7, 9])
        rows = model(graphs[1].x, graphs[1].edge_index, graphs[1].u)[[2, 7, 9]]
    with warnings.catch_warnings(record=True) as caught, opened(model, X) as gnn:
        warnings.simplefilter("always")
        batches = list(gnn.batches())
        for i, batch in enumerate(batches):
            torch.testing.assert_close(gnn.forward(batch)[0], rows[i], atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(gnn.reference[i], rows[i], atol=1e-6, rtol=1e-5)
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert sum("takes one" in str(warning.message) for warning in caught) == 1


@pytest.mark.parametrize("kind", ["arma", "sg", "gcn"])
def test_sleeping_units_do_not_hide_a_wrong_cut(kind):
    """Nothing passes the first layer, so that every cut gives the right output, until a mask wakes it up."""

    class Asleep(nn.Module):
        def __init__(self):
            super().__init__()
            make = {"arma": layers.ARMAConv, "sg": lambda i, o: layers.SGConv(i, o, K=2), "gcn": layers.GCNConv}[kind]
            self.first, self.second = make(3, 4), make(4, 2)
            nn.init.constant_(self.first.bias if kind != "sg" else self.first.lin.bias, -20.0)

        def forward(self, x, edge_index):
            return self.second(self.first(x, edge_index).relu(), edge_index)

    data = random_graph(3, nodes=20, edges=30, undirected=True)
    with opened(seeded(Asleep), Instances.from_nodes(data)) as gnn:
        batch = next(gnn.batches())
        whole = whole_batch(gnn, batch)
        mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(0)) * 200 - 100
        got, expected = gnn.forward(batch, edge_mask=mask), gnn.forward(whole, edge_mask=spread(batch, whole, mask))
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


class Asserting(nn.Module):
    """Takes no negative features, and says so in its own way."""

    def __init__(self, error):
        super().__init__()
        self.conv, self.error = layers.GraphConv(3, 2), error

    def forward(self, x, edge_index):
        if (x < 0).any():
            raise self.error("negative")
        return self.conv(x, edge_index)


@pytest.mark.parametrize("error", [ValueError, AssertionError, KeyError])
def test_features_of_the_probe_may_be_refused(error):
    data = random_graph(1, dtype=torch.float64)
    data.x = data.x.abs()
    X = Instances.from_nodes(data)
    with opened(Asserting(error).double().eval(), X) as gnn:
        assert sum(len(batch) for batch in gnn.batches()) == 12


class Numbered(nn.Module):
    """Takes no more nodes than it has numbers for, and no fewer than it likes."""

    def __init__(self, fewest, most):
        super().__init__()
        self.fewest, self.places = fewest, nn.Embedding(most, 3)
        self.convs = nn.ModuleList([layers.GraphConv(3, 4), layers.GraphConv(4, 2)])

    def forward(self, x, edge_index):
        if len(x) < self.fewest:
            raise ValueError("more nodes")
        if self.places.num_embeddings < 10**4:
            x = x + self.places.weight[: len(x)]
        return self.convs[1](self.convs[0](x, edge_index).tanh(), edge_index)


@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize(("fewest", "most"), [(1, 60), (20, 60), (20, 10**4)])
def test_models_that_refuse_small_parts_or_several_graphs_get_what_they_take(fewest, most, undirected):
    data = random_graph(0, nodes=60, edges=150, undirected=undirected)
    model, nodes = seeded(lambda: Numbered(fewest, most)), [3, 17, 30, 41, 59]
    with ignoring_whole_graphs(), opened(model, Instances.from_nodes(data, nodes)) as gnn:
        torch.testing.assert_close(gnn.reference, model(data.x, data.edge_index)[nodes])
        for batch in gnn.batches():
            mask = torch.zeros(batch.num_edges)
            expected = model(data.x, data.edge_index[:, :0])[nodes][torch.from_numpy(batch.positions)]
            torch.testing.assert_close(gnn.forward(batch), gnn.reference[torch.from_numpy(batch.positions)])
            torch.testing.assert_close(gnn.forward(batch, edge_mask=mask), expected)


@pytest.mark.filterwarnings("ignore:Network mixes")
def test_networks_that_mix_are_seen_on_categories():
    """Other categories are asked of every node, also where a shuffle of three nodes leaves each in its place."""
    data = Data(x=torch.tensor([[3, 4, 4], [4, 2, 0], [1, 3, 4]]), edge_index=torch.tensor([[2, 2, 0], [1, 2, 2]]))
    X = Instances.from_nodes(data, [0, 1, 2])
    with BlackBox(Network("mixing", "node", categories=True)).open(X) as gnn:
        assert [len(batch) for batch in gnn.batches()] == [1, 1, 1]
