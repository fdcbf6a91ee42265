"""Running an explainer over chunks of instances with joblib."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from copy import copy
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend
from torch import nn

from skgnnx.config import config_context, memory_budget
from skgnnx.graphs import Explanations, Instances
from skgnnx.parallel.parcel import Parcel
from skgnnx.parallel.sizing import balanced, work_of

CHUNKS_PER_WORKER = 4
STORED_CHUNKS = (8, 64)
LOST_WORKERS = 3
WORKER_LOST = (BrokenProcessPool, CancelledError)  # what loky and Dask raise when a process was killed
INDEX = ("in_edges", "out_edges", "pairs")


def explain_chunks(explainer: Any, X: Instances, *, n_jobs: int) -> Explanations:
    """Explain in `n_jobs` workers and join the parts in order.

    Parameters
    ----------
    explainer : BaseExplainer
        Its own `n_jobs` must be 1.
    X : Instances
    n_jobs : int

    Returns
    -------
    Explanations
    """
    pieces = cut(X, n_jobs)
    results = dict(run_chunks(explainer, X, dict(enumerate(pieces)), n_jobs))
    return Explanations.concat([results[number] for number in range(len(pieces))])


def cut(X: Instances, n_jobs: int, chunk_size: int | None = None, *, stored: bool = False) -> list[np.ndarray]:
    """Return the rows of each chunk: of a given number of instances, or of about equal work.

    Parameters
    ----------
    X : Instances
    n_jobs : int
        Number of workers; does not matter for a store, whose chunks must be found again by any number.
    chunk_size : int >= 1 or None, default=None
        Instances per chunk.
    stored : bool, default=False
        Whether the chunks are kept in a folder.
    """
    if chunk_size is not None:
        return np.split(np.arange(len(X)), range(chunk_size, len(X), chunk_size))
    least, most = STORED_CHUNKS if stored else (n_jobs, CHUNKS_PER_WORKER * n_jobs)
    shared_edges = 0 if X.level == "graph" else int(np.diff(X.store.edge_ptr).max())
    return balanced(work_of(X), least, most, shared_edges)


def run_chunks(
    explainer: Any, X: Instances, pieces: dict[int, np.ndarray], n_jobs: int
) -> Iterator[tuple[int, Explanations]]:
    """Yield (number, explanations) of every chunk as it is finished.

    When a worker process is killed, what is finished stays, and the rest is explained by the others.

    Raises
    ------
    ValueError
        For a model on a GPU, or a backend that forks, with several workers.
    """
    parcel = parcel_of(explainer, X)
    budget = memory_budget()
    if n_jobs == 1:
        for number, rows in pieces.items():
            yield number, _explained(parcel, columns_of(X, rows), budget).with_instances(X[rows])
        return
    _check_backend(explainer.model)
    parcel.packed_for(n_jobs)
    left, losses = dict(pieces), 0
    said: set[str] = set()
    while left:
        try:
            for number, E, warned in _round(parcel, X, left, n_jobs, budget):
                _repeat(warned, said)
                yield number, E.with_instances(X[left.pop(number)])
        except WORKER_LOST as error:
            losses += 1
            if losses == LOST_WORKERS:
                raise
            warnings.warn(
                f"A worker process must live until its chunk is explained. Got {type(error).__name__}; "
                f"{len(left)} of {len(pieces)} chunks are explained again. Lower config_context(memory_budget=...) if "
                "memory ran out.",
                UserWarning,
                stacklevel=4,
            )


def _round(
    parcel: Parcel, X: Instances, pieces: dict[int, np.ndarray], n_jobs: int, budget: int
) -> Iterator[tuple[int, Explanations, list[str]]]:
    """Yield results in the order in which they are finished, the largest chunks started first."""
    work = work_of(X)
    order = sorted(pieces, key=lambda number: -work[pieces[number]].sum())
    home = os.getpid()
    tasks = (delayed(_in_worker)(parcel, columns_of(X, pieces[number]), number, budget, home) for number in order)
    generator = "generator_unordered" if get_active_backend()[0].supports_return_generator else "list"
    return iter(Parallel(n_jobs=n_jobs, return_as=generator, pre_dispatch="2*n_jobs", batch_size=1)(tasks))


def parcel_of(explainer: Any, X: Instances) -> Parcel:
    """Return what all chunks need: the explainer, and for nodes and links the graphs, with their index if it is built.

    Parameters
    ----------
    explainer : BaseExplainer
        With its model.
    X : Instances
        What is explained.
    """
    if X.level == "graph":
        return Parcel((explainer, None, None))
    known = vars(X.store)
    index = tuple(known[name] for name in INDEX) if all(name in known for name in INDEX) else None
    return Parcel((explainer, X.store, index))


def columns_of(X: Instances, rows: np.ndarray) -> dict[str, Any]:
    """Return what explaining reads of some instances, without the graphs that all chunks share.

    Truth and the names of nodes stay here: they may be as large as the graph.

    Parameters
    ----------
    X : Instances
        All that are explained.
    rows : ndarray of int
        Those of one chunk.
    """
    part = X[rows].compact() if X.level == "graph" else X[rows]
    return {
        "store": part.store if X.level == "graph" else None,
        "graph_index": part.graph_index,
        "element": part.element,
        "target": part.target,
        "ids": part.ids,
        "exclude_link": part.exclude_link,
    }


def _in_worker(
    parcel: Parcel, columns: dict[str, Any], number: int, budget: int, home: int
) -> tuple[int, Explanations, list[str]]:
    """Explain a chunk, and bring what the user must be warned of along where this is another process."""
    if os.getpid() == home:
        return number, _explained(parcel, columns, budget), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        E = _explained(parcel, columns, budget)
    return number, E, [str(warning.message) for warning in caught if warning.category is UserWarning]


def _repeat(warned: list[str], said: set[str]) -> None:
    """Warn in the user's own process, once of each."""
    for message in warned:
        if message not in said:
            said.add(message)
            warnings.warn(message, UserWarning, stacklevel=4)


def _explained(parcel: Parcel, columns: dict[str, Any], budget: int) -> Explanations:
    explainer, store, index = parcel.open()
    if index is not None:
        store.with_index(*index)
    X = Instances(**{**columns, "store": columns["store"] or store})
    with config_context(memory_budget=budget), parallel_config(n_jobs=1):
        # Threads each take a copy, because get_params hides the model for a moment. The parent has the graphs.
        return copy(explainer).explain_part(X).without_graphs()


def workers_for(n_jobs: int | None, n: int) -> int:
    """Return how many workers to start for n instances, at least one."""
    return max(1, min(effective_n_jobs(n_jobs), n))


def _check_backend(model: Any) -> None:
    backend = type(get_active_backend()[0]).__name__
    if backend == "MultiprocessingBackend":
        raise ValueError(
            "The 'multiprocessing' backend must not be used, because forked processes hang in torch. Got it from "
            "parallel_config; use 'loky', 'threading' or 'dask'."
        )
    module = model if isinstance(model, nn.Module) else getattr(model, "module_", None)
    on_gpu = isinstance(module, nn.Module) and any(p.device.type == "cuda" for p in module.parameters())
    if on_gpu and torch.cuda.device_count() > 0:
        raise ValueError("'n_jobs' must be 1 for a model on a GPU. Got more workers; raise batch_size instead.")
