"""InformationBottleneck: its divergence against torch's and Monte Carlo, its noise, and what it learns."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GraphConv, RGCNConv, global_add_pool

from skgnnx import InformationBottleneck, Instances
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.bottleneck import BottleneckLearning, LearnedBottleneck, Prior, priors
from skgnnx.blackbox.gate_sites import GateSites
from skgnnx.blackbox.message_gates import MessageGates


def behind(gate, message, prior):
    """What becomes of a message: the standard deviation, not the variance, is what torch's Normal takes."""
    return Normal(gate * message + (1 - gate) * prior.mean, (1 - gate) * prior.spread)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_prior(seed, width):
    return Prior(drawn(seed, width), drawn(seed + 1, width).exp())


@given(seed=st.integers(0, 10**6), location=st.floats(-30, 12), width=st.integers(1, 5))
def test_information_is_the_divergence(seed, location, width):
    prior, message = a_prior(seed, width), 2 * drawn(seed + 2, 1, width)
    a = torch.tensor([location], dtype=torch.float64)
    found = prior.information(a, message)
    expected = kl_divergence(behind(a.sigmoid(), message[0], prior), Normal(prior.mean, prior.spread)).sum()
    assert found.item() >= 0
    assert found.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)


def test_information_agrees_with_monte_carlo():
    prior, message, gate = a_prior(3, 4), 2 * drawn(5, 4), torch.tensor(0.7, dtype=torch.float64)
    posterior = behind(gate, message, prior)
    torch.manual_seed(0)
    samples = posterior.sample((20_000,))
    gains = (posterior.log_prob(samples) - Normal(prior.mean, prior.spread).log_prob(samples)).sum(1)
    found = prior.information(gate.logit().view(1), message[None]).item()
    assert abs(found - gains.mean().item()) < 3 * gains.std().item() / len(gains) ** 0.5


@given(seed=st.integers(0, 99), location=st.floats(-20, 5))
def test_nothing_is_told_only_behind_a_closed_gate(seed, location):
    prior, message = a_prior(seed, 3), drawn(seed + 2, 1, 3)
    closed, ajar = torch.tensor([-800.0, location], dtype=torch.float64).split(1)
    assert prior.information(closed, message).item() == 0
    assert prior.information(ajar, message).item() > 0


class Summing(nn.Module):
    """A linear network of one layer: what it says of a graph is the sum of its messages."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = GraphConv(3, 2, bias=False)
        nn.init.zeros_(self.conv.lin_root.weight)

    def forward(self, x, edge_index, batch=None):
        return global_add_pool(self.conv(x, edge_index), batch)


def graph(seed, n=5, e=9, **more):
    random = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, e), generator=random)
    edge_index[1] = torch.where(edge_index[0] == edge_index[1], (edge_index[1] + 1) % n, edge_index[1])
    return Data(x=torch.randn(n, 3, generator=random), edge_index=edge_index, **more)


def opened(model, X):
    return BlackBox(model, output="logits", threshold=0.5, forward=None, outputs_only=False).open(X)


def test_priors_are_those_of_all_messages_of_all_batches():
    """GraphConv sends the states of its sources, and multiplies their sum."""
    graphs = [graph(seed, n=4 + seed, e=6 + seed) for seed in range(5)]
    with opened(Summing(), Instances.from_graphs(graphs)) as gnn:
        sites = [GateSites(gnn, batch) for batch in gnn.batches(batch_size=2)]
        (prior,) = priors(sites)
    messages = np.concatenate([data.x[data.edge_index[0]].numpy() for data in graphs]).astype(np.float64)
    np.testing.assert_allclose(prior.mean, messages.mean(0), rtol=1e-6)
    np.testing.assert_allclose(prior.spread, messages.std(0), rtol=1e-6)


def test_noise_has_the_standard_deviation_and_messages_are_mixed_once():
    """Outputs behind gates, over many draws, against mean and variance of a sum of independent normal numbers."""
    model, data = Summing(), graph(0)
    gates = torch.linspace(0.1, 0.9, data.num_edges, dtype=torch.float64)
    with opened(model, Instances.from_graphs([data])) as gnn, torch.no_grad():
        (batch,) = gnn.batches()
        sites = GateSites(gnn, batch)
        known = [Prior(drawn(1, 3), torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64))]
        learning = BottleneckLearning(gnn, None, LearnedBottleneck(nn.Module(), None, known), 0)
        found = []
        for draw in range(2000):
            behind = learning.behind(lambda calls: [gates.logit()], sites, draw)
            found.append(gnn.forward(batch, edge_mask=MessageGates(behind.gates.unbind(), behind.instead))[0])
    found = torch.stack(found).double()
    weight = model.conv.lin_rel.weight.detach().double()
    messages, open_share = data.x[data.edge_index[0]].double(), gates[:, None]
    mean = (open_share * messages + (1 - open_share) * known[0].mean).sum(0) @ weight.T
    variance = ((1 - open_share) * known[0].spread).square().sum(0) @ weight.square().T
    np.testing.assert_allclose(found.std(0), variance.sqrt(), rtol=0.05)
    assert ((found.mean(0) - mean).abs() < 3.5 * variance.sqrt() / len(found) ** 0.5).all()


class OneRelation(nn.Module):
    """Looks at messages of relation 0 only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = RGCNConv(3, 8, num_relations=2, aggr="add")
        nn.init.zeros_(self.conv.weight[1])
        self.out = nn.Linear(8, 2, bias=False)

    def forward(self, x, edge_index, edge_type, batch=None):
        return 5 * self.out(global_add_pool(self.conv(x, edge_index, edge_type).tanh(), batch))


def relations(seeds):
    return Instances.from_graphs([graph(seed, edge_type=torch.arange(9) % 2) for seed in seeds])


def test_what_does_not_matter_tells_nothing():
    method = InformationBottleneck(OneRelation().eval(), epochs=60, lr=0.03, penalty=1.0)
    E = method.fit(relations(range(40))).explain(relations(range(100, 120)))
    used = np.concatenate([mask[0, 0::2] for mask in E.layer_masks])
    unused = np.concatenate([mask[1, 1::2] for mask in E.layer_masks])
    assert used.mean() > 2 * unused.mean()
    assert max(information[0, 1::2].max() for information in E.layer_information) == 0  # relation 1 is another call
    told = [np.concatenate([each[k, k::2] for each in E.layer_information]).mean() for k in (0, 1)]
    assert told[0] > 2 * told[1]
    assert method.network_.change <= method.max_change


def test_scores_are_the_largest_gates_over_calls_and_between_0_and_1():
    E = InformationBottleneck(OneRelation().eval(), epochs=3).fit(relations(range(6))).explain(relations([7, 8]))
    for i in range(2):
        np.testing.assert_array_equal(E[i], E.layer_masks[i].max(0))
        assert (E[i] > 0).all()
        assert (E[i] < 1).all()


def test_graphs_without_edges_are_explained_by_nothing():
    lonely = Data(x=torch.ones(2, 3), edge_index=torch.zeros(2, 0, dtype=torch.long), edge_type=torch.zeros(0).long())
    X = Instances.from_graphs([lonely, graph(1, edge_type=torch.zeros(9).long())])
    E = InformationBottleneck(OneRelation().eval(), epochs=2).fit(relations(range(4))).explain(X)
    assert len(E[0]) == 0
    assert len(E[1]) == 9


def test_learning_goes_on_where_it_stopped():
    X = relations(range(10))
    one = InformationBottleneck(OneRelation().eval(), epochs=4).fit(X)
    two = InformationBottleneck(OneRelation().eval(), epochs=3).fit(X).partial_fit(X)
    for first, second in zip(one.network_.networks.parameters(), two.network_.networks.parameters()):
        torch.testing.assert_close(first, second)


def test_numbers_that_do_not_vary_have_a_spread():
    model = GCNConv(3, 2)
    data = graph(0)
    data.x = torch.ones(5, 3)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = model

        def forward(self, x, edge_index, batch=None):
            return global_add_pool(self.conv(x * 0 + 1, edge_index), batch)

    E = InformationBottleneck(Net(), epochs=2).fit([data]).explain([graph(1)])
    assert np.isfinite(E[0]).all()


def test_without_messages_another_method_is_named():
    class Flat(nn.Module):
        def forward(self, x, edge_index, batch=None):
            return global_add_pool(x, batch)

    with pytest.raises(TypeError, match="MessagePassing"):
        InformationBottleneck(Flat()).fit(Instances.from_graphs([graph(0)]))
