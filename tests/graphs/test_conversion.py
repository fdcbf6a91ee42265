"""Scores of one kind made of another, against plain loops."""

import numpy as np
import pytest
import torch
from explanation_cases import explanations, random_explanations
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from skgnnx.graphs import Entries, Explanations, Instances, units

REDUCE = {"max": max, "mean": lambda values: float(np.mean(values)), "sum": sum}
HOW = st.sampled_from(["max", "mean", "sum"])


def ends_of(E, i):
    return E.instances.store.edges(E.instances.graph_index[i]).T.tolist()


@given(E=explanations(kinds=("edge",)), how=HOW)
def test_a_node_gets_what_its_edges_have(E, how):
    nodes = E.to_kind("node", how)
    assert list(nodes.masks) == ["node"]
    for i in np.flatnonzero(E.ok):
        ends = ends_of(E, i)
        of_node = {v: [] for v in range(E.instances.num_units("node", i))}
        for e, value in zip(*E.entries(i), strict=True):
            if ends[e][0] != ends[e][1]:  # loops are not explained in these cases
                of_node[ends[e][0]].append(float(value))
                of_node[ends[e][1]].append(float(value))
        expected = [REDUCE[how](values) if values else 0 for values in of_node.values()]
        np.testing.assert_allclose(nodes[i], expected, rtol=1e-6, atol=1e-6)
        assert nodes.explained[i].tolist() == [bool(values) for values in of_node.values()]


@given(E=explanations(kinds=("edge",)))
def test_nodes_of_the_computation_graph_are_entries(E):
    nodes = E.to_kind("node")
    for i in np.flatnonzero(E.ok):
        ends = ends_of(E, i)
        expected = {v for e in E.entries(i)[0] for v in ends[e]} | set(E.instances.element[i].tolist())
        if E.instances.level == "graph":
            expected = set(range(E.instances.num_units("node", i)))
        assert nodes.entries(i)[0].tolist() == sorted(expected)


@given(E=explanations(kinds=("node",)), how=HOW)
def test_an_edge_gets_what_its_ends_have(E, how):
    edges = E.to_kind("edge", how)
    for i in np.flatnonzero(E.ok):
        score = dict(zip(*(part.tolist() for part in E.entries(i)), strict=True))
        excluded = set(E.instances.element[i].tolist()) if E.instances.exclude_link else set()
        expected = {
            e: REDUCE[how]([score[a], score[b]])
            for e, (a, b) in enumerate(ends_of(E, i))
            if a != b and a in score and b in score and {a, b} != excluded
        }
        ids, values = edges.entries(i)
        assert ids.tolist() == list(expected)
        np.testing.assert_allclose(values, list(expected.values()), rtol=1e-6, atol=1e-6)


@given(E=explanations(kinds=("node_feature",)), how=HOW)
def test_a_node_gets_what_its_features_have(E, how):
    nodes = E.to_kind("node", how)
    for i in np.flatnonzero(E.ok):
        np.testing.assert_array_equal(nodes.entries(i)[0], E.entries(i)[0])
        np.testing.assert_allclose(nodes[i], [REDUCE[how](row) for row in E[i].tolist()], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        E.to_kind("edge", how).masks["edge"].ids, nodes.to_kind("edge", how).masks["edge"].ids
    )


@given(E=explanations(kinds=("node", "edge")))
def test_a_mask_of_the_method_itself_is_taken(E):
    assert E.to_kind("edge").masks == {"edge": E.masks["edge"]}
    assert E.to_kind("edge").kind == "edge"


@given(E=explanations(kinds=("edge",)), how=HOW)
def test_both_directions_get_one_score(E, how):
    both = E.undirected(how)
    for i in np.flatnonzero(E.ok):
        partner = E.instances.store.partner(E.instances.graph_index[i])
        before, after = E[i], both[i]
        present = set(E.entries(i)[0].tolist())
        for e in present:
            twins = {e, partner[e]} & present if partner[e] >= 0 else {e}
            np.testing.assert_allclose(after[e], REDUCE[how]([float(before[t]) for t in twins]), rtol=1e-6, atol=1e-7)
    if how == "mean":
        np.testing.assert_allclose(units(both).score, units(E).score, rtol=1e-6)
        np.testing.assert_array_equal(both.undirected().masks["edge"].values, both.masks["edge"].values)


@given(E=explanations(kinds=("edge",), undirected=True), k=st.integers(0, 4))
def test_selection_is_that_of_the_undirected_scores(E, k):
    here, there = E.top_k(k), E.undirected().top_k(k)
    np.testing.assert_array_equal(here.masks["edge"].values, there.masks["edge"].values)


def test_a_scored_loop_keeps_its_score_and_counts_once_for_its_node():
    graph = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0, 1, 1], [1, 0, 1]]))
    entries = Entries(np.array([0, 3]), np.arange(3), np.array([0.1, 0.3, 0.5]))
    E = Explanations(Instances.from_graphs([graph]), {"edge": entries}, "edge", targets=[0])
    np.testing.assert_allclose(E.undirected()[0], [0.2, 0.2, 0.5])
    np.testing.assert_allclose(E.to_kind("node", "sum")[0], [0.4, 0.9], rtol=1e-6)


def test_hard_stays_hard_while_scores_are_0_and_1():
    graph = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    entries = Entries(np.array([0, 4]), np.arange(4), np.array([0.9, 0.9, 0.1, 0.1]))
    E = Explanations(Instances.from_graphs([graph]), {"edge": entries}, "edge", targets=[0])
    hard = E.top_k(1)
    assert hard.to_kind("node", "max").hard
    assert hard.to_kind("node", "max")[0].tolist() == [1, 1, 0]
    assert not hard.to_kind("node", "mean").hard
    assert hard.undirected().hard
    assert not E.to_kind("node", "max").hard


@given(E=explanations(kinds=("edge", "feature")))
def test_failed_instances_stay_failed(E):
    for other in (E.to_kind("node"), E.to_kind("node").to_kind("edge"), E.undirected()):
        assert other.errors == E.errors
        assert all(np.isnan(other[i]).all() for i in np.flatnonzero(~E.ok))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda E: E.to_kind("feature"), "'kind' parameter of to_kind must be 'node' or 'edge'. Got 'feature'"),
        (lambda E: E.to_kind("node", how="min"), "'how' parameter of to_kind"),
        (lambda E: E.undirected(how="min"), "'how' parameter of undirected"),
        (lambda E: E.to_kind("node"), "Got feature scores"),
        (lambda E: E.undirected(), "'mask' parameter"),
        (lambda E: E.subgraphs(), "Got feature scores"),
    ],
)
def test_what_cannot_be_converted_says_so(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_explanations(0, kinds=("feature",)))
