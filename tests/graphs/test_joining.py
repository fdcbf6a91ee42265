"""Instances of several parts, and what may be given as X."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from skgnnx import Instances, check_instances


def path(n=4, features=2):
    edges = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    return Data(x=torch.arange(n * features, dtype=torch.float32).view(n, features), edge_index=edges)


class Small(InMemoryDataset):
    def __init__(self, graphs):
        super().__init__()
        self.data, self.slices = self.collate(graphs)


GRAPHS = [path(n) for n in (2, 3, 4)]
AS_X = {
    "list": lambda: list(GRAPHS),
    "tuple": lambda: tuple(GRAPHS),
    "series": lambda: pd.Series(GRAPHS),
    "objects": lambda: np.array([*GRAPHS, None], dtype=object)[:3],
    "dataset": lambda: Small(GRAPHS),
    "batch": lambda: Batch.from_data_list(GRAPHS),
    "instances": lambda: Instances.from_graphs(GRAPHS),
    "list of instances": lambda: list(Instances.from_graphs(GRAPHS)),
    "array of instances": lambda: np.asarray(Instances.from_graphs(GRAPHS)),
    "bare instances": lambda: [type(i)(i.graph) for i in Instances.from_graphs(GRAPHS)],
}


@pytest.mark.filterwarnings("ignore:It is not recommended")
@pytest.mark.parametrize("kind", AS_X)
def test_what_may_be_given_as_x(kind):
    X = check_instances(AS_X[kind]())
    assert X.level == "graph"
    assert [item.graph.num_nodes for item in X] == [2, 3, 4]
    assert all(torch.equal(item.graph.x, graph.x) for item, graph in zip(X, GRAPHS))


def test_lists_of_instances_of_one_origin_share_its_graphs():
    X = Instances.from_nodes(path(), [1, 2, 3], target=[0, 1, 0])
    Z = check_instances([X[2], X[0]])
    assert Z.store is X.store
    assert (Z.element[:, 0].tolist(), Z.target.tolist(), Z.ids.tolist()) == ([3, 1], [0, 0], [3, 1])
    assert check_instances(X) is X
    assert len(check_instances(X[1])) == 1


def test_lists_of_instances_of_two_origins_are_joined():
    first, second = Instances.from_nodes(path(3), [1]), Instances.from_nodes(path(4), [2, 0])
    Z = check_instances([second[0], first[0], second[1]])
    assert Z.element[:, 0].tolist() == [2, 1, 0]
    assert [item.graph.num_nodes for item in Z] == [4, 3, 4]


WRONG = {
    "one data": (path, TypeError, "one entry per prediction. Got one Data"),
    "none": (lambda: None, TypeError, "sequence of graphs. Got NoneType"),
    "text": (lambda: "abc", TypeError, "Got str"),
    "dict": (lambda: {"a": path()}, TypeError, "Got dict"),
    "empty": (list, ValueError, "0 sample"),
    "empty instances": (lambda: Instances.from_nodes(path())[:0], ValueError, "0 sample"),
    "numbers": (lambda: np.ones((3, 2)), TypeError, "torch_geometric Data. Got ndarray at index 0"),
    "table": (lambda: pd.DataFrame({"a": [1]}), TypeError, "Got str at index 0"),
    "mixed": (lambda: [Instances.from_nodes(path())[0], path()], TypeError, "only graphs. Got Data at index 1"),
    "levels": (
        lambda: [Instances.from_nodes(path())[0], Instances.from_graphs([path()])[0]],
        ValueError,
        "same level. Got 'graph' at index 1, 'node' before",
    ),
    "loader": (lambda: DataLoader(GRAPHS, batch_size=2), TypeError, "single Data. Got a Batch at index 0"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_may_not(kind):
    make, error, message = WRONG[kind]
    with pytest.raises(error, match=message):
        check_instances(make())


def test_joining_keeps_everything():
    data = path(4)
    truth = {"edge": [[True, False, False]] * 2}
    first = Instances.from_nodes(data, [0, 1], target=[1, 0], truth=truth, ids=["a", "b"])
    second = Instances.from_nodes(path(3), [2], target=[2], node_ids=["x", "y", "z"])
    X = Instances.concat([first[1:], second, first[:1]])
    assert X.store.num_graphs == 2
    assert X.element[:, 0].tolist() == [1, 2, 0]
    assert X.target.tolist() == [0, 2, 1]
    assert X.ids.tolist() == ["b", "z", "a"]
    assert [item.graph.num_nodes for item in X] == [4, 3, 4]
    assert X.truth["edge"][1] is None
    assert X.truth["edge"][2][0].tolist() == [True, False, False]
    assert [list(names) for names in X.node_ids] == [[0, 1, 2, 3], ["x", "y", "z"]]


def test_parts_of_one_whole_go_on_sharing_it():
    X = Instances.from_nodes(path(), [0, 1, 2])
    assert Instances.concat([X[2:], X[:2]]).store is X.store


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "0 sample"),
        ([Instances.from_nodes(path()), Instances.from_graphs([path()])], "same level"),
        ([Instances.from_nodes(path(), target=0), Instances.from_nodes(path())], "given or predicted targets"),
        (
            [Instances.from_edges(path(), [[0], [1]], exclude_link=flag) for flag in (True, False)],
            "same exclude_link",
        ),
        ([Instances.from_nodes(path()), Instances.from_nodes(path(features=3))], "same number of columns in 'x'"),
    ],
)
def test_what_cannot_be_joined(parts, message):
    with pytest.raises(ValueError, match=message):
        Instances.concat(parts)
