"""What is said of how a batch ran is true, and nothing of it stays on the model."""

import threading

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, opened, random_graph, seeded
from shortcut_cases import check_shortcuts, random_mask
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.nn import MessagePassing

from skgnnx import GNNExplainer, Instances, SensitivityAnalysis
from skgnnx.blackbox.fused_call import FusedCall
from skgnnx.blackbox.hooks import replaced
from skgnnx.blackbox.trimming import Trim


class Mixed(nn.Module):
    """A sum of copies, and a layer that is none, called twice."""

    def __init__(self):
        super().__init__()
        self.copies, self.other = layers.GraphConv(4, 4), layers.GATConv(4, 2, heads=2)

    def forward(self, x, edge_index):
        return self.other(self.other(self.copies(x, edge_index), edge_index), edge_index)


def nodes(count=5, dtype=torch.float64, seed=0):
    return Instances.from_nodes(random_graph(seed, 30, 60, 4, dtype=dtype), range(count))


def fused_calls(gnn, batch, monkeypatch):
    """Run a batch and count its sparse products."""
    calls, once = [], FusedCall.__call__

    def counted(self, given, mask):
        calls.append(self)
        return once(self, given, mask)

    with monkeypatch.context() as patch:
        patch.setattr(FusedCall, "__call__", counted)
        gnn.forward(batch, edge_mask=random_mask(batch, gnn.dtype))
    return len(calls)


def test_the_path_says_what_runs(monkeypatch):
    with opened(seeded(Mixed).double(), nodes()) as gnn:
        (batch,) = gnn.batches()
        assert gnn.setup.path(batch) == [
            "copies: fused sum of copies, trimmed rows and edges",
            "other: general path (messages that are no weighted copies), trimmed rows and edges",
            "other: general path (messages that are no weighted copies), trimmed rows and edges",
        ]
        assert fused_calls(gnn, batch, monkeypatch) == 1
        gnn.setup.put(batch, Trim.EDGES)
        assert [said.split(", ")[1] for said in gnn.setup.path(batch)] == ["trimmed edges"] * 3
        gnn.setup.put(batch, Trim.NONE)
        assert [said.split(", ")[1] for said in gnn.setup.path(batch)] == ["whole"] * 3


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: layers.SAGEConv(4, 4, aggr="max"), "an aggregation that is no sum or mean"),
        (lambda: layers.GATConv(4, 4, heads=2), "messages that are no weighted copies"),
        (lambda: Updating(), "an update of its own"),
        (lambda: Typed(), "an argument of whole numbers"),
        (lambda: Refusing(), "random numbers are refused"),
        (lambda: layers.GraphConv(4, 4, decomposed_layers=2), "hooks of the model's own"),
    ],
)
def test_the_path_says_why_not(make, reason):
    layer = make()
    if getattr(layer, "decomposed_layers", 1) > 1:
        layer = layers.SimpleConv()
        layer.register_message_forward_hook(lambda layer, inputs, output: output)
    with opened(seeded(lambda: Stack(layer)).double(), nodes()) as gnn:
        for batch in gnn.batches():
            assert all(f"general path ({reason})" in said for said in gnn.setup.path(batch))


class Updating(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        return x_j

    def update(self, inputs):
        return torch.cat([inputs, inputs], dim=-1)


class Typed(Updating):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x, kind=edge_index[0] * 0)

    def message(self, x_j, kind):
        return x_j + kind.view(-1, 1)

    def update(self, inputs):
        return inputs


class Refusing(Typed):
    """Takes only what is positive, as a logarithm does."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x.abs() + 1)

    def message(self, x_j):
        if (x_j <= 0).any():
            raise ValueError("not positive")
        return x_j.log()


def test_pooled_layers_say_that_they_run_between_other_nodes():
    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.pool, self.second = layers.GraphConv(4, 4), layers.TopKPooling(4), layers.GraphConv(4, 2)

        def forward(self, x, edge_index, batch):
            h = self.first(x, edge_index).tanh()
            h, edge_index, _, batch, _, _ = self.pool(h, edge_index, batch=batch)
            return layers.global_add_pool(self.second(h, edge_index), batch)

    with opened(
        seeded(Pooling).double(), Instances.from_graphs([random_graph(1, features=4, dtype=torch.float64)])
    ) as gnn:
        (batch,) = gnn.batches()
        said = [sentence for sentence in gnn.setup.path(batch) if sentence.startswith("second")]
        assert said == ["second: general path (between other nodes than those of the graph), whole"]
        x = batch.x.clone().requires_grad_()
        torch.testing.assert_close(gnn.forward(batch, x=x), gnn.reference)


def test_whole_numbers_as_features_are_fused_behind_their_embedding():
    class Categories(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 4)
            self.stack = Stack(layers.GCNConv(4, 4), layers.GraphConv(4, 2))

        def forward(self, x, edge_index):
            return self.stack(self.embedding(x).sum(1), edge_index)

    data = random_graph(0, 30, 60)
    data.x = torch.arange(60).view(30, 2) % 5
    with opened(seeded(Categories).double(), Instances.from_nodes(data, range(5))) as gnn:
        assert all(": fused" in said for said in check_shortcuts(gnn, by_x=False))


def test_half_precision_goes_the_general_way(monkeypatch):
    model = seeded(lambda: Stack(layers.GraphConv(4, 4), layers.GraphConv(4, 2))).half()
    with opened(model, nodes(dtype=torch.float16)) as gnn:
        (batch,) = gnn.batches()
        assert fused_calls(gnn, batch, monkeypatch) == 0


class FailedError(Exception):
    pass


class Failing(Stack):
    """Raises in the run that it is told to."""

    fails = False

    def forward(self, x, edge_index):
        h = self.layers[0](x, edge_index)
        if self.fails:
            raise FailedError
        return self.layers[1](h, edge_index)


def state(model):
    """Everything that modules hold besides parts, with the contents of their tables of hooks."""
    return [
        {name: list(value) if name.endswith("_hooks") else value for name, value in vars(module).items()}
        for module in model.modules()
    ]


def same_state(first, second):
    return all(
        one.keys() == other.keys() and all(one[key] is other[key] or one[key] == other[key] for key in one)
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("make", [layers.GCNConv, lambda i, o: layers.GATConv(i, o, heads=2, concat=False)])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_on_the_model_after_a_run(make, fails):
    model = seeded(lambda: Failing(make(4, 4), make(4, 4))).double()
    with opened(model, nodes()) as gnn:
        (batch,) = gnn.batches()
        before, model.fails = state(model), fails
        before[0]["fails"] = fails
        for mask in (None, random_mask(batch, torch.float64)):
            if fails:
                with pytest.raises(FailedError):
                    gnn.forward(batch, edge_mask=mask)
            else:
                gnn.forward(batch, edge_mask=mask)
            assert same_state(before, state(model))
        model.fails = False
        check_shortcuts(gnn)


@pytest.mark.parametrize("explainer", [SensitivityAnalysis, lambda model: GNNExplainer(model, epochs=2)])
def test_nothing_is_left_on_the_model_after_explaining(explainer):
    model = seeded(lambda: Stack(layers.GCNConv(4, 4), layers.GATConv(4, 3, heads=2, concat=False))).double()
    before = state(model)
    explainer(model).explain(nodes())
    assert same_state(before, state(model))


def test_a_method_of_the_instance_is_put_back():
    layer = nn.Linear(2, 2)

    def own(x):
        return x + 1

    layer.forward = own
    seen = []

    def replacement(name, module, original, /, *args, **given):
        seen.append((name, module, given))
        return original(*args)

    def run():
        with replaced([("a", layer)], "forward", replacement):
            assert layer(torch.ones(1)).item() == 2
            layer.forward(torch.ones(1), name=3, module=4, original=5)
            raise FailedError

    with pytest.raises(FailedError):
        run()
    assert layer.forward is own
    assert seen == [("a", layer, {}), ("a", layer, {"name": 3, "module": 4, "original": 5})]


def test_threads_take_turns():
    """Two threads explain with one model; neither sees the other's hooks."""
    model = seeded(lambda: Stack(layers.GCNConv(4, 4), layers.GATConv(4, 3, heads=2, concat=False))).double()
    cases = [nodes(6, seed=seed) for seed in (0, 1)]
    alone = [GNNExplainer(model, epochs=5).explain(X) for X in cases]
    found = [None, None]

    def explain(i):
        found[i] = GNNExplainer(model, epochs=5).explain(cases[i])

    threads = [threading.Thread(target=explain, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for together, expected in zip(found, alone, strict=True):
        for one, other in zip(together.edge_mask, expected.edge_mask, strict=True):
            np.testing.assert_array_equal(one, other)


def test_batches_that_run_in_turns_do_not_mix():
    with opened(seeded(Mixed).double(), nodes()) as gnn:
        batches = list(gnn.batches(batch_size=2))
        masks = [random_mask(batch, torch.float64, seed) for seed, batch in enumerate(batches)]
        first = [gnn.forward(batch, edge_mask=mask) for batch, mask in zip(batches, masks, strict=True)]
        again = [gnn.forward(batch, edge_mask=mask) for batch, mask in zip(batches, masks, strict=True)]
        assert all(map(torch.equal, first, again))


def test_smaller_batches_of_a_batch_are_trimmed_alike():
    with opened(seeded(Mixed).double(), nodes()) as gnn:
        (batch,) = gnn.batches()
        mask = random_mask(batch, torch.float64)
        expected = gnn.forward(batch, edge_mask=mask)
        for some in (np.array([0]), np.array([3, 1]), np.array([4, 2, 0])):
            part = batch.take(some)
            assert part.trim == batch.trim
            masks = [mask[batch.edge_instance == i] for i in some]
            torch.testing.assert_close(gnn.forward(part, edge_mask=torch.cat(masks)), expected[some])


@pytest.mark.parametrize("make", [layers.GraphConv, lambda i, o: layers.SAGEConv(i, o, aggr="max")])
def test_removed_edges_are_gone_in_trimmed_batches(make):
    model = seeded(lambda: Stack(make(4, 4), make(4, 4))).double()
    with opened(model, nodes()) as gnn:
        (batch,) = gnn.batches(removal=True)
        keep = random_mask(batch, torch.float64).numpy() > 0.4
        smaller = batch.keep_edges(keep)
        assert smaller.trim == batch.trim <= Trim.ROWS
        fast = gnn.forward(smaller)
        gnn.setup.put(smaller, Trim.NONE)
        torch.testing.assert_close(fast, gnn.forward(smaller))
        torch.testing.assert_close(fast, gnn._runs.outputs(smaller))


def test_parallel_edges_that_only_a_whole_run_tells_apart():
    """Relations of parallel edges: the batch runs whole, and every edge is masked on its own."""

    class Relational(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.RGCNConv(4, 4, 2), layers.RGCNConv(4, 2, 2)

        def forward(self, x, edge_index, edge_type):
            return self.second(self.first(x, edge_index, edge_type).tanh(), edge_index, edge_type)

    data = random_graph(0, 10, 16, 4, dtype=torch.float64)
    data.edge_index = torch.cat([data.edge_index, data.edge_index.flip(1)], dim=1)
    half = data.num_edges // 2
    data.edge_type = torch.cat([torch.zeros(half, dtype=torch.int64), torch.ones(half, dtype=torch.int64)])
    with opened(seeded(Relational).double(), Instances.from_nodes(data, [0, 1, 2])) as gnn:
        (batch,) = gnn.batches()
        assert batch.trim != Trim.NONE
        of_first = torch.from_numpy(batch.edge_id < half).double()
        both, one = gnn.forward(batch), gnn.forward(batch, edge_mask=of_first)
        assert batch.trim == Trim.NONE
        assert not torch.allclose(both, one)
        check_shortcuts(gnn)
