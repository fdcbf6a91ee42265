"""Instances with at most so many edges: each thinned one is explained as the graph that is left of it."""

import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data
from torch_geometric.nn import global_add_pool
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from skgnnx import (
    Explanations,
    GNNExplainer,
    InputXGradient,
    Instances,
    RandomExplainer,
    SensitivityAnalysis,
    explain_dataset,
)
from skgnnx.blackbox.batching import Batcher, Cut
from skgnnx.graphs.neighbour_sampling import thinned
from skgnnx.metrics import characterization, fidelity_minus, fidelity_plus, sparsity
from skgnnx.testing.networks import MixingConv

LIMIT = 12
SAMPLER = "skgnnx.blackbox.neighbour_sampler.sample_neighbours"


class Network(nn.Module):
    """Two layers and what the level needs after them."""

    def __init__(self, make, level="node", columns=3, seed=0):
        super().__init__()
        self.level = level
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.second, self.head = make(4, 8), make(8, 8), nn.Linear(8, columns)

    def forward(self, x, edge_index, batch=None, edge_label_index=None):
        x = self.second(torch.tanh(self.first(x, edge_index)), edge_index)
        if self.level == "graph":
            x = global_add_pool(x, batch)
        if self.level == "edge":
            x = x[edge_label_index[0]] * x[edge_label_index[1]]
        return self.head(x)


class BothWays(nn.Module):
    """Messages along the edges and against them."""

    def __init__(self, inside, outside):
        super().__init__()
        self.along = layers.SAGEConv(inside, outside)
        self.against = layers.SAGEConv(inside, outside, flow="target_to_source")

    def forward(self, x, edge_index):
        return self.along(x, edge_index) + self.against(x, edge_index)


CONVS = {
    "normalised": layers.GCNConv,
    "mean": layers.SAGEConv,
    "attention": layers.GATConv,
    "ring": layers.ARMAConv,
    "both ways": BothWays,
}


def hub_graph(leaves=25, seed=0):
    """Undirected: some nodes around a hub, a tail away from it, a loop, and an edge that is there twice."""
    random = torch.Generator().manual_seed(seed)
    spokes = torch.stack([torch.arange(1, leaves + 1), torch.zeros(leaves, dtype=torch.long)])
    tail = torch.stack([torch.arange(leaves, leaves + 8), torch.arange(leaves + 1, leaves + 9)])
    chords = torch.randint(1, leaves + 1, (2, leaves), generator=random)
    pairs = torch.cat([spokes, tail, chords, spokes[:, :2]], dim=1)
    loop = torch.tensor([[3], [3]])
    edge_index = torch.cat([pairs, loop, pairs.flip(0)], dim=1)
    return Data(x=torch.randn(leaves + 9, 4, generator=random), edge_index=edge_index)


GRAPH = hub_graph()
NODES = np.array([0, 33, 5, 12, 31, 0, 26])  # 33, 31 and 26 are far enough along the tail to be small
SMALL = np.array([1, 4])


def quietly(explainer, X):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Instances must have at most max_edges")
        warnings.filterwarnings("ignore", "Self loops cannot be explained")
        warnings.filterwarnings("ignore", ".* mixes (nodes of the whole graph|the instances of a batch)")
        return explainer.explain(X)


def explainers(model, **params):
    return [
        SensitivityAnalysis(model, mask="edge", **params),
        GNNExplainer(model, epochs=3, init_mean=0.0, feature_mask="node_feature", tie_directions=False, **params),
        InputXGradient(model, **params),
    ]


def require_same(E, F, tolerance=1e-6):
    assert len(E) == len(F)
    assert np.array_equal(E.targets, F.targets)
    for kind in E.masks:
        for i in range(len(E)):
            (ids, values), (other_ids, other_values) = E.entries(i, kind), F.entries(i, kind)
            assert np.array_equal(ids, other_ids)
            np.testing.assert_allclose(values, other_values, rtol=0, atol=tolerance)
    for mine, theirs in zip(E.extras["sampled"], F.extras["sampled"], strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert [mine[key] for key in ("edges", "kept")] == [theirs[key] for key in ("edges", "kept")]
            assert abs(mine["change"] - theirs["change"]) <= 1e-6


def require_laws(explainer, X):
    """The result does not depend on batch size, order or company; equal instances have equal results."""
    E = quietly(explainer, X)
    for size in (1, 2):
        require_same(E, quietly(clone(explainer).set_params(batch_size=size), X))
    order = np.random.RandomState(0).permutation(len(X))
    require_same(E[order], quietly(explainer, X[order]))
    some = [0, len(X) - 1, 0]
    require_same(E[some], quietly(explainer, X[some]))
    return E


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("number", range(3))
def test_batching_changes_nothing(conv, number):
    X = Instances.from_nodes(GRAPH, NODES)
    E = require_laws(explainers(Network(CONVS[conv]), max_edges=LIMIT)[number], X)
    sizes = [None if said is None else said["kept"] for said in E.extras["sampled"]]
    assert any(size is None for size in sizes)
    assert all(size is None or 0 < size <= LIMIT for size in sizes)
    assert sizes[0] == sizes[5]


def unseeded(X, rows, graphs, max_edges, random_state, both_ways):
    return thinned(graphs, np.random.default_rng().random(len(graphs.edge_id)), max_edges, both_ways)


def seeded_by_call(X, rows, graphs, max_edges, random_state, both_ways):
    return thinned(graphs, np.random.default_rng(0).random(len(graphs.edge_id)), max_edges, both_ways)


@pytest.mark.parametrize("broken", [unseeded, seeded_by_call])
def test_laws_catch_a_draw_that_is_not_the_instances_own(monkeypatch, broken):
    monkeypatch.setattr(SAMPLER, broken)
    with pytest.raises(AssertionError):
        require_laws(SensitivityAnalysis(Network(layers.SAGEConv), mask="edge", max_edges=LIMIT), NODE_INSTANCES)


NODE_INSTANCES = Instances.from_nodes(GRAPH, NODES)


@pytest.mark.slow
def test_processes_change_nothing():
    explainer = GNNExplainer(Network(layers.GCNConv), epochs=3, tie_directions=False, max_edges=LIMIT)
    E = quietly(explainer, NODE_INSTANCES)
    with pytest.warns(UserWarning, match="max_edges") as said:
        F = clone(explainer).set_params(n_jobs=2).explain(NODE_INSTANCES)
    require_same(E, F)
    assert len([w for w in said if "max_edges" in str(w.message)]) == 1


def by_hand(E, i, model):
    """What is left of an instance as a graph of its own, and the numbers of its nodes and edges in the user's graph."""
    X = E.instances
    edges = np.sort(E.entries(i, "edge")[0])
    data = X[i].graph
    elements = X.element[i]
    nodes = np.unique(np.concatenate([data.edge_index[:, edges].numpy().ravel(), elements]))
    if X.level == "graph" or E.extras["sampled"][i]["edges"] == data.num_edges:
        nodes = np.arange(data.num_nodes)
    part = Data(x=data.x[nodes], edge_index=torch.from_numpy(np.searchsorted(nodes, data.edge_index[:, edges].numpy())))
    target = [int(E.targets[i])]
    if X.level == "graph":
        return Instances.from_graphs([part], target), nodes, edges
    own = np.searchsorted(nodes, elements)
    if X.level == "node":
        return Instances.from_nodes(part, own, target), nodes, edges
    return Instances.from_edges(part, own[:, None], target, exclude_link=X.exclude_link), nodes, edges


def require_own_graphs(explainer, X):
    """Thinned instances have the masks of graphs that are made by hand of the edges that are left."""
    E = quietly(explainer, X)
    thin = [i for i, said in enumerate(E.extras["sampled"]) if said is not None]
    assert thin
    for i in thin:
        alone, nodes, edges = by_hand(E, i, explainer.model)
        F = quietly(clone(explainer).set_params(max_edges=None), alone)
        for kind in F.masks:
            ids, values = F.entries(0, kind)
            own_ids, own_values = E.entries(i, kind)
            own = {"edge": edges}.get(kind, nodes)
            if kind != "feature":
                assert np.array_equal(own[ids], own_ids)
            np.testing.assert_allclose(own_values, values, rtol=0, atol=1e-6)
        yield i, E, alone


@pytest.mark.parametrize("conv", [conv for conv in CONVS if conv != "normalised"])
@torch.no_grad()
def test_thinned_instances_are_graphs_of_their_own(conv):
    model = Network(CONVS[conv])
    for explainer in explainers(model, max_edges=LIMIT)[:2]:
        for i, E, alone in require_own_graphs(explainer, NODE_INSTANCES):
            graph = alone[0].graph
            whole = model(GRAPH.x, GRAPH.edge_index)[NODES[i]].softmax(0)
            left = model(graph.x, graph.edge_index)[alone.element[0, 0]].softmax(0)
            assert E.targets[i] == int(whole.argmax())
            assert E.extras["sampled"][i]["change"] == pytest.approx(float((left - whole)[E.targets[i]]), abs=1e-6)


def scores_with_gates(model, gates):
    """Scores of all nodes where the messages of the user's edges are scaled, by the degrees of the whole graph."""
    edge_index, weight = gcn_norm(GRAPH.edge_index, None, GRAPH.num_nodes)
    source, target = edge_index
    real = GRAPH.edge_index[0] != GRAPH.edge_index[1]
    weight = weight * torch.cat([gates[real], torch.ones(GRAPH.num_nodes)])  # own loops come last
    x = GRAPH.x
    for layer in (model.first, model.second):
        x = torch.tanh(x) if layer is model.second else x
        messages = weight[:, None] * layer.lin(x)[source]
        x = torch.zeros(len(x), messages.shape[1]).index_add(0, target, messages) + layer.bias
    return model.head(x)


def test_layers_that_keep_normalised_edges_have_true_degrees():
    model = Network(layers.GCNConv)
    E = quietly(InputXGradient(model, mask="edge", max_edges=LIMIT), NODE_INSTANCES)
    probabilities = model(GRAPH.x, GRAPH.edge_index).softmax(1).detach()
    for i, said in enumerate(E.sampled):
        ids, values = E.entries(i)
        gates = torch.zeros(GRAPH.num_edges)
        gates[ids if said else slice(None)] = 1
        score = scores_with_gates(model, gates.requires_grad_())[NODES[i]]
        (gradient,) = torch.autograd.grad(score[E.targets[i]], gates)
        np.testing.assert_allclose(values, gradient[ids], rtol=0, atol=1e-6)
        if said is not None:
            change = (score.detach().softmax(0) - probabilities[NODES[i]])[E.targets[i]]
            assert said["change"] == pytest.approx(float(change), abs=1e-6)


@pytest.mark.parametrize("exclude_link", [False, True])
def test_links(exclude_link):
    X = Instances.from_edges(GRAPH, [[0, 33, 5, 0], [1, 30, 12, 1]], exclude_link=exclude_link)
    explainer = GNNExplainer(Network(layers.SAGEConv, "edge"), epochs=3, tie_directions=False, max_edges=LIMIT)
    assert len(list(require_own_graphs(explainer, X))) == 3
    require_laws(explainer, X)
    if exclude_link:
        E = quietly(explainer, X)
        for i, pair in enumerate(X.element):
            ends = GRAPH.edge_index[:, E.entries(i)[0]].sort(dim=0).values.T.tolist()
            assert sorted(pair.tolist()) not in ends


@pytest.mark.parametrize("conv", ["normalised", "mean", "attention"])
def test_graphs(conv):
    graphs = [hub_graph(leaves, seed) for seed, leaves in enumerate((25, 2, 9, 25, 1))]
    X = Instances.from_graphs(graphs)
    explainer = GNNExplainer(Network(CONVS[conv], "graph"), epochs=3, tie_directions=False, max_edges=50)
    kept = [(i, E.extras["sampled"][i]) for i, E, _ in require_own_graphs(explainer, X)]
    assert [i for i, _ in kept] == [0, 2, 3]
    assert all(said["edges"] == graphs[i].num_edges and said["kept"] <= 50 for i, said in kept)
    require_laws(explainer, X)


def test_models_that_see_the_whole_graph():
    X = Instances.from_nodes(GRAPH, NODES[:3])
    explainer = SensitivityAnalysis(Network(MixingConv), mask="edge", max_edges=40)
    found = list(require_own_graphs(explainer, X))
    assert len(found) == 3
    assert all(E.extras["sampled"][i]["edges"] == GRAPH.num_edges for i, E, _ in found)
    assert quietly(clone(explainer).set_params(max_edges=GRAPH.num_edges), X).sampled == [None] * 3


def test_what_turns_out_to_need_the_whole_graph_is_thinned_as_such(monkeypatch):
    monkeypatch.setattr(Batcher, "_is_proven", lambda self, batch, cut: cut == Cut.WHOLE)
    E = quietly(SensitivityAnalysis(Network(layers.SAGEConv), mask="edge", max_edges=60), NODE_INSTANCES)
    small = [said["edges"] == GRAPH.num_edges for said in E.sampled]
    assert any(small)
    assert all(said["kept"] <= 60 for said in E.sampled)


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("number", range(3))
def test_what_is_small_stays_as_it_is(conv, number):
    """Alone to the bit whatever else is in the call; where nothing is thinned, in any batch."""
    model = Network(CONVS[conv])
    X = Instances.from_nodes(GRAPH, NODES)
    E, whole = (quietly(explainers(model, batch_size=1, max_edges=m)[number], X) for m in (LIMIT, None))
    small = [i for i, said in enumerate(E.extras["sampled"]) if said is None]
    assert set(SMALL) <= set(small) < set(range(len(X)))
    F, unlimited = (quietly(explainers(model, max_edges=m)[number], X) for m in (10**6, None))
    assert F.extras["sampled"] == [None] * len(X)
    together = quietly(explainers(model, max_edges=LIMIT)[number], X)
    without_others = quietly(explainers(model)[number], X[small])
    for kind in whole.masks:
        for place, i in enumerate(small):
            assert np.array_equal(E.entries(i, kind)[1], whole.entries(i, kind)[1])
            assert np.array_equal(together.entries(i, kind)[1], without_others.entries(place, kind)[1])
        assert np.array_equal(F.masks[kind].values, unlimited.masks[kind].values)
        assert np.array_equal(F.masks[kind].ids, unlimited.masks[kind].ids) or kind == "feature"


def test_large_instances_never_run_side_by_side():
    sizes = []

    class Counting(Network):
        def forward(self, x, edge_index):
            sizes.append(edge_index.shape[1])
            return super().forward(x, edge_index)

    X = Instances.from_nodes(GRAPH, np.arange(1, 11))
    E = quietly(SensitivityAnalysis(Counting(layers.SAGEConv), mask="edge", max_edges=LIMIT), X)
    assert 8 * min(said["edges"] for said in E.sampled) > GRAPH.num_edges
    assert max(sizes) <= max(GRAPH.num_edges, 10 * LIMIT)


def test_nothing_is_said_unless_something_is_left_out():
    explainer = SensitivityAnalysis(Network(layers.SAGEConv), mask="edge")
    assert "sampled" not in explainer.explain(NODE_INSTANCES).extras  # a warning would be an error
    E = explainer.set_params(max_edges=10**6).explain(NODE_INSTANCES)
    assert E.sampled == [None] * len(NODES)


def test_the_warning_says_how_much_is_left_out():
    explainer = SensitivityAnalysis(Network(layers.SAGEConv), mask="edge", max_edges=LIMIT)
    X = NODE_INSTANCES[[1, 0, 2]]
    with pytest.warns(UserWarning, match="max_edges") as said:
        E = explainer.explain(X)
    (message,) = [str(w.message) for w in said]
    found = re.match(
        r"Instances must have at most max_edges=12 .* Got more in 2 of 3, whose neighbours were sampled; the first is "
        r"instance 1 \((\d+) of (\d+) edges kept\), and predictions change most at instance (\d) \(by ([-+\d.e]+)\)\.",
        message,
    )
    assert found is not None, message
    assert (int(found[1]), int(found[2])) == (E.sampled[1]["kept"], E.sampled[1]["edges"])
    changes = [0 if s is None else s["change"] for s in E.sampled]
    worst = int(np.argmax(np.abs(changes)))
    assert int(found[3]) == worst
    assert float(found[4]) == pytest.approx(changes[worst], rel=0.06)
    assert said[0].filename == __file__


def test_seeds_draw_other_neighbours():
    def edges(seed):
        E = quietly(RandomExplainer(Network(layers.SAGEConv), max_edges=LIMIT, random_state=seed), NODE_INSTANCES)
        return E.masks["edge"].ids.tolist()

    assert edges(0) == edges(0)
    assert len({tuple(edges(seed)) for seed in range(4)}) == 4


@pytest.mark.parametrize("output", ["regression", "binary_logit", "multilabel"])
@torch.no_grad()
def test_other_outputs(output):
    model = Network(layers.SAGEConv, columns=2 if output == "multilabel" else 1)
    X = NODE_INSTANCES.with_target(np.ones(len(NODES), dtype=int)) if output == "multilabel" else NODE_INSTANCES
    explainer = GNNExplainer(model, epochs=30, init_mean=0.0, tie_directions=False, output=output, max_edges=LIMIT)
    for i, E, alone in require_own_graphs(explainer, X):
        graph, row = alone[0].graph, alone.element[0, 0]
        values = [model(GRAPH.x, GRAPH.edge_index)[NODES[i]], model(graph.x, graph.edge_index)[row]]
        if output != "regression":
            values = [v.sigmoid() for v in values]
            values = values if output == "multilabel" else [torch.cat([1 - v, v]) for v in values]
        change = float((values[1] - values[0])[E.targets[i]])
        assert E.sampled[i]["change"] == pytest.approx(change, abs=1e-6)


def test_what_is_said_travels(tmp_path):
    explainer = SensitivityAnalysis(Network(layers.SAGEConv), mask="edge", max_edges=LIMIT)
    E = quietly(explainer, NODE_INSTANCES)
    E.save(tmp_path / "file")
    assert Explanations.load(tmp_path / "file").sampled == E.sampled
    assert E[[3, 1]].sampled == [E.sampled[3], E.sampled[1]]
    with pytest.warns(UserWarning, match="Got more in 4 of 7, .* the first is instance 0 .*") as said:
        F = explain_dataset(explainer, NODE_INSTANCES, chunk_size=2, store=tmp_path / "store")
    assert len(said) == 1
    require_same(E, F)
    with pytest.raises(ValueError, match="Got .* with other parameters"):
        explain_dataset(clone(explainer).set_params(max_edges=LIMIT + 1), NODE_INSTANCES, store=tmp_path / "store")


@pytest.mark.parametrize("conv", ["normalised", "both ways"])
def test_everything_made_of_the_result_is_about_what_is_left(conv):
    E = quietly(SensitivityAnalysis(Network(CONVS[conv]), mask="edge", max_edges=LIMIT), NODE_INSTANCES)
    listed = [set(E.entries(i)[0].tolist()) for i in range(len(E))]
    for made in (E.top_k(3), E.at_sparsity(0.5), E.undirected(), E.to_kind("node").to_kind("edge", how="mean")):
        assert made.sampled == E.sampled
    for i, ids in enumerate(listed):
        assert not E[i][sorted(set(range(GRAPH.num_edges)) - ids)].any()
        assert E.explained[i].sum() <= len(ids)
        assert {e for e in ids if E.top_k(3)[i][e]} == set(np.flatnonzero(E.top_k(3)[i]))
    for i, part in enumerate(E.subgraphs(0.5)):
        assert set(part.orig_edge_id.tolist()) <= listed[i]
    partner = E.instances.store.partner(0)
    for i, ids in enumerate(listed):
        assert set(E[i : i + 1].to_frame().edge) <= ids | set(partner[sorted(ids)])
    assert 0 < sparsity(E.at_sparsity(0.5)) < 1
    for metric in (fidelity_plus, fidelity_minus, characterization):
        assert np.isfinite(metric(E, reduce=None)).all()


def test_what_the_explanation_takes_out_of_the_whole_graph():
    """Fid+ is about the user's graph: what sampling left out stays in it."""
    model = Network(layers.SAGEConv)
    E = quietly(SensitivityAnalysis(model, mask="edge", max_edges=LIMIT), NODE_INSTANCES).top_k(2)
    lost = []
    for i, node in enumerate(NODES):
        left = GRAPH.edge_index[:, torch.from_numpy(E[i] == 0)]
        with torch.no_grad():
            outputs = [model(GRAPH.x, edges)[node].softmax(0)[E.targets[i]] for edges in (GRAPH.edge_index, left)]
        lost.append(float(outputs[0] - outputs[1]))
    np.testing.assert_allclose(fidelity_plus(E, reduce=None), lost, atol=1e-6)


def test_failures_lose_no_others():
    X = NODE_INSTANCES.with_target(np.zeros(len(NODES), dtype=int))
    explainer = GNNExplainer(Network(layers.SAGEConv), epochs=2, max_edges=LIMIT, on_error="nan")
    broken = clone(explainer)
    original = type(explainer)._explain_batch

    def failing(gnn, batch, seed):
        if 2 in batch.positions:
            raise RuntimeError("out of luck")
        return original(broken, gnn, batch, seed)

    broken._explain_batch = failing
    E, F = quietly(explainer, X), quietly(broken, X)
    assert F.ok.tolist() == [i != 2 for i in range(len(X))]
    assert "out of luck" in F.errors[2]
    require_same(E[F.ok], F[F.ok])


def test_a_grid_may_search_over_it():
    search = GridSearchCV(
        SensitivityAnalysis(Network(layers.SAGEConv), mask="edge"), {"max_edges": [None, 4, LIMIT]}, cv=2
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Instances must have at most max_edges")
        search.fit(NODE_INSTANCES)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(set(search.cv_results_["mean_test_score"])) > 1
