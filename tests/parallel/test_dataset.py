"""Whole data sets: the same result however it is cut, and nothing lost to a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

from skgnnx import Explanations, GNNExplainer, Instances, RandomExplainer, SensitivityAnalysis, explain_dataset
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.testing import example


def same(E: Explanations, F: Explanations, tolerance: float = 1e-6) -> None:
    assert len(E) == len(F)
    for i in range(len(E)):
        np.testing.assert_allclose(E[i], F[i], atol=tolerance, rtol=0, equal_nan=True)


@explainer
class Failing(BaseExplainer):
    """Scores edges by 1 and fails for graphs of one size."""

    size: int = 6

    def _explain_batch(self, gnn, batch, seed):
        from skgnnx.blackbox.gathering import Masks

        sizes = batch.sum_nodes(torch.ones(batch.num_nodes))
        if bool((sizes == self.size).any()):
            raise ValueError("this graph cannot be explained")
        return Masks(edge=torch.ones(batch.num_edges))


@pytest.mark.parametrize("level", ["graph", "node"])
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_change_nothing(level, chunk_size):
    model, X = example(level)
    whole = GNNExplainer(model, epochs=5).explain(X)
    same(explain_dataset(GNNExplainer(model, epochs=5), X, chunk_size=chunk_size), whole)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_change_nothing(backend):
    model, X = example("node")
    whole = GNNExplainer(model, epochs=5, n_init=2).explain(X)
    with joblib.parallel_config(backend):
        E = explain_dataset(GNNExplainer(model, epochs=5, n_init=2), X, n_jobs=2)
    same(E, whole)
    assert E.model is model
    assert E.instances.store is X.store
    for mine, theirs in zip(E.spread, whole.spread, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_n_jobs_of_the_explainer_changes_nothing():
    model, X = example("graph")
    same(RandomExplainer(model, n_jobs=2).explain(X), RandomExplainer(model).explain(X), 0)


def test_random_state_none_is_drawn_once_for_all_chunks():
    model, X = example("graph")
    rng = np.random.RandomState(3)
    E = explain_dataset(RandomExplainer(model, random_state=rng), X, chunk_size=1)
    same(E, RandomExplainer(model, random_state=np.random.RandomState(3)).explain(X), 0)


def test_forking_backend_is_refused():
    model, X = example("graph")
    with joblib.parallel_config("multiprocessing"), pytest.raises(ValueError, match="multiprocessing"):
        explain_dataset(RandomExplainer(model), X, n_jobs=2)


def graphs_of_sizes(sizes):
    model, X = example("graph")
    graph = X[0].graph
    built = []
    for size in sizes:
        ring = torch.arange(size)
        copy = graph.clone()
        copy.x = torch.rand(size, graph.x.shape[1], generator=torch.Generator().manual_seed(size))
        copy.edge_index = torch.stack([ring, ring.roll(1)])
        copy.num_nodes = size
        built.append(copy)
    return model, Instances.from_graphs(built)


def test_failures_are_kept_apart():
    model, X = graphs_of_sizes([4, 6, 5, 6, 7])
    E = explain_dataset(Failing(model), X, on_error="nan", chunk_size=2)
    assert E.ok.tolist() == [True, False, True, False, True]
    assert "cannot be explained" in E.errors[1]
    assert np.isnan(E[1]).all()
    assert E[1].shape == (6,)
    with pytest.raises(ValueError, match="cannot be explained"):
        explain_dataset(Failing(model), X, chunk_size=2)


class TestStore:
    def test_second_call_reads_what_the_first_has_written(self, tmp_path, monkeypatch):
        model, X = example("node")
        first = explain_dataset(GNNExplainer(model, epochs=3), X, store=tmp_path, chunk_size=2)
        monkeypatch.setattr(GNNExplainer, "_explain_batch", lambda *_: pytest.fail("computed again"))
        same(explain_dataset(GNNExplainer(model, epochs=3), X, store=tmp_path, chunk_size=2), first, 0)

    def test_missing_chunks_alone_are_computed(self, tmp_path):
        model, X = example("node")
        first = explain_dataset(SensitivityAnalysis(model), X, store=tmp_path, chunk_size=2)
        chunks = sorted(tmp_path.glob("chunk-*.npz"))
        kept = chunks[0].stat().st_mtime_ns
        chunks[1].unlink()
        same(explain_dataset(SensitivityAnalysis(model), X, store=tmp_path, chunk_size=2), first, 0)
        assert chunks[1].exists()
        assert chunks[0].stat().st_mtime_ns == kept

    @pytest.mark.parametrize("changed", ["model", "parameters", "X", "chunk_size"])
    def test_another_job_is_refused_by_name(self, tmp_path, changed):
        model, X = example("node")
        explain_dataset(SensitivityAnalysis(model), X, store=tmp_path, chunk_size=2)
        chunk_size, made = 2, SensitivityAnalysis(model)
        if changed == "model":
            with torch.no_grad():
                next(model.parameters()).add_(1)
        elif changed == "parameters":
            made = SensitivityAnalysis(model, norm="l2")
        elif changed == "X":
            X = X[:-1]
        else:
            chunk_size = 1
        with pytest.raises(ValueError, match=f"with other .*{changed}"):
            explain_dataset(made, X, store=tmp_path, chunk_size=chunk_size)

    def test_retry_tries_failed_ones_again(self, tmp_path, monkeypatch):
        model, X = graphs_of_sizes([4, 6, 5])
        failing = {"on_error": "nan", "store": tmp_path, "chunk_size": 1}
        assert not explain_dataset(Failing(model), X, **failing).ok[1]
        before = (tmp_path / "chunk-000000.npz").stat().st_mtime_ns
        calls = []
        monkeypatch.setattr(
            Failing, "_explain_batch", lambda self, gnn, batch, seed: calls.append(len(batch)) or _ones(batch)
        )
        assert not explain_dataset(Failing(model), X, **failing).ok[1]
        assert calls == []
        assert explain_dataset(Failing(model), X, retry=True, **failing).ok.all()
        assert calls == [1]
        assert (tmp_path / "chunk-000000.npz").stat().st_mtime_ns == before


def _ones(batch):
    from skgnnx.blackbox.gathering import Masks

    return Masks(edge=torch.ones(batch.num_edges))


KILLED = """
import sys, time
from skgnnx import RandomExplainer, explain_dataset
from skgnnx.testing import example

class Slow(RandomExplainer):
    def _explain_batch(self, gnn, batch, seed):
        time.sleep({pause})
        return super()._explain_batch(gnn, batch, seed)

Slow.__name__ = "RandomExplainer"
model, X = example("node")
E = explain_dataset(Slow(model), X, store=sys.argv[1], chunk_size=1)
"""


def test_kill_loses_nothing_that_was_finished(tmp_path):
    """``kill -9`` in the middle; the same call then computes only what is missing."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    script = [sys.executable, "-c", KILLED.format(pause=0.3), str(tmp_path)]
    process = subprocess.Popen(script, env=environment)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("chunk-*.npz"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("chunk-*.npz")}
    model, X = example("node")
    assert 2 <= len(finished) < len(X)
    E = explain_dataset(RandomExplainer(model), X, store=tmp_path, chunk_size=1)
    same(E, RandomExplainer(model).explain(X), 0)
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())


def test_progress_counts_chunks_and_failures(capsys):
    model, X = graphs_of_sizes([4, 6, 5])
    explain_dataset(Failing(model), X, on_error="nan", chunk_size=1, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("3/3 chunks done, 1 instances failed")
