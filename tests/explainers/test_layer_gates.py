"""IntegratedGradients over one gate per edge and propagate call, against sums written out with matrices."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GraphConv, RGCNConv, global_add_pool

from skgnnx import Instances, IntegratedGradients


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self, conv=GraphConv, act=torch.tanh):
        super().__init__()
        torch.manual_seed(2)
        self.convs = nn.ModuleList([conv(3, 8), conv(8, 8)])
        self.out = nn.Linear(8, 3)
        self.act = act

    def forward(self, x, edge_index, batch=None):
        for conv in self.convs:
            x = self.act(conv(x, edge_index))
        return self.out(global_add_pool(x, batch))


def graph(seed, n=6, e=11, **more):
    random = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, e), generator=random)
    edge_index[1] = torch.where(edge_index[0] == edge_index[1], (edge_index[1] + 1) % n, edge_index[1])
    return Data(x=torch.randn(n, 3, generator=random, dtype=torch.float64), edge_index=edge_index, **more)


def graphs(target=1):
    return Instances.from_graphs([graph(seed, n=5 + seed) for seed in range(3)], target=target)


def score_by_matrices(model, data, gates, target):
    """The same network without messages: layer k sums over an adjacency matrix of its own gates."""
    n, (source, goal), x = data.num_nodes, data.edge_index, data.x
    for conv, gate in zip(model.convs, gates):
        matrix = torch.zeros(n, n, dtype=x.dtype).index_put((goal, source), gate, accumulate=True)
        x = torch.tanh(matrix @ x @ conv.lin_rel.weight.T + conv.lin_rel.bias + x @ conv.lin_root.weight.T)
    return (x.sum(0) @ model.out.weight.T + model.out.bias)[target]


def shares_by_matrices(model, data, target, steps=400):
    """The rule of the midpoint; the gradient is by the gates themselves, not by what scales them."""
    total = torch.zeros(2, data.num_edges, dtype=torch.float64)
    for k in range(steps):
        gates = torch.full_like(total, (k + 0.5) / steps).requires_grad_()
        total += torch.autograd.grad(score_by_matrices(model, data, gates, target), gates)[0] / steps
    return total.numpy()


@pytest.mark.parametrize("target", [0, 2])
def test_layers_equal_sums_by_matrices(target):
    model, X = Net().double().eval(), graphs(target)
    E = IntegratedGradients(model, per_layer=True, tol=1e-6).explain(X)
    for i in range(len(X)):
        data = X[i].graph
        expected = shares_by_matrices(model, data, target)
        np.testing.assert_allclose(E.layer_masks[i], expected, atol=1e-5)
        np.testing.assert_allclose(E[i], expected.sum(0), atol=1e-5)
        ends = [score_by_matrices(model, data, torch.full((2, data.num_edges), w).double(), target) for w in (0.0, 1.0)]
        assert E.layer_masks[i].sum() == pytest.approx((ends[1] - ends[0]).item(), rel=1e-5)


@pytest.mark.parametrize("conv", [GraphConv, GCNConv])
@pytest.mark.parametrize("joint", [False, True])
def test_layers_sum_to_the_edge_and_all_to_the_change(conv, joint):
    model, X = Net(conv).double().eval(), graphs()
    given = {"tol": 1e-5, "joint": joint}
    E = IntegratedGradients(model, per_layer=True, **given).explain(X)
    shared = IntegratedGradients(model, **given).explain(X)
    for i in range(len(X)):
        assert E.layer_masks[i].shape == (2, X[i].graph.num_edges)
        np.testing.assert_allclose(E.layer_masks[i].sum(0), E.edge_mask[i], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(E.edge_mask[i], shared.edge_mask[i], rtol=1e-5, atol=1e-7)
        nodes = E.node_mask[i].sum() if joint else 0.0
        change = E.score[i] - E.baseline_score[i]
        assert E.layer_masks[i].sum() + nodes == pytest.approx(change, rel=1e-4)


def test_a_score_that_is_linear_in_the_gates_is_shared_exactly_in_one_step():
    """With a factor of the position on the path in the integrand, every share would be half of this."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(3, 2)

        def forward(self, x, edge_index, batch=None):
            return global_add_pool(self.conv(x, edge_index), batch)

    torch.manual_seed(0)
    model, X = Linear().double().eval(), graphs()
    E = IntegratedGradients(model, per_layer=True, n_steps=1, max_steps=1).explain(X)
    for i in range(len(X)):
        data = X[i].graph
        messages = (data.x @ model.conv.lin_rel.weight[1])[data.edge_index[0]]
        np.testing.assert_allclose(E.layer_masks[i], messages.detach()[None], rtol=1e-6)


def test_what_another_relation_does_is_not_shared():
    class Relations(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = RGCNConv(3, 3, num_relations=2, aggr="add")

        def forward(self, x, edge_index, edge_type, batch=None):
            return global_add_pool(self.conv(x, edge_index, edge_type).tanh(), batch)

    torch.manual_seed(0)
    model = Relations().double().eval()
    X = Instances.from_graphs([graph(s, edge_type=torch.arange(11) % 2) for s in range(2)], target=0)
    E = IntegratedGradients(model, per_layer=True, tol=1e-4).explain(X)
    for i in range(len(X)):
        layers, relation = E.layer_masks[i], X[i].graph.edge_type.numpy()
        assert len(layers) == 2
        for number in (0, 1):
            assert (layers[number, relation != number] == 0).all()
            assert (layers[number, relation == number] != 0).any()
        assert layers.sum() == pytest.approx(E.score[i] - E.baseline_score[i], rel=1e-3)


def test_every_target_has_layers_of_its_own():
    model = Net().double().eval()
    method = IntegratedGradients(model, per_layer=True)
    for target, E in enumerate(method.explain_targets(graphs(None))):
        alone = method.explain(graphs(target))
        for several, one in zip(E.layer_masks, alone.layer_masks):
            np.testing.assert_allclose(several, one, atol=1e-7)


@pytest.mark.parametrize("mask", ["node", "node_feature", "feature"])
def test_layers_are_refused_where_no_edges_are_scored(mask):
    with pytest.raises(ValueError, match="'per_layer' of IntegratedGradients must be False where no edges are scored"):
        IntegratedGradients(Net(), mask=mask, per_layer=True).explain(graphs())
