"""Precision at k and the Jaccard index against plain sets."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import marked, path, random_explanations, random_truth, slow_values, with_ties

from skgnnx.metrics import jaccard, precision_at_k

SEEDS = st.integers(0, 10**6)
LEVELS = st.sampled_from(["graph", "node", "edge"])
KINDS = st.sampled_from(["edge", "node", "feature"])
OVER = st.sampled_from(["explained", "all"])


def best(scores, size):
    return set(sorted(range(len(scores)), key=lambda u: -scores[u])[:size])


@given(seed=SEEDS, level=LEVELS, kind=KINDS, over=OVER, k=st.sampled_from([None, 1, 2, 50]), ties=st.booleans())
def test_precision_equals_counting(seed, level, kind, over, k, ties):
    E = random_explanations(seed, level, kind)
    E = with_ties(E, seed) if ties else E
    truth = random_truth(E, seed)

    def value(true, scores):
        chosen = best(scores, int(true.sum()) if k is None else k)
        return np.mean([true[u] for u in chosen])

    expected = slow_values(E, truth, over, value, both_classes=False)
    np.testing.assert_allclose(precision_at_k(E, truth, k=k, over=over, reduce=None), expected)


@given(seed=SEEDS, level=LEVELS, kind=KINDS, over=OVER, k=st.sampled_from([None, 1, 3]))
def test_jaccard_equals_sets(seed, level, kind, over, k):
    E = random_explanations(seed, level, kind)
    truth = random_truth(E, seed)

    def value(true, scores):
        chosen, real = best(scores, int(true.sum()) if k is None else k), set(np.flatnonzero(true))
        return len(chosen & real) / len(chosen | real)

    expected = slow_values(E, truth, over, value, both_classes=False)
    np.testing.assert_allclose(jaccard(E, truth, k=k, over=over, reduce=None), expected)


@given(seed=SEEDS, level=LEVELS, kind=KINDS, share=st.sampled_from([0.0, 0.5, 1.0]))
def test_hard_masks_are_taken_as_they_are(seed, level, kind, share):
    E = random_explanations(seed, level, kind).at_sparsity(share)
    truth = random_truth(E, seed)

    def value(true, scores):
        return (true & (scores > 0)).sum() / (true | (scores > 0)).sum()

    expected = slow_values(E, truth, "all", value, both_classes=False)
    np.testing.assert_allclose(jaccard(E, truth, over="all", reduce=None), expected)


@given(seed=SEEDS, k=st.integers(1, 5))
def test_ties_can_be_averaged(seed, k):
    E = with_ties(random_explanations(seed, kind="feature", n=3), seed)
    truth = [np.random.default_rng(seed + i).random(3) < 0.6 for i in range(3)]
    values = precision_at_k(E, truth, k=k, ties="average", reduce=None)
    for i, value in enumerate(values):
        size, found = min(k, 3), []
        for order in itertools.permutations(range(3)):
            ranked = sorted(order, key=lambda u: -E[i][u])
            found.append(truth[i][ranked[:size]].mean())
        assert np.isnan(value) if not truth[i].any() else value == pytest.approx(np.mean(found))


def test_ties_within_rounding_go_to_the_lower_id():
    E = path([0, 0.5, 0.5, 0.5000001, 0.5000001, 0.2, 0.2])
    assert precision_at_k(E, [marked(1)], k=1) == 1
    assert precision_at_k(E, [marked(3)], k=1) == 0
    assert precision_at_k(E, [marked(3)], k=1, ties="average") == 0.5


def test_k_is_of_units_not_of_directions():
    """Peers return both directions of one pair for k = 2 or 3."""
    E = path([0, 0.9, 0.9, 0.5, 0.5, 0.2, 0.2])
    assert precision_at_k(E, [marked(1, 2, 3, 4)], k=2) == 1
    assert jaccard(E, [marked(1, 2, 3, 4)], k=2) == 1


def test_what_is_out_of_reach_counts_as_missed():
    E = path([0, 0.9, 0.9, 0.5, 0.5, 0.2, 0.2])
    entries = E.stored()
    near = E._with(masks={"edge": type(entries)([0, 2], [1, 2], [0.9, 0.9])})
    assert jaccard(near, [marked(1, 3)]) == 1
    assert jaccard(near.top_k(1), [marked(1, 3)], over="all") == 0.5


@pytest.mark.parametrize("metric", [precision_at_k, jaccard])
@pytest.mark.parametrize("k", [0, 1.5, True, "all"])
def test_k_must_be_a_number_of_units(metric, k):
    with pytest.raises(ValueError, match=f"'k' parameter of {metric.__name__} must be None or an int"):
        metric(path([0] * 7), [marked(1)], k=k)


def test_ties_must_be_known():
    with pytest.raises(ValueError, match="'ties' parameter must be one of"):
        precision_at_k(path([0] * 7), [marked(1)], ties="random")
