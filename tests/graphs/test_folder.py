"""Instances in folders: what comes back, that nothing is read before it is used, and what is refused."""

import json
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from joblib import Parallel, delayed
from torch_geometric.data import Data
from torch_geometric.nn import GCN

import skgnnx
from skgnnx import Instances
from skgnnx.explainers import GNNExplainer, SensitivityAnalysis
from skgnnx.graphs import instances_digest
from skgnnx.graphs.computation_graph import receptive_fields
from skgnnx.testing import strategies


def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("folders") / "graphs"


def large(num_nodes=2000, num_edges=20_000):
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(num_nodes, (2, num_edges), generator=generator)
    return Data(x=torch.randn(num_nodes, 8, generator=generator), edge_index=edge_index, name="large")


@pytest.fixture
def saved(tmp_path):
    X = Instances.from_nodes(large(), target=1)
    X.save(tmp_path / "graph")
    return X, tmp_path / "graph"


@given(st.sampled_from(["graph", "node", "edge"]).flatmap(lambda level: strategies.instances(level, max_size=4)))
def test_what_is_saved_comes_back(tmp_path_factory, case):
    _, X = case
    path = folder(tmp_path_factory)
    X.save(path)
    opened = Instances.open(path)
    assert instances_digest(opened) == instances_digest(X)
    assert (opened.level, opened.exclude_link) == (X.level, X.exclude_link)
    assert opened.ids.tolist() == X.ids.tolist()
    used = X.compact().store
    assert np.array_equal(opened.store.all_partners, used.all_partners)
    assert [opened.store.is_undirected(g) for g in range(used.num_graphs)] == [
        used.is_undirected(g) for g in range(used.num_graphs)
    ]
    for way in ("in_edges", "out_edges"):
        for part in ("ptr", "far_end", "edge_id"):
            assert np.array_equal(getattr(getattr(opened.store, way), part), getattr(getattr(used, way), part))


def test_names_truth_and_other_keys_come_back(tmp_path):
    data = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1], [1, 2]]), name="path", u=torch.ones(1, 2))
    truth = {"node": [[True, False, True], None], "edge": [[[True, False], [False, True]], None]}
    X = Instances.from_nodes(data, [2, 0], [1, 0], truth=truth, ids=["a", 4], node_ids=["x", "y", "z"])
    X.save(tmp_path / "graph")
    opened = Instances.open(tmp_path / "graph")
    assert opened.ids.tolist() == ["a", 4]
    assert opened.target.tolist() == [1, 0]
    assert list(opened.node_ids[0]) == ["x", "y", "z"]
    assert [part.tolist() for part in opened.truth["edge"][0]] == [[True, False], [False, True]]
    assert opened.truth["node"][1] is None
    assert opened[0].graph.name == "path"
    assert torch.equal(opened[0].graph.u, data.u)


def test_graphs_that_no_instance_uses_are_left_out(tmp_path):
    graphs = [Data(x=torch.full((2, 1), float(i)), edge_index=torch.tensor([[0], [1]])) for i in range(3)]
    Instances.from_graphs(graphs)[[2, 0]].save(tmp_path / "graphs")
    opened = Instances.open(tmp_path / "graphs")
    assert opened.store.num_graphs == 2
    assert [instance.graph.x[0, 0].item() for instance in opened] == [2, 0]


def test_columns_and_index_stay_on_the_disk(saved):
    _, path = saved
    opened = Instances.open(path)
    for Y in (opened, opened[[5, 3]], Instances.from_nodes(opened, [7]), Instances.from_edges(opened, [[7], [8]])):
        store = Y.store
        mapped = [store.edge_index, store.columns["x"].values, store.all_partners]
        mapped += [part for index in (store.in_edges, store.out_edges) for part in vars(index).values()]
        assert all(type(array) is np.memmap and array.mode == "r" for array in mapped)


def test_opening_reads_no_column(saved):
    _, path = saved
    names = ["edge_index", "column0.values", "partner", "undirected", "element", "target", "graph_index"]
    names += [f"{way}.{part}" for way in ("in_edges", "out_edges") for part in ("ptr", "far_end", "edge_id")]
    for name in names:
        array = np.load(path / f"{name}.npy", mmap_mode="r+")
        array.view(np.uint8)[:] = 255  # whoever looks at it would find ids out of range, NaN and no edge
        array.flush()
    opened = Instances.open(path)
    Instances.from_nodes(opened, [3])
    assert np.isnan(opened.store.columns["x"].values[0, 0])


@pytest.mark.parametrize("explainer", [SensitivityAnalysis, GNNExplainer])
@given(
    case=st.sampled_from(["graph", "node", "edge"]).flatmap(lambda level: strategies.instances(level, max_size=3)),
)
def test_explanations_are_the_same_bit_for_bit(tmp_path_factory, explainer, case):
    model, X = case
    path = folder(tmp_path_factory)
    X.save(path)
    options = {"epochs": 2} if explainer is GNNExplainer else {}
    explain = explainer(model, output="logits", **options).explain
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is said of models and loops is tested elsewhere
        warnings.filterwarnings("error", "The given NumPy array is not writable")
        for Y in (X, Instances.open(path)):
            try:
                results.append([mask.tobytes() for mask in np.asarray(explain(Y), dtype=object)])
            except (TypeError, ValueError) as error:
                results.append(str(error))
    assert results[0] == results[1]


def test_little_memory_is_enough_for_an_opened_graph(saved):
    _, path = saved
    torch.manual_seed(0)
    model = GCN(8, 4, 2, 3).eval()
    nodes = [0, 10, 20]
    expected = SensitivityAnalysis(model).explain(Instances.from_nodes(large(), nodes))
    with skgnnx.config_context(memory_budget=200_000):
        E = SensitivityAnalysis(model).explain(Instances.from_nodes(Instances.open(path), nodes))
    for got, wanted in zip(E, expected):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_nodes_of_an_opened_graph_keep_its_index_and_names(tmp_path):
    Instances.from_nodes(large(), [0], node_ids=range(2000)).save(tmp_path / "graph")
    opened = Instances.open(tmp_path / "graph")
    X = Instances.from_nodes(opened, [9, 4], target=[0, 1])
    assert X.store is opened.store
    assert X.ids.tolist() == [9, 4]
    assert Instances.from_nodes(opened, [1], node_ids=range(2000, 4000)).ids.tolist() == [2001]
    got = receptive_fields(X, np.arange(2), 2, 0, False)
    expected = receptive_fields(Instances.from_nodes(large(), [9, 4]), np.arange(2), 2, 0, False)
    for field in ("node_id", "edge_id", "ends"):
        assert np.array_equal(getattr(got, field), getattr(expected, field))


def kinds_of_columns(X):
    X.store.in_edges.ptr.sum()
    return type(X.store.edge_index), type(vars(X.store)["in_edges"].far_end), type(vars(X.store)["pairs"][1])


def test_processes_map_the_same_files(saved):
    _, path = saved
    found = Parallel(n_jobs=2)(delayed(kinds_of_columns)(Instances.open(path)[[i]]) for i in range(2))
    assert found == [(np.memmap,) * 3] * 2


def test_pickles_hold_all(saved):
    X, path = saved
    copy = pickle.loads(pickle.dumps(Instances.open(path)))
    shutil.rmtree(path)
    assert instances_digest(copy) == instances_digest(X)
    assert np.array_equal(copy.store.in_edges.edge_id, X.store.in_edges.edge_id)


def test_nodes_of_several_graphs_are_refused():
    X = Instances.from_graphs([large(), large()])
    with pytest.raises(
        ValueError, match="'data' must hold one graph. Got Instances of 2 graphs; pass the Data of one."
    ):
        Instances.from_nodes(X, [0])


def test_nothing_is_overwritten(saved):
    X, path = saved
    with pytest.raises(FileExistsError, match="must name a new folder. Got .*; remove it first."):
        X.save(path)
    Instances.open(path)


def test_half_a_folder_is_never_seen(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        Instances.from_nodes(large()).save(tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


def test_values_that_need_pickle_are_left_out_with_a_warning(tmp_path):
    data = Data(x=torch.ones(1, 1), edge_index=torch.zeros(2, 0, dtype=torch.int64), made_by=object())
    with pytest.warns(UserWarning, match="'made_by' must hold numbers.*left out") as caught:
        Instances.from_nodes(data).save(tmp_path / "graph")
    assert caught[0].filename == __file__
    assert Instances.open(tmp_path / "graph")[0].graph.to_dict().keys() == {"edge_index", "x", "num_nodes"}


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="must name a folder. Got '.*none': nothing there."):
        Instances.open(tmp_path / "none")


def without(name):
    def change(path):
        (path / name).unlink()

    return change


def rewritten(**changes):
    def change(path):
        header = json.loads((path / "header.json").read_text()) | changes
        (path / "header.json").write_text(json.dumps(header))

    return change


def cut_short(path):
    with open(path / "edge_index.npy", "r+b") as file:
        file.truncate(1000)


def swapped(path):
    (path / "in_edges.ptr.npy").rename(path / "edge_index.npy")


OURS = "must have been written by Instances.save. Got another or a damaged one"
FILES = "must hold all files that Instances.save wrote, unchanged. Got "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("header.json"), OURS),
        (lambda path: (path / "header.json").write_text("{"), OURS),
        (lambda path: (path / "header.json").write_text("[]"), OURS),
        (rewritten(format="another"), OURS),
        (rewritten(version="1"), OURS),
        (rewritten(arrays=None), OURS),
        (rewritten(arrays={}), OURS),
        (rewritten(buffers=[["<i8"]]), OURS),
        (rewritten(version=2), "format version of at most 1. Got 2 in .*; upgrade skgnnx to open it."),
        (without("edge_index.npy"), FILES + "none that can be read for 'edge_index.npy' in .*; save the instances"),
        (cut_short, FILES + "none that can be read for 'edge_index.npy'"),
        (swapped, FILES + r"<i8 of shape \[2001\] for 'edge_index.npy'"),
    ],
)
def test_folders_that_are_refused(saved, change, message):
    _, path = saved
    change(path)
    with pytest.raises(ValueError, match=message):
        Instances.open(path)


def test_no_pickle_is_inside(saved):
    _, path = saved
    for file in path.glob("*.npy"):
        assert not np.load(file, allow_pickle=False).dtype.hasobject
