"""Running an explainer over chunks of instances with joblib."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend
from torch import nn

from skgnnx.config import config_context, memory_budget
from skgnnx.graphs import Explanations, Instances

CHUNKS_PER_WORKER = 4


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
    pieces = chunked(len(X), None, n_jobs)
    results = dict(run_chunks(explainer, X, list(enumerate(pieces)), n_jobs))
    return Explanations.concat([results[number] for number in range(len(pieces))])


def chunked(n: int, chunk_size: int | None, n_jobs: int) -> list[np.ndarray]:
    """Cut n instances into chunks: of a given size, or a few per worker so that uneven ones even out."""
    if chunk_size is None:
        chunk_size = max(1, -(-n // (CHUNKS_PER_WORKER * n_jobs)))
    return [np.arange(start, min(start + chunk_size, n)) for start in range(0, n, chunk_size)]


def run_chunks(
    explainer: Any, X: Instances, pieces: Iterable[tuple[int, np.ndarray]], n_jobs: int
) -> Iterator[tuple[int, Explanations]]:
    """Yield (number, explanations) of every chunk as it is finished.

    Raises
    ------
    ValueError
        For a model on a GPU, or a backend that forks, with several workers.
    """
    if n_jobs > 1:
        _check_backend(explainer.model)
    budget = memory_budget()
    rows_of = dict(pieces)
    tasks = (delayed(_explain)(explainer, X[rows], number, budget) for number, rows in rows_of.items())
    generator = "generator_unordered" if get_active_backend()[0].supports_return_generator else "list"
    results = Parallel(n_jobs=n_jobs, return_as=generator, pre_dispatch="2*n_jobs", batch_size=1)(tasks)
    for number, E in results:
        yield number, E.with_instances(X[rows_of[number]])


def _explain(explainer: Any, X: Instances, number: int, budget: int) -> tuple[int, Explanations]:
    with config_context(memory_budget=budget), parallel_config(n_jobs=1):
        # The parent has the graphs; scores alone travel back.
        return number, explainer.explain(X).without_graphs()


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
