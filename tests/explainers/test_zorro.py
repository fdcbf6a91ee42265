"""Zorro equals a loop of single forward passes exactly, reaches its fidelity, and never evaluates on its own draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, GINConv, global_mean_pool
from torch_geometric.utils import k_hop_subgraph, to_undirected
from zorro_oracle import Loop, explanations

from skgnnx import Instances, Zorro, config_context, explain_dataset
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.feature_draws import FeatureDraws
from skgnnx.blackbox.rdt_fidelity import RDTFidelity, Selection
from skgnnx.graphs.feature_columns import FeatureColumns

S = 6
CONVS = {
    "gcn": GCNConv,
    "gat": GATConv,
    "gin": lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.Tanh(), nn.Linear(o, o))),
}


class Net(nn.Module):
    """Two layers whose answers depend on features of several nodes."""

    def __init__(self, level, conv="gcn", features=4, seed=0, classes=3):
        super().__init__()
        torch.manual_seed(seed)
        self.level = level
        self.conv1, self.conv2 = CONVS[conv](features, 8), CONVS[conv](8, 8)
        self.head = nn.Linear(8, classes)
        self.balance([torch.randn(7, features) for _ in range(4)])

    def balance(self, inputs):
        """Make no class the one that is predicted whatever comes."""
        with torch.no_grad():
            seen = [self.states(4 * x, graph(seed).edge_index) for seed, x in enumerate(inputs)]
            self.head.bias -= self.head(torch.cat(seen)).mean(0)

    def states(self, h, edge_index):
        return self.conv2(self.conv1(h, edge_index).tanh(), edge_index).tanh()

    def forward(self, x, edge_index, batch=None, edge_label_index=None):
        h = self.states(4 * x, edge_index)
        if self.level == "graph":
            h = global_mean_pool(h, torch.zeros(len(x), dtype=torch.long) if batch is None else batch)
        elif self.level == "edge":
            h = h[edge_label_index[0]] / 2 + h[edge_label_index[1]] / 2
        return 4 * self.head(h)


def graph(seed, n=7, e=8, features=4):
    random = torch.Generator().manual_seed(seed)
    edge_index = to_undirected(torch.randint(n, (2, e), generator=random))
    return Data(x=torch.randn(n, features, generator=random), edge_index=edge_index, num_nodes=n)


def instances(level, make=graph):
    if level == "graph":
        return Instances.from_graphs([make(seed) for seed in (0, 3)])
    if level == "node":
        return Instances.from_nodes(make(0), [0, 1, 2])
    return Instances.from_edges(make(0), [[0, 1], [1, 5]])


def answers_of(model, instance, target):
    """Return a function that tells from node features whether the answer about a target is still the same."""
    data = instance.graph

    def says(x):
        with torch.no_grad():
            if instance.level == "graph":
                logits = model(x, data.edge_index)[0]
            elif instance.level == "node":
                logits = model(x, data.edge_index)[instance.element]
            else:
                logits = model(x, data.edge_index, edge_label_index=torch.tensor(instance.element).view(2, 1))[0]
        return int(logits.argmax()) == target

    return lambda x: says(x) == says(data.x)


def draws_of(model, X, i, numbers, columns=None, seed=0):
    """Return the draws of one instance in the user's order of nodes, and which nodes can reach the prediction."""
    columns = FeatureColumns(X.store.columns["x"].values) if columns is None else columns
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches(np.array([i]))
        drawn = FeatureDraws(batch, columns, seed, numbers).of(0, slice(None))
        node_id, reach = batch.node_id, batch.graphs.node_reach
    x = X[i].graph.x
    full = [x.clone().view(len(x), -1) for _ in numbers]
    for whole, part in zip(full, drawn):
        whole[node_id[reach]] = torch.from_numpy(part)[reach]
    return [whole.view(x.shape) for whole in full], sorted(node_id[reach].tolist())


def require_equal_to_loop(model, X, E, tau, most=3, number=1):
    features = np.flatnonzero(np.ptp(X.store.columns["x"].values, axis=0)).tolist()
    steps = runs = 0
    for i in range(len(X)):
        answers = answers_of(model, X[i], E.targets[i])
        draws, nodes = draws_of(model, X, i, range(S))
        loop = Loop(answers, X[i].graph.x, draws)
        expected = explanations(loop, nodes, features, np.ceil(tau * S - 1e-9), most, number)
        fresh = Loop(answers, X[i].graph.x, draws_of(model, X, i, range(S, 2 * S))[0])
        found = E.explanations[i]
        assert len(found) == len(expected)
        for one, (chosen_nodes, chosen_features, hits) in zip(found, expected):
            assert one["nodes"].tolist() == chosen_nodes
            assert one["features"].tolist() == chosen_features
            assert one["search_fidelity"] == hits / S
            assert one["fidelity"] == fresh.hits(chosen_nodes, chosen_features) / S
        runs += loop.num_runs
        steps += len(expected[0][0]) + len(expected[0][1])
    assert steps >= 2 * len(X)  # there was something to find
    assert sum(E.n_runs) <= runs
    return runs


@pytest.mark.parametrize(
    ("level", "conv"), [("node", "gcn"), ("node", "gat"), ("graph", "gcn"), ("graph", "gin"), ("edge", "gin")]
)
def test_equals_the_loop_exactly(level, conv):
    model, X = Net(level, conv, seed=3 if level == "edge" else 0), instances(level)
    E = Zorro(model, n_samples=S, tau=0.9, n_candidates=3).explain(X)
    require_equal_to_loop(model, X, E, 0.9)


def test_several_explanations_equal_the_loop():
    model, X = Net("graph", "gin", seed=1), instances("graph")
    E = Zorro(model, n_samples=S, tau=0.5, n_candidates=2, n_explanations=4).explain(X)
    require_equal_to_loop(model, X, E, 0.5, most=2, number=4)
    assert max(len(found) for found in E.explanations) > 2


def test_all_candidates_equal_the_loop():
    model, X = Net("graph", seed=2), instances("graph")[:2]
    E = Zorro(model, n_samples=S, tau=1.0, n_candidates=None).explain(X)
    require_equal_to_loop(model, X, E, 1.0, most=None)


def test_draws_that_do_not_fit_into_memory_equal_the_loop():
    model, X = Net("node"), instances("node")[:2]
    explainer = Zorro(model, n_samples=S, tau=0.9, n_candidates=3)
    with config_context(memory_budget=20_000):
        require_equal_to_loop(model, X, explainer.explain(X), 0.9)


def categories(seed, n=7, e=8, features=3):
    data = graph(seed, n, e)
    data.x = torch.randint(3, (n, features), generator=torch.Generator().manual_seed(seed))
    return data


class Embedded(Net):
    """Reads categories."""

    def __init__(self, level):
        super().__init__(level, features=6)
        self.table = nn.Embedding(3, 6)
        self.balance([self.read(categories(seed).x) for seed in range(4)])

    def read(self, x):
        return self.table(x).sum(1) / 4

    def forward(self, x, edge_index, **given):
        return super().forward(self.read(x), edge_index, **given)


def test_categories_equal_the_loop():
    model, X = Embedded("node"), instances("node", categories)
    E = Zorro(model, n_samples=S, tau=0.9, n_candidates=3).explain(X)
    require_equal_to_loop(model, X, E, 0.9)


def binary(seed, features=16):
    data = graph(seed)
    data.x = (torch.rand(7, features, generator=torch.Generator().manual_seed(seed)) < 0.15).float()
    return data


def test_draws_that_show_what_is_known_anyway_do_not_run():
    model, X = Net("node", features=16), instances("node", binary)
    E = Zorro(model, n_samples=S, tau=0.9, n_candidates=3).explain(X)
    runs = require_equal_to_loop(model, X, E, 0.9)
    assert sum(E.n_runs) < 0.6 * runs


def test_masks_are_those_of_the_first_explanation():
    model, X = Net("node"), instances("node")
    explainer = Zorro(model, n_samples=S, tau=0.9, mask="node_feature")
    E, F = explainer.explain(X), Zorro(model, n_samples=S, tau=0.9, mask="feature").explain(X)
    for i, (first, *_) in enumerate(E.explanations):
        assert np.flatnonzero(E.node_mask[i]).tolist() == first["nodes"].tolist()
        assert np.flatnonzero(F[i]).tolist() == first["features"].tolist()
        assert np.array_equal(E[i], np.outer(E.node_mask[i], E.feature_mask[i]))
        assert (E.fidelity[i], E.search_fidelity[i]) == (first["fidelity"], first["search_fidelity"])


@pytest.mark.parametrize("tau", [0.3, 0.85, 1.0])
def test_fidelity_is_reached(tau):
    X = instances("graph")
    E = Zorro(Net("graph", "gin", seed=3), n_samples=S, tau=tau, n_candidates=2).explain(X)
    assert min(E.search_fidelity) >= tau


def test_explanations_of_a_branch_are_disjoint():
    X = instances("graph")
    E = Zorro(Net("graph", "gin", seed=7), n_samples=S, tau=0.5, n_candidates=2, n_explanations=5).explain(X)
    assert max(len(found) for found in E.explanations) > 2
    for first, *others in E.explanations:
        for other in others:
            apart = [not np.intersect1d(first[kind], other[kind]).size for kind in ("nodes", "features")]
            assert any(apart)
            assert other["search_fidelity"] >= 0.5


def fidelity_of_everything(model, X):
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches()
        fidelity = RDTFidelity(gnn, batch, FeatureColumns(X.store.columns["x"].values), 0, range(S))
        everything = [fidelity.everything(i) for i in range(len(X))]
        return fidelity.kept(everything)


@pytest.mark.parametrize("level", ["node", "graph", "edge"])
def test_everything_keeps_the_prediction(level):
    for model in (Net(level), Net(level, "gat", seed=5)):
        assert np.all(fidelity_of_everything(model, instances(level)))


def test_what_is_kept_is_the_prediction_on_the_whole_graph():
    # The published code asks the model about the k-hop neighbourhood, whose outermost nodes have other degrees.
    model, num_flipped = Net("node", seed=6), 0
    for seed in range(12):
        data, flipped = graph(seed, n=14, e=18), []
        whole = model(data.x, data.edge_index).argmax(1)
        for v in range(14):
            nodes, edges, place, _ = k_hop_subgraph(v, 2, data.edge_index, relabel_nodes=True)
            flipped.append(int(model(data.x[nodes], edges)[place].argmax()) != int(whole[v]))
        if any(flipped):
            X = Instances.from_nodes(data, np.flatnonzero(flipped))
            assert np.array_equal(Zorro(model, n_samples=S).explain(X).targets, whole[flipped])
            assert np.all(fidelity_of_everything(model, X))
            num_flipped += sum(flipped)
    assert num_flipped


def test_fidelity_is_told_on_fresh_draws():
    model, X = Net("graph", "gin", seed=3), instances("graph")
    first, fresh = (draws_of(model, X, 0, numbers)[0] for numbers in (range(S), range(S, 2 * S)))
    assert not any(torch.equal(one, other) for one in first for other in fresh)
    E = Zorro(model, n_samples=S, tau=0.9).explain(X)
    assert E.fidelity != E.search_fidelity


def test_another_target_is_explained_by_its_absence():
    model, X = Net("node"), instances("node")
    Y = X.with_target((Zorro(model, n_samples=S).explain(X).targets + 1) % 3)
    E = Zorro(model, n_samples=S, tau=1.0, n_candidates=3).explain(Y)
    require_equal_to_loop(model, Y, E, 1.0)


def test_constant_columns_are_never_selected():
    X = instances("graph")
    X.store.columns["x"].values[:, 1] = 2.0
    E = Zorro(Net("graph", "gin", seed=4), n_samples=S, tau=1.0, n_candidates=None, mask="feature").explain(X)
    assert not np.asarray(E)[:, 1].any()
    assert np.asarray(E).any()


def test_draws_follow_the_columns():
    x = np.array([[0, 5, 1], [0, 5, 2], [1, 5, 3], [0, 5, 4]], dtype=np.float32)
    columns = FeatureColumns(x)
    assert columns.varying.tolist() == [True, False, True]
    assert columns.at(np.array([[0.74, 0.26]])).tolist() == [[0, 2]]
    assert columns.at(np.array([[0.76, 0.99]])).tolist() == [[1, 4]]
    X = Instances.from_graphs([Data(x=torch.from_numpy(x), edge_index=torch.zeros(2, 0, dtype=torch.long))])
    with BlackBox(Net("graph", features=3)).open(X) as gnn:
        (batch,) = gnn.batches()
        drawn = FeatureDraws(batch, columns, 3, range(2_000)).of(0, slice(None))
    assert np.all(drawn[:, :, 1] == 5)
    assert abs(drawn[:, :, 0].mean() - 0.25) < 0.02
    for value in (1, 2, 3, 4):
        assert abs((drawn[:, :, 2] == value).mean() - 0.25) < 0.02
    # entries are independent of each other, also where the columns go together
    assert abs(np.corrcoef(drawn[:, :, 0].ravel(), drawn[:, :, 2].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(drawn[:, 0, 2], drawn[:, 1, 2])[0, 1]) < 0.06


def test_the_data_set_is_that_of_fit():
    X = instances("graph")
    model = Net("graph", "gin", seed=3)
    other = Instances.from_graphs([Data(x=torch.full((1, 4), 7.0), edge_index=torch.zeros(2, 0, dtype=torch.long))])
    E = Zorro(model, n_samples=1, tau=1.0).fit(other).explain(X)
    for i, data in enumerate(X):
        answers = answers_of(model, data, E.targets[i])
        assert (len(E.explanations[i][0]["nodes"]) == 0) == answers(torch.full_like(data.graph.x, 7.0))
    assert any(E.node_mask[i].any() for i in range(len(X)))


def test_parts_of_a_data_set_draw_from_all_of_it():
    X = instances("graph")
    explainer = Zorro(Net("graph", "gin", seed=3), n_samples=S, tau=0.9)
    whole, parts = explainer.explain(X), explain_dataset(explainer, X, chunk_size=1)
    assert whole.explanations[0][0]["nodes"].size
    for i in range(len(X)):
        assert np.array_equal(whole[i], parts[i])
        assert whole.fidelity[i] == parts.fidelity[i]


def test_selections_are_numbered_by_unit():
    selection = Selection(0, np.array([True, False]), np.array([False, True, True]))
    again = selection.of_units(selection.units)
    assert np.array_equal(again.nodes, selection.nodes)
    assert np.array_equal(again.features, selection.features)


@pytest.mark.filterwarnings("ignore:.*one output column")
def test_refusals():
    X = instances("node")
    with pytest.raises(TypeError, match="needs a classifier.*a regression; use GNNExplainer"):
        Zorro(Net("node", classes=1), output="regression").explain(X)
    bare = Data(edge_index=X[0].graph.edge_index, num_nodes=7)
    with pytest.raises(TypeError, match="needs node features 'x'.*use GNNExplainer"):
        Zorro(lambda graphs: np.zeros((len(graphs), 2))).explain(Instances.from_graphs([bare]))
    with pytest.raises(TypeError, match="needs node features 'x'.*use GNNExplainer"):
        Zorro(Bare(), soft=True).explain(Instances.from_graphs([bare]))


class Bare(nn.Module):
    """Counts edges."""

    def forward(self, edge_index, batch):
        return torch.stack([torch.bincount(batch[edge_index[0]], minlength=int(batch.max()) + 1).float()] * 2, dim=1)


def test_what_is_not_a_number_is_no_prediction():
    def predict(graphs):
        hidden = np.array([float(abs(graph.x[0, 0] - 5) > 1e-6) for graph in graphs])
        return np.stack([1 - hidden, np.where(hidden, np.nan, 0)], axis=1)

    x = torch.tensor([[5.0], [1.0], [2.0]])
    X = Instances.from_graphs([Data(x=x, edge_index=torch.tensor([[0, 1], [1, 2]]))], target=1)
    with pytest.raises(FloatingPointError, match=r"finite for every changed version .* at index 0; .*on_error='nan'"):
        Zorro(predict, n_samples=5, output="logits").explain(X)
