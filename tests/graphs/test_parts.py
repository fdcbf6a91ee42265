"""Subgraphs: selected parts with original ids."""

import numpy as np
import pytest
import torch
from explanation_cases import explanations, random_explanations
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from skgnnx.graphs import Entries, Explanations, Instances


@given(E=explanations(kinds=("edge",)), sparsity=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_part_is_made_of_the_selected_edges(E, sparsity):
    hard = E.at_sparsity(sparsity)
    for i, part in enumerate(E.subgraphs(sparsity)):
        if not E.ok[i]:
            assert part is None
            continue
        graph = E.instances.store.graph(E.instances.graph_index[i])
        np.testing.assert_array_equal(part.orig_edge_id, np.flatnonzero(hard[i]))
        nodes = set(graph.edge_index[:, part.orig_edge_id].flatten().tolist()) | set(E.instances.element[i].tolist())
        assert part.orig_node_id.tolist() == sorted(nodes)
        assert_part_of(part, graph)
        assert part.target == E.targets[i]


@given(E=explanations(kinds=("node",)), sparsity=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_part_of_nodes_has_the_edges_among_them(E, sparsity):
    hard = E.at_sparsity(sparsity)
    for i, part in enumerate(E.subgraphs(sparsity)):
        if not E.ok[i]:
            continue
        X = E.instances
        graph, element = X.store.graph(X.graph_index[i]), X.element[i].tolist()
        nodes = set(np.flatnonzero(hard[i]).tolist()) | set(element)
        left_out = set(element) if X.exclude_link else None
        edges = [
            e for e, ends in enumerate(graph.edge_index.T.tolist()) if set(ends) <= nodes and set(ends) != left_out
        ]
        assert part.orig_node_id.tolist() == sorted(nodes)
        assert part.orig_edge_id.tolist() == edges
        assert_part_of(part, graph)


def assert_part_of(part, graph):
    assert part.num_nodes == len(part.orig_node_id)
    assert torch.equal(part.orig_node_id[part.edge_index], graph.edge_index[:, part.orig_edge_id])
    assert torch.equal(part.x, graph.x[part.orig_node_id])
    assert torch.equal(part.edge_weight, graph.edge_weight[part.orig_edge_id])
    assert part.name == graph.name


@given(E=explanations(kinds=("edge",), level="node"))
def test_the_explained_node_and_the_users_names_come_along(E):
    for i, part in enumerate(E.subgraphs()):
        if part is not None:
            assert part.orig_node_id[part.element].tolist() == E.instances.element[i].tolist()
            assert part.node_ids == [f"v{v}" for v in part.orig_node_id.tolist()]


def test_hard_scores_are_taken_as_they_are():
    E = random_explanations(4, failed=False).top_k(1)
    for i, part in enumerate(E.subgraphs(sparsity=0.0)):
        assert part.num_edges == E[i].sum()


def test_node_feature_scores_select_nodes():
    E = random_explanations(4, kinds=("node_feature",), failed=False)
    expected = E.to_kind("node").subgraphs(0.5)
    for part, other in zip(E.subgraphs(0.5), expected, strict=True):
        assert torch.equal(part.orig_node_id, other.orig_node_id)


def test_changing_a_part_changes_nothing_else():
    graph = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([1]))
    entries = Entries(np.array([0, 2]), np.arange(2), np.ones(2))
    E = Explanations(Instances.from_graphs([graph]), {"edge": entries}, "edge", targets=[0])
    (part,) = E.subgraphs()
    assert part.y.tolist() == [1]
    assert "element" not in part
    part.x.zero_()
    part.y.zero_()
    assert graph.x.sum() == 2
    assert graph.y.tolist() == [1]


def test_parts_can_be_explained_again():
    parts = random_explanations(7, failed=False, share=1.0).subgraphs(0.3)
    X = Instances.from_graphs(parts)
    assert len(X) == len(parts)
    with pytest.raises(TypeError, match="index 1"):
        Instances.from_graphs([parts[0], None])
