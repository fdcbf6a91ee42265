"""GraphMask: one step by hand, the order of layers, what is found where the answer is known, defects of others."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data

from skgnnx import GraphMask, Instances
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.amortised_gates import AmortisedLearning, GateProblem, LearnedGates
from skgnnx.blackbox.gate_networks import GateNetworks
from skgnnx.blackbox.gate_sites import GateSites
from skgnnx.blackbox.hard_concrete import HardConcrete
from skgnnx.blackbox.multipliers import Multipliers

F64 = torch.float64


class Graphs(nn.Module):
    """Layers with tanh in between, a sum over the graph, two classes."""

    def __init__(self, *convs, out=2):
        super().__init__()
        self.convs, self.head = nn.ModuleList(convs), nn.Linear(convs[-1].out_channels, out)

    def forward(self, x, edge_index, batch):
        for conv in self.convs:
            x = conv(x, edge_index).tanh()
        return self.head(layers.global_add_pool(x, batch))


def model_of(*convs, seed=0, dtype=F64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Graphs(*(make() for make in convs)).to(dtype).eval()


def graph_convs():
    return model_of(lambda: layers.GraphConv(3, 5), lambda: layers.GraphConv(5, 4))


def some_graphs(count=6, dtype=F64, seed=0, nodes=5, edges=9):
    random = torch.Generator().manual_seed(seed)
    return [
        Data(
            x=torch.randn(nodes, 3, generator=random, dtype=F64).to(dtype),
            edge_index=torch.randint(nodes, (2, edges), generator=random),
        )
        for _ in range(count)
    ]


def problem(**changed):
    values = {"penalty": 5.0, "allowance": 0.0, "epochs": 2, "lr": 0.01, "dual_lr": 0.01}
    return GateProblem(HardConcrete(), **(values | changed))


def learning(gnn, batch, **changed):
    torch.manual_seed(3)
    networks = GateNetworks(GateSites(gnn, batch).calls).to(gnn.dtype)
    learned = LearnedGates(networks, Multipliers(1, 0.01))
    return AmortisedLearning(gnn, problem(**changed), learned, seed=7)


def by_hand(model, graphs, state, noise):
    """The objective's parts of one step, by loops over the edges; noise is (L, E)."""
    first_edge, penalties, growths = 0, 0.0, 0.0
    for graph in graphs:
        x = masked = graph.x
        edges = graph.edge_index.T.tolist()
        for k, conv in enumerate(model.convs):
            own, behind = torch.zeros_like(x), [torch.zeros_like(row) for row in masked]
            for number, (u, v) in enumerate(edges):
                parts = []
                for j, given in enumerate((x[u], x[u], x[v])):
                    h = given @ state[f"networks.{k}.weights.{j}"]
                    h = (h - h.mean()) / (h.var(unbiased=False) + 1e-5).sqrt()
                    name = f"networks.{k}.norms.{j}."
                    parts.append(h * state[name + "weight"] + state[name + "bias"])
                hidden = ((state[f"networks.{k}.bias"] + sum(parts)) / 3).relu()
                a = hidden @ state[f"networks.{k}.last.weight"][0] + state[f"networks.{k}.last.bias"][0]
                uniform = torch.special.ndtr(noise[k, first_edge + number])
                s = ((uniform.log() - (1 - uniform).log() + a + 3) * 3).sigmoid()
                s = (1.2 * s - 0.2).clamp(0, 1)
                z = s + ((s > 0.5).double() - s).detach()
                own[v] += x[u]
                behind[v] = behind[v] + z * masked[u] + (1 - z) * state[f"baselines.{k}"]
                penalties = penalties + (a + 3 - torch.log(torch.tensor(0.2)) / 3).sigmoid()
            x = (conv.lin_rel(own) + conv.lin_root(x)).tanh()
            masked = (conv.lin_rel(torch.stack(behind)) + conv.lin_root(masked)).tanh()
        first_edge += len(edges)
        before, after = model.head(x.sum(0)).log_softmax(0), model.head(masked.sum(0)).log_softmax(0)
        target = before.argmax()
        growths = growths + (before[target] - after[target]).clamp_min(0)
    return 5 * penalties / first_edge, growths / len(graphs)


def test_one_step_is_that_of_the_formulas():
    model, graphs = graph_convs(), some_graphs()
    X = Instances.from_graphs(graphs)
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches()
        run = learning(gnn, batch, epochs=1)
        before = {name: value.clone() for name, value in run.learned.networks.state_dict().items()}
        run._step(torch.optim.Adam(run.learned.networks.parameters(), 0.01), [batch], np.array([0, 1]), 0)
        after = run.learned.networks.state_dict()
        noise = batch.noise(7 * 1_000_003, "edge", 2).T
        state = {name: value.clone().requires_grad_() for name, value in before.items()}
        penalty, growth = by_hand(model, [graphs[i] for i in batch.positions], state, noise)
        size = float(growth.detach())
        assert size > 0.01
        objective = penalty + torch.nn.functional.softplus(torch.tensor(0.55, dtype=F64)) * growth
        gradients = torch.autograd.grad(objective, list(state.values()))
    for (name, start), gradient in zip(before.items(), gradients):
        # the first step of Adam is one of the learning rate, in the direction of the sign
        expected = start - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after[name], expected, atol=1e-7, rtol=0, msg=name)
    slope = size * torch.sigmoid(torch.tensor(0.55, dtype=F64))
    spread = (0.01 * slope**2 - (0.01 * slope) ** 2).sqrt()
    torch.testing.assert_close(run.learned.multiplier.raw, 0.55 + 0.01 * (slope / (spread + 1e-8)).view(1))


def test_gradients_of_parts_of_a_step_are_added_up():
    found = []
    for size in (1, 4, "auto"):
        g = GraphMask(graph_convs(), epochs=2, lr=0.05, batch_size=size, fit_batch_size=None, max_change=1.0)
        g.fit(Instances.from_graphs(some_graphs(8)))
        found.append(torch.cat([p.flatten() for p in g.network_.networks.parameters()]))
    torch.testing.assert_close(found[0], found[2], atol=1e-9, rtol=0)
    torch.testing.assert_close(found[1], found[2], atol=1e-9, rtol=0)


def test_layers_begin_at_the_top_and_go_on():
    with BlackBox(graph_convs()).open(Instances.from_graphs(some_graphs())) as gnn:
        (batch,) = gnn.batches()
        run = learning(gnn, batch, epochs=2)
        seen = [[nn.utils.parameters_to_vector(n.parameters()).clone() for n in run.learned.networks.networks]]
        for _ in range(4):
            run.run([[batch]], [batch], 1, tolerance=1.0)
            seen.append([nn.utils.parameters_to_vector(n.parameters()).clone() for n in run.learned.networks.networks])
    moved = [[not torch.equal(a, b) for a, b in zip(*pair)] for pair in pairwise(seen)]
    assert moved == [[False, True], [False, True], [True, True], [True, True]]


def test_every_network_learns_where_widths_differ():
    """A rebuilt network would be trained by nobody."""
    model = model_of(lambda: layers.GCNConv(3, 7), lambda: layers.GCNConv(7, 2))
    with BlackBox(model).open(Instances.from_graphs(some_graphs())) as gnn:
        (batch,) = gnn.batches()
        run = learning(gnn, batch, epochs=1)
        before = {name: value.clone() for name, value in run.learned.networks.state_dict().items()}
        run.run([[batch]], [batch], 6, tolerance=1.0)
        after = run.learned.networks.state_dict()
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    assert float(run.learned.multiplier.raw) > 0.55  # it lives on from step to step


def test_learning_in_pieces_is_learning_at_once():
    X = Instances.from_graphs(some_graphs(8))
    whole = GraphMask(graph_convs(), epochs=2, lr=0.05, max_change=1.0).fit(X)
    parts = GraphMask(graph_convs(), epochs=2, lr=0.05, max_change=1.0)
    for _ in range(4):
        parts.partial_fit(X)
    for a, b in zip(whole.network_.networks.parameters(), parts.network_.networks.parameters()):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(whole.network_.multiplier.raw, parts.network_.multiplier.raw)


@pytest.mark.parametrize("level", ["graph", "node"])
def test_instances_learn_as_if_they_were_alone(level):
    if level == "graph":
        model, X = graph_convs(), Instances.from_graphs(some_graphs(5))
    else:
        torch.manual_seed(0)
        model = layers.Sequential(
            "x, edge_index",
            [(layers.GCNConv(3, 4), "x, edge_index -> x"), nn.Tanh(), (layers.SAGEConv(4, 3), "x, edge_index -> x")],
        )
        model, X = model.double().eval(), Instances.from_nodes(some_graphs(1, nodes=9, edges=16)[0], range(6))
    settings = {"amortised": False, "epochs": 40, "output": "logits"}
    together = GraphMask(model, **settings).explain(X)
    alone = GraphMask(model, batch_size=1, **settings).explain(X)
    assert any((mask == 0).any() and (mask == 1).any() for mask in together.layer_masks)
    for name in ("gate_probabilities", "layer_masks", "multiplier", "loss", "retained"):
        for i in range(len(X)):
            np.testing.assert_allclose(together.extras[name][i], alone.extras[name][i], atol=1e-7)
    single = GraphMask(model, **settings).explain(X[[2]])
    np.testing.assert_allclose(single.gate_probabilities[0], together.gate_probabilities[2], atol=1e-7)


def test_what_is_told_is_true():
    X = Instances.from_graphs(some_graphs(4))
    E = GraphMask(graph_convs(), amortised=False, epochs=60).explain(X)
    for i, gates in enumerate(E.layer_masks):
        assert gates.shape == (2, X.num_units("edge", i))
        assert set(gates.ravel().tolist()) <= {0.0, 1.0}
        np.testing.assert_array_equal(E[i], gates.max(0))
        np.testing.assert_allclose(E.edge_means[i], gates.mean(0))
        assert E.retained[i] == pytest.approx(gates.mean())
        assert E.loss[i] <= 0.03
        assert E.multiplier[i] > 0


class Counter(nn.Module):
    """The sign of the difference of two kinds of leaves, read at node 0; a third kind does not matter."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GraphConv(3, 1, bias=False)
        with torch.no_grad():
            self.conv.lin_rel.weight.copy_(torch.tensor([[1.0, -1.0, 0.0]]))
            self.conv.lin_root.weight.zero_()

    def forward(self, x, edge_index, ptr):
        score = 4 * self.conv(x, edge_index)[ptr[:-1]] - 2  # level is no more
        return torch.cat([-score, score], dim=1)


def stars(count, seed):
    random = np.random.default_rng(seed)
    graphs, truth = [], []
    for _ in range(count):
        kinds = random.integers(3, size=random.integers(6, 13))
        x = torch.cat([torch.zeros(1, 3), torch.eye(3)[torch.from_numpy(kinds)]])
        n = len(kinds)
        graphs.append(Data(x=x, edge_index=torch.stack([torch.arange(1, n + 1), torch.zeros(n, dtype=torch.long)])))
        truth.append(kinds < 2)
    return Instances.from_graphs(graphs), np.concatenate(truth)


def test_networks_find_what_the_model_needs_and_single_predictions_less():
    X, _ = stars(200, 0)
    other, truth = stars(100, 1)
    amortised = GraphMask(Counter().eval(), epochs=300, lr=0.01).fit(X)
    kept = np.concatenate(list(amortised.explain(other))) == 1
    assert kept[truth].mean() >= 0.98
    assert kept[~truth].mean() <= 0.05
    assert amortised.network_.change <= 0.05
    E = GraphMask(Counter().eval(), amortised=False, epochs=150).explain(other)
    kept = np.concatenate(list(E)) == 1
    assert kept[truth].mean() < 0.5


def test_each_relation_and_each_round_has_gates_of_its_own():
    torch.manual_seed(0)
    graphs = some_graphs(4)
    for number, graph in enumerate(graphs):
        graph.edge_type = torch.arange(graph.num_edges) % 2 if number else torch.zeros(graph.num_edges).long()

    class Relations(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rounds = layers.RGCNConv(3, 4, 2), layers.APPNP(3, 0.1)

        def forward(self, x, edge_index, edge_type, batch):
            x = self.rounds(self.conv(x, edge_index, edge_type).tanh(), edge_index)
            return layers.global_add_pool(x, batch)[:, :2]

    X = Instances.from_graphs(graphs)
    g = GraphMask(Relations().double().eval(), epochs=2, max_change=1.0).fit(X[:3])
    (E,) = [g.explain(X[3:])]
    assert E.layer_masks[0].shape == (5, 9)
    types, loops = graphs[3].edge_type.numpy(), (graphs[3].edge_index[0] == graphs[3].edge_index[1]).numpy()
    np.testing.assert_array_equal(E.gate_probabilities[0][0] > 0, types == 0)
    np.testing.assert_array_equal(E.gate_probabilities[0][1] > 0, types == 1)
    np.testing.assert_array_equal(E.gate_probabilities[0][2] > 0, ~loops)  # APPNP replaces loops


def test_settings_stay_with_their_explainer():
    GraphMask(penalty=1.0, lr=0.5, epochs=7)
    assert GraphMask()._problem(4) == GateProblem(HardConcrete(), 5.0, 0.03, 750, 1e-3, 0.01)
    assert GraphMask(preset="paper", penalty=2.0)._problem(4) == GateProblem(HardConcrete(), 2.0, 0.03, 25, 3e-4, 0.01)
    assert GraphMask(amortised=False)._problem().epochs == 300


def test_what_it_needs_it_says():
    X = Instances.from_graphs(some_graphs(3))
    with pytest.raises(TypeError, match="Edge masks need a model with PyG MessagePassing layers"):
        GraphMask(Pooled().double().eval(), amortised=False).explain(X)
    with pytest.raises(ValueError, match="not fitted; call fit"):
        GraphMask(graph_convs()).explain(X)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x, edge_index, batch):
        return self.head(layers.global_add_pool(x, batch))


def test_graphs_without_edges_keep_nothing():
    bare = [Data(x=torch.randn(2, 3, dtype=F64), edge_index=torch.zeros(2, 0, dtype=torch.long)) for _ in range(2)]
    X = Instances.from_graphs(some_graphs(4) + bare)
    for g in (GraphMask(graph_convs(), epochs=2).fit(X[:5]), GraphMask(graph_convs(), amortised=False, epochs=5)):
        E = g.explain(X[5:])
        assert E[0].shape == (0,)
        assert E.retained == [0.0]
        assert E.loss == [0.0]
