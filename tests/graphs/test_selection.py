"""Units, ties and cuts against plain loops, and the laws of selection."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from explanation_cases import explanations, random_explanations, slow_ranking, slow_units
from hypothesis import given
from torch_geometric.data import Data

from skgnnx.graphs import Entries, Explanations, Instances, n_kept, select_top, units


def selected(E, i, kind):
    """Places in the stored entries that a hard explanation keeps."""
    return {tuple(place) if len(place) > 1 else int(place[0]) for place in np.argwhere(E.entries(i, kind)[1] == 1)}


@given(E=explanations(), k=st.integers(0, 12))
def test_top_k_keeps_what_a_plain_loop_keeps(E, k):
    hard = E.top_k(k)
    for kind in E.masks:
        for i in np.flatnonzero(E.ok):
            best = slow_ranking(slow_units(E, i, kind))[:k]
            assert selected(hard, i, kind) == {place for _, places, _ in best for place in places}


@given(E=explanations())
def test_units_are_those_of_a_plain_loop(E):
    for kind in E.masks:
        found = units(E, kind)
        for i in range(len(E)):
            expected = slow_units(E, i, kind)
            assert found.counts[i] == len(expected)
            score = found.score[found.ptr[i] : found.ptr[i + 1]]
            np.testing.assert_allclose(score, [unit[2] for unit in expected], rtol=1e-12)


@given(E=explanations(), k=st.integers(0, 6))
def test_more_units_contain_fewer(E, k):
    less, more = E.top_k(k), E.top_k(k + 1)
    for kind in E.masks:
        for i in np.flatnonzero(E.ok):
            assert selected(less, i, kind) <= selected(more, i, kind)


@given(E=explanations(), share=st.sampled_from([0, 0.1, 0.3, 0.5, 0.55, 0.7, 0.9, 0.95, 1.0]))
def test_a_share_counts_units_exactly(E, share):
    hard = E.at_sparsity(share)
    assert hard.hard
    assert hard.sparsity == share
    for kind in E.masks:
        listed = units(hard, kind)
        kept = np.bincount(listed.instance[listed.score == 1], minlength=len(E))
        for n, keep in zip(listed.counts, kept, strict=True):
            exact = (1 - Fraction(str(share))) * int(n) + Fraction(1, 2)
            assert keep == (0 if share == 1 or n == 0 else max(1, exact.__floor__()))


@given(E=explanations(), t=st.sampled_from([-2.0, 0.0, 0.25, 0.5, 2.0]))
def test_threshold_keeps_units_above(E, t):
    hard = E.threshold(t)
    for kind in E.masks:
        before, after = units(E, kind), units(hard, kind)
        np.testing.assert_array_equal(after.score == 1, before.score > t)


@given(E=explanations(kinds=("edge",), undirected=True), k=st.integers(0, 5))
def test_pairs_stay_whole_and_loops_stay_out(E, k):
    hard = E.top_k(k)
    for i in np.flatnonzero(E.ok):
        ends = E.instances.store.edges(E.instances.graph_index[i])
        partner = E.instances.store.partner(E.instances.graph_index[i])
        ids, values = hard.entries(i)
        dense = dict(zip(ids.tolist(), values.tolist(), strict=True))
        assert all(dense[e] == dense[partner[e]] for e in dense if partner[e] in dense)
        assert all(dense[e] == 0 for e in dense if ends[0, e] == ends[1, e])


@given(E=explanations(), k=st.integers(0, 6), data=st.data())
def test_selection_does_not_depend_on_the_order_of_instances(E, k, data):
    order = np.array(data.draw(st.permutations(range(len(E)))))
    here, there = E.top_k(k)[order], E[order].top_k(k)
    for i in range(len(E)):
        np.testing.assert_array_equal(here[i], there[i])


@given(seed=st.integers(0, 10**6), k=st.integers(0, 6))
def test_renamed_nodes_give_renamed_selections(seed, k):
    X = random_explanations(seed, n=1).instances
    edges, rng = X.store.edges(0), np.random.default_rng(seed)
    edges = np.unique(edges, axis=1)  # which of two parallel edges is whose reverse depends on their order
    num_nodes, num_edges = X.store.num_nodes(0), edges.shape[1]
    name, order = rng.permutation(num_nodes), rng.permutation(num_edges)
    score = rng.normal(size=num_edges)

    def explained(edges, score):
        graph = Data(x=torch.ones(num_nodes, 1), edge_index=torch.from_numpy(edges))
        entries = Entries(np.array([0, num_edges]), np.arange(num_edges), score)
        return Explanations(Instances.from_graphs([graph]), {"edge": entries}, "edge", targets=[0])

    before, after = explained(edges, score), explained(name[edges][:, order], score[order])
    np.testing.assert_array_equal(before.top_k(k)[0][order], after.top_k(k)[0])


@given(scores=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=30), data=st.data())
def test_ranking_of_chains_is_that_of_a_plain_loop(scores, data):
    steps = data.draw(st.lists(st.integers(0, 20), min_size=len(scores), max_size=len(scores)))
    scores = np.array(scores, dtype=np.float64).round(0) + np.array(steps) * 4e-6
    expected = slow_ranking([((i,), [i], s) for i, s in enumerate(scores.tolist())])
    assert select_top(scores, len(scores)).tolist() == [key[0] for key, _, _ in expected]


def test_a_long_chain_of_small_steps_is_cut_at_the_first_of_each_group():
    scores = 1 - np.arange(5) * 6e-6  # 0 and 1 are tied, 2 and 3, 4
    assert select_top(scores[::-1], 5).tolist() == [3, 4, 1, 2, 0]


def test_ties_go_to_the_lower_source_then_target_then_occurrence():
    edges = torch.tensor([[2, 1, 0, 1, 0, 0], [0, 0, 2, 2, 1, 2]])
    graph = Data(x=torch.ones(3, 1), edge_index=edges)
    entries = Entries(np.array([0, 6]), np.arange(6), np.full(6, 0.5))
    E = Explanations(Instances.from_graphs([graph]), {"edge": entries}, "edge", targets=[0])
    order = [np.flatnonzero(E.top_k(k + 1)[0] - E.top_k(k)[0]).item() for k in range(6)]
    assert order == [4, 2, 5, 1, 3, 0]


@pytest.mark.parametrize(
    ("n", "sparsity", "kept"),
    [(10, 0.9, 1), (10, 0.55, 5), (10, 0.45, 6), (3, 0.99, 1), (3, 1, 0), (0, 0.5, 0), (7, 0, 7)],
)
def test_number_kept(n, sparsity, kept):
    assert n_kept(n, sparsity) == kept
    assert n_kept(np.array([n, n]), np.float64(sparsity)).tolist() == [kept, kept]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda E: E.top_k(-1), "'k' parameter of top_k"),
        (lambda E: E.top_k(1.5), "'k' parameter of top_k"),
        (lambda E: E.at_sparsity(1.2), "'sparsity' parameter"),
        (lambda E: E.at_sparsity(float("nan")), "'sparsity' parameter"),
        (lambda E: E.threshold(float("nan")), "'threshold' parameter"),
        (lambda E: units(E, "feature"), "'mask' parameter"),
    ],
)
def test_bad_parameters_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_explanations(0))


def test_failed_instances_have_no_units_and_stay_failed():
    E = random_explanations(1, n=6)
    assert not E.ok.all()
    hard = E.at_sparsity(0.5)
    assert hard.errors == E.errors
    for i in np.flatnonzero(~E.ok):
        assert units(hard).counts[i] == 0
        assert np.isnan(hard[i]).all()
