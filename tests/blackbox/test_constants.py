"""What no mask changes is computed once, and only that."""

import gc
import weakref

import pytest
import torch
from blackbox_cases import opened, random_graph, seeded
from torch import nn
from torch.nn import functional
from torch_geometric.nn import GINEConv, GraphConv

from skgnnx import Instances
from skgnnx.blackbox.constants import Constants


class Counted(nn.Linear):
    """A linear layer that counts its calls where copies of it would count, too."""

    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return super().forward(x)


class Encoded(nn.Module):
    """Features and edge attributes are encoded before messages are passed."""

    def __init__(self, *between, encoder=Counted):
        super().__init__()
        self.nodes = nn.Sequential(encoder(3, 4), *between)
        self.edges = nn.Sequential(encoder(2, 4), nn.ReLU(), encoder(4, 4))
        self.first, self.second = GINEConv(nn.Linear(4, 4)), GraphConv(4, 2)

    def forward(self, x, edge_index, edge_attr):
        h = self.first(self.nodes(x), edge_index, self.edges(edge_attr))
        return self.second(h.tanh(), edge_index)


def instances(seed=0):
    data = random_graph(seed)
    data.edge_attr = torch.randn(data.num_edges, 2, generator=torch.Generator().manual_seed(seed))
    return Instances.from_nodes(data, [0, 1, 2])


def masks(batch, count=3):
    random = torch.Generator().manual_seed(0)
    return [torch.rand(batch.num_edges, generator=random) for _ in range(count)]


def alone(gnn, positions, mask):
    """Output of the same instances in a batch that has not run before, without anything fused or trimmed."""
    batch = next(gnn.batches(positions))
    fusions, gnn.setup.fusions, foldable = gnn.setup.fusions, [], gnn.setup.foldable
    gnn.setup.foldable = []
    try:
        return gnn.forward(batch, edge_mask=mask)
    finally:
        gnn.setup.fusions, gnn.setup.foldable = fusions, foldable


def check_masks(gnn, batch):
    for mask in masks(batch):
        torch.testing.assert_close(gnn.forward(batch, edge_mask=mask), alone(gnn, batch.positions, mask))


def test_layers_on_unmasked_inputs_run_once_per_batch():
    with opened(seeded(Encoded), instances()) as gnn:
        batch = next(gnn.batches())
        gnn.forward(batch)
        Counted.calls = 0
        for mask in masks(batch):
            gnn.forward(batch, edge_mask=mask.requires_grad_()).sum().backward()
        assert Counted.calls == 0
        check_masks(gnn, batch)


def test_masked_features_are_encoded_in_every_run():
    with opened(seeded(Encoded), instances()) as gnn:
        batch = next(gnn.batches())
        gnn.forward(batch)
        Counted.calls = 0
        outputs = [gnn.forward(batch, x=batch.x * scale) for scale in (1.0, 0.5, 0.0)]
        assert Counted.calls == 3  # once each for the features, never for the attributes of edges
        assert not torch.allclose(outputs[0], outputs[1])
        torch.testing.assert_close(outputs[0], gnn.forward(batch))
        assert Counted.calls == 3


@pytest.mark.parametrize("between", [nn.ReLU(inplace=True), nn.ELU(inplace=True), nn.LeakyReLU(0.3, inplace=True)])
def test_modules_that_work_in_place_do_so_in_every_run(between):
    class Residual(Encoded):
        def forward(self, x, edge_index, edge_attr):
            before = self.nodes[0](x)
            kept = before.clone()
            h = self.first(self.nodes[1](before) + kept, edge_index, self.edges(edge_attr))
            return self.second(h.tanh(), edge_index)

    with opened(seeded(lambda: Residual(between)), instances()) as gnn:
        check_masks(gnn, next(gnn.batches()))


class InPlace(Encoded):
    """The model writes into the output of its first layer."""

    def forward(self, x, edge_index, edge_attr):
        h = self.nodes(x)
        h.mul_(2).relu_()
        return self.second(self.first(h, edge_index, self.edges(edge_attr)).tanh(), edge_index)


def test_outputs_that_the_model_writes_into_are_computed_afresh():
    with opened(seeded(InPlace), instances()) as gnn:
        check_masks(gnn, next(gnn.batches()))


def test_runs_leave_no_tensors_behind():
    made = []

    class Watched(nn.Linear):
        def forward(self, x):
            output = super().forward(x)
            made.append(weakref.ref(output))
            return output

    for model in (
        seeded(lambda: InPlace(encoder=Watched)),
        seeded(lambda: Encoded(nn.ELU(inplace=True), encoder=Watched)),
    ):
        with opened(model, instances()) as gnn:
            batch = next(gnn.batches())
            made.clear()
            for mask in masks(batch, 6):
                gnn.forward(batch, edge_mask=mask)
            gc.collect()
            assert len(made) >= 5  # else nothing has been watched
            assert sum(reference() is not None for reference in made) <= 1


class Remembering(nn.Linear):
    """Keeps its last output, which the model reads later."""

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


class ReadsMemory(Encoded):
    def forward(self, x, edge_index, edge_attr):
        self.nodes(x)
        return self.second(self.first(self.nodes[0].last, edge_index, self.edges(edge_attr)).tanh(), edge_index)


class Scaled(nn.Module):
    """Multiplies by a number that others set."""

    factor = torch.ones(1)

    def forward(self, x):
        return x * self.factor


class SetsFactor(Encoded):
    def __init__(self):
        super().__init__()
        self.scaled = Scaled()

    def forward(self, x, edge_index, edge_attr):
        h = self.first(self.nodes(x), edge_index, self.edges(edge_attr)).tanh()
        self.scaled.factor = h.abs().mean(0, keepdim=True)[:, :1].detach() * 0 + h.detach().amax()
        return self.second(h, edge_index) + self.scaled(self.edges(edge_attr)).mean() * 0 + self.scaled(x)[:, :2]


@pytest.mark.filterwarnings("ignore:.*mixes")
@pytest.mark.parametrize("make", [lambda: ReadsMemory(encoder=Remembering), SetsFactor])
def test_modules_with_a_state_of_their_own_run_always(make):
    with opened(seeded(make), instances()) as gnn:
        first, second = next(gnn.batches([0, 1])), next(gnn.batches([2]))
        for mask, other in zip(masks(first), masks(second), strict=True):
            with torch.no_grad():
                got, _ = gnn.forward(first, edge_mask=mask), gnn.forward(second, edge_mask=other)
                torch.testing.assert_close(got, alone(gnn, first.positions, mask))


class Named(nn.Linear):
    """Its arguments have the names that the machinery uses, too."""

    def forward(self, module, name=None, original=None):
        return super().forward(module)


def test_arguments_may_have_any_name():
    class Model(Encoded):
        def forward(self, x, edge_index, edge_attr):
            h = self.nodes[0](module=x, name=None, original=None)
            return self.second(self.first(h, edge_index, self.edges(edge_attr)), edge_index)

    model = seeded(Model)
    model.nodes[0] = Named(3, 4)
    with opened(model, instances()) as gnn:
        check_masks(gnn, next(gnn.batches()))


class NoMessages(nn.Module):
    """A prediction of each node alone, which ends in a module that tells what the scores are."""

    def __init__(self):
        super().__init__()
        self.lin, self.head = nn.Linear(3, 4), nn.LogSoftmax(dim=-1)

    def forward(self, x, edge_index):
        return self.head(self.lin(x))


def test_the_head_is_seen_also_where_nothing_is_masked():
    with opened(seeded(NoMessages), Instances.from_nodes(random_graph())) as gnn:
        batch = next(gnn.batches())
        first, second = gnn.all_scores(batch), gnn.all_scores(batch)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, gnn.box.model.lin(batch.x))


def test_first_parts_are_one_object_and_follow_what_is_written():
    x, other = torch.arange(4.0), torch.arange(4.0)
    constants = Constants([x])
    assert constants.first(x, 9) is x
    part = constants.first(x, 2)
    assert part is constants.first(x, 2)
    assert part in constants
    assert constants.first(other, 2) not in constants
    x.mul_(2)
    assert x not in constants
    assert part not in constants
    assert constants.first(x, 2).tolist() == [0, 2]


def test_only_what_depends_on_nothing_else_is_kept():
    x, module = torch.randn(2, 3), seeded(lambda: nn.Linear(3, 4))
    constants = Constants([x])
    with_gradient = constants.forward("a", module, module.forward, x)
    assert with_gradient not in constants
    module.requires_grad_(False)
    output = constants.forward("b", module, module.forward, x)
    assert constants.forward("b", module, module.forward, x) is output
    assert constants.forward("b", module, module.forward, input=x) is not output
    assert constants.forward("b", module, module.forward, x.clone()) is not output
    functional.relu_(output)
    torch.testing.assert_close(constants.forward("b", module, module.forward, x), module(x))
