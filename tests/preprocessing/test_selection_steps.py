"""TopK, AtSparsity, Threshold and Normalize as pipeline steps; what they select is tested with Explanations."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks, get_tags
from torch_geometric.data import Data

from skgnnx import Instances, RandomExplainer, SensitivityAnalysis
from skgnnx.graphs import Entries, Explanations
from skgnnx.preprocessing import AtSparsity, FeatureMask, MaskStats, Normalize, Subgraph, Threshold, TopK
from skgnnx.testing import example

STEPS = [TopK(), AtSparsity(), Threshold(), Normalize(), Subgraph(), MaskStats(), FeatureMask()]


def explained(mask="edge", level="graph", **options):
    model, X = example(level)
    return RandomExplainer(model, mask=mask, **options).explain(X)


def same(E, F):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(E, F, strict=True))


def hand_made(values, kind="node", hard=False, errors=None, edges=((0, 1), (1, 0), (1, 2), (2, 1), (2, 2))):
    """One graph of three nodes with a loop, given scores."""
    graph = Data(x=torch.ones(3, 1), edge_index=torch.tensor(edges).T)
    values = np.asarray(values, dtype=float)
    entries = Entries(np.array([0, len(values)]), np.arange(len(values)), values)
    return Explanations(Instances.from_graphs([graph]), {kind: entries}, kind, targets=[0], hard=hard, errors=errors)


@pytest.mark.parametrize(("step", "expected"), [
    (TopK(3), lambda E: E.top_k(3)), (AtSparsity(0.4), lambda E: E.at_sparsity(0.4)),
    (Threshold(0.3), lambda E: E.threshold(0.3)),
])  # fmt: skip
@pytest.mark.parametrize("mask", ["edge", "node", "feature", "node_feature"])
def test_steps_do_what_the_methods_do(step, expected, mask):
    E = explained(mask)
    assert same(step.transform(E), expected(E))
    assert same(step.fit_transform(E), expected(E))
    assert same(step.fit(E).transform(E), expected(E))
    assert step.transform(E).hard


@pytest.mark.parametrize(("how", "expected"), [
    ("max", [0.25, -1.0, 0.5]), ("sum", [1 / 7, -4 / 7, 2 / 7]), ("l2", np.array([1, -4, 2]) / np.sqrt(21)),
    ("minmax", [5 / 6, 0.0, 1.0]), ("rank", [2 / 3, 1 / 3, 1.0]),
])  # fmt: skip
def test_normalize_by_hand(how, expected):
    np.testing.assert_allclose(Normalize(how).transform(hand_made([1, -4, 2]))[0], expected, rtol=1e-6)


@pytest.mark.parametrize("how", ["max", "sum", "l2", "minmax", "rank"])
def test_normalize_leaves_loops_zeros_and_failures(how):
    E = hand_made([0.2, 0.4, 1.0, 1.0, 0.0], kind="edge")  # the loop is last
    scaled = Normalize(how).transform(E)
    assert scaled[0][4] == 0
    assert same(scaled.top_k(1), E.top_k(1))
    zeros = Normalize(how).transform(hand_made([0.0, 0.0, 0.0]))[0]
    assert np.isfinite(zeros).all()
    failed = Normalize(how).transform(hand_made([0.0, 0.0, 0.0], errors=["reason"]))
    assert np.isnan(failed[0]).all()
    assert failed.errors == ["reason"]


@pytest.mark.parametrize("how", ["max", "sum", "l2", "minmax", "rank"])
@pytest.mark.parametrize("mask", ["edge", "node", "feature", "node_feature"])
def test_normalize_keeps_the_order_of_every_instance_and_its_scale_away(how, mask):
    E = SensitivityAnalysis(example("graph")[0], mask=mask).explain(example("graph")[1])
    scaled = Normalize(how).transform(E)
    assert same(scaled.undirected().top_k(2) if mask == "edge" else scaled.top_k(2), E.top_k(2))
    bigger = E._with(masks={kind: entries.with_values(8 * entries.values) for kind, entries in E.masks.items()})
    for a, b in zip(Normalize(how).transform(bigger), scaled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_rank_gives_the_best_unit_one_and_both_directions_the_same():
    E = explained()
    for mask, graph in zip(Normalize("rank").transform(E), (instance.graph for instance in E.instances), strict=True):
        assert mask.max() == 1
        pairs = graph.edge_index.T.tolist()
        assert all(mask[i] == mask[pairs.index([b, a])] for i, (a, b) in enumerate(pairs))
        assert len(np.unique(mask)) == len(pairs) / 2


def test_hard_masks_stay_hard_where_that_is_true():
    hard = hand_made([0, 1, 1], hard=True)
    assert Normalize("max").transform(hard).hard
    assert not Normalize("sum").transform(hard).hard


def test_fit_transform_waits_until_it_is_read():
    model, X = example("graph")
    calls = []
    deferred = Explanations.deferred(lambda: calls.append(1) or SensitivityAnalysis(model).explain(X), None, X)
    step = TopK(2)
    selected = step.fit_transform(Normalize().fit_transform(deferred))
    assert len(selected) == 5
    step.set_params(k=0)  # what was asked for is what is done
    assert not calls
    assert selected[0].sum() == 4
    assert calls == [1]


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_steps_need_no_fit_and_refuse_what_is_no_explanation(step):
    assert not get_tags(step).requires_fit
    for method in (step.fit, step.transform, step.fit_transform):
        with pytest.raises(
            TypeError, match=f"{type(step).__name__} must get Explanations.* Got ndarray; put an explainer"
        ):
            method(np.zeros((3, 3)))


@pytest.mark.parametrize("check", [
    "check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed", "check_valid_tag_types",
    "check_no_attributes_set_in_init", "check_get_params_invariance", "check_set_params", "check_mixin_order",
    "check_parameters_default_constructible",
])  # fmt: skip
@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_scikit_learn_checks_that_need_no_table(step, check):
    getattr(estimator_checks, check)(type(step).__name__, clone(step))


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_steps_are_cloned_pickled_and_set_to_pandas(step):
    E = explained("feature" if isinstance(step, FeatureMask) else "edge")
    for other in (clone(step), pickle.loads(pickle.dumps(step))):
        a, b = step.fit_transform(E), other.set_output(transform="default").fit_transform(E)
        assert type(a) is type(b)
        assert len(a) == len(b) == 5
    model, X = example("graph")
    pipe = make_pipeline(RandomExplainer(model, mask=E.kind), step).set_output(transform="pandas")
    assert len(pipe.fit(X).transform(X)) == 5


@pytest.mark.parametrize(("step", "sentence"), [
    (TopK(-1), r"The 'k' parameter of TopK must be an int in the range \[0, inf\). Got -1 instead."),
    (TopK(2.5), "The 'k' parameter of TopK"), (AtSparsity(1.5), r"The 'sparsity' .* in the range \[0, 1\]. Got 1.5"),
    (Threshold("a"), "The 'threshold' parameter of Threshold must be a float. Got 'a' instead."),
    (Normalize("std"), "The 'how' parameter of Normalize must be 'max' or .* Got 'std' instead."),
    (FeatureMask("median"), "The 'how' parameter of FeatureMask"), (MaskStats("mean"), "The 'statistics' parameter"),
    (MaskStats(["mode"]), "must be among .* Got 'mode' instead."), (MaskStats([]), "must be among .* Got none"),
    (Subgraph(k=-3), "The 'k' parameter of Subgraph"),
])  # fmt: skip
def test_unusable_parameters_are_named(step, sentence):
    E = explained()
    with pytest.raises(ValueError, match=sentence):
        step.fit(E)
    with pytest.raises(ValueError, match=sentence):
        step.transform(E)
