"""Subgraph: the parts are those of Explanations.subgraphs, and a next model or explainer can take them."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch_geometric.data import Data

from skgnnx import Instances, RandomExplainer, SensitivityAnalysis
from skgnnx.graphs import Entries, Explanations
from skgnnx.preprocessing import Subgraph, TopK
from skgnnx.testing import example


def explained(level="graph", mask="edge"):
    model, X = example(level)
    return RandomExplainer(model, mask=mask).explain(X)


def as_sets(graph):
    """Nodes and edges of a part in the numbering of the whole graph."""
    nodes = graph.orig_node_id
    return set(nodes.tolist()), {tuple(pair) for pair in nodes[graph.edge_index].T.tolist()}


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
@pytest.mark.parametrize("mask", ["edge", "node", "node_feature"])
def test_parts_are_those_of_the_method(level, mask):
    E = explained(level, mask)
    parts = Subgraph(sparsity=0.5).transform(E)
    expected = E.subgraphs(sparsity=0.5)
    assert isinstance(parts, Instances)
    assert parts.level == level
    assert parts.target.tolist() == E.targets.tolist()
    assert parts.ids.tolist() == E.ids.tolist()
    for i, data in enumerate(expected):
        assert as_sets(parts[i].graph) == as_sets(data)
        assert torch.equal(parts[i].graph.x, data.x)
        if level != "graph":  # the explained element is the same node or link
            assert np.array_equal(data.orig_node_id[np.atleast_1d(parts[i].element)], E.instances.element[i])


@pytest.mark.parametrize(("step", "expected"), [
    (Subgraph(), lambda E: E.subgraphs(E.sparsity)), (Subgraph(k=2), lambda E: E.top_k(2).subgraphs()),
    (Subgraph(sparsity=0.9), lambda E: E.subgraphs(0.9)), (Subgraph(k=0), lambda E: E.top_k(0).subgraphs()),
])  # fmt: skip
def test_what_is_cut(step, expected):
    E = explained()
    assert [as_sets(part.graph) for part in step.transform(E)] == [as_sets(data) for data in expected(E)]


def test_hard_explanations_are_taken_as_they_are():
    E = explained()
    assert [part.graph.num_edges for part in Subgraph().transform(E.top_k(1))] == [2] * 5


def test_a_next_explainer_explains_the_parts():
    model, X = example("graph")
    pipe = make_pipeline(RandomExplainer(model), TopK(3), Subgraph(), SensitivityAnalysis(model))
    E = pipe.fit(X).transform(X)
    assert [len(mask) for mask in E] == [6] * 5
    assert E.targets.tolist() == RandomExplainer(model).explain(X).targets.tolist()


def test_all_nodes_can_stay():
    E = explained()
    for part, instance, mask in zip(Subgraph(k=2, keep_nodes=True).transform(E), E.instances, E.top_k(2), strict=True):
        assert torch.equal(part.graph.x, instance.graph.x)
        assert torch.equal(part.graph.edge_index, instance.graph.edge_index[:, mask == 1])
    model, _ = example("graph")
    empty = Subgraph(k=0, keep_nodes=True).transform(E)
    assert len(SensitivityAnalysis(model, mask="node").explain(empty)) == 5


def test_attributes_and_names_stay_with_their_nodes_and_edges():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    data = Data(x=torch.eye(3), edge_index=edge_index, edge_attr=torch.arange(4.0), z=torch.tensor([6, 7, 8]))
    X = Instances.from_nodes(data, [2], node_ids=["a", "b", "c"])
    entries = Entries([0, 4], np.arange(4), [0.0, 0.0, 1.0, 1.0])
    E = Explanations(X, {"edge": entries}, "edge", targets=[1])
    for keep_nodes in (False, True):
        part = Subgraph(k=1, keep_nodes=keep_nodes).transform(E)
        graph = part[0].graph
        assert graph.edge_attr.tolist() == [2.0, 3.0]
        assert graph.z.tolist() == ([6, 7, 8] if keep_nodes else [7, 8])
        assert list(part.node_ids[0]) == (["a", "b", "c"] if keep_nodes else ["b", "c"])
        assert part.ids.tolist() == ["c"]
        assert graph.x[part[0].element].tolist() == [0, 0, 1]


def test_a_failed_instance_keeps_its_graph_and_is_counted():
    E = explained()
    E = E._with(errors=[None, "reason", None, None, None])
    with pytest.warns(UserWarning, match="1 of 5 instances failed and keep their whole graph"):
        parts = Subgraph(k=1).transform(E)
    assert torch.equal(parts[1].graph.edge_index, E.instances[1].graph.edge_index)
    assert parts[0].graph.num_edges == 2


@pytest.mark.parametrize(("step", "mask", "sentence"), [
    (Subgraph(k=1, sparsity=0.5), "edge", "Only one of 'k' and 'sparsity'"),
    (Subgraph(keep_nodes=True), "node", "must get edge scores. Got node scores"),
    (Subgraph(), "feature", "must be made of edge or node scores"),
])  # fmt: skip
def test_what_cannot_be_cut_is_said(step, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        step.transform(explained(mask=mask))
