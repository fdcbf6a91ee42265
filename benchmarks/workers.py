"""Two workers against one, for loky and for Dask, and what it costs to have workers at all.

    python benchmarks/workers.py           # about five minutes; needs the dask extra
    python benchmarks/workers.py --toy     # a check that it still runs, seconds

The job is a minute on one worker: `GNNExplainer` with 5,000 epochs on 1,000 BA-2Motifs graphs, always in the same
chunks. One worker is this process with one thread, timed before and after; the faster run counts. Two workers are warm:
what they need to start (processes, imports, and for Dask the scheduler) is told apart. *Others* is how many of the
machine's processors were taken by processes that are not ours meanwhile: with as many workers as cores, all of it is
missing from the speed-up. *Processor time* is that of all our processes together, which others change little. Results
must be the same to the last bit.
"""

from __future__ import annotations

import argparse
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import cloudpickle
import joblib
import numpy as np
import psutil
import torch
from dask import config as dask_config
from dask.distributed import Client, LocalCluster
from joblib import Parallel, delayed
from side_by_side.command import environment
from side_by_side.tasks import Task, ba_2motifs, power_law
from threadpoolctl import threadpool_limits
from torch import nn

from skgnnx import Explanations, GNNExplainer, Instances, RandomExplainer, explain_dataset
from skgnnx.parallel.chunks import columns_of, cut, parcel_of

EPOCHS, CHUNK, WORKERS, NOTHINGS, TASKS = 5_000, 50, 2, 200, 8
MODEL_BYTES = 46_000_000
# Dask tells malloc to give memory back to the system at once, so every larger tensor is new pages.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**26}


class Machine:
    """What others and we took of the processors since the object was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.busy, self.mine = self._busy(), self._mine()

    def others(self) -> float:
        """Return how many processors others used, 1 being one of them all the time."""
        seconds = time.perf_counter() - self.start
        return max(0.0, self._busy() - self.busy - self.ours()) / seconds

    def ours(self) -> float:
        """Return seconds of this process and its children."""
        return self._mine() - self.mine

    def _busy(self) -> float:
        times = psutil.cpu_times()
        return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice

    def _mine(self) -> float:
        me = psutil.Process()
        return sum(sum(process.cpu_times()[:2]) for process in [me, *me.children(recursive=True)])


@contextmanager
def loky() -> Iterator[None]:
    """Use joblib's own processes."""
    with joblib.parallel_config("loky", n_jobs=WORKERS):
        yield


@contextmanager
def dask(environ: dict[str, int] = ALLOCATOR) -> Iterator[None]:
    """Use a cluster on this machine, its workers with the given variables besides Dask's own."""
    options = {"n_workers": WORKERS, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    settings = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in environ.items()}
    kept = dict(os.environ)  # Dask sets the variables here, too, and workers of loky would inherit them
    try:
        with (
            dask_config.set(settings),
            LocalCluster(**options) as cluster,
            Client(cluster),
            joblib.parallel_config("dask"),
        ):
            yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def row(*cells: Any) -> None:
    print(
        "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )


def heading(*cells: str) -> None:
    print()
    row(*cells)
    row(*["---"] * len(cells))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def same(E: Explanations, F: Explanations) -> bool:
    return all(np.array_equal(E[i], F[i]) for i in range(len(F)))


def speed_up(toy: bool) -> None:
    """Print one row per run of the job."""
    task = ba_2motifs(toy)
    explainer = GNNExplainer(task.network, epochs=20 if toy else EPOCHS)
    job = partial(explain_dataset, explainer, task.instances(), chunk_size=CHUNK)
    before, alone = run_of(partial(job, n_jobs=1))
    found = {}
    for backend in (loky, dask):
        start = time.perf_counter()
        with backend():
            warm(task)
            started = time.perf_counter() - start
            found[backend.__name__] = started, *run_of(partial(job, n_jobs=WORKERS))
    after, _ = run_of(partial(job, n_jobs=1))
    heading("job", "start-up, s", "job, s", "speed-up", "processor time, s", "others, processors", "load", "same bits")
    one = min(before[0], after[0])  # the one that others disturbed less
    row("one worker, before", 0.0, before[0], one / before[0], *before[1:], "-")
    for name, (started, figures, E) in found.items():
        row(f"{WORKERS} workers, {name}", started, figures[0], one / figures[0], *figures[1:], same(E, alone))
    row("one worker, after", 0.0, after[0], one / after[0], *after[1:], "-")


def allocators(toy: bool) -> None:
    """Print what Dask's setting of malloc costs, on a tenth of the job."""
    task = ba_2motifs(toy)
    explainer = GNNExplainer(task.network, epochs=5 if toy else EPOCHS // 10)
    job = partial(explain_dataset, explainer, task.instances(), chunk_size=CHUNK)
    heading("a tenth of the job", "job, s", "processor time, s", "others, processors")
    row("one worker", *run_of(partial(job, n_jobs=1))[0][:3])
    settings = {"MALLOC_* as in this script": ALLOCATOR} | ({} if toy else {"Dask's own": {}})
    for name, environ in settings.items():
        with dask(environ):
            warm(task)
            row(f"{WORKERS} Dask workers, {name}", *run_of(job)[0][:3])


def run_of(job: Callable[[], Explanations]) -> tuple[tuple[float, float, float, float], Explanations]:
    """Return seconds, processor seconds, processors that others used, and load; and the explanations."""
    machine = Machine()
    seconds, E = timed(job)
    return (seconds, machine.ours(), machine.others(), os.getloadavg()[0]), E


def warm(task: Task) -> None:
    """Let every worker import what it needs."""
    few = task.take(np.arange(2 * WORKERS)).instances()
    processes: set[int] = set()
    while len(processes) < WORKERS:
        processes.update(Parallel(n_jobs=WORKERS)(delayed(slow_nothing)() for _ in range(WORKERS)))
    explain_dataset(RandomExplainer(task.network), few, n_jobs=WORKERS, chunk_size=1)


def slow_nothing() -> int:
    """Import what explaining needs, and wait long enough for the other worker to get a task, too."""
    import skgnnx  # noqa: F401 (takes seconds the first time)

    time.sleep(0.2)
    return os.getpid()


def nothing() -> None:
    """Do nothing."""


def traffic(toy: bool) -> None:
    """Print what tasks weigh."""
    heading("what travels, kB", "explainer and graphs pickled with every task", "columns of a task", "once per worker")
    cases = {
        "1,000 BA-2Motifs graphs": ba_2motifs(toy),
        "200 nodes of a graph with 100,000": power_law(toy, 100_000),
    }
    for name, task in cases.items():
        X, explainer = task.instances(), RandomExplainer(task.network)
        rows = cut(X, WORKERS)[0]
        objects = [item.graph for item in X[rows]] if task.nodes is None else [task.graphs[0], task.nodes[rows]]
        pickled = len(cloudpickle.dumps((explainer, objects))) / 1e3
        row(name, pickled, len(pickle.dumps(columns_of(X, rows))) / 1e3, parcel_of(explainer, X).packed().nbytes / 1e3)


class Heavy(nn.Module):
    """A network with parameters that it does not use."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.ballast = nn.Parameter(torch.zeros(size // 4))

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, batch: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the network returns."""
        return self.network(x, edge_index, batch)


def naive(explainer: RandomExplainer, part: Instances) -> Explanations:
    """Explain a part as a loop of one's own would."""
    return explainer.explain(part).without_graphs()


def overheads(toy: bool) -> None:
    """Print what a task costs that does nothing, and a large model."""
    size = MODEL_BYTES // 100 if toy else MODEL_BYTES
    task = ba_2motifs(toy=True)
    model = Heavy(task.network, size).eval()
    X, explainer = task.instances()[:TASKS], RandomExplainer(model)
    alone, _ = timed(partial(explain_dataset, explainer, X, chunk_size=1, n_jobs=1))
    heading("overhead, s", "task that does nothing", f"{size / 1e6:g} MB model in {TASKS} tasks", "the same, pickled")
    row("in this process", 0.0, alone, "-")
    for backend in (loky, dask):
        with backend():
            warm(task)
            idle, _ = timed(lambda: Parallel(batch_size=1)(delayed(nothing)() for _ in range(NOTHINGS)))
            shipped, _ = timed(partial(explain_dataset, explainer, X, chunk_size=1, n_jobs=WORKERS))
            pickled, _ = timed(lambda: Parallel(batch_size=1)(delayed(naive)(explainer, X[[i]]) for i in range(TASKS)))
            row(backend.__name__, idle / NOTHINGS, shipped, pickled)


def main() -> None:
    """Print four tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    # speed-up first, while no worker of joblib has started
    tables = {table.__name__: table for table in (speed_up, allocators, traffic, overheads)}
    parser.add_argument("--only", nargs="+", choices=tables, default=list(tables), help="which tables, default all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    about = environment() | {"joblib": joblib.__version__, "device": "one thread per process"}
    print(", ".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    with threadpool_limits(1):
        for name in arguments.only:
            tables[name](arguments.toy)


if __name__ == "__main__":
    main()
