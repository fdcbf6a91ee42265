"""PGExplainer: loss and gradient, noise, the choice of an epoch, and masks that are all the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GraphConv, global_add_pool

from skgnnx import GNNExplainer, Instances, PGExplainer, config_context
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.edge_scorer import EdgeScorer, ScoredEdges
from skgnnx.blackbox.gate_learning import Concrete, GateCosts, ScorerTraining
from skgnnx.blackbox.node_states import NodeEmbedder

pytestmark = pytest.mark.filterwarnings("ignore:PGExplainer should:UserWarning")
LEVELS = ("graph", "node", "edge")


class Network(nn.Module):
    """Two graph convolutions and a head for any level, with an independent form on dense matrices."""

    def __init__(self, level):
        super().__init__()
        self.level = level
        self.convs = nn.ModuleList([GraphConv(4, 6), GraphConv(6, 6)])
        self.head = nn.Linear(6, 3)

    def forward(self, x, edge_index, batch=None, edge_label_index=None):
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        if self.level == "graph":
            x = global_add_pool(x, batch)
        elif edge_label_index is not None:
            x = x[edge_label_index[0]] * x[edge_label_index[1]]
        return self.head(x)

    def by_hand(self, x, matrix, element):
        """Return what the last layer gives, and the logits of one graph, node or link, from weights of its edges."""
        for conv in self.convs:
            last = conv.lin_rel(matrix @ x) + conv.lin_root(x)
            x = last.relu()
        row = {"graph": lambda: x.sum(0), "node": lambda: x[element[0]], "edge": lambda: x[element[0]] * x[element[1]]}
        return last, self.head(row[self.level]())


def graph(num_nodes, seed):
    """Return an undirected random graph in which all edges reach everything within two steps."""
    random = np.random.default_rng(seed)
    pairs = np.array([(0, v) for v in range(1, num_nodes)] + [(1, v) for v in range(2, num_nodes, 2)]).T
    return Data(
        x=torch.from_numpy(random.standard_normal((num_nodes, 4))),
        edge_index=torch.from_numpy(np.concatenate([pairs, pairs[::-1]], axis=1)),
    )


def task(level):
    torch.manual_seed(0)
    model = Network(level).double().eval()
    if level == "graph":
        return model, Instances.from_graphs([graph(n, n) for n in (4, 5, 7)])
    data = graph(7, 7)
    if level == "node":
        return model, Instances.from_nodes(data, [0, 3, 5])
    return model, Instances.from_edges(data, [[0, 2, 4], [1, 3, 5]])


def training_of(model, X, costs, *, margin=0.0, embedding="last", tied=True, batch_size="auto"):
    """Return a training that is about to begin, the edges of each batch, and the opened model."""
    box = BlackBox(model).open(X)
    gnn = box.__enter__()
    embedder = NodeEmbedder(gnn, embedding)
    edges = [ScoredEdges.of(embedder, batch) for batch in gnn.batches(batch_size=batch_size)]
    torch.manual_seed(3)
    network = EdgeScorer(edges[0].states.shape[1], edges[0].num_elements, 5, first_logit=0.5)
    network.standardise(edges)
    training = ScorerTraining(gnn, network, Concrete(5.0, 2.0, 10, margin), costs, lr=0.01, tied=tied, seed=11)
    return training, edges, box


def concatenated(network):
    """Return the network as a plain function of embeddings side by side."""

    def logit(*states):
        read = torch.cat([(one - network.mean) / network.scale for one in states])
        return network.last(network.first(read).relu())[0]

    return logit


def by_hand(model, X, network, noise_of, size, entropy, epoch):
    """Return the loss of each instance: one at a time, edge by edge, on whole graphs as dense matrices."""
    logit, losses = concatenated(network), []
    temperature = 5.0 * (2.0 / 5.0) ** (epoch / 10)
    for i in range(len(X)):
        data, element = X[i].graph, [] if X.level == "graph" else np.atleast_1d(X.element[i]).tolist()
        n, ends = data.num_nodes, data.edge_index.T.tolist()
        ones = torch.zeros(n, n, dtype=torch.float64)
        for u, v in ends:
            ones[v, u] = 1.0
        z, whole = model.by_hand(data.x, ones, element)
        z, target = z.detach(), int(whole.argmax())
        near = {v for u, v in ends if u in element} | set(element) if element else set(range(n))
        reaching = [(u, v) for u, v in ends if v in near]  # two layers: the message goes one step further at most
        gates = {}
        for (u, v), normal in zip(reaching, noise_of(i).tolist(), strict=True):
            uniform = 0.5 * (1 + math.erf(normal / math.sqrt(2)))
            omega = logit(z[u], z[v], *(z[t] for t in element))
            gates[u, v] = torch.sigmoid((math.log(uniform) - math.log(1 - uniform) + omega) / temperature)
        mean = {(u, v): (gates[u, v] + gates.get((v, u), gates[u, v])) / 2 for u, v in gates}
        matrix = ones.clone()
        for (u, v), gate in mean.items():
            matrix = matrix.index_put((torch.tensor(v), torch.tensor(u)), gate)
        log_p = model.by_hand(data.x, matrix, element)[1].log_softmax(0)[target]
        inner = [0.99 * gate + 0.005 for gate in mean.values()]
        entropies = [-p * torch.log(p) - (1 - p) * torch.log(1 - p) for p in inner]
        losses.append(-log_p + size * sum(mean.values()) + entropy * sum(entropies) / len(entropies))
    return torch.stack(losses)


@pytest.mark.parametrize("level", LEVELS)
def test_loss_and_gradient_of_a_step_are_those_of_a_loop_over_instances(level):
    model, X = task(level)
    training, (edges,), box = training_of(model, X, GateCosts(0.3, 0.7, 0.0, mean_size=False))
    training.network.epochs = 4
    parameters = list(training.network.parameters())
    losses = training.loss(edges, training.drawn(edges))
    gradients = torch.autograd.grad(losses.sum(), parameters)
    with BlackBox(model).open(X) as gnn:
        alone = list(gnn.batches(batch_size=1))

    def noise_of(i):
        return alone[i].noise(11 * 1_000_003 + 4, "edge")[alone[i].edge_reach]

    expected = by_hand(model, X, training.network, noise_of, 0.3, 0.7, 4)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-10)
    for got, by_loop in zip(gradients, torch.autograd.grad(expected.sum(), parameters), strict=True):
        torch.testing.assert_close(got, by_loop, rtol=0, atol=1e-10)
    box.__exit__(None, None, None)


def test_the_model_pulls_at_the_network_after_another_explainer():
    model, X = task("graph")
    GNNExplainer(model, epochs=3).explain(X)
    training, (edges,), box = training_of(model, X, GateCosts(0.0, 0.0, 0.0, mean_size=True))
    gradient = torch.autograd.grad(training.loss(edges, training.drawn(edges)).sum(), training.network.first.weight)[0]
    assert gradient.abs().max() > 1e-4
    box.__exit__(None, None, None)


def test_explaining_is_one_pass_of_the_network_without_noise():
    model, X = task("node")
    learned = PGExplainer(model, embedding="last", epochs=5).fit(X[:2])
    E, logit = learned.explain(X[2:]), concatenated(learned.network_)
    data, target = X[2].graph, int(X.element[2, 0])
    matrix = torch.zeros(7, 7).double()
    matrix[data.edge_index[1], data.edge_index[0]] = 1.0
    z, _ = model.by_hand(data.x, matrix, [0])
    ids, values = E.entries(0)
    score = {tuple(e): logit(z[e[0]], z[e[1]], z[target]).sigmoid().item() for e in data.edge_index.T[ids].tolist()}
    expected = [(score[u, v] + score.get((v, u), score[u, v])) / 2 for u, v in score]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert np.array_equal(values, learned.set_params(random_state=5).explain(X[2:]).entries(0)[1])


def test_edges_between_equal_embeddings_have_equal_scores():
    model, X = task("graph")
    ends = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]])
    star = Data(x=torch.ones(5, 4).double(), edge_index=torch.cat([ends, ends.flip(0)], 1))
    mask = PGExplainer(model, epochs=5).fit(X).explain(Instances.from_graphs([star]))[0]
    np.testing.assert_allclose(mask, mask[0], rtol=1e-6)


def test_temperatures_and_noise_of_gates():
    concrete = Concrete(5.0, 2.0, 30, 0.0)
    assert [concrete.temperature(epoch) for epoch in (0, 15, 30, 99)] == pytest.approx([5.0, math.sqrt(10), 2.0, 2.0])
    logits = torch.tensor([-1.0, 0.0, 2.0]).double()
    without = Concrete(5.0, 2.0, 30, 0.5).gates(logits, torch.tensor([-2.0, 1.0, 8.0]).double(), 0)
    torch.testing.assert_close(without, (logits / 5).sigmoid())
    normal = torch.from_numpy(np.random.default_rng(0).standard_normal(200_000))
    drawn = Concrete(1.0, 1.0, 1, 0.0).gates(torch.full_like(normal, 0.7), normal, 0)
    # at any temperature, a gate is above a half with the probability that its logit says
    assert float((drawn > 0.5).double().mean()) == pytest.approx(1 / (1 + math.exp(-0.7)), abs=0.005)
    assert torch.equal(drawn, drawn.clamp(0, 1))
    extreme = Concrete(1.0, 1.0, 1, 0.0).gates(torch.zeros(2).double(), torch.tensor([-8.3, 8.3]).double(), 0)
    assert torch.isfinite(extreme).all()


def test_size_entropy_budget_and_connectivity_edge_by_edge():
    model, X = task("graph")
    _, (edges,), box = training_of(model, X, GateCosts(1.0, 1.0, 1.0, mean_size=False))
    box.__exit__(None, None, None)
    gates = torch.from_numpy(np.random.default_rng(0).uniform(0.1, 0.9, len(edges.weight)))
    costs = {
        "sum": GateCosts(2.0, 0.0, 0.0, mean_size=False),
        "mean": GateCosts(2.0, 0.0, 0.0, mean_size=True),
        "budget": GateCosts(2.0, 0.0, 0.0, mean_size=False, budget=3.5),
        "connected": GateCosts(0.0, 0.0, 1.5, mean_size=False),
    }
    got = {name: each.of(edges, gates) for name, each in costs.items()}
    for i in range(len(X)):
        mine = (edges.batch.edge_instance == i).nonzero().flatten().tolist()
        s = [float(gates[e]) for e in mine]
        assert float(got["sum"][i]) == pytest.approx(2 * sum(s))
        assert float(got["mean"][i]) == pytest.approx(2 * sum(s) / len(s))
        assert float(got["budget"][i]) == pytest.approx(2 * max(sum(s) - 3.5, 0))
        pairs = []
        for e in mine:
            for f in mine:
                of_e, of_f = (edges.batch.edge_index[:, one].tolist() for one in (e, f))
                p, q = (0.99 * float(gates[one]) + 0.005 for one in (e, f))
                cross_entropy = -p * math.log(q) - (1 - p) * math.log(1 - q)
                pairs += [cross_entropy for a in of_e for b in of_f if e != f and a == b]
        assert float(got["connected"][i]) == pytest.approx(1.5 * np.mean(pairs))


def test_the_epoch_of_the_least_held_out_loss_is_kept():
    model, X = task("node")
    learned = PGExplainer(model, epochs=12, lr=0.03, edge_size=0.1, validation_fraction=0.4).fit(X)
    assert len(learned.loss_curve_) == len(learned.validation_curve_) == 12
    assert learned.validation_curve_[learned.best_epoch_] == pytest.approx(min(learned.validation_curve_), rel=1e-5)
    assert 0 < learned.best_epoch_ < 11
    assert learned.network_.epochs == learned.best_epoch_ + 1
    fewer = PGExplainer(model, epochs=12, lr=0.03, edge_size=0.1, validation_fraction=0.4)
    for _ in range(learned.best_epoch_ + 1):
        fewer.partial_fit(X)
    for got, expected in zip(fewer.network_.parameters(), learned.network_.parameters(), strict=True):
        torch.testing.assert_close(got, expected)
    assert fewer.loss_curve_ == pytest.approx(learned.loss_curve_[: learned.best_epoch_ + 1])


def test_memory_and_order_do_not_change_what_is_learned():
    model, X = task("graph")
    whole = PGExplainer(model, epochs=6, validation_fraction=0.0).fit(X)
    with config_context(memory_budget=3_000):
        parts = PGExplainer(model, epochs=6, validation_fraction=0.0).fit(X[[2, 0, 1]])
    singles = PGExplainer(model, epochs=6, validation_fraction=0.0, batch_size=1).fit(X)
    for other in (parts, singles):
        for got, expected in zip(other.network_.parameters(), whole.network_.parameters(), strict=True):
            torch.testing.assert_close(got, expected)


def test_a_preset_sets_what_is_none_and_an_explicit_value_wins():
    model, X = task("graph")
    of = {name: PGExplainer(model, preset=name) for name in ("default", "paper", "pyg")}
    assert of["pyg"]._setting("noise_margin") == 0.01
    assert [one._setting("edge_size") for one in of.values()][1:] == [0.05, 0.05]
    learned = PGExplainer(model, preset="pyg", epochs=2, hidden_units=7, fit_batch_size=3, lr=0.5)
    assert (learned._setting("lr"), learned._setting("epochs")) == (0.5, 2)
    assert learned._instances_per_step() == 3
    assert of["pyg"]._instances_per_step() == 1
    learned.fit(X)
    assert learned.network_.first.weight.shape == (7, 2 * 6)
    again = PGExplainer(model, preset="pyg")
    assert again._setting("lr") == 0.003  # nothing leaks from one explainer into the next


def test_masks_that_are_all_the_same_are_told():
    model, X = task("graph")
    pressed = PGExplainer(model, edge_size=1000.0, lr=0.3)
    with pytest.warns(UserWarning, match="learn gates that differ .* for 3 of 3"):
        pressed.set_params(validation_fraction=0.0).fit(X)
    assert pressed.mask_std_ < 0.01
    with pytest.warns(UserWarning, match="tell the edges of an instance apart"):
        E = pressed.explain(X)
    assert E.collapsed == [True] * 3
    assert E.mask_std == pytest.approx([np.std(mask) for mask in E.edge_mask], abs=1e-6)


def test_one_edge_is_no_collapse():
    model, X = task("graph")
    pair = Data(x=torch.eye(2, 4).double(), edge_index=torch.tensor([[0, 1], [1, 0]]))
    E = PGExplainer(model, epochs=1).fit(X).explain(Instances.from_graphs([pair]))
    assert E.collapsed == [False]


def test_graphs_without_edges_and_constant_embeddings():
    model, X = task("graph")
    empty = Data(x=torch.ones(3, 4).double(), edge_index=torch.zeros(2, 0, dtype=torch.long))
    ends = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    constant = Data(x=torch.ones(4, 4).double(), edge_index=torch.cat([ends, ends.flip(0)], 1))
    for known in ([empty] * 3, [constant] * 3, [empty, constant, X[2].graph]):
        learned = PGExplainer(model, epochs=3).fit(Instances.from_graphs(known))
        E = learned.explain(Instances.from_graphs([constant, empty]))
        assert len(E[1]) == 0
        assert np.isfinite(E[0]).all()
        assert math.isfinite(learned.loss_curve_[-1])


def test_a_model_without_messages_is_refused():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 2)

        def forward(self, x, edge_index, batch):
            return global_add_pool(self.lin(x), batch)

    with pytest.raises(TypeError, match="Edge masks need a model with PyG MessagePassing layers"):
        PGExplainer(Dense().double().eval()).fit(task("graph")[1])


def test_what_was_learned_of_another_kind_of_instances_is_refused():
    model, X = task("node")
    learned = PGExplainer(model, epochs=1).fit(X)
    model.level = "graph"
    with pytest.raises(ValueError, match="1 explained nodes per instance. Got 12 and 0"):
        learned.explain(task("graph")[1])
    with pytest.raises(ValueError, match="12 numbers per node"):
        learned.set_params(embedding="last", model=task("node")[0]).explain(X)
