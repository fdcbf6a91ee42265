"""SubgraphX against a search written by hand, and what its results keep: connected, with the target, small enough."""

import re
from functools import partial
from itertools import combinations
from math import factorial, sqrt

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GraphConv, global_add_pool

from skgnnx import Explanations, Instances, SubgraphX
from skgnnx.blackbox.coalitions import CoalitionValues
from skgnnx.explainers import subgraphx
from skgnnx.metrics import fidelity_plus, sparsity
from skgnnx.testing import example


class Net(nn.Module):
    """Three convolutions, so that small graphs are seen as a whole; products, so that coalitions matter."""

    def __init__(self, level):
        super().__init__()
        torch.manual_seed(3)
        self.convs = nn.ModuleList([GraphConv(3, 6), GraphConv(6, 6), GraphConv(6, 6)])
        self.out, self.level = nn.Linear(6, 3), level

    def forward(self, x, edge_index, batch=None, edge_label_index=None):
        for conv in self.convs:
            x = torch.tanh(conv(x, edge_index))
        if self.level == "edge":
            x = x[edge_label_index[0]] * x[edge_label_index[1]]
        return 3 * self.out(global_add_pool(x, batch) if self.level == "graph" else x)


def graph(seed, n=7):
    """Return a connected graph in which no two nodes are more than two edges apart."""
    while True:
        plain = nx.gnp_random_graph(n, 0.45, seed=seed)
        if nx.is_connected(plain) and nx.diameter(plain) <= 2:
            break
        seed += 1000
    pairs = torch.tensor(list(plain.edges)).T
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=random, dtype=torch.float64)
    return Data(x=x, edge_index=torch.cat([pairs, pairs.flip(0)], 1))


def instances(level):
    if level == "graph":
        return Instances.from_graphs([graph(seed) for seed in range(3)])
    if level == "node":
        return Instances.from_nodes(graph(0), [0, 3, 6])
    return Instances.from_edges(graph(0), [[0, 2, 5], [1, 4, 6]])


def fixed_nodes(instance):
    return () if instance.level == "graph" else tuple(np.atleast_1d(instance.element).tolist())


def plain_graph(data):
    plain = nx.Graph()
    plain.add_nodes_from(range(data.num_nodes))
    plain.add_edges_from(data.edge_index.T.tolist())
    return plain


class ByHand:
    """The search of one instance with sets and dicts, every coalition a call of its own."""

    def __init__(self, model, instance, target, removal, hops=9, head=lambda rows: rows.softmax(1)):
        self.model, self.instance, self.target, self.removal, self.hops = model, instance, target, removal, hops
        self.head = head
        self.graph, self.fixed = plain_graph(instance.graph), fixed_nodes(instance)
        self.values, self.scores, self.visits, self.totals, self.children = {}, {}, {}, {}, {}

    def value(self, there):
        if there not in self.values:
            data = self.instance.graph
            mask = torch.tensor([node in there for node in range(data.num_nodes)])
            x = data.x * mask.to(data.x.dtype)[:, None] if self.removal == "zero" else data.x
            edges = data.edge_index if self.removal == "zero" else data.edge_index[:, mask[data.edge_index].all(0)]
            given = {}
            if self.instance.level == "edge":
                given["edge_label_index"] = torch.tensor(self.instance.element).reshape(2, 1)
            batch = torch.zeros(data.num_nodes, dtype=torch.long)
            with torch.no_grad():
                rows = self.head(self.model(x, edges, batch=batch, **given))
            row = self.instance.element if self.instance.level == "node" else 0
            self.values[there] = float(rows[row, self.target])
        return self.values[there]

    def shapley(self, members):
        if members not in self.scores:
            near = {v for s in members for v in nx.single_source_shortest_path_length(self.graph, s, self.hops)}
            others = near - members
            always = set(self.graph) - near
            p, total = len(others), 0.0
            for size in range(p + 1):
                weight = factorial(size) * factorial(p - size) / factorial(p + 1)
                for ahead in map(set, combinations(sorted(others), size)):
                    gain = self.value(frozenset(ahead | always | members)) - self.value(frozenset(ahead | always))
                    total += weight * gain
            self.scores[members] = total
        return self.scores[members]

    def below(self, members, expand, high):
        inner = self.graph.subgraph(members)
        order = sorted(set(members) - set(self.fixed), key=lambda v: ((-1) ** high * inner.degree(v), v))
        found = []
        for v in order[:expand]:
            parts = list(nx.connected_components(inner.subgraph(members - {v})))
            if self.fixed:
                kept = frozenset().union(*(part for part in parts if part & set(self.fixed)))
            else:
                kept = frozenset(max(parts, key=lambda part: (len(part), -min(part))))
            found += [kept] if kept not in found else []
        return found

    def down(self, members, leaf, expand, high, c):
        if len(members) <= max(leaf, len(self.fixed)):
            value = self.shapley(members)
        else:
            if members not in self.children:
                self.children[members] = self.below(members, expand, high)
            children = self.children[members]
            explored = sqrt(max(1, sum(self.visits.get(child, 0) for child in children)))

            def rated(child):
                n = self.visits.get(child, 0)
                return self.totals.get(child, 0) / max(n, 1) + c * self.shapley(child) * explored / (1 + n)

            rates = [rated(child) for child in children]
            value = self.down(children[int(np.argmax(rates))], leaf, expand, high, c)
        self.visits[members] = self.visits.get(members, 0) + 1
        self.totals[members] = self.totals.get(members, 0) + value
        return value

    def search(self, rollouts, max_nodes, leaf, expand, high, c):
        for _ in range(rollouts):
            self.down(frozenset(self.graph), min(leaf, max_nodes), expand, high, c)
        return {members: score for members, score in self.scores.items() if len(members) <= max_nodes}


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
@pytest.mark.parametrize(
    ("removal", "order", "rollouts", "expand", "c"),
    [("zero", "low2high", 6, 12, 10.0), ("split", "high2low", 9, 3, 0.5), ("zero", "low2high", 1, 4, 0.0)],
)
def test_search_is_the_one_by_hand(level, removal, order, rollouts, expand, c):
    model, X = Net(level).double(), instances(level)
    params = {"rollouts": rollouts, "min_atoms": 2, "expand_atoms": expand, "c_puct": c, "max_nodes": 4}
    E = SubgraphX(model, removal=removal, order=order, n_samples=128, hops=9, **params).explain(X)
    for i, instance in enumerate(X):
        hand = ByHand(model, instance, E.targets[i], removal)
        expected = hand.search(rollouts, 4, 2, expand, order == "high2low", c)
        found = {frozenset(s.tolist()): score for s, score in zip(E.subsets[i], E.subset_scores[i], strict=True)}
        assert found.keys() == expected.keys()
        np.testing.assert_allclose([found[s] for s in expected], list(expected.values()), atol=1e-9)
        best = max(expected, key=expected.get)
        assert set(np.flatnonzero(E[i])) == best
        assert E.shapley[i] == pytest.approx(expected[best], abs=1e-9)
        assert E.evaluations[i] <= E.evaluations_bound[i]


def connected_sets(plain, fixed, most):
    for size in range(max(len(fixed), 1), most + 1):
        for members in combinations(sorted(set(plain) - set(fixed)), size - len(fixed)):
            together = set(members) | set(fixed)
            parts = list(nx.connected_components(plain.subgraph(together)))
            if all(part & set(fixed) for part in parts) if fixed else len(parts) == 1:
                yield frozenset(together)


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_many_rollouts_find_the_best_of_all_connected_sets(level):
    model, X = Net(level).double(), instances(level)[:2]
    E = SubgraphX(model, rollouts=400, min_atoms=1, n_samples=128, hops=1, max_nodes=3).explain(X)
    for i, instance in enumerate(X):
        hand = ByHand(model, instance, E.targets[i], "zero", hops=1)
        sets = list(connected_sets(hand.graph, hand.fixed, 3))
        best = max(sets, key=hand.shapley)
        assert E.shapley[i] == pytest.approx(hand.shapley(best), abs=1e-9)
        assert set(np.flatnonzero(E[i])) == best


@pytest.mark.parametrize("removal", ["zero", "split"])
@pytest.mark.parametrize("level", ["graph", "node", "edge"])
@pytest.mark.parametrize(
    "params", [{}, {"max_nodes": 4}, {"max_evals": 90, "n_samples": 4}, {"preset": "paper", "rollouts": 2}]
)
def test_results_are_connected_small_and_hold_the_target(level, removal, params):
    model, X = example(level)
    E = SubgraphX(model, removal=removal, **{"n_samples": 10, **params}).explain(X)
    for i, instance in enumerate(X):
        chosen, fixed = set(np.flatnonzero(E[i])), set(fixed_nodes(instance))
        reached = len(E.entries(i)[0])
        assert np.isin(E[i], (0, 1)).all()
        assert fixed <= chosen
        assert 1 <= len(chosen) <= params.get("max_nodes", max(len(fixed) + 1, int(0.3 * reached + 0.5)))
        parts = list(nx.connected_components(plain_graph(instance.graph).subgraph(chosen)))
        assert all(part & fixed for part in parts) if fixed else len(parts) == 1
        assert all(fixed <= set(s.tolist()) for s in E.subsets[i])  # node 0 is a target like any other
        inside = np.isin(instance.graph.edge_index.numpy(), list(chosen)).all(0)
        assert (E.edge_mask[i] <= inside).all()


def test_a_first_visit_goes_to_the_best_child():
    """A star whose last leaf alone matters: the first child of the root would lose it only by chance."""
    leaves = torch.arange(1, 8)
    edges = torch.stack([leaves, torch.zeros_like(leaves)])
    x = torch.zeros(8, 1)
    x[1] = 1.0
    data = Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1))

    def predict(graphs):
        return np.array([[0.0, graph.x[1, 0].item()] for graph in graphs])

    X = Instances.from_graphs([data], target=1)
    E = SubgraphX(predict, output="probs", rollouts=1, expand_atoms=2, max_nodes=2, c_puct=1.0).explain(X)
    assert E[0][1] == 1
    assert E.shapley[0] == pytest.approx(1.0)


def counting(model):
    """Return a plain callable of a network that notes which nodes of each graph have features."""
    asked = []

    def predict(graphs):
        asked.extend(tuple((graph.x != 0).any(1).tolist()) for graph in graphs)
        batch = Batch.from_data_list(graphs)
        with torch.no_grad():
            return model(batch.x, batch.edge_index, batch.batch).numpy()

    return predict, asked


@pytest.mark.parametrize("constant", [False, True])
def test_each_coalition_is_asked_about_once_for_all_targets(constant):
    model, X = example("graph")
    if constant:
        nn.init.zeros_(model.head.weight)  # every Shapley value is 0, which is a value
    predict, asked = counting(model)
    E = SubgraphX(predict, n_samples=128).explain(X[:1])
    apart = [pattern for pattern in set(asked) if asked.count(pattern) > 1]
    assert apart in ([], [(True,) * 6])  # the whole graph was asked about before
    assert len(set(asked)) == E.evaluations[0]
    before = len(asked)
    first, second = SubgraphX(predict, n_samples=128).explain_targets(X[:1])
    assert len(asked) - before <= len(set(asked)) + asked.count((True,) * 6)
    for target, found in enumerate((first, second)):
        alone = SubgraphX(predict, n_samples=128).explain(X[:1].with_target(target))
        assert np.array_equal(found[0], alone[0])
        assert found.evaluations == alone.evaluations


def test_a_constant_model_gives_zero_and_the_smallest_sets():
    model, X = example("node")
    nn.init.zeros_(model.head.weight)
    E = SubgraphX(model, n_samples=8, min_atoms=1).explain(X)
    np.testing.assert_allclose(E.shapley, 0, atol=1e-12)
    assert [np.flatnonzero(E[i]).tolist() for i in range(5)] == [[instance.element] for instance in X]


def same(E, F, evaluations=True):
    assert all(np.array_equal(E[i], F[i]) for i in range(len(E)))
    np.testing.assert_allclose(E.shapley, F.shapley, atol=1e-6)
    for i in range(len(E)):
        assert list(map(list, E.subsets[i])) == list(map(list, F.subsets[i]))
    assert not evaluations or E.evaluations == F.evaluations


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_memory_changes_nothing(level, monkeypatch):
    model, X = example(level)
    E = SubgraphX(model, n_samples=6, max_nodes=3).explain(X)
    monkeypatch.setattr(subgraphx, "CoalitionValues", partial(CoalitionValues, remembers=False))
    F = SubgraphX(model, n_samples=6, max_nodes=3).explain(X)
    same(E, F, evaluations=False)
    assert sum(F.evaluations) > sum(E.evaluations)


@pytest.mark.parametrize("removal", ["zero", "split"])
@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_instances_in_lock_step_find_what_they_find_alone(level, removal):
    model, X = example(level)
    explainer = SubgraphX(model, removal=removal, n_samples=6, max_nodes=3, max_evals=90)
    E = explainer.explain(X)
    same(E, Explanations.concat([explainer.explain(X[i : i + 1]) for i in range(len(X))]))
    same(E[::-1], explainer.explain(X[::-1]))


def larger():
    return Net("graph").double(), Instances.from_graphs([graph(seed, n=9 + seed) for seed in range(4)])


def needed(model, X):
    """Return how many coalitions the error says that the first step needs, and of which instance."""
    sentence = (
        r"at least (\d+), which the first step at index (\d) asks about \(the whole search: at most (\d+)\). Got 2; "
    )
    with pytest.raises(ValueError, match="'max_evals' must be " + sentence) as told:
        SubgraphX(model, n_samples=8, max_nodes=2, max_evals=2).explain(X)
    number, index, bound = map(int, re.search(sentence, str(told.value)).groups())
    assert number < bound
    return number, index


def test_the_budget_is_told_before_the_model_is_asked(monkeypatch):
    model, X = larger()
    with monkeypatch.context() as patch:
        patch.setattr(CoalitionValues, "ask", lambda *_: pytest.fail("the model was asked"))
        number, index = needed(model, X[2:3])
        assert index == 0
        assert needed(model, X)[1] in range(4)
    E = SubgraphX(model, n_samples=8, max_nodes=2, max_evals=number).explain(X[2:3])
    assert E.exhausted == [True]
    assert E.evaluations[0] <= number
    assert E[0].sum() <= 2
    with pytest.raises(ValueError, match=f"at least {number},"):
        SubgraphX(model, n_samples=8, max_nodes=2, max_evals=number - 1).explain(X[2:3])


def test_a_budget_of_all_coalitions_is_always_enough():
    ring = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    X = Instances.from_graphs(
        [
            Data(
                x=torch.randn(6, example("graph")[1][0].graph.num_features, generator=torch.Generator().manual_seed(0)),
                edge_index=ring,
            )
        ]
    )
    model = example("graph")[0]
    all_of_them = SubgraphX(model, max_nodes=2, n_samples=50, max_evals=None).explain(X)
    E = SubgraphX(model, max_nodes=2, n_samples=50, max_evals=2**6).explain(X)
    assert E.evaluations == all_of_them.evaluations
    assert E.exhausted == [False]
    assert np.array_equal(E[0], all_of_them[0])
    with pytest.raises(ValueError, match=r"at least (\d+), .* at most 64\)") as told:
        SubgraphX(model, max_nodes=2, n_samples=50, max_evals=3).explain(X)
    assert int(re.search(r"at least (\d+)", str(told.value)).group(1)) <= 2**6


def test_a_budget_that_is_too_small_for_one_instance_spares_the_others(tmp_path):
    model, X = larger()
    numbers = [needed(model, X[i : i + 1])[0] for i in range(4)]
    most = sorted(numbers)[2]
    E = SubgraphX(model, n_samples=8, max_nodes=2, max_evals=most, on_error="nan").explain(X)
    failed = [i for i in range(4) if numbers[i] > most]
    assert len(failed) == 1
    assert [i for i in range(4) if E.errors[i] is not None] == failed
    assert f"at index {failed[0]} asks" in E.errors[failed[0]]
    E.save(tmp_path / "E.npz")
    F = Explanations.load(tmp_path / "E.npz")
    assert F.hard
    assert F.evaluations == E.evaluations
    kept = numbers.index(min(numbers))
    assert np.array_equal(F.subset_scores[kept], E.subset_scores[kept])


@pytest.mark.filterwarnings("ignore:function takes one graph at a time")  # it refuses all that come with the bad one
def test_an_instance_that_the_model_refuses_spares_the_others():
    model, X = example("graph")
    predict, _ = counting(model)

    def fussy(graphs):
        if any(graph.num_nodes == 8 for graph in graphs):
            raise ValueError("eight is too many")
        return predict(graphs)

    E = SubgraphX(fussy, n_samples=4, on_error="nan").explain(X)
    assert E.hard
    assert E.ok.tolist() == [True, True, False, True, True]


def test_the_search_goes_on_where_the_budget_allows():
    model, X = larger()
    runs = [SubgraphX(model, n_samples=8, max_evals=most, max_nodes=4).explain(X[3:]) for most in (400, 900, None)]
    assert [E.exhausted[0] for E in runs] == [True, True, False]
    assert runs[0].evaluations[0] <= 400 < runs[1].evaluations[0] <= 900 < runs[2].evaluations[0]
    scores = [E.shapley[0] for E in runs]
    assert scores == sorted(scores)


def test_components_of_a_graph_are_looked_at_first():
    """What matters is in the smaller of two components."""
    pairs = torch.tensor([*combinations(range(5), 2), (5, 6), (6, 7)]).T
    data = Data(x=torch.ones(9, 1), edge_index=torch.cat([pairs, pairs.flip(0)], 1))

    def predict(graphs):
        return np.array([[0.0, (graph.x[5] * graph.x[6]).item()] for graph in graphs])

    X = Instances.from_graphs([data], target=1)
    E = SubgraphX(predict, output="probs", n_samples=8, max_nodes=2).explain(X)
    assert np.flatnonzero(E[0]).tolist() == [5, 6]
    small = SubgraphX(predict, output="probs", n_samples=8, max_nodes=9).explain(X)
    parts = list(nx.connected_components(plain_graph(data).subgraph(np.flatnonzero(small[0]))))
    assert len(parts) == 1


def test_values_of_a_regression_are_those_of_the_model():
    model, X = example("graph")
    E = SubgraphX(model, output="regression", n_samples=256, max_nodes=2).explain(X[:1].with_target(1))
    hand = ByHand(model, X[0], 1, "zero", head=lambda rows: rows)
    assert E.shapley[0] == pytest.approx(hand.shapley(frozenset(np.flatnonzero(E[0]).tolist())), abs=1e-5)


def test_relabelled_nodes_give_the_relabelled_set():
    model, X = Net("graph").double(), instances("graph")
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    place = torch.argsort(order)
    turned = Instances.from_graphs([Data(x=i.graph.x[order], edge_index=place[i.graph.edge_index]) for i in X])
    params = {"n_samples": 128, "rollouts": 60, "max_nodes": 3, "min_atoms": 1}
    E, F = SubgraphX(model, **params).explain(X), SubgraphX(model, **params).explain(turned)
    for i in range(len(X)):
        assert np.array_equal(E[i][order], F[i])


class Categories(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(4, 3), GraphConv(3, 2)

    def forward(self, x, edge_index, batch):
        return global_add_pool(self.conv(self.embedding(x[:, 0]), edge_index), batch)


def test_categories_need_the_other_removal():
    data = graph(0)
    data.x = torch.arange(7)[:, None] % 4
    X = Instances.from_graphs([data])
    with pytest.raises(TypeError, match="needs floating-point node features. Got torch.int64; use removal='split'"):
        SubgraphX(Categories()).explain(X)
    assert SubgraphX(Categories(), removal="split", n_samples=4).explain(X)[0].sum() == 2


def test_a_link_has_two_ends():
    model, X = example("edge")
    with pytest.raises(
        ValueError, match="'max_nodes' must be at least 2 for a link, whose ends stay, at index 0. Got 1"
    ):
        SubgraphX(model, max_nodes=1).explain(X)
    assert [E.sum() for E in SubgraphX(model, max_nodes=2).explain(X)] == [2] * 5


def test_metrics_take_the_set_as_it_is():
    model, X = example("graph")
    E = SubgraphX(model, n_samples=8, max_nodes=3).explain(X)
    assert E.hard
    np.testing.assert_allclose(sparsity(E, reduce=None), [1 - E[i].mean() for i in range(5)])
    assert np.isfinite(fidelity_plus(E))
    assert [int(F.sum()) for F in E.at_sparsity(0.5)] == [3, 4, 4, 5, 5]
    edges = E.to_kind("edge")
    assert all(np.array_equal(edges[i], E.edge_mask[i]) for i in range(5))
    assert all(
        np.array_equal(F, G) for F, G in zip(SubgraphX(model, n_samples=8, max_nodes=3, mask="edge").explain(X), edges)
    )
