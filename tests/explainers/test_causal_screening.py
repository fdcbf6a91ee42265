"""Causal Screening adds what a plain loop over the model adds, and says what that did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv, global_add_pool

from skgnnx import CausalScreening, Instances
from skgnnx.blackbox import BlackBox
from skgnnx.explainers.causal_screening import num_evaluations
from skgnnx.graphs.edge_units import edge_units
from skgnnx.testing import example
from skgnnx.testing.networks import Network

TIE = 1e-5


def value_of(model, instance, target, kept):
    """Return log p of a target for the graph with some of its edges, the model called by hand."""
    data = instance.graph
    given = {"batch": torch.zeros(data.num_nodes, dtype=torch.long)} if instance.level == "graph" else {}
    if instance.level == "edge":
        given["edge_label_index"] = torch.tensor(instance.element).reshape(2, 1)
    with torch.no_grad():
        out = model(data.x, data.edge_index[:, torch.from_numpy(kept)], **given)
    row = out[instance.element] if instance.level == "node" else out[0]
    return float(row.double().log_softmax(0)[target])


def units_of(instance, scored, *, tied=True):
    """Return lists of edges, one per unit, in the order that breaks ties; the k-th edge back goes with the k-th."""
    ends = [tuple(pair) for pair in instance.graph.edge_index.T.tolist()]
    undirected = tied and all(ends.count(pair) == ends.count(pair[::-1]) for pair in ends)
    units, seen = {}, {}
    for edge, (source, target) in enumerate(ends):
        seen[source, target] = seen.get((source, target), -1) + 1
        key = (min(source, target), max(source, target)) if undirected else (source, target)
        if scored[edge]:
            units.setdefault((*key, seen[source, target]), []).append(edge)
    return [units[key] for key in sorted(units)]


def by_hand(model, instance, target, scored, *, tied=True):
    """Return the units in the order in which a greedy loop adds them, and the values on the way."""
    left = units_of(instance, scored, tied=tied)
    kept, order = ~scored, []
    values = [value_of(model, instance, target, kept)]
    while left:
        tried = [value_of(model, instance, target, kept | np.isin(np.arange(len(kept)), unit)) for unit in left]
        limit = max(tried) - TIE * max(1, abs(max(tried)))
        best = next(i for i, value in enumerate(tried) if value >= limit)
        order.append(left.pop(best))
        kept = kept | np.isin(np.arange(len(kept)), order[-1])
        values.append(tried[best])
    return order, values


def check_against_loop(model, X, **params):
    E = CausalScreening(model, **params).explain(X)
    for i, instance in enumerate(X):
        order, values = by_hand(model, instance, E.targets[i], E.explained[i], tied=params.get("tie_directions", True))
        assert E.order[i].tolist() == [edge for unit in order for edge in unit]
        np.testing.assert_allclose(E.trajectory[i], values, rtol=1e-5, atol=1e-6)
        for t, unit in enumerate(order):
            np.testing.assert_allclose(E[i][unit], (len(order) - t) / len(order), rtol=1e-6)
    return E


def odd_graph():
    """Directed, with a loop, repeated edges and a lone node."""
    ends = torch.tensor([[0, 1, 1, 2, 2, 3, 0, 4, 3], [1, 2, 2, 0, 2, 1, 3, 0, 4]])
    return Data(x=torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), edge_index=ends)


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_adds_what_a_loop_adds(level):
    E = check_against_loop(*example(level))
    assert any(len(order) > 4 for order in E.order)


@pytest.mark.filterwarnings("ignore:Self loops cannot be explained")
@pytest.mark.parametrize("conv", ["gcn", "gat", "graph", "sage"])
@pytest.mark.parametrize("level", ["graph", "node"])
def test_adds_what_a_loop_adds_in_an_odd_graph(conv, level):
    model = Network(conv, level, num_classes=2).eval()
    data = odd_graph()
    X = Instances.from_graphs([data]) if level == "graph" else Instances.from_nodes(data, [0, 2])
    check_against_loop(model, X)


def test_directions_on_their_own():
    model, X = example("graph")
    E = check_against_loop(model, X[:2], tie_directions=False)
    assert len(np.unique(E[0])) == len(E[0])


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_effects_telescope(level):
    model, X = example(level)
    E = CausalScreening(model).explain(X)
    for i, instance in enumerate(X):
        whole = value_of(model, instance, E.targets[i], np.ones(instance.graph.num_edges, dtype=bool))
        assert E.base[i] == E.trajectory[i][0]
        assert abs(E.base[i] + E.effects[i].sum() - whole) < 1e-6
        # The effect of a step is the change that this step makes, not that of the one before or after it.
        ids, _ = E.entries(i)
        of_edge = dict(zip(ids.tolist(), E.effects[i], strict=True))
        effects = np.array([of_edge[edge] for edge in E.order[i].tolist()])
        units = np.unique([E[i][edge] for edge in E.order[i]])[::-1]
        steps = [effects[[E[i][edge] == score for edge in E.order[i]]].sum() for score in units]
        np.testing.assert_allclose(np.cumsum(steps), E.trajectory[i][1:] - E.base[i], atol=1e-12)


def test_the_predicted_class_is_explained():
    model, X = example("graph")
    for instance in X:
        row = model(instance.graph.x, instance.graph.edge_index, torch.zeros(instance.graph.num_nodes).long())[0]
        E = CausalScreening(model).explain([instance])
        assert E.targets[0] == int(row.argmax())
        other = CausalScreening(model).explain(Instances.from_graphs([instance.graph], [1 - E.targets[0]]))
        np.testing.assert_allclose(E.trajectory[0][-1], row.double().log_softmax(0)[E.targets[0]].item(), atol=1e-6)
        assert other.trajectory[0][-1] < E.trajectory[0][-1]


def constant(num_nodes, pairs, order=None):
    edges = torch.tensor(pairs).T
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    edges = edges if order is None else edges[:, order]
    return Data(x=torch.ones(num_nodes, 4), edge_index=edges)


RING = [(i, (i + 1) % 7) for i in range(7)]
STAR = [(0, i) for i in range(1, 8)]


@pytest.mark.parametrize(("pairs", "num_nodes"), [(RING, 7), (STAR, 8)])
@pytest.mark.parametrize("others", [0, 3])
def test_ties_go_to_the_first_source_and_target(pairs, num_nodes, others):
    model, X = example("graph")
    random = np.random.RandomState(3).permutation(2 * len(pairs))
    data = constant(num_nodes, pairs, random)
    graphs = [data, *[instance.graph for instance in X[:others]]]
    E = CausalScreening(model).explain(graphs)
    order, _ = by_hand(model, Instances.from_graphs([data])[0], E.targets[0], np.ones(len(random), dtype=bool))
    assert E.order[0].tolist() == [edge for unit in order for edge in unit]
    assert set(data.edge_index[:, E.order[0][:2]].flatten().tolist()) == {0, 1}
    if pairs is STAR:
        assert data.edge_index.max(0).values[E.order[0]].tolist() == sorted(list(range(1, 8)) * 2)


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
@pytest.mark.parametrize("prior", ["gradient", "random"])
def test_all_candidates_are_the_exact_search(level, prior):
    model, X = example(level)
    exact, sampled = (CausalScreening(model, candidates=k, prior=prior).explain(X) for k in (None, 1_000))
    for i in range(len(X)):
        assert np.array_equal(exact[i], sampled[i])
        assert np.array_equal(exact.order[i], sampled.order[i])
        assert np.array_equal(exact.trajectory[i], sampled.trajectory[i])
        assert np.array_equal(exact.effects[i], sampled.effects[i])


def test_few_candidates():
    model, X = example("graph")
    runs = [CausalScreening(model, candidates=2, prior="random", random_state=seed).explain(X) for seed in (0, 0, 1)]
    assert all(np.array_equal(runs[0][i], runs[1][i]) for i in range(len(X)))
    assert any(not np.array_equal(runs[0][i], runs[2][i]) for i in range(len(X)))
    for i, instance in enumerate(X):
        num_units = instance.graph.num_edges // 2
        assert runs[0].n_evals[i] == 2 * num_units
        assert sorted(runs[0].order[i].tolist()) == list(range(2 * num_units))
    alone = CausalScreening(model, candidates=2, prior="random").explain(X[3:4])
    assert np.array_equal(alone.order[0], runs[0].order[3])


def test_candidates_are_drawn_in_proportion_to_their_prior():
    model, X = example("graph")
    method = CausalScreening(model, candidates=1)
    with BlackBox(model).open(X[:1]) as gnn:
        (batch,) = gnn.batches(removal=True)
        units = edge_units(batch, np.ones(batch.num_edges, dtype=bool), tie_directions=True)
        prior = method._prior(gnn, batch, units)
        x, edges = batch.x, batch.edge_index
        gradient = []
        for edge in range(batch.num_edges):  # how the score changes with the messages of one edge, which are repeated
            outputs = [model(x, torch.cat([edges, edges[:, [edge] * n]], 1), batch.node_instance) for n in (0, 1)]
            gradient.append(float((outputs[1] - outputs[0])[0, batch.targets[0]]))
        assert prior.shape == (batch.num_edges // 2,)
        assert np.corrcoef(prior, np.bincount(units.of_edge, weights=np.abs(gradient)))[0, 1] > 0.7
        prior = np.arange(len(prior)) / np.arange(len(prior)).sum()
        everything = np.arange(len(prior))
        n = 3_000
        drawn = np.concatenate([method._drawn(batch, units, prior, everything, seed) for seed in range(n)])
        found = np.bincount(drawn, minlength=len(prior)) / n
        assert found[0] == 0  # without weight it comes after all others
        assert (np.abs(found - prior) < 4 * np.sqrt(prior * (1 - prior) / n) + 1e-9).all()
        method.candidates = len(prior) - 1
        assert method._drawn(batch, units, prior, everything, 0).tolist() == everything[1:].tolist()


def test_every_step_of_every_seed_draws_anew(monkeypatch):
    model, X = example("graph")
    seeds, drawn = [], CausalScreening._drawn
    monkeypatch.setattr(CausalScreening, "_drawn", lambda self, *args: seeds.append(args[-1]) or drawn(self, *args))
    for seed in range(3):
        CausalScreening(model, candidates=2, random_state=seed).explain(X[:1])
    assert len(seeds) == len(set(seeds)) == 3 * X[0].graph.num_edges // 2


def predict(graphs):
    model, _ = example("graph")
    batch = Batch.from_data_list(graphs)
    with torch.no_grad():
        return model(batch.x, batch.edge_index, batch.batch).numpy()


def test_a_callable_has_no_gradient():
    model, X = example("graph")
    with pytest.raises(TypeError, match=r"CausalScreening\(prior='gradient'\) needs .* set prior='random'"):
        CausalScreening(predict, candidates=3).explain(X)
    E, F = (CausalScreening(m, candidates=3, prior="random").explain(X) for m in (model, predict))
    for i in range(len(X)):
        assert np.array_equal(E.order[i], F.order[i])


def test_stops_at_a_size():
    model, X = example("graph")
    E, F = CausalScreening(model).explain(X), CausalScreening(model, max_size=3).explain(X)
    for i in range(len(X)):
        assert F.order[i].tolist() == E.order[i][:6].tolist()
        assert np.array_equal(F[i], np.where(np.isin(np.arange(len(E[i])), F.order[i]), E[i], 0))
        assert np.array_equal(F.trajectory[i], E.trajectory[i][:4])
        np.testing.assert_allclose(F.base[i] + F.effects[i].sum(), F.trajectory[i][-1], rtol=1e-12)


def test_stops_at_a_probability():
    model, X = example("graph")
    E = CausalScreening(model).explain(X)
    level = float(np.exp([trajectory[2] for trajectory in E.trajectory]).mean())
    F = CausalScreening(model, level=level).explain(X)
    lengths = set()
    for i in range(len(X)):
        enough = np.flatnonzero(np.exp(E.trajectory[i]) >= level)
        length = int(enough[0]) if len(enough) else len(E.trajectory[i]) - 1
        lengths.add(length)
        assert np.array_equal(F.trajectory[i], E.trajectory[i][: length + 1])
        assert np.array_equal(F[i] > 0, np.isin(np.arange(len(E[i])), E.order[i][: 2 * length]))
    assert len(lengths) > 1
    assert all(not mask.any() for mask in CausalScreening(model, level=0.0).explain(X))


def test_the_budget_is_told_before_the_work_starts():
    model, X = example("graph")
    for explainer in (CausalScreening(model, max_evals=40), CausalScreening(model, max_evals=40, on_error="nan")):
        if explainer.on_error == "raise":
            with pytest.raises(ValueError, match=r"max_evals=40 evaluations\. Got 46 for the 9 edges of instance 3"):
                explainer.explain(X)
            continue
        E = explainer.explain(X)
        assert E.ok.tolist() == [True, True, True, False, False]
        assert "Got 56 for the 10 edges of instance 4; set candidates= or max_size=" in E.errors[4]
    runs = []

    def counted(graphs):
        runs.append(len(graphs))
        return predict(graphs)

    CausalScreening(counted, max_evals=1_000, max_size=1).explain(X)
    known = len(runs)
    with pytest.raises(ValueError, match="Got 56"):
        CausalScreening(counted, max_evals=50).explain(X)
    assert len(runs) - known < known
    assert CausalScreening(model, max_evals=46).explain(X[:4]).n_evals == [22, 29, 37, 46]


@pytest.mark.parametrize("num_units", range(6))
@pytest.mark.parametrize("candidates", [None, 1, 2, 3, 9])
@pytest.mark.parametrize("max_size", [None, 1, 2, 3, 9])
def test_number_of_evaluations(num_units, candidates, max_size):
    steps = range(num_units if max_size is None else min(num_units, max_size))
    expected = 1 + sum(min(num_units - t, candidates or num_units) for t in steps)
    assert num_evaluations(np.array([num_units]), candidates, max_size).tolist() == [expected]


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(4, 2)

    def forward(self, x, edge_index, batch):
        return global_add_pool(self.conv(x, edge_index), batch) * 0 + torch.tensor([0.3, 0.1])


def test_edges_without_effect():
    _, X = example("graph")
    E = CausalScreening(Constant()).explain(X)
    for i, instance in enumerate(X):
        assert not E.effects[i].any()
        units = units_of(instance, np.ones(instance.graph.num_edges, dtype=bool))
        assert E.order[i].tolist() == [edge for unit in units for edge in unit]


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = GCNConv(4, 8), nn.Linear(8, 1)

    def forward(self, x, edge_index, batch):
        return self.head(global_add_pool(self.conv(x, edge_index).relu(), batch)) * 10


def test_a_regression_comes_closer_to_its_output():
    model, (_, X) = Regression(), example("graph")
    E = CausalScreening(model, output="regression").explain(X)
    for i, instance in enumerate(X):
        batch = torch.zeros(instance.graph.num_nodes, dtype=torch.long)

        def distance(kept, data=instance.graph, batch=batch):
            with torch.no_grad():
                outputs = [model(data.x, edges, batch) for edges in (data.edge_index[:, kept], data.edge_index)]
            return float((outputs[0] - outputs[1]).abs())

        np.testing.assert_allclose(E.base[i], -distance([]), rtol=1e-5)
        np.testing.assert_allclose(E.trajectory[i][1], -distance(E.order[i][:2]), rtol=1e-4)
        pairs = np.arange(len(E[i])).reshape(2, -1).T
        assert distance(E.order[i][:2]) <= min(distance(pair) for pair in pairs) + 1e-5
        assert abs(E.base[i] + E.effects[i].sum()) < 1e-5
    with pytest.raises(ValueError, match="'level' parameter of CausalScreening must be None in a regression"):
        CausalScreening(model, output="regression", level=0.5).explain(X)


def test_a_graph_without_edges():
    model, X = example("graph")
    lone = Data(x=torch.ones(3, 4), edge_index=torch.zeros((2, 0), dtype=torch.long))
    for candidates in (None, 2):
        E = CausalScreening(model, candidates=candidates).explain([lone, X[0].graph])
        assert len(E.order[0]) == len(E.effects[0]) == 0
        assert len(E.trajectory[0]) == 1
        assert E.n_evals[0] == 1
