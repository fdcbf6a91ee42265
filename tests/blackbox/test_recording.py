"""Hidden states per propagate call, and gradients of several targets from one forward pass."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GINConv, GraphConv, MessagePassing, SGConv

from skgnnx import Instances
from skgnnx.blackbox import BlackBox
from skgnnx.testing import example


class Twice(nn.Module):
    """One layer used twice, then one that propagates three times."""

    def __init__(self):
        super().__init__()
        self.first, self.last = GraphConv(4, 4), SGConv(4, 3, K=3)

    def forward(self, x, edge_index):
        x = self.first(x, edge_index).relu()
        return self.last(self.first(x, edge_index).relu(), edge_index)


class One(nn.Module):
    """One layer, inside a container."""

    def __init__(self, conv):
        super().__init__()
        self.body = nn.ModuleDict({"conv": conv})

    def forward(self, x, edge_index):
        return self.body["conv"](x, edge_index)


def path():
    torch.manual_seed(0)
    return Data(x=torch.randn(5, 4), edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]))


def test_states_are_recorded_per_call():
    model, X = Twice(), Instances.from_nodes(path(), [4])
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches(removal=True)
        states = gnn.hidden_states(batch)
        x = batch.x
        assert [state.name for state in states] == ["first", "first", "last", "last", "last"]
        h1 = model.first(x, batch.edge_index)
        h2 = model.first(h1.relu(), batch.edge_index)
        for state, before, after in zip(states[:2], (x, h1.relu()), (h1, h2), strict=True):
            torch.testing.assert_close(state.before, before)
            torch.testing.assert_close(state.after, after)
            torch.testing.assert_close(state.messages, before[batch.edge_index[0]])
        torch.testing.assert_close(states[-1].after, model.last(h2.relu(), batch.edge_index))
    assert not model.first._forward_hooks
    assert not model.first._message_forward_hooks


def test_loops_that_a_layer_adds_are_in_its_edges():
    with BlackBox(One(GCNConv(4, 2))).open(Instances.from_nodes(path(), [4])) as gnn:
        (batch,) = gnn.batches(removal=True)
        (state,) = gnn.hidden_states(batch)
        assert state.name == "body.conv"
        assert state.edges.shape[1] == batch.num_edges + batch.num_nodes
        assert state.messages.shape == (state.edges.shape[1], 2)


@pytest.mark.parametrize("level", ["graph", "node"])
def test_gradients_of_all_targets_equal_one_at_a_time(level):
    model, X = example(level)
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches()
        passed = gnn.forward_pass(batch, "x")
        gradients = [passed.gradient(batch.for_target(target).targets) for target in gnn.checked_targets(None)]
        assert passed.scores.shape == (len(X), len(gradients))
    for target, gradient in enumerate(gradients):
        with BlackBox(model).open(X.with_target(target)) as gnn:
            (batch,) = gnn.batches()
            np.testing.assert_allclose(gradient, gnn.forward_pass(batch, "x").gradient(batch.targets), atol=1e-6)


def test_gin_passes_its_input_unchanged():
    with BlackBox(One(GINConv(nn.Linear(4, 2)))).open(Instances.from_nodes(path(), [4])) as gnn:
        (batch,) = gnn.batches()
        (state,) = gnn.hidden_states(batch)
        torch.testing.assert_close(state.messages, batch.x[batch.edge_index[0]])


class Outer(MessagePassing):
    """A layer that runs another one first."""

    def __init__(self):
        super().__init__()
        self.inner = GraphConv(4, 2)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.inner(x, edge_index)) + 1


def test_a_layer_inside_of_a_layer_keeps_its_own_output():
    layer = Outer()
    with BlackBox(One(layer)).open(Instances.from_nodes(path(), [2])) as gnn:
        (batch,) = gnn.batches(removal=True)
        states = gnn.hidden_states(batch)
        assert [state.name for state in states] == ["body.conv.inner", "body.conv"]
        torch.testing.assert_close(states[0].after, layer.inner(batch.x, batch.edge_index))
        torch.testing.assert_close(states[1].after, layer(batch.x, batch.edge_index))
