"""The long table: ranks, ids and names."""

import sys

import numpy as np
import pytest
import torch
from explanation_cases import explanations, random_explanations, slow_ranking, slow_units
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from skgnnx.graphs import Entries, Explanations, Instances


@given(E=explanations(), k=st.sampled_from([None, 0, 2]))
def test_rows_are_the_ranked_units(E, k):
    frame = E.to_frame(k)
    expected = [
        (E.ids[i], E.targets[i], rank + 1, score)
        for i in range(len(E))
        for rank, (_, _, score) in enumerate(slow_ranking(slow_units(E, i, E.kind))[:k])
    ]
    found = list(zip(frame["instance"], frame["target"], frame["rank"], strict=True))
    assert found == [row[:3] for row in expected]
    np.testing.assert_allclose(frame["value"], [row[3] for row in expected], rtol=1e-12)


@given(E=explanations(kinds=("edge",)))
def test_an_edge_row_names_an_edge_and_its_ends(E):
    frame, X = E.to_frame(), E.instances
    row_of = {name: i for i, name in enumerate(X.ids)}
    for row in frame.itertuples():
        i = row_of[row.instance]
        ends = X.store.edges(X.graph_index[i])[:, row.edge].tolist()
        names = ends if X.node_ids is None else [f"v{v}" for v in ends]
        assert [row.source_node, row.target_node] == names
        partner = X.store.partner(X.graph_index[i])[row.edge]
        scores = [E[i][e] for e in {row.edge, partner} if e in E.entries(i)[0]]
        assert np.isclose(row.value, np.mean(scores))


@given(E=explanations(kinds=("node",)))
def test_by_node_leaves_the_explained_node_out(E):
    frame = E.to_frame(by="node")
    X = E.instances
    for i, name in enumerate(X.ids):
        rows = frame[frame["instance"] == name]
        nodes = set(E.entries(i)[0].tolist()) - set(X.element[i].tolist()) if E.ok[i] else set()
        assert set(rows["node"]) == {v if X.node_ids is None else f"v{v}" for v in nodes}
        assert rows["rank"].tolist() == list(range(1, len(nodes) + 1))
    everything = E.to_frame()
    assert len(everything) == sum(len(E.entries(i)[0]) for i in np.flatnonzero(E.ok))


def test_the_whole_table():
    data = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]]))
    X = Instances.from_nodes(data, [1], ids=["account 7"], node_ids=["a", "b", "c"])
    entries = Entries(np.array([0, 4]), np.array([0, 1, 3, 4]), np.array([0.2, 0.4, 0.5, 0.9]))
    E = Explanations(X, {"edge": entries}, "edge", targets=[2])
    assert E.to_frame().to_dict("list") == {
        "instance": ["account 7", "account 7"],
        "target": [2, 2],
        "rank": [1, 2],
        "value": [0.5, pytest.approx(0.3)],
        "edge": [2, 0],
        "source_node": ["b", "a"],
        "target_node": ["c", "b"],
    }
    assert E.to_frame(k=1, by="node")[["rank", "node"]].values.tolist() == [[1, "c"]]
    assert E.to_kind("node").to_frame(by="edge")["edge"].tolist() == [2, 0]


@pytest.mark.parametrize(("kinds", "columns"), [(("feature",), ["feature"]), (("node_feature",), ["node", "feature"])])
def test_feature_rows(kinds, columns):
    E = random_explanations(6, kinds=kinds, n=2)
    frame = E.to_frame()
    assert list(frame.columns) == ["instance", "target", "rank", "value", *columns]
    for row in frame.itertuples():
        i = list(E.ids).index(row.instance)
        place = tuple(getattr(row, column) for column in columns)
        assert row.value == E[i][place]


def test_a_table_without_rows_has_its_columns():
    E = random_explanations(0, level="node")
    E = E._with(errors=["no"] * len(E))
    assert len(E.to_frame()) == 0
    assert "source_node" in E.to_frame()


def test_bad_parameters_and_missing_pandas(monkeypatch):
    E = random_explanations(0)
    with pytest.raises(ValueError, match="'k' parameter of to_frame"):
        E.to_frame(k=-1)
    with pytest.raises(ValueError, match="'by' parameter of to_frame"):
        E.to_frame(by="feature")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"skgnnx\[frame\]"):
        E.to_frame()
