"""Fidelity against plain PyG calls on one graph at a time, and what must hold at its ends."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import (
    CONVS,
    Network,
    predict,
    random_explanations,
    random_instances,
    slow_change,
    slow_selection,
)
from torch_geometric.data import Data
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

from skgnnx import Instances, RandomExplainer
from skgnnx.graphs import Entries, Explanations
from skgnnx.metrics import characterization, fidelity_delta, fidelity_minus, fidelity_plus

SPARSITIES = st.sampled_from([0.0, 0.25, 0.5, 0.55, 0.7, 0.9, 1.0])
SEEDS = st.integers(0, 10**6)
LEVELS = st.sampled_from(["graph", "node", "edge"])


def slow_fidelities(E, sparsity, removal):
    plus, minus = [], []
    for i in range(len(E)):
        chosen, units = slow_selection(E, i, sparsity)
        plus.append(slow_change(E, i, chosen, removal))
        minus.append(slow_change(E, i, units - chosen, removal))
    return np.array(plus), np.array(minus)


def assert_equals_slow(E, sparsity, removal):
    plus, minus = slow_fidelities(E, sparsity, removal)
    options = {"sparsity": sparsity, "removal": removal}
    np.testing.assert_allclose(fidelity_plus(E, reduce=None, **options), plus, atol=1e-6)
    np.testing.assert_allclose(fidelity_minus(E, reduce=None, **options), minus, atol=1e-6)
    assert fidelity_plus(E, **options) == pytest.approx(plus.mean(), abs=1e-6)
    assert fidelity_delta(E, **options) == pytest.approx((plus - minus).mean(), abs=1e-6)


@given(seed=SEEDS, level=LEVELS, conv=st.sampled_from(list(CONVS)), sparsity=SPARSITIES)
def test_dropped_edges_equal_deleting_them_by_hand(seed, level, conv, sparsity):
    assert_equals_slow(random_explanations(seed, level, "edge", conv), sparsity, None)


@given(seed=SEEDS, level=LEVELS, sparsity=SPARSITIES)
def test_weighed_edges_equal_an_edge_weight_of_zero(seed, level, sparsity):
    assert_equals_slow(random_explanations(seed, level, "edge", "graph"), sparsity, "weight")


@given(seed=SEEDS, level=LEVELS, sparsity=SPARSITIES)
def test_weighed_edges_of_a_normalised_layer_equal_masks_by_pyg(seed, level, sparsity):
    E = random_explanations(seed, level, "edge", "gcn")
    plus = fidelity_plus(E, sparsity=sparsity, removal="weight", reduce=None)
    for i in range(len(E)):
        data = E.instances.store.graph(E.instances.graph_index[i])
        if (data.edge_index[0] == data.edge_index[1]).sum() == data.num_nodes:
            continue  # PyG then takes its masks for aligned although the layer has moved the loops to the end
        chosen, _ = slow_selection(E, i, sparsity)
        weight = torch.ones(data.num_edges)
        weight[[int(E.entries(i)[0][r]) for (r,) in chosen]] = 0
        full = predict(E.model, data, E.instances, i, int(E.targets[i]))
        set_masks(E.model, weight, data.edge_index, apply_sigmoid=False)
        try:
            part = predict(E.model, data, E.instances, i, int(E.targets[i]))
        finally:
            clear_masks(E.model)
        assert plus[i] == pytest.approx(full - part, abs=1e-6)


@given(seed=SEEDS, level=LEVELS, kind=st.sampled_from(["node", "feature", "node_feature"]), sparsity=SPARSITIES)
def test_zeroed_features_equal_setting_them_by_hand(seed, level, kind, sparsity):
    assert_equals_slow(random_explanations(seed, level, kind), sparsity, None)


@given(seed=SEEDS, level=LEVELS, conv=st.sampled_from(["gcn", "gin"]), sparsity=SPARSITIES)
def test_induced_nodes_equal_a_subgraph_by_hand(seed, level, conv, sparsity):
    assert_equals_slow(random_explanations(seed, level, "node", conv), sparsity, "induced")


def test_dropping_and_weighing_differ_where_degrees_count():
    E = random_explanations(3, "graph", "edge", "gcn", n=20, undirected=True)
    assert abs(fidelity_plus(E) - fidelity_plus(E, removal="weight")) > 1e-3
    assert fidelity_plus(E).removal == "drop"


@given(seed=SEEDS, level=LEVELS, kind=st.sampled_from(["edge", "node", "feature"]))
def test_ends_are_exact(seed, level, kind):
    E = random_explanations(seed, level, kind)
    assert (fidelity_plus(E, sparsity=1.0, reduce=None) == 0).all()
    assert (fidelity_minus(E, sparsity=0.0, reduce=None) == 0).all()


@given(seed=SEEDS, level=LEVELS, sparsity=st.sampled_from([0.3, 0.7]))
def test_other_instances_and_order_do_not_matter(seed, level, sparsity):
    E = random_explanations(seed, level)
    order = np.random.default_rng(seed).permutation(len(E))
    together = fidelity_plus(E, reduce=None, sparsity=sparsity)
    np.testing.assert_allclose(fidelity_plus(E[order], reduce=None, sparsity=sparsity), together[order], atol=1e-6)
    np.testing.assert_allclose(fidelity_plus(E[[0]], reduce=None, sparsity=sparsity), together[:1], atol=1e-6)


@given(seed=SEEDS, sparsity=SPARSITIES)
def test_hard_masks_are_taken_as_they_are(seed, sparsity):
    E = random_explanations(seed)
    cut = E.at_sparsity(sparsity)
    assert fidelity_plus(cut) == fidelity_plus(E, sparsity=sparsity)
    assert fidelity_plus(cut, sparsity=0.123) == fidelity_plus(cut)
    np.testing.assert_array_equal(fidelity_plus(E, reduce=None), fidelity_plus(E, reduce=None, sparsity=E.sparsity))


@given(seed=SEEDS, level=LEVELS, kind=st.sampled_from(["edge", "node"]))
def test_the_order_of_the_entries_does_not_matter(seed, level, kind):
    E = random_explanations(seed, level, kind)
    entries, rng = E.stored(), np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.arange(a, b)) for a, b in pairwise(entries.ptr)])
    mixed = Entries(entries.ptr, entries.ids[order], entries.values[order])
    mixed = E._with(masks={kind: mixed})
    for metric in (fidelity_plus, fidelity_minus):
        np.testing.assert_allclose(metric(mixed, reduce=None), metric(E, reduce=None), atol=1e-6)


def test_what_has_no_entry_stays():
    """Here the second edge of the first graph has the number that the first edge of the second would have next."""
    graph = Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))
    X, model = Instances.from_graphs([graph, graph], target=[0, 0]), Network("graph", "graph")
    entries = Entries([0, 1, 2], [0, 0], [1.0, 1.0])
    E = Explanations(X, {"edge": entries}, "edge", targets=[0, 0], model=model, box={"output": "logits"})
    expected = slow_change(E, 0, {(0,)})
    np.testing.assert_allclose(fidelity_plus(E, reduce=None, sparsity=0.0), [expected] * 2, atol=1e-6)
    assert abs(expected) > 1e-3


def with_scores(E, scores):
    entries = E.stored()
    return E._with(masks={E.kind: entries.with_values(np.broadcast_to(scores, entries.values.shape))})


def weighed_probability(E, i, weight):
    data = E.instances.store.graph(i)
    return predict(E.model, data, E.instances, i, int(E.targets[i]), edge_weight=weight)


def test_soft_selection_weighs_messages():
    E = random_explanations(5, "graph", "edge", "graph", n=6)
    plus, minus = fidelity_plus(E, selection="soft", reduce=None), fidelity_minus(E, selection="soft", reduce=None)
    for i in range(len(E)):
        source, target = E.instances.store.edges(i)
        m = torch.from_numpy(E[i].copy())
        kept, left_out = (torch.where(torch.from_numpy(source == target), 1.0, part) for part in (m, 1 - m))
        full = weighed_probability(E, i, torch.ones(len(m)))
        assert minus[i] == pytest.approx(full - weighed_probability(E, i, kept), abs=1e-6)
        assert plus[i] == pytest.approx(full - weighed_probability(E, i, left_out), abs=1e-6)
    assert fidelity_plus(E, selection="soft").removal == "weight"


@pytest.mark.parametrize("kind", ["edge", "node", "feature"])
def test_a_constant_half_cannot_tell_kept_from_left_out(kind):
    E = with_scores(random_explanations(5, kind=kind, n=6), 0.5)
    soft = {"selection": "soft", "reduce": None}
    np.testing.assert_allclose(fidelity_plus(E, **soft), fidelity_minus(E, **soft), atol=1e-6)
    assert np.abs(fidelity_plus(E, **soft)).max() > 1e-4


def test_soft_selection_refuses_other_scores_and_removals():
    E = random_explanations(5)  # the first two have no unit
    with pytest.raises(ValueError, match=r"needs scores in \[0, 1\]. Got -1 at instance 2; use selection='cut'"):
        fidelity_plus(with_scores(E, -1), selection="soft")
    with pytest.raises(ValueError, match="needs removal='weight'"):
        fidelity_plus(E, selection="soft", removal="drop")


def awkward():
    """A node without edges, a graph without edges, one with a loop only, and an ordinary one."""
    none = torch.empty(2, 0, dtype=torch.long)
    path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    edges = [none, torch.tensor([[1], [1]]), path]
    return [Data(x=x, edge_index=edge_index) for edge_index in edges]


def test_what_has_no_unit_counts_as_zero_and_is_told():
    E = RandomExplainer(Network("graph")).explain(awkward())
    for metric in (fidelity_plus, fidelity_minus):
        assert metric(E, reduce=None, sparsity=0.5)[:2].tolist() == [0, 0]
        assert metric(E).n_degenerate == 2
        assert metric(E).n == 3
    assert characterization(E, reduce=None)[:2].tolist() == [0, 0]


def test_an_isolated_node_is_degenerate():
    data = Data(x=torch.ones(3, 3), edge_index=torch.tensor([[0, 1], [1, 0]]))
    E = RandomExplainer(Network("node")).explain(Instances.from_nodes(data, [2, 0]))
    score = fidelity_plus(E, sparsity=0.0)
    assert score.n_degenerate == 1
    assert fidelity_plus(E, reduce=None, sparsity=0.0)[0] == 0


def test_loops_stay_in_both_parts():
    graph = Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0, 0, 1], [0, 1, 0]]))
    X = Instances.from_graphs([graph], target=[1])
    scores = Entries([0, 3], [0, 1, 2], [1.0, 1.0, 1.0])  # a loop that somebody marked
    model = Network("graph", "graph")
    E = Explanations(X, {"edge": scores}, "edge", targets=[1], hard=True, model=model, box={"output": "logits"})
    assert fidelity_minus(E) == 0
    assert fidelity_plus(E) == pytest.approx(slow_change(E, 0, {(1,), (2,)}), abs=1e-6)
    assert fidelity_plus(E) != pytest.approx(slow_change(E, 0, {(0,), (1,), (2,)}), abs=1e-4)


def failed(E, rows):
    errors = [f"reason {i}" if i in rows else None for i in range(len(E))]
    return E._with(errors=errors)


def test_failed_instances_are_skipped_and_counted():
    E = random_explanations(7, n=5)
    partly = failed(E, {1, 3})
    values = fidelity_plus(partly, reduce=None)
    assert np.isnan(values).tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(values[[0, 2, 4]], fidelity_plus(E, reduce=None)[[0, 2, 4]], atol=1e-6)
    score = fidelity_plus(partly)
    assert (score.n, score.n_skipped) == (3, 2)
    assert score == pytest.approx(np.nanmean(values))


@pytest.mark.parametrize("metric", [fidelity_plus, fidelity_minus, fidelity_delta, characterization])
@pytest.mark.parametrize("of", ["probability", "accuracy"])
def test_nothing_explained_is_nan_without_asking_a_model(metric, of):
    E = failed(random_explanations(7, n=3), {0, 1, 2})._with(model=None)
    assert np.isnan(metric(E, of=of))
    assert np.isnan(metric(E, of=of, reduce=None)).all()


def test_sample_weight():
    E = failed(random_explanations(7, n=5), {1})
    values, weight = fidelity_plus(E, reduce=None), np.array([1.0, 5.0, 0.0, 2.0, 0.5])
    assert fidelity_plus(E, sample_weight=weight) == pytest.approx(np.nansum(values * weight) / 3.5)
    assert np.isnan(fidelity_plus(E, sample_weight=[0, 1, 0, 0, 0]))
    for bad in ([1, 2], [1, 1, 1, 1, -1], [1, 1, 1, 1, np.nan]):
        with pytest.raises(ValueError, match="'sample_weight' must"):
            fidelity_plus(E, sample_weight=bad)


@given(seed=SEEDS, level=LEVELS)
def test_accuracy_counts_changed_predictions(seed, level):
    E = random_explanations(seed, level)
    plus = fidelity_plus(E, of="accuracy", reduce=None)
    assert set(plus) <= {0, 1}  # the explained class is the predicted one
    for i in range(len(E)):
        chosen, _ = slow_selection(E, i, E.sparsity)
        if plus[i]:
            assert slow_change(E, i, chosen) > 0
    other = E._with(targets=(E.targets + 1) % 3)
    assert set(fidelity_plus(other, of="accuracy", reduce=None)) <= {-1, 0}


def test_absolute_drops_the_sign():
    E = random_explanations(11, n=12)
    signed = fidelity_minus(E, reduce=None)
    assert signed.min() < 0 < signed.max()
    np.testing.assert_array_equal(fidelity_minus(E, reduce=None, absolute=True), np.abs(signed))


class TestOutputs:
    """Other heads than the softmax of logits."""

    def explained(self, output, columns, target=None, n=6, **options):
        X = random_instances(2, "graph", n).with_target(target)
        return RandomExplainer(Network(columns=columns), output=output, random_state=1, **options).explain(X)

    def parts(self, E):
        for i in range(len(E)):
            chosen, _ = slow_selection(E, i, E.sparsity)
            data = E.instances.store.graph(i)
            kept = [e for e in range(data.num_edges) if (e,) not in chosen]
            batch = torch.zeros(data.num_nodes, dtype=torch.long)
            with torch.no_grad():
                yield (
                    E.model(data.x, data.edge_index, batch)[0].double(),
                    E.model(data.x, data.edge_index[:, kept], batch)[0].double(),
                )

    def test_regression_is_the_absolute_change_of_the_output(self):
        E = self.explained("regression", 1)
        expected = [float(full - part) for full, part in self.parts(E)]
        np.testing.assert_allclose(fidelity_plus(E, reduce=None), np.abs(expected), atol=1e-5)
        np.testing.assert_allclose(fidelity_plus(E, reduce=None, absolute=False), expected, atol=1e-5)
        assert 0 <= characterization(E) <= 1
        with pytest.raises(ValueError, match="of='accuracy' must be used with a classifier"):
            fidelity_plus(E, of="accuracy")

    def test_the_unit_of_a_regression_does_not_change_its_characterization(self):
        E = self.explained("regression", 1)._with(model_digest=None)
        with torch.no_grad():
            E.model.last.bias.sub_(1.9)  # brings one output close to 0
        full = np.array([float(full) for full, _ in self.parts(E)])
        plus, minus = (
            np.minimum(metric(E, reduce=None) / np.abs(full), 1).mean() for metric in (fidelity_plus, fidelity_minus)
        )
        before = characterization(E)
        assert before == pytest.approx(2 / (1 / plus + 1 / (1 - minus)), abs=1e-5)
        assert (fidelity_plus(E, reduce=None) > np.abs(full)).any()  # more than all of the output is as much as all
        with torch.no_grad():
            E.model.last.weight.mul_(1000)
            E.model.last.bias.mul_(1000)
        assert characterization(E) == pytest.approx(before, rel=1e-4)

    def test_a_binary_logit_has_two_classes(self):
        E = self.explained("binary_logit", 1)
        expected = [
            float(full.sigmoid() - part.sigmoid()) * (1 if target else -1)
            for (full, part), target in zip(self.parts(E), E.targets)
        ]
        np.testing.assert_allclose(fidelity_plus(E, reduce=None), expected, atol=1e-6)

    @pytest.mark.parametrize("threshold", [0.5, 0.8])
    def test_a_label_is_predicted_from_the_threshold_on(self, threshold):
        E = self.explained("multilabel", 3, target=np.arange(200) % 3, n=200, threshold=threshold)
        expected = [
            float(full[t].sigmoid() >= threshold) - float(part[t].sigmoid() >= threshold)
            for (full, part), t in zip(self.parts(E), E.targets)
        ]
        assert np.any(expected)
        np.testing.assert_array_equal(fidelity_plus(E, reduce=None, of="accuracy"), expected)


def test_the_characterization_of_what_peers_crash_on():
    """PyG's raises ZeroDivisionError where Fid+ = 0."""
    E = random_explanations(7, n=5)
    assert characterization(E, sparsity=1.0) == 0
    for i, value in enumerate(characterization(E, reduce=None)):
        plus, minus = (
            fidelity_plus(E[[i]]).clip if False else float(fidelity_plus(E[[i]])),
            float(fidelity_minus(E[[i]])),
        )
        plus, kept = min(max(plus, 0), 1), 1 - min(max(minus, 0), 1)
        assert value == pytest.approx(2 * plus * kept / (plus + kept) if plus * kept else 0, abs=1e-5)


def test_characterization_combines_the_means():
    E = random_explanations(13, n=30)
    plus, minus = fidelity_plus(E, absolute=True), fidelity_minus(E, absolute=True)
    expected = 1 / (0.7 / plus + 0.3 / (1 - minus))
    assert characterization(E, absolute=True, weights=(7, 3)) == pytest.approx(expected)
    values = characterization(E, reduce=None)
    assert characterization(E, average="instances") == pytest.approx(values.mean())
    assert characterization(E).n == 30


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2]])
def test_integer_features_can_be_induced_but_not_zeroed(rows):
    class Embedding(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.net = torch.nn.Embedding(5, 3), Network("graph")

        def forward(self, x, edge_index, batch):
            return self.net(self.embed(x[:, 0]), edge_index, batch)

    rng = np.random.default_rng(0)
    graphs = [random_instances(s).store.graph(0) for s in range(4)]
    for graph in graphs:
        graph.x = torch.from_numpy(rng.integers(5, size=(graph.num_nodes, 1)))
    E = RandomExplainer(Embedding(), mask="node").explain(Instances.from_graphs(graphs)[rows])
    with pytest.raises(TypeError, match=r"removal='zero' needs floating-point node features. Got torch.int64; use"):
        fidelity_plus(E)
    assert np.isfinite(fidelity_plus(E, removal="induced"))
    assert np.isfinite(fidelity_minus(E, removal="induced", sparsity=1.0))


def test_every_node_taken_out_is_still_a_forward_pass():
    E = random_explanations(7, kind="node", n=5)
    assert np.isfinite(fidelity_minus(E, sparsity=1.0, removal="induced", reduce=None)).all()


class TestModels:
    def test_the_model_comes_back_as_it_was(self):
        E = random_explanations(7)
        E.model.train()
        before = {name: value.clone() for name, value in E.model.state_dict().items()}
        state = torch.random.get_rng_state()
        characterization(E)
        assert E.model.training
        assert all(torch.equal(value, before[name]) for name, value in E.model.state_dict().items())
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(parameter.requires_grad for parameter in E.model.parameters())

    def test_none_is_an_error_that_says_what_to_do(self):
        with pytest.raises(ValueError, match="must have the model.*pass model=, or use E.with_model"):
            fidelity_plus(random_explanations(7)._with(model=None))

    def test_another_one_warns(self):
        E = random_explanations(7)
        assert fidelity_plus(E._with(model=None), model=E.model) == fidelity_plus(E)
        with pytest.warns(UserWarning, match="must be the one that was explained"):
            fidelity_plus(E, model=Network(seed=99))

    def test_explanations_from_a_file(self, tmp_path):
        E = random_explanations(7)
        E.save(tmp_path / "explanations.npz")
        loaded = Explanations.load(tmp_path / "explanations.npz", model=E.model)
        assert characterization(loaded) == pytest.approx(characterization(E), abs=1e-6)

    def test_explanations_that_are_computed_when_read(self):
        explainer = RandomExplainer(Network(), output="logits")
        X = random_instances(7)
        deferred, direct = explainer.fit_transform(X), explainer.explain(X)
        assert fidelity_plus(deferred) == fidelity_plus(direct)

    def test_a_model_trained_since_warns(self):
        E = random_explanations(7)
        with torch.no_grad():
            E.model.last.bias.add_(1)
        with pytest.warns(UserWarning, match="must be the one that was explained"):
            fidelity_plus(E)

    def test_weighing_needs_messages(self):
        model = torch.nn.Linear(3, 2)

        class Pooled(torch.nn.Module):
            def forward(self, x, edge_index, batch):
                sums = torch.zeros(int(batch.max()) + 1, 3).index_add(0, batch[edge_index[1]], x[edge_index[0]])
                return model(sums)

        E = RandomExplainer(Pooled(), output="logits").explain(random_instances(3, n=3, undirected=True))
        assert np.isfinite(fidelity_plus(E))
        with pytest.raises(TypeError, match="MessagePassing"):
            fidelity_plus(E, removal="weight")

    def test_dropping_serves_a_plain_callable(self):
        E = random_explanations(7, n=5)

        def predict(graphs):
            with torch.no_grad():
                return np.stack(
                    [E.model(g.x, g.edge_index, torch.zeros(len(g.x), dtype=int))[0].numpy() for g in graphs]
                )

        by_callable = fidelity_plus(E._with(model_digest=None), model=predict, reduce=None)
        np.testing.assert_allclose(by_callable, fidelity_plus(E, reduce=None), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"removal": "zero"}, r"'removal' parameter must be one of \('drop', 'weight'\) for edge scores. Got 'zero'"),
        ({"selection": "hard"}, r"'selection' parameter must be one of"),
        ({"of": "logit"}, r"'of' parameter must be one of"),
        ({"reduce": "sum"}, r"'reduce' parameter must be 'mean' or None"),
        ({"sparsity": 1.5}, r"'sparsity' parameter must be a number in the range \[0, 1\]"),
    ],
)
def test_bad_parameters(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fidelity_plus(random_explanations(7), **options)


@pytest.mark.parametrize("options", [{"weights": (0, 1)}, {"weights": (1,)}, {"average": "all"}])
def test_bad_parameters_of_the_characterization(options):
    with pytest.raises(ValueError, match=f"The '{next(iter(options))}' parameter must be"):
        characterization(random_explanations(7), **options)
