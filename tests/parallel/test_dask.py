"""The same calls on a Dask cluster of two worker processes: the same bits, the model sent once, no loss to a kill."""

import os
import signal
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from worker_cases import Counted, ThreadCount, require_equal

from skgnnx import GNNExplainer, RandomExplainer, SensitivityAnalysis, cross_val_explain, explain_dataset
from skgnnx.metrics import get_scorer
from skgnnx.testing import example

distributed = pytest.importorskip("dask.distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def on_cluster(client):
    client.wait_for_workers(2)
    with joblib.parallel_config("dask"):
        yield client


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_explain(on_cluster, level):
    model, X = example(level)
    # Penalties in units of a gradient, the default, take over its last bit, which depends on the size of a batch.
    whole = GNNExplainer(model, preset="paper", epochs=5, n_init=2, n_jobs=1).explain(X)
    E = GNNExplainer(model, preset="paper", epochs=5, n_init=2, n_jobs=2).explain(X)
    require_equal(E, whole)
    assert E.model is model
    assert E.instances is X or E.instances.store is X.store
    for mine, theirs in zip(E.spread, whole.spread, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_explain_dataset_with_a_store(on_cluster, tmp_path):
    model, X = example("node")
    whole = SensitivityAnalysis(model, n_jobs=1).explain(X)
    require_equal(explain_dataset(SensitivityAnalysis(model), X, store=tmp_path, chunk_size=2), whole)
    next(iter(tmp_path.glob("chunk-*.npz"))).unlink()
    require_equal(explain_dataset(SensitivityAnalysis(model), X, store=tmp_path, chunk_size=2), whole)


@pytest.mark.parametrize("n_jobs", [1, None])
def test_grid_search(client, tmp_path, n_jobs):
    model, X = example("graph")
    counted = Counted(model, tmp_path / "unpickled")
    explainer = GNNExplainer(counted, n_jobs=n_jobs)
    search = GridSearchCV(
        explainer, {"epochs": [2, 5], "lr": [0.01, 0.1]}, scoring=get_scorer("fidelity_plus"), cv=2, refit=False
    )
    alone = clone(search).fit(X).cv_results_["mean_test_score"]
    assert not counted.path.exists()
    with joblib.parallel_config("dask"):
        found = search.fit(X).cv_results_["mean_test_score"]
    assert len(set(counted.path.read_text().split()) - {str(os.getpid())}) == 2
    np.testing.assert_array_equal(found, alone)


def test_cross_val_explain(on_cluster):
    model, X = example("graph")
    E = cross_val_explain(RandomExplainer(model, n_jobs=1), X, cv=KFold(3, shuffle=True, random_state=0))
    require_equal(E, RandomExplainer(model, n_jobs=1).explain(X))


@pytest.mark.parametrize("level", ["graph", "node"])
def test_model_is_unpickled_once_per_worker(on_cluster, tmp_path, level):
    model, X = example(level)
    counted = Counted(model, tmp_path / "unpickled")
    E = explain_dataset(RandomExplainer(counted, n_jobs=2), X, chunk_size=1)
    processes = (tmp_path / "unpickled").read_text().split()
    assert len(processes) == len(set(processes)) <= 2
    assert str(os.getpid()) not in processes
    require_equal(E, RandomExplainer(model, n_jobs=1).explain(X))


def test_workers_have_one_thread(on_cluster):
    model, X = example("graph")
    E = explain_dataset(ThreadCount(model), X, chunk_size=1)
    assert {float(E[i].max()) for i in range(len(X))} == {1.0}


def test_a_killed_worker_loses_nothing(on_cluster, tmp_path):
    model, X = example("node")
    finished_then = []

    def kill_one_worker():
        while len(list(tmp_path.glob("chunk-*.npz"))) < 2:
            time.sleep(0.005)
        pid = next(iter(on_cluster.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        finished_then.append(len(list(tmp_path.glob("chunk-*.npz"))))

    killer = threading.Thread(target=kill_one_worker)
    killer.start()
    with warnings.catch_warnings():
        # whether the other worker holds the model by then is a matter of milliseconds
        warnings.filterwarnings("ignore", "A worker process must live", UserWarning)
        E = explain_dataset(GNNExplainer(model, epochs=300), X, store=tmp_path, chunk_size=1)
    killer.join()
    assert finished_then[0] < len(X)
    require_equal(E, explain_dataset(GNNExplainer(model, epochs=300), X, n_jobs=1, chunk_size=1))
