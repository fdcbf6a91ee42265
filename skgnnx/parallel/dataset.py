"""Explaining a whole data set, with a folder of finished chunks."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from skgnnx.graphs import Explanations, Instances, check_instances, instances_digest, model_digest
from skgnnx.parallel.chunks import cut, run_chunks, workers_for


def explain_dataset(
    explainer: Any,
    X: Any,
    *,
    n_jobs: int | None = None,
    chunk_size: int | None = None,
    on_error: str | None = None,
    store: str | os.PathLike[str] | None = None,
    retry: bool = False,
    progress: bool = False,
) -> Explanations:
    """Explain a data set in chunks, in several processes, resumable.

    Parameters
    ----------
    explainer : BaseExplainer
        Fitted if it learns.
    X : Instances, or anything `check_instances` accepts
        What to explain.
    n_jobs : int or None, default=None
        Workers of joblib's active backend; None is the explainer's own `n_jobs`.
    chunk_size : int >= 1 or None, default=None
        Instances per chunk; None makes about four chunks of equal work per worker, or 64 with a `store`: fewer where
        the instances are little work beside their graph, more where chunks would be large.
    on_error : {"raise", "nan"} or None, default=None
        None is the explainer's own.
    store : path-like or None, default=None
        Folder for finished chunks, each written at once when it is done. The same call goes on where it was stopped.
    retry : bool, default=False
        Whether instances that failed before are tried again.
    progress : bool, default=False
        Whether to print chunks done, failures and the time left.

    Returns
    -------
    Explanations
        In the order of `X`, whatever the workers did.

    Raises
    ------
    ValueError
        If `store` belongs to another model, other parameters or another `X`; the message says which differ.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis, explain_dataset
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> len(explain_dataset(SensitivityAnalysis(model), X, chunk_size=2)) == len(X)
    True
    """
    X = check_instances(X)
    worker = explainer.for_workers(X, on_error=on_error)
    workers = workers_for(explainer.n_jobs if n_jobs is None else n_jobs, len(X))
    pieces = cut(X, workers, chunk_size, stored=store is not None)
    if store is None:
        done: dict[int, Explanations] = {}
        folder = None
    else:
        folder = ChunkStore(Path(store), worker, X, pieces)
        done = folder.finished(retry)
    todo = {number: rows for number, rows in enumerate(pieces) if number not in done}
    for number, E in _reported(run_chunks(worker, X, todo, workers), len(todo), len(done), progress):
        done[number] = E if folder is None else folder.put(number, E)
    E = Explanations.concat([done[number] for number in range(len(pieces))]).with_model(worker.network())
    worker.name_left_out(E)
    return E


class ChunkStore:
    """A folder of finished chunks that belong to one model, one set of parameters and one X.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    explainer : BaseExplainer
    X : Instances
    pieces : list of ndarray
        Rows of each chunk.
    """

    def __init__(self, folder: Path, explainer: Any, X: Instances, pieces: list[np.ndarray]) -> None:
        self.folder = folder
        self.X = X
        self.pieces = pieces
        folder.mkdir(parents=True, exist_ok=True)
        self._check(
            {
                "model": model_digest(explainer.network()),
                "parameters": explainer.fingerprint(),
                "X": instances_digest(X),
                "chunk_size": _digest_of([len(rows) for rows in pieces]),
            }
        )

    def _check(self, wanted: dict[str, Any]) -> None:
        path = self.folder / "store.json"
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(wanted, indent=1))
            temporary.replace(path)
            return
        found = json.loads(path.read_text())
        differing = [key for key, value in wanted.items() if found.get(key) != value]
        if differing:
            raise ValueError(
                f"'store' must belong to the same model, parameters and X. Got {self.folder} with other "
                f"{', '.join(differing)}; use an empty folder, or the call that made it."
            )

    def _path(self, number: int) -> Path:
        return self.folder / f"chunk-{number:06d}.npz"

    def finished(self, retry: bool) -> dict[int, Explanations]:
        """Return the chunks on disk; with `retry`, those without a failure."""
        done = {}
        for number, rows in enumerate(self.pieces):
            if self._path(number).exists():
                E = Explanations.load(self._path(number), instances=self.X[rows])
                if E.ok.all() or not retry:
                    done[number] = E
        return done

    def put(self, number: int, E: Explanations) -> Explanations:
        """Write one chunk, whole or not at all."""
        E.save(self._path(number), graphs=False)
        return E


def _digest_of(sizes: list[int]) -> str:
    return hashlib.sha256(np.array(sizes, dtype=np.int64).tobytes()).hexdigest()


def _reported(
    results: Iterator[tuple[int, Explanations]], total: int, resumed: int, progress: bool
) -> Iterator[tuple[int, Explanations]]:
    start, failed = time.perf_counter(), 0
    for done, (number, E) in enumerate(results, start=1):
        failed += int((~E.ok).sum())
        if progress:
            left = (time.perf_counter() - start) / done * (total - done)
            counts = f"{done + resumed}/{total + resumed} chunks done, {failed} instances failed"
            print(f"{counts}, {left:.0f} s left", flush=True)  # noqa: T201 (asked for by progress=True)
        yield number, E
