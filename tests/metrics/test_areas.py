"""ROC-AUC and average precision against scikit-learn, one instance at a time; truth in all the forms it comes in."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import marked, path, random_explanations, random_truth, slow_truth, slow_values, with_ties
from sklearn.metrics import average_precision_score, roc_auc_score

from skgnnx import Instances
from skgnnx.graphs import Entries, Explanations
from skgnnx.metrics import average_precision, jaccard, precision_at_k, roc_auc

SEEDS = st.integers(0, 10**6)
LEVELS = st.sampled_from(["graph", "node", "edge"])
KINDS = st.sampled_from(["edge", "node", "feature"])
PAIRS = [(roc_auc, roc_auc_score), (average_precision, average_precision_score)]


@pytest.mark.parametrize(("metric", "oracle"), PAIRS)
@given(seed=SEEDS, level=LEVELS, kind=KINDS, ties=st.booleans(), over=st.sampled_from(["explained", "all"]))
def test_equals_scikit_learn(metric, oracle, seed, level, kind, ties, over):
    E = random_explanations(seed, level, kind)
    E = with_ties(E, seed) if ties else E
    truth = random_truth(E, seed)
    expected = slow_values(E, truth, over, oracle)
    values = metric(E, truth, over=over, reduce=None)
    np.testing.assert_allclose(values, expected, atol=1e-9)
    mean = metric(E, truth, over=over)
    assert mean.n_skipped == np.isnan(expected).sum()
    assert np.isnan(mean) if np.isnan(expected).all() else mean == pytest.approx(np.nanmean(expected))


@pytest.mark.parametrize(("metric", "oracle"), PAIRS)
def test_pooled_is_one_ranking(metric, oracle):
    E = with_ties(random_explanations(31, n=30), 31)
    truth = [np.random.default_rng(i).random(E.instances.num_units("edge", i)) < 0.3 for i in range(30)]
    weight = np.arange(30) % 4
    parts = [slow_truth(E, i, truth[i], "explained") for i in range(30)]
    scores, true = (np.concatenate(column) for column in zip(*parts))
    assert metric(E, truth, average="pooled") == pytest.approx(oracle(true, scores))
    repeated = np.repeat(weight, [len(part[0]) for part in parts])
    expected = oracle(true, scores, sample_weight=repeated)
    assert metric(E, truth, average="pooled", sample_weight=weight) == pytest.approx(expected)
    nothing = [np.zeros_like(mask) for mask in truth]
    assert np.isnan(metric(E, nothing, average="pooled"))
    with pytest.raises(ValueError, match="reduce=None needs average='instance'"):
        metric(E, truth, average="pooled", reduce=None)


@given(seed=SEEDS)
def test_a_larger_score_of_a_true_unit_never_hurts(seed):
    E = random_explanations(seed, kind="node", n=1)
    n = len(E[0])
    truth = np.random.default_rng(seed).random(n) < 0.5
    values = E.stored().values.copy()
    before = roc_auc(E, [truth])
    if truth.any() and not truth.all():
        values[np.argmax(truth)] += 0.3
        assert roc_auc(E._with(masks={"node": E.stored().with_values(values)}), [truth]) >= before
        flipped = E._with(masks={"node": E.stored().with_values(-E.stored().values)})
        assert roc_auc(flipped, [truth]) == pytest.approx(1 - before)


def test_one_direction_marks_the_pair():
    """A truth that lists r > c only, and a score on one direction only, mean the same unit."""
    E = path([0, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2])
    for mask in (marked(1), marked(2), marked(1, 2)):
        assert roc_auc(E, [mask]) == 1
        assert precision_at_k(E, [mask]) == 1
        assert jaccard(E, [mask]) == 1
    halves = path([0, 0.9, 0, 0.1, 0, 0.2, 0])
    assert roc_auc(halves, [marked(2)]) == 1
    assert precision_at_k(halves, [marked(2)], k=2) == 0.5


def test_a_loop_is_neither_true_nor_false():
    E = path([9, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2])
    assert roc_auc(E, [marked(0, 1)]) == 1
    assert np.isnan(roc_auc(E, [marked(0)]))


def test_an_empty_truth_is_left_out_never_zero():
    """A benchmark counts negatives without truth as 0, nearly half of its values."""
    E = Explanations.concat([path([0, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2])] * 3)
    truth = [marked(1), marked(), None]
    for metric in (roc_auc, average_precision, precision_at_k, jaccard):
        score = metric(E, truth)
        assert (score, score.n, score.n_skipped) == (1, 1, 2)


def test_a_full_truth_has_no_ranking():
    E = path([0, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2])
    assert np.isnan(roc_auc(E, [marked(1, 3, 5)]))
    assert np.isnan(average_precision(E, [marked(1, 3, 5)]))
    assert precision_at_k(E, [marked(1, 3, 5)]) == 1


def test_the_best_alternative_counts_and_useless_ones_do_not():
    E = path([0, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2])
    assert roc_auc(E, [[marked(3), marked(5), marked(), marked(1, 3, 5)]]) == pytest.approx(0.5)
    assert jaccard(E, [[marked(3), marked(1, 5)]]) == 1


def test_the_explained_node_is_not_to_be_found():
    E = path([0.1, 0.9, 0.2, 0.3], level="node")
    truth = [np.array([True, True, False, False])]
    assert roc_auc(E, truth) == 1
    assert roc_auc(E, truth, include_target=True) == pytest.approx(0.5)
    assert precision_at_k(E, truth) == 1
    assert precision_at_k(E, truth, include_target=True) == 0.5


class TestTruth:
    """Where truth comes from."""

    def test_masks_in_y_win_over_those_of_the_instances(self):
        E = path([0, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2], {"edge": [marked(3)]})
        assert roc_auc(E) == 0
        assert roc_auc(E, [marked(1)]) == 1

    @pytest.mark.parametrize("labels", [[1], np.array([1]), ["mutagen"], np.array([0.5]), [None], np.array([[0, 1]])])
    def test_labels_are_not_masks(self, labels):
        assert roc_auc(path([0, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2], {"edge": [marked(1)]}), labels) == 1

    @pytest.mark.parametrize(
        "form",
        [
            lambda mask: [mask],
            lambda mask: mask[None],
            lambda mask: torch.from_numpy(mask)[None],
            lambda mask: [torch.from_numpy(mask)],
            lambda mask: [mask.astype(int).tolist()],
            lambda mask: np.array([mask, None], dtype=object)[:1],
            lambda mask: [[mask, mask]],
        ],
    )
    def test_masks_come_in_many_forms(self, form):
        assert roc_auc(path([0, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2]), form(marked(1))) == 1

    def test_none_is_an_error(self):
        with pytest.raises(ValueError, match="need one for edge scores. Got none; pass masks as y="):
            roc_auc(path([0] * 7))

    def test_a_fold_without_any_is_nan(self):
        score = roc_auc(path([0] * 7), [None])
        assert np.isnan(score)
        assert score.n_skipped == 1

    def test_another_kind_names_the_conversion(self):
        node = path([0, 1, 0, 0], {"edge": [marked(1)]})
        with pytest.raises(ValueError, match=r"need one for node scores. Got \['edge'\]; use E.to_kind\('edge'\)"):
            roc_auc(node)
        assert 0 <= roc_auc(node.to_kind("edge")) <= 1
        with pytest.raises(ValueError, match=r"y\[0\] must be .* for truth about edges use E.to_kind\('edge'\)"):
            roc_auc(node, [marked(1)])

    def test_scores_per_node_and_feature_have_none(self):
        with pytest.raises(ValueError, match=r"Got node_feature scores; use E.to_kind\('node'\)"):
            roc_auc(random_explanations(5, kind="node_feature"), None)

    def test_lengths_must_fit(self):
        E = path([0] * 7)
        with pytest.raises(ValueError, match=r"y\[0\] must be a bool array of shape \(7,\). Got shape \(5,\)"):
            roc_auc(E, [np.ones(5, dtype=bool)])
        with pytest.raises(ValueError, match=r"'y' must have one entry per explanation \(1\). Got 2"):
            roc_auc(E, [marked(1), marked(2)])

    @pytest.mark.parametrize("options", [{"over": "graph"}, {"average": "macro"}])
    def test_bad_parameters(self, options):
        with pytest.raises(ValueError, match=f"The '{next(iter(options))}' parameter must be one of"):
            roc_auc(path([0] * 7), [marked(1)], **options)

    def test_failed_instances_are_left_out(self):
        E = Explanations.concat([path([0, 0.9, 0.9, 0.1, 0.1, 0.2, 0.2])] * 2)._with(errors=[None, "reason"])
        score = roc_auc(E, [marked(1), marked(3)])
        assert (score, score.n_skipped) == (1, 1)
        nothing = roc_auc(E[1:], [marked(3)])
        assert np.isnan(nothing)

    def test_a_link_taken_out_is_no_unit(self):
        data = path([0] * 7).instances.store.graph(0)
        X = Instances.from_edges(data, [[0], [1]], exclude_link=True)
        E = Explanations(X, {"edge": Entries([0, 4], [3, 4, 5, 6], [0.1, 0.1, 0.2, 0.2])}, "edge", targets=[0])
        assert average_precision(E, [marked(1, 5)], over="all") == 1
