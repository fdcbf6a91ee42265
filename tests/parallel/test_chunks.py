"""What travels to worker processes, how work is cut, and what happens when a worker is killed."""

import pickle
import sys
import time
import warnings
from concurrent.futures import CancelledError

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, global_add_pool
from worker_cases import Counted, DiesOnce, ThreadCount, require_equal

from skgnnx import Instances, RandomExplainer, SensitivityAnalysis, explain_dataset
from skgnnx.graphs.computation_graph import receptive_fields
from skgnnx.parallel import chunks, parcel
from skgnnx.parallel.parcel import Parcel
from skgnnx.parallel.sizing import EDGES_PER_CHUNK, balanced, work_of
from skgnnx.testing import example

LARGE = 40_000  # nodes: features and edges are more than a megabyte each, from where joblib maps them into memory


@pytest.fixture(scope="module")
def large():
    """A small network for nodes, and instances in a graph that is much larger than what they need of it."""
    model, X = example("node")
    width = X.num_units("feature", 0)
    draw = torch.Generator().manual_seed(0)
    edge_index = torch.randint(LARGE, (2, 2 * LARGE), generator=draw)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    graph = Data(x=torch.rand(LARGE, width, generator=draw), edge_index=edge_index)
    truth = {"edge": [np.zeros(edge_index.shape[1], dtype=bool)] * 8}
    return model, Instances.from_nodes(graph, np.arange(8), truth=truth, node_ids=np.arange(LARGE).astype(str))


def sent(value):
    return pickle.loads(pickle.dumps(value))


class TestParcel:
    def test_large_arrays_travel_as_they_are_and_once(self):
        array = np.arange(parcel.MAPPED_FROM, dtype=np.uint8)
        packed = Parcel({"a": [array, array], "b": np.arange(3)}).packed()
        assert packed.nbytes < array.nbytes + 10_000
        assert packed._arrays[1] is array
        content = sent(packed).open()
        np.testing.assert_array_equal(content["a"][0], array)
        assert content["a"][0] is content["a"][1]
        np.testing.assert_array_equal(content["b"], np.arange(3))

    def test_is_opened_once_per_process(self):
        packed = Parcel(["a"]).packed()
        assert sent(packed).open() is sent(packed).open()
        assert sent(Parcel(["a"])).open() is not sent(packed).open()

    def test_few_calls_are_kept(self):
        first = Parcel(["a"]).packed()
        opened = sent(first).open()
        for _ in range(parcel.CALLS_KEPT):
            sent(Parcel([])).open()
        assert sent(first).open() is not opened

    def test_is_the_content_itself_in_the_same_process(self):
        content = ["a"]
        assert Parcel(content).open() is content

    def test_its_size_is_what_dask_asks_for(self):
        assert sys.getsizeof(Parcel(np.zeros(10**6)).packed()) > 8 * 10**6

    def test_says_what_cannot_travel(self):
        with pytest.raises(TypeError, match="must be picklable to travel .* use n_jobs=1"):
            Parcel(item for item in []).packed()


def test_tasks_hold_what_their_instances_need(large):
    _, X = large
    assert len(pickle.dumps(chunks.columns_of(X, np.arange(4)))) < 2_000
    _, X = example("graph")
    columns = chunks.columns_of(X, np.array([1]))
    assert columns["store"].num_graphs == 1
    np.testing.assert_array_equal(columns["store"].edges(0), X.store.edges(1))


class TestCutting:
    def test_equal_work_and_every_row_once(self):
        work = np.random.default_rng(0).integers(1, 1000, 5000)
        pieces = balanced(work, 2, 8, 1)
        np.testing.assert_array_equal(np.concatenate(pieces), np.arange(5000))
        assert len(pieces) == 8
        shares = [work[rows].sum() for rows in pieces]
        assert max(shares) - min(shares) <= 2 * work.max()

    def test_an_instance_that_is_most_of_the_work_is_alone(self):
        work = np.array([1] * 10 + [1000] + [1] * 10)
        assert [10] in [rows.tolist() for rows in balanced(work, 2, 8, 1)]

    def test_chunks_are_bounded(self):
        work = np.full(1000, EDGES_PER_CHUNK // 10)
        assert len(balanced(work, 2, 8, 1)) == 100

    def test_little_work_beside_the_graph_makes_few_chunks(self):
        assert len(balanced(np.ones(100), 2, 8, 10_000)) == 2

    @pytest.mark.parametrize("level", ["graph", "node", "edge"])
    def test_no_more_chunks_than_instances(self, level):
        _, X = example(level)
        pieces = chunks.cut(X, 50)
        assert np.concatenate(pieces).tolist() == list(range(len(X)))
        assert all(len(rows) for rows in pieces)

    def test_work_is_edges_and_nodes_of_graphs(self):
        _, X = example("graph")
        assert work_of(X).tolist() == [X[i].graph.num_edges + X[i].graph.num_nodes for i in range(len(X))]

    @pytest.mark.parametrize("level", ["node", "edge"])
    def test_work_of_nodes_counts_walks_of_two_steps(self, level):
        _, X = example(level)
        graph = X[0].graph
        adjacency = np.zeros((graph.num_nodes, graph.num_nodes), dtype=int)
        np.add.at(adjacency, (graph.edge_index[1].numpy(), graph.edge_index[0].numpy()), 1)
        near = 1 + adjacency.sum(axis=1) + (adjacency @ adjacency).sum(axis=1)
        largest = graph.num_nodes + graph.num_edges
        assert work_of(X).tolist() == [min(near[ends].sum(), largest) for ends in X.element]

    def test_work_of_a_large_graph_follows_the_computation_graphs(self, large):
        _, X = large
        cuts = receptive_fields(X, np.arange(len(X)), 2, 0, both_ways=False)
        size = np.diff(cuts.edge_ptr) + np.diff(cuts.node_ptr)
        assert (work_of(X) <= 2 * size).all()
        assert (work_of(X) >= size / 2).all()


class TestLoky:
    def test_model_is_unpickled_once_per_worker(self, tmp_path):
        model, X = example("node")
        E = explain_dataset(RandomExplainer(Counted(model, tmp_path / "unpickled")), X, n_jobs=2, chunk_size=1)
        processes = (tmp_path / "unpickled").read_text().split()
        assert len(processes) == len(set(processes)) <= 2
        require_equal(E, RandomExplainer(model).explain(X))

    @pytest.mark.parametrize("mapped", [False, True])
    def test_large_graphs_are_mapped_into_memory(self, large, tmp_path, mapped):
        model, X = large
        whole = SensitivityAnalysis(model).explain(X)
        if mapped:
            X.save(tmp_path / "graph")
            X = Instances.open(tmp_path / "graph")
        require_equal(explain_dataset(SensitivityAnalysis(model), X, n_jobs=2, chunk_size=3), whole)

    def test_a_killed_worker_loses_nothing(self, tmp_path):
        model, X = example("node")
        dying = DiesOnce(model, instance=int(X.ids[3]), flag=str(tmp_path / "killed"))
        with pytest.warns(UserWarning, match="A worker process must live .* chunks are explained again"):
            E = explain_dataset(dying, X, n_jobs=2, chunk_size=1)
        assert (tmp_path / "killed").exists()
        require_equal(E, RandomExplainer(model).explain(X))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_have_one_thread(backend):
    model, X = example("graph")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with joblib.parallel_config(backend):
            E = explain_dataset(ThreadCount(model), X, n_jobs=2, chunk_size=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert {float(E[i].max()) for i in range(len(X))} == {1.0}


def test_threads_do_not_see_that_get_params_hides_the_model(monkeypatch):
    def slow(self, deep=True):
        time.sleep(0.02)
        return get_params(self, deep)

    model, X = example("graph")
    X = X[np.arange(20) % len(X)]
    whole = RandomExplainer(model).explain(X)
    get_params = BaseEstimator.get_params
    monkeypatch.setattr(BaseEstimator, "get_params", slow)
    with joblib.parallel_config("threading"):
        require_equal(explain_dataset(RandomExplainer(model), X, n_jobs=4, chunk_size=1), whole)


class TestLostWorkers:
    """The loop around joblib, with a round that is cut off: as when the only worker that holds the model is killed."""

    def rounds(self, monkeypatch, finished):
        real, sizes = chunks._round, []

        def cut_off(parcel, X, pieces, n_jobs, budget):
            sizes.append(len(pieces))
            yield from list(real(parcel, X, pieces, n_jobs, budget))[:finished]
            if finished < len(pieces):
                raise CancelledError

        monkeypatch.setattr(chunks, "_round", cut_off)
        return sizes

    def test_only_what_is_left_is_explained_again(self, monkeypatch):
        model, X = example("graph")
        sizes = self.rounds(monkeypatch, finished=2)
        with joblib.parallel_config("threading"), pytest.warns(UserWarning, match="of 5 chunks are explained again"):
            E = explain_dataset(RandomExplainer(model), X, n_jobs=2, chunk_size=1)
        assert sizes == [5, 3, 1]
        require_equal(E, RandomExplainer(model).explain(X))

    def test_it_ends(self, monkeypatch):
        model, X = example("graph")
        sizes = self.rounds(monkeypatch, finished=0)
        with (
            joblib.parallel_config("threading"),
            pytest.warns(UserWarning, match="A worker process"),
            pytest.raises(CancelledError),
        ):
            explain_dataset(RandomExplainer(model), X, n_jobs=2, chunk_size=1)
        assert len(sizes) == chunks.LOST_WORKERS


def ring_with_loop(node):
    ring = torch.arange(4)
    edges = torch.stack([ring, ring.roll(1)])
    return Data(x=torch.rand(4, 3), edge_index=torch.cat([edges, torch.tensor([[node], [node]])], dim=1))


class OneColumn(torch.nn.Module):
    """A layer that makes its own loops, and one column per graph, which may mean several things."""

    def __init__(self):
        super().__init__()
        self.conv = GCNConv(3, 1)

    def forward(self, x, edge_index, batch):
        return global_add_pool(self.conv(x, edge_index), batch)


def warned_of(use):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        use()
    return sorted(str(warning.message) for warning in caught)


def test_workers_warn_once_and_number_instances_as_the_user_does():
    graphs = [Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0, 1], [1, 2]])) for _ in range(3)]
    X = Instances.from_graphs([*graphs, ring_with_loop(1), ring_with_loop(2)])
    explainer = SensitivityAnalysis(OneColumn())
    expected = warned_of(lambda: explainer.explain(X))
    assert len(expected) == 2
    assert any("binary" in text for text in expected)
    assert any("Got 2, the first is edge 4 (1, 1) of instance 3." in text for text in expected)
    assert warned_of(lambda: explain_dataset(explainer, X, chunk_size=1, n_jobs=2)) == expected
    assert set(warned_of(lambda: explain_dataset(explainer, X, chunk_size=1))) == set(expected)
    assert warned_of(lambda: SensitivityAnalysis(OneColumn(), n_jobs=2).explain(X)) == expected
