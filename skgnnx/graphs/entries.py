"""Scores of many instances as columns: only the entries of their computation graphs, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skgnnx.graphs.columns import ranges


@dataclass(frozen=True, eq=False)
class Entries:
    """What one mask holds: for every instance the ids of its computation graph and a score for each.

    Instance ``i`` owns rows ``ptr[i]:ptr[i + 1]`` of `ids`, `values` and `explained`.

    Parameters
    ----------
    ptr : ndarray of shape (n + 1,) or None
        First row of every instance; None for feature scores, which are one row per instance.
    ids : ndarray of shape (rows,) or None
        Edge or node ids in the user's own numbering; None for feature scores.
    values : ndarray of shape (rows,) or (rows, n_features)
        Scores; two columns or more for node-feature scores, shape (n, n_features) for feature scores.
    explained : ndarray of bool of shape (rows,) or None, default=None
        False where the method could not give a score, such as a self loop that the layer replaces. None means that
        all could be scored.

    Examples
    --------
    >>> import numpy as np
    >>> from skgnnx.graphs.entries import Entries
    >>> entries = Entries(np.array([0, 2, 3]), np.array([4, 7, 0]), np.array([0.5, 1.0, 0.2]))
    >>> len(entries), entries.rows.tolist()
    (2, [0, 0, 1])
    """

    ptr: Any
    ids: Any
    values: np.ndarray
    explained: np.ndarray | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "values", np.asarray(self.values, dtype=np.float32))
        if self.ptr is not None:
            put(self, "ptr", np.asarray(self.ptr, dtype=np.int64))
            put(self, "ids", np.asarray(self.ids, dtype=np.int64))
        if self.explained is not None:
            put(self, "explained", np.asarray(self.explained, dtype=bool))

    def __len__(self) -> int:
        return len(self.values) if self.ptr is None else len(self.ptr) - 1

    @property
    def rows(self) -> np.ndarray:
        """Instance of every entry."""
        if self.ptr is None:
            return np.arange(len(self.values))
        return np.repeat(np.arange(len(self)), np.diff(self.ptr))

    @property
    def width(self) -> int | None:
        """Number of feature columns, None for one score per entry."""
        return self.values.shape[1] if self.values.ndim == 2 else None

    def of(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids and the values of one instance."""
        if self.ptr is None:
            return np.arange(self.values.shape[1]), self.values[i]
        span = slice(self.ptr[i], self.ptr[i + 1])
        return self.ids[span], self.values[span]

    def with_values(self, values: np.ndarray) -> Entries:
        """Return the same entries with other values."""
        return replace(self, values=values)

    def take(self, instances: np.ndarray) -> Entries:
        """Return the entries of the given instances, in that order."""
        if self.ptr is None:
            explained = None if self.explained is None else self.explained[instances]
            return replace(self, values=self.values[instances], explained=explained)
        counts = np.diff(self.ptr)[instances]
        rows = ranges(self.ptr[instances], counts)
        explained = None if self.explained is None else self.explained[rows]
        return Entries(offsets(counts), self.ids[rows], self.values[rows], explained)

    def dense(self, i: int, length: int) -> np.ndarray:
        """Return one instance as an array over all `length` units of the user's graph, zero outside the entries."""
        ids, values = self.of(i)
        out = np.zeros((length, *values.shape[1:]), dtype=np.float32)
        out[ids] = values
        return out

    def dense_explained(self, i: int, length: int) -> np.ndarray:
        """Return for one instance which of all `length` units were scored, in the shape of `dense`."""
        ids, values = self.of(i)
        out = np.zeros((length, *values.shape[1:]), dtype=bool)
        if self.explained is None:
            out[ids] = True
            return out
        explained = self.explained[i] if self.ptr is None else self.explained[self.ptr[i] : self.ptr[i + 1]]
        out[ids] = explained.reshape(-1, *(1,) * (values.ndim - 1))
        return out

    @staticmethod
    def concat(parts: Sequence[Entries]) -> Entries:
        """Join the entries of several groups of instances."""
        if len(parts) == 1:
            return parts[0]
        values = np.concatenate([part.values for part in parts])
        explained = None
        if any(part.explained is not None for part in parts):
            explained = np.concatenate([_explained_rows(part) for part in parts])
        if parts[0].ptr is None:
            return Entries(None, None, values, explained)
        counts = np.concatenate([np.diff(part.ptr) for part in parts])
        return Entries(offsets(counts), np.concatenate([part.ids for part in parts]), values, explained)

    @staticmethod
    def empty(n: int, like: Entries) -> Entries:
        """Return `n` instances without a score, in the form of `like`."""
        if like.ptr is None:
            return Entries(None, None, np.zeros((n, like.values.shape[1])))
        return Entries(np.zeros(n + 1), np.zeros(0), np.zeros((0, *like.values.shape[1:])))


class DenseSequence:
    """Arrays of all instances that are built when one is read.

    An integer index gives one read-only array; a slice, an int array or a bool mask gives a shorter sequence.

    Parameters
    ----------
    build : callable
        Makes the array of one instance from its position.
    positions : ndarray of int
        The instances, in the order in which they are read.
    """

    def __init__(self, build: Callable[[int], np.ndarray], positions: np.ndarray) -> None:
        self._build = build
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def shape(self) -> tuple[int]:
        """Number of arrays, as a tuple."""
        return (len(self),)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if is_int(key):
            array = self._build(int(self._positions[key]))
            array.flags.writeable = False
            return array
        return DenseSequence(self._build, self._positions[positions_of(key, len(self))])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return as_ragged(list(self))

    def __repr__(self) -> str:
        return f"<{len(self)} arrays, built when read>"


def positions_of(key: Any, n: int) -> np.ndarray:
    """Return the positions that a slice, int array or bool mask selects out of `n`."""
    if isinstance(key, slice):
        return np.arange(n)[key]
    key = np.asarray(key)
    if key.dtype.kind == "f" and not key.size:  # an empty list
        key = key.astype(np.int64)
    return np.arange(n)[key]


def is_int(key: Any) -> bool:
    """Return True for a Python or numpy integer, and False for a bool."""
    return isinstance(key, (int, np.integer)) and not isinstance(key, (bool, np.bool_))


def as_ragged(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return a one-dimensional object array; numpy alone would stack arrays of equal size."""
    out = np.empty(len(arrays), dtype=object)
    for i, array in enumerate(arrays):
        out[i] = array
    return out


def offsets(counts: np.ndarray) -> np.ndarray:
    """Return the first row of every group, and the end: a zero, then the cumulative sum of the counts."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _explained_rows(part: Entries) -> np.ndarray:
    if part.explained is not None:
        return part.explained
    return np.ones(part.values.shape if part.ptr is None else len(part.values), dtype=bool)
