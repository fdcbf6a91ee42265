"""Explanations in files: what comes back, what is refused, and that no pickle is inside."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from explanation_cases import explanations, random_explanations
from hypothesis import given
from hypothesis import strategies as st
from test_explanations import assert_equal
from torch_geometric.data import Data

from skgnnx.graphs import Explanations, Instances, instances_digest
from skgnnx.graphs import storage as storage_module


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.skgnnx"


@given(E=explanations(), graphs=st.sampled_from(["used", "all"]), hard=st.booleans())
def test_what_is_saved_comes_back(tmp_path_factory, E, graphs, hard):
    path = tmp_path_factory.mktemp("files") / "E.npz"
    E = E.at_sparsity(0.5) if hard else E
    E.save(path, graphs=graphs)
    loaded = Explanations.load(path)
    assert_equal(loaded, E)
    X, Y = E.instances, loaded.instances
    assert (X.level, X.exclude_link) == (Y.level, Y.exclude_link)
    assert instances_digest(X) == instances_digest(Y)
    assert (X.node_ids is None) == (Y.node_ids is None)
    for i in range(len(X)):
        a, b = X[i], Y[i]
        assert (a.element, a.target) == (b.element, b.target)
        assert a.graph.keys() == b.graph.keys()
        assert torch.equal(a.graph.x, b.graph.x)
        assert torch.equal(a.graph.edge_index, b.graph.edge_index)
        assert a.graph.name == b.graph.name
    if X.node_ids is not None:
        assert [list(names) for names in X.compact().node_ids] == [list(names) for names in Y.compact().node_ids]


@given(E=explanations(n=5), rows=st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_slices_can_be_saved(tmp_path_factory, E, rows):
    path = tmp_path_factory.mktemp("files") / "E.npz"
    E[rows].save(path)
    assert_equal(Explanations.load(path), E[rows])


def test_truth_and_target_come_back(path):
    graph = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0, 1], [1, 0]]))
    truth = {"edge": [[[True, False], [False, True]], None], "node": [[True, True], [False, False]]}
    X = Instances.from_graphs([graph, graph], target=[1, 0], truth=truth, ids=[10, 11])
    E = random_explanations(0, n=2, kinds=("feature",))._with(instances=X, masks=random_masks(2))
    E.save(path)
    Y = Explanations.load(path).instances
    assert Y.target.tolist() == [1, 0]
    assert Y.ids.tolist() == [10, 11]
    assert [mask.tolist() for mask in Y.truth["edge"][0]] == truth["edge"][0]
    assert Y.truth["edge"][1] is None
    assert [mask.tolist() for row in Y.truth["node"] for mask in row] == truth["node"]
    assert Y.truth["edge"][0][0].dtype == bool


def random_masks(n):
    return {"feature": random_explanations(0, n=n, kinds=("feature",)).masks["feature"]}


def test_only_used_graphs_go_along_unless_all_are_wanted(path):
    E = random_explanations(0, n=5)[[1, 3, 1]]
    E.save(path)
    assert Explanations.load(path).instances.store.num_graphs == 2
    E.save(path, graphs="all")
    assert Explanations.load(path).instances.store.num_graphs == 5


@given(E=explanations())
def test_scores_can_be_read_without_graphs(tmp_path_factory, E):
    path = tmp_path_factory.mktemp("files") / "E.npz"
    E.save(path, graphs=False)
    loaded = Explanations.load(path)
    assert_equal(loaded, E)
    assert_equal(loaded[::-1], E[::-1])
    with pytest.raises(ValueError, match="instances="):
        loaded.instances.store.graph(0)
    whole = Explanations.load(path, instances=E.instances)
    assert whole.instances is E.instances
    assert_equal(whole.top_k(2), E.top_k(2))


def test_selection_without_graphs_says_what_to_do(path):
    random_explanations(0).save(path, graphs=False)
    loaded = Explanations.load(path)
    with pytest.raises(ValueError, match="instances="):
        loaded.top_k(1)
    loaded.save(path)
    assert_equal(Explanations.load(path), loaded)


def test_other_instances_are_refused(path):
    E = random_explanations(0)
    E.save(path, graphs=False)
    for other in (E.instances[::-1], random_explanations(1).instances, E.instances[:2]):
        with pytest.raises(ValueError, match="'instances' parameter of load"):
            Explanations.load(path, instances=other)


def test_a_model_is_never_saved_and_checked_when_loaded(path):
    model = torch.nn.Linear(100, 100)
    E = random_explanations(0)._with(model_digest=None).with_model(model)
    E.save(path)
    assert path.stat().st_size < 30_000
    assert Explanations.load(path).model is None
    assert Explanations.load(path, model).model is model
    with pytest.warns(UserWarning, match="digest"):
        Explanations.load(path, torch.nn.Linear(100, 100))


def test_no_pickle_is_inside(path):
    random_explanations(0).save(path)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            assert np.lib.format.read_magic(archive.open(name))
            with archive.open(name) as member:
                np.lib.format.read_array(member, allow_pickle=False)
        header = json.loads(np.load(archive.open("header.npy")).tobytes())
    assert header["format"] == "skgnnx.explanations"
    assert header["version"] == 1
    assert header["explainer"] == "SomeExplainer"
    assert header["model_digest"] == "0123"


def test_settings_come_back_except_callables(path):
    E = random_explanations(0)._with(
        box={"output": "probs", "threshold": 0.3, "forward": len}, params={"f": len, "k": 2}
    )
    E.save(path)
    loaded = Explanations.load(path)
    assert loaded.box == {"output": "probs", "threshold": 0.3, "forward": None}
    assert loaded.params == {"f": repr(len), "k": 2}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("extras", {"trees": [object()] * 4}, r"extras\['trees'\] must hold numbers.*Got object"),
        ("extras", {"names": [{1: 2}] * 4}, r"extras\['names'\]"),
        (
            "extras",
            {"points": [np.zeros(1, dtype=[("a", "f4")])] * 4},
            r"extras\['points'\] must hold arrays of a plain",
        ),
    ],
)
def test_extras_that_cannot_be_saved_are_named(path, field, value, message):
    with pytest.raises(TypeError, match=message):
        random_explanations(0)._with(**{field: value}).save(path)
    assert list(path.parent.iterdir()) == []


def test_ids_that_cannot_be_saved_are_named(path):
    E = random_explanations(0)
    E.instances.ids = np.array([object()] * 4)
    with pytest.raises(TypeError, match="ids must hold numbers"):
        E.save(path)


def test_an_attribute_of_a_graph_that_cannot_be_saved_is_left_out_with_a_warning(path):
    E = random_explanations(0)
    E.instances.store.objects["mol"] = [object()] * 4
    with pytest.warns(UserWarning, match="'mol' must hold numbers.*left out"):
        E.save(path)
    assert "mol" not in Explanations.load(path).instances[0].graph


def test_saving_replaces_as_a_whole_or_not_at_all(path, monkeypatch):
    E = random_explanations(0)
    E.save(path)
    before = path.read_bytes()

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(storage_module.np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        E.top_k(1).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_who_reads_while_it_is_replaced_reads_the_old_file(path):
    E = random_explanations(0)
    E.save(path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        start = reader.read(10)
        E[:1].save(path)
        assert start + reader.read() == before
    assert len(Explanations.load(path)) == 1


def test_the_name_is_taken_as_it_is(tmp_path):
    random_explanations(0).save(str(tmp_path / "plain"))
    assert os.listdir(tmp_path) == ["plain"]
    with pytest.raises(ValueError, match="'graphs' parameter of save"):
        random_explanations(0).save(tmp_path / "plain", graphs=True)


def written(save, *values, **named):
    """Bytes of what a saving function writes."""
    file = io.BytesIO()
    save(file, *values, **named)
    return file.getvalue()


def header(text):
    return written(np.savez, header=np.frombuffer(text, dtype=np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is text",
        written(lambda file: torch.save({"a": 1}, file)),
        written(np.save, np.arange(3)),
        written(np.save, np.array([{}], dtype=object)),
        written(np.savez, a=np.arange(3)),
        written(np.savez, header=np.array({}, dtype=object)),
        *(header(b"{}"), header(b"[1]"), header(b"{"), header(b'{"format": "skgnnx.explanations", "version": 1}')),
    ],
)
def test_a_file_that_is_not_ours_is_one_sentence(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"must have been written by Explanations.save"):
        Explanations.load(path)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_damaged_file_is_one_sentence(path, keep):
    random_explanations(0).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=r"must have been written by Explanations.save"):
        Explanations.load(path)


def test_a_newer_version_asks_for_an_upgrade(path, monkeypatch):
    monkeypatch.setattr(storage_module, "VERSION", 2)
    random_explanations(0).save(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="upgrade"):
        Explanations.load(path)


def test_a_missing_file_is_missing(path):
    with pytest.raises(FileNotFoundError):
        Explanations.load(path)
