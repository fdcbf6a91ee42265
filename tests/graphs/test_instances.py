"""Predictions to explain, as columns."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold
from sklearn.utils import _safe_indexing, indexable
from torch_geometric.data import Batch, Data, HeteroData

from skgnnx import Instances
from skgnnx.testing import strategies


def path(n=4, features=2, **keys):
    edges = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    return Data(x=torch.arange(n * features, dtype=torch.float32).view(n, features), edge_index=edges, **keys)


def graphs(n=3):
    return [path(i + 2) for i in range(n)]


def three(level):
    truth = {"edge": [None, [True, False, True], [[True, False, False], [False, True, False]]]}
    if level == "graph":
        return Instances.from_graphs([path(4) for _ in range(3)], target=[0, 1, 2], truth=truth, ids=["a", "b", "c"])
    if level == "node":
        return Instances.from_nodes(path(4), [3, 1, 1], target=[0, 1, 2], truth=truth, node_ids=["p", "q", "r", "s"])
    pairs = [[0, 1, 3], [2, 1, 0]]
    return Instances.from_edges(path(4), pairs, target=[0, 1, 2], truth=truth, ids=[7, 8, 9], exclude_link=True)


LEVELS = ["graph", "node", "edge"]
ELEMENTS = {"graph": [None, None, None], "node": [3, 1, 1], "edge": [(0, 2), (1, 1), (3, 0)]}
IDS = {"graph": ["a", "b", "c"], "node": ["s", "q", "q"], "edge": [7, 8, 9]}


@pytest.mark.parametrize("level", LEVELS)
def test_each_row_is_one_prediction(level):
    X = three(level)
    assert (X.shape, len(X), X.level) == ((3,), 3, level)
    assert [item.element for item in X] == ELEMENTS[level]
    assert [item.target for item in X] == [0, 1, 2]
    assert X.ids.tolist() == IDS[level]
    assert X.truth["edge"][0] is None
    assert [len(alternatives) for alternatives in X.truth["edge"][1:]] == [1, 2]
    assert torch.equal(X[0].graph.x, path(4).x)
    assert X[0].level == level


@pytest.mark.parametrize("level", LEVELS)
@given(data=st.data())
def test_slices_equal_lists(level, data):
    X = three(level)
    key = data.draw(
        st.one_of(
            st.slices(3),
            st.lists(st.integers(-3, 2), max_size=5).map(lambda rows: np.array(rows, dtype=int)),
            st.lists(st.booleans(), min_size=3, max_size=3).map(np.array),
            st.lists(st.integers(-3, 2), min_size=1),
            st.lists(st.booleans(), min_size=3, max_size=3).map(torch.tensor),
        )
    )
    rows = np.arange(3)[key if isinstance(key, slice) else np.asarray(key)]
    Z = X[key]
    assert isinstance(Z, Instances)
    assert Z.store is X.store
    assert len(Z) == len(rows)
    assert [item.element for item in Z] == [ELEMENTS[level][i] for i in rows]
    assert Z.target.tolist() == rows.tolist()
    assert Z.ids.tolist() == [IDS[level][i] for i in rows]
    assert all(Z.truth["edge"][i] is X.truth["edge"][row] for i, row in enumerate(rows))
    assert Z.exclude_link == X.exclude_link
    assert X.target.tolist() == [0, 1, 2]


@pytest.mark.parametrize("key", [1, -2, np.int64(1), np.array(1), torch.tensor(1)])
def test_one_row_is_an_instance(key):
    assert three("node")[key].element == 1
    assert three("node")[key].target == 1


@pytest.mark.parametrize("key", [[], (), np.array([]), np.array([], dtype=bool)[:0]])
def test_nothing_is_an_empty_part(key):
    if isinstance(key, np.ndarray) and key.dtype == bool:
        return
    assert len(three("node")[key]) == 0


@pytest.mark.parametrize("key", [3, -4, [0, 3], np.array([True, False]), "a", 1.5, [0.5]])
def test_what_is_no_row(key):
    with pytest.raises((IndexError, TypeError, ValueError)):
        three("node")[key]


def test_scikit_learn_can_split():
    X = three("node")
    train, test = next(KFold(3).split(X))
    assert (len(X[train]), len(X[test])) == (2, 1)
    assert _safe_indexing(X, np.array([2, 0])).target.tolist() == [2, 0]
    assert indexable(X, [0, 1, 2])[0] is X
    assert np.asarray(X).shape == (3,)
    assert np.asarray(X)[1].element == 1


def test_tensors_of_one_graph_are_shared():
    data = path(50)
    X = Instances.from_nodes(data)
    assert np.shares_memory(X.store.columns["x"].values, data.x.numpy())
    assert np.shares_memory(X.store.edge_index, data.edge_index.numpy())
    assert np.shares_memory(X[:10].store.columns["x"].values, data.x.numpy())
    assert not np.shares_memory(X[0].graph.x.numpy(), data.x.numpy())


@pytest.mark.parametrize("level", LEVELS)
def test_pickles_hold_everything_and_no_caches(level):
    X = three(level)
    size = len(pickle.dumps(X))
    assert X.store.is_undirected(0) is False
    _ = X.store.in_edges, X.store.out_edges
    assert len(pickle.dumps(X)) == size
    for Z in (pickle.loads(pickle.dumps(X)), copy.deepcopy(X)):
        assert [item.element for item in Z] == ELEMENTS[level]
        assert Z.ids.tolist() == IDS[level]
        assert Z.truth["edge"][2][1].tolist() == [False, True, False]
        assert torch.equal(Z[0].graph.edge_index, X[0].graph.edge_index)
        assert Z.store.partner(0).tolist() == X.store.partner(0).tolist()


def test_compact_keeps_only_what_is_used():
    X = Instances.concat([Instances.from_nodes(path(n), [0, 1], node_ids=list("abcdef"[:n])) for n in (3, 4, 5)])
    Z = X[[5, 2]].compact()
    assert Z.store.num_graphs == 2
    assert [item.graph.num_nodes for item in Z] == [5, 4]
    assert [item.element for item in Z] == [1, 0]
    assert [len(names) for names in Z.node_ids] == [4, 5]
    assert X.compact().store.num_graphs == 3


def test_nodes_by_mask_ids_or_all():
    data = path(4)
    assert Instances.from_nodes(data).element[:, 0].tolist() == [0, 1, 2, 3]
    assert Instances.from_nodes(data, torch.tensor([True, False, False, True])).element[:, 0].tolist() == [0, 3]
    assert Instances.from_nodes(data, [False, True, False, False]).ids.tolist() == [1]
    assert Instances.from_nodes(data, 2).element[:, 0].tolist() == [2]
    assert Instances.from_nodes(data, np.array([1.0, 2.0])).element[:, 0].tolist() == [1, 2]


ERRORS = {
    "empty": (lambda: Instances.from_graphs([]), ValueError, "0 sample"),
    "no node": (lambda: Instances.from_nodes(path(), []), ValueError, "0 sample"),
    "no link": (lambda: Instances.from_edges(path(), np.empty((2, 0))), ValueError, "0 sample"),
    "one data": (lambda: Instances.from_graphs(path()), TypeError, r"from_nodes\(data\).*from_graphs\(\[data\]\)"),
    "text": (
        lambda: Instances.from_graphs([path(), "a"]),
        TypeError,
        "must be a torch_geometric Data. Got str at index 1",
    ),
    "hetero": (lambda: Instances.from_graphs([HeteroData()]), TypeError, "Got HeteroData at index 0"),
    "batches": (
        lambda: Instances.from_graphs([path(), Batch.from_data_list(graphs())]),
        TypeError,
        "single Data. Got a Batch at index 1",
    ),
    "node too large": (lambda: Instances.from_nodes(path(), [0, 4]), IndexError, r"in \[0, 4\). Got 4 at position 1"),
    "node negative": (lambda: Instances.from_nodes(path(), [-1]), IndexError, "Got -1 at position 0"),
    "node half": (lambda: Instances.from_nodes(path(), [0.5]), TypeError, "'nodes' must hold integers"),
    "nodes in a table": (lambda: Instances.from_nodes(path(), [[1], [2]]), ValueError, "one-dimensional"),
    "mask": (
        lambda: Instances.from_nodes(path(), [True, False]),
        ValueError,
        r"mask must have shape \(4,\). Got \(2,\)",
    ),
    "link out": (
        lambda: Instances.from_edges(path(), [[0, 1], [1, 9]]),
        IndexError,
        r"Got \[1, 9\] at position 1",
    ),
    "links as rows": (
        lambda: Instances.from_edges(path(), [[0, 1], [1, 2], [2, 3]]),
        ValueError,
        r"shape \(2, n\). Got \(3, 2\)",
    ),
    "target length": (lambda: Instances.from_graphs(graphs(), target=[0, 1]), ValueError, "an int, or 3 ints. Got 2"),
    "target negative": (lambda: Instances.from_graphs(graphs(), target=[0, -1, 0]), ValueError, "Got -1 at index 1"),
    "target half": (lambda: Instances.from_graphs(graphs(), target=0.5), TypeError, "'target' must hold integers"),
    "target infinite": (
        lambda: Instances.from_graphs(graphs(1), target=[float("inf")]),
        TypeError,
        "'target' must hold",
    ),
    "target text": (lambda: Instances.from_graphs(graphs(1), target=["cat"]), TypeError, "'target' must hold integers"),
    "ids": (lambda: Instances.from_graphs(graphs(), ids=["a"]), ValueError, "'ids' must have length 3. Got 1"),
    "node ids": (
        lambda: Instances.from_nodes(path(), node_ids="abc"),
        ValueError,
        "'node_ids' must have length 4. Got 3",
    ),
    "truth kind": (lambda: Instances.from_graphs(graphs(), truth={"atom": []}), ValueError, "'truth' must be among"),
    "truth length": (
        lambda: Instances.from_graphs(graphs(), truth={"edge": [None]}),
        ValueError,
        r"truth\['edge'\] must have one entry per instance \(3\). Got 1",
    ),
    "truth shape": (
        lambda: Instances.from_graphs(graphs(), truth={"node": [None, [True], None]}),
        ValueError,
        r"truth\['node'\]\[1\] must be a bool array of shape \(3,\). Got shape \(1,\)",
    ),
    "truth numbers": (
        lambda: Instances.from_graphs(graphs(), truth={"edge": [[0.5], None, None]}),
        ValueError,
        r"truth\['edge'\]\[0\] must be a bool array. Got dtype float64",
    ),
    "edge end": (
        lambda: Instances.from_graphs([path(), Data(x=torch.ones(2, 2), edge_index=torch.tensor([[0, 0], [1, 2]]))]),
        ValueError,
        r"node ids in \[0, 2\). Got edge \(0, 2\) at position 1 of graph 1",
    ),
    "edge shape": (
        lambda: Instances.from_graphs([Data(x=torch.ones(2, 2), edge_index=torch.tensor([0, 1]))]),
        ValueError,
        r"shape \(2, num_edges\). Got \(2,\) in graph 0",
    ),
    "edge half": (
        lambda: Instances.from_graphs([Data(x=torch.ones(2, 2), edge_index=torch.tensor([[0.5], [1.0]]))]),
        ValueError,
        "whole numbers. Got dtype torch.float32 in graph 0",
    ),
    "no edges at all": (
        lambda: Instances.from_graphs([Data(x=torch.ones(2, 2))]),
        ValueError,
        "must have 'edge_index'",
    ),
    "features": (
        lambda: Instances.from_graphs([path(), path(features=3)]),
        ValueError,
        r"columns in 'x'. Got \(3,\) in graph 1 and \(2,\) in graph 0",
    ),
    "features missing": (
        lambda: Instances.from_graphs([path(), Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)]),
        ValueError,
        "must have 'x', or none. Got none in graph 1, but in graph 0",
    ),
    "nan": (
        lambda: Instances.from_graphs(
            [path(), Data(x=torch.tensor([[0.0], [np.nan]]).expand(2, 2), edge_index=path(2).edge_index)]
        ),
        ValueError,
        "'x' must be finite. Got NaN or infinity at node 1 of graph 1",
    ),
    "infinite weight": (
        lambda: Instances.from_nodes(path(edge_weight=torch.tensor([1.0, np.inf, 1.0]))),
        ValueError,
        "'edge_weight' must be finite. Got NaN or infinity at edge 1 of graph 0",
    ),
    "brain floats": (
        lambda: Instances.from_nodes(Data(x=torch.ones(2, 2, dtype=torch.bfloat16), edge_index=path(2).edge_index)),
        TypeError,
        "'x' must have a type that numpy knows. Got torch.bfloat16",
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_what_is_wrong_is_said_with_its_place(kind):
    make, error, message = ERRORS[kind]
    with pytest.raises(error, match=message):
        make()


def test_truth_may_come_as_tensors_ints_and_alternatives():
    X = Instances.from_graphs(
        [path(3)] * 4,
        truth={
            "edge": [torch.tensor([True, False]), [0, 1], ([1, 0], [0, 1]), None],
            "node": None,
            "feature": [np.array([1.0, 0.0])] * 4,
        },
    )
    assert sorted(X.truth) == ["edge", "feature"]
    assert [None if t is None else [m.tolist() for m in t] for t in X.truth["edge"]] == [
        [[True, False]],
        [[False, True]],
        [[True, False], [False, True]],
        None,
    ]
    assert all(mask.dtype == bool for alternatives in X.truth["edge"][:3] for mask in alternatives)


def test_later_changes_of_what_was_given_change_nothing():
    target, nodes, truth = np.array([0, 1]), np.array([1, 2]), np.array([True, False, False])
    X = Instances.from_nodes(path(), nodes, target, truth={"edge": [truth, truth]})
    target[:], nodes[:], truth[:] = 9, 9, True
    assert (X.target.tolist(), X.element[:, 0].tolist()) == ([0, 1], [1, 2])
    assert X.truth["edge"][0][0].tolist() == [True, False, False]


def test_num_units():
    X = three("edge")
    assert [X.num_units(kind, 0) for kind in ("edge", "node", "feature")] == [3, 4, 2]
    bare = Instances.from_nodes(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2))
    assert bare.num_units("feature", 0) == 0


def test_other_targets_leave_the_first_alone():
    X = three("node")
    assert X.with_target(None).target is None
    assert X.with_target(2).target.tolist() == [2, 2, 2]
    assert X.target.tolist() == [0, 1, 2]


@given(strategies.graphs())
def test_graphs_come_back_as_they_were(data):
    X = Instances.from_graphs([data, data])
    back = X[1].graph
    assert torch.equal(back.edge_index, data.edge_index)
    assert torch.equal(back.x, data.x)
    assert back.num_nodes == data.num_nodes
    assert torch.equal(Instances.from_nodes(data)[0].graph.edge_index, data.edge_index)


def test_every_key_comes_back():
    given = path(3, y=torch.tensor([1]), u=torch.ones(1, 4), smiles="CC", weight=0.5, mol=None)
    given.edge_attr = torch.rand(2, 3)
    given.pair_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    X = Instances.from_graphs([given, given])
    back = X[1].graph
    for key in ("x", "edge_attr", "y", "u", "pair_index"):
        assert torch.equal(back[key], given[key])
    assert (back.smiles, back.weight) == ("CC", 0.5)
