"""Fidelity over sparsity: the same numbers as one call per sparsity, and an interval that repeats."""

import numpy as np
import pytest
import torch
from metric_cases import random_explanations, slow_units

from skgnnx.metrics import fidelity_curve, fidelity_minus, fidelity_plus, sparsity

GRID = [0.0, 0.3, 0.9, 1.0]


@pytest.mark.parametrize("kind", ["edge", "node", "feature"])
def test_points_equal_single_calls(kind):
    E = random_explanations(21, kind=kind, n=12)
    curve = fidelity_curve(E, GRID)
    used = [i for i in range(len(E)) if len(slow_units(E, i)[0]) >= 2]
    assert (curve.n, curve.n_skipped) == (len(used), len(E) - len(used))
    for k, share in enumerate(GRID):
        cut = E[used].at_sparsity(share)
        assert curve.plus[k] == pytest.approx(fidelity_plus(cut), abs=1e-6)
        assert curve.minus[k] == pytest.approx(fidelity_minus(cut), abs=1e-6)
        assert curve.sparsity[k] == pytest.approx(sparsity(cut), abs=1e-9)


def test_ends_are_exact():
    curve = fidelity_curve(random_explanations(21, n=12), [0, 1])
    assert (curve.minus[0], curve.plus[1]) == (0, 0)
    assert curve.sparsity.tolist() == [0, 1]


def test_the_default_grid_is_the_surveys():
    curve = fidelity_curve(random_explanations(21, n=12))
    assert curve.plus.shape == curve.minus.shape == curve.sparsity.shape == (9,)
    assert curve.removal == "drop"


def test_the_interval_repeats_holds_the_mean_and_shrinks():
    E = random_explanations(21, n=40)
    curve, again = fidelity_curve(E, GRID), fidelity_curve(E, GRID)
    for name in curve:
        np.testing.assert_array_equal(curve[name], again[name])
    means = np.stack([curve.plus, curve.minus])
    assert curve.low.shape == curve.high.shape == (2, 4)
    assert (curve.low <= means).all()
    assert (means <= curve.high).all()
    narrow = fidelity_curve(E, GRID, confidence=0.5)
    assert (narrow.high - narrow.low <= curve.high - curve.low).all()
    other = fidelity_curve(E, GRID, random_state=1)
    assert (other.low != curve.low).any()
    np.testing.assert_allclose(other.low, curve.low, atol=0.05)


def test_the_interval_is_that_of_a_normal_mean():
    E = random_explanations(22, n=60)
    curve = fidelity_curve(E, [0.5], n_bootstrap=4000)
    used = [i for i in range(len(E)) if len(slow_units(E, i)[0]) >= 2]
    values = fidelity_plus(E[used], sparsity=0.5, reduce=None)
    width = 2 * 1.96 * values.std() / np.sqrt(len(used))
    assert curve.high[0, 0] - curve.low[0, 0] == pytest.approx(width, rel=0.15)


def test_weights():
    E = random_explanations(21, n=12)
    weight = np.arange(12) % 3
    assert fidelity_curve(E, [0.5], sample_weight=weight).plus[0] == pytest.approx(
        fidelity_curve(E[np.repeat(np.arange(12), weight)], [0.5]).plus[0], abs=1e-6
    )


def test_nothing_to_score_is_nan():
    E = random_explanations(21, n=3)
    curve = fidelity_curve(E._with(errors=["reason"] * 3), [0.5, 0.9])
    assert np.isnan([curve.plus, curve.minus, curve.sparsity, *curve.low, *curve.high]).all()
    assert curve.n_skipped == 3


def test_one_pass_over_the_batches():
    E = random_explanations(21, n=12)
    calls = []
    handle = E.model.register_forward_hook(lambda *args: calls.append(torch.is_grad_enabled()))
    fidelity_curve(E, [0.5, 0.9])
    handle.remove()
    few = len(calls)
    assert not any(calls[-2:])
    handle = E.model.register_forward_hook(lambda *args: calls.append(True))
    fidelity_curve(E, [0.5, 0.7, 0.9])
    handle.remove()
    assert len(calls) - 2 * few == 2  # one more sparsity costs two forward passes, however many instances there are


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sparsities": [0.5, 1.2]}, r"'sparsities' must hold numbers in the range \[0, 1\]"),
        ({"sparsities": []}, "'sparsities' must hold"),
        ({"confidence": 1}, r"'confidence' parameter must be a float in the range \(0, 1\)"),
        ({"n_bootstrap": 0}, "'n_bootstrap' parameter must be an int"),
        ({"removal": "weigh"}, "'removal' parameter must be one of"),
    ],
)
def test_bad_parameters(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fidelity_curve(random_explanations(21), **options)


def test_a_hard_mask_has_no_curve():
    with pytest.raises(ValueError, match="fidelity_curve must have scores to rank. Got a hard mask"):
        fidelity_curve(random_explanations(21).top_k(2))
