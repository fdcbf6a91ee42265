"""Sparsity of hard and soft explanations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import Network, random_explanations, random_instances, slow_selection, slow_units
from scipy.stats import entropy
from torch_geometric.data import Data

from skgnnx import GNNExplainer, Instances
from skgnnx.graphs import Entries, Explanations
from skgnnx.metrics import sparsity

KINDS = st.sampled_from(["edge", "node", "feature", "node_feature"])
LEVELS = st.sampled_from(["graph", "node", "edge"])


@given(seed=st.integers(0, 10**6), kind=KINDS, level=LEVELS)
def test_soft_is_one_minus_the_effective_share(seed, kind, level):
    E = random_explanations(seed, level, kind)
    for i, value in enumerate(sparsity(E, reduce=None)):
        _, scores = slow_units(E, i)
        if len(scores) == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(1 - np.exp(entropy(scores)) / len(scores), abs=1e-9)


@given(seed=st.integers(0, 10**6), kind=KINDS, level=LEVELS, share=st.sampled_from([0, 0.25, 0.5, 0.9, 1]))
def test_hard_is_the_share_left_out(seed, kind, level, share):
    E = random_explanations(seed, level, kind)
    values = sparsity(E.at_sparsity(share), reduce=None)
    for i, value in enumerate(values):
        chosen, places = slow_selection(E, i, share)
        units, _ = slow_units(E, i)
        left = sum(unit[0] not in chosen for unit in units)
        assert np.isnan(value) if not places else value == pytest.approx(left / len(units))


def explained(scores, hard=False, undirected=True):
    n = len(scores)
    source, target = np.arange(n), np.arange(1, n + 1)
    ends = np.concatenate([[source, target], [target, source]], axis=1) if undirected else np.stack([source, target])
    X = Instances.from_graphs([Data(x=torch.ones(n + 1, 1), edge_index=torch.from_numpy(ends))])
    values = np.tile(scores, 2) if undirected else np.asarray(scores)
    entries = Entries([0, len(values)], np.arange(len(values)), values)
    return Explanations(X, {"edge": entries}, "edge", targets=[0], hard=hard)


def test_known_values():
    assert sparsity(explained([1, 1, 0, 0])) == pytest.approx(0.5)
    assert sparsity(explained([0.3, 0.3, 0.3, 0.3])) == pytest.approx(0)
    assert sparsity(explained([-2, 0, 0, 0])) == pytest.approx(0.75)
    assert sparsity(explained([1, 1, 1, 0], hard=True)) == pytest.approx(0.25)
    assert sparsity(explained([0, 0, 0, 0], hard=True)) == 1


def test_one_of_ten_at_ninety_percent():
    """int((1 - 0.9) * 10) is 0 in floating point; peers keep nothing."""
    E = explained(np.linspace(0.1, 1, 10), undirected=False)
    assert E.at_sparsity(0.9)[0].sum() == 1
    assert sparsity(E.at_sparsity(0.9)) == pytest.approx(0.9)


def test_zeros_and_no_units_are_not_defined():
    zeros = sparsity(explained([0, 0]))
    assert np.isnan(zeros)
    assert zeros.n_skipped == 1
    none = explained([])
    assert np.isnan(sparsity(none))
    assert np.isnan(sparsity(none.at_sparsity(0.5)))


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8), st.floats(0.1, 10))
def test_scale_does_not_matter_and_concentration_does(scores, factor):
    value = sparsity(explained(scores))
    assert value == pytest.approx(sparsity(explained(np.array(scores) * factor)), abs=1e-5)
    assert -1e-9 <= value <= 1 - 1 / len(scores) + 1e-9
    if max(scores) > 1.05 * min(scores):
        assert sparsity(explained(np.array(scores) ** 2)) > value  # sharper scores spread less


def test_a_size_penalty_moves_it():
    X = random_instances(4, "graph", 8, undirected=True)
    model = Network("graph")
    values = [
        sparsity(GNNExplainer(model, output="logits", epochs=30, edge_size=size).explain(X)) for size in (0, 0.05, 0.5)
    ]
    assert values[0] < min(values[1:])
