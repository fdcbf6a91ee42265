"""Where node features are not zero."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.masked_sum import Pattern
from skgnnx.graphs.columns import ranges


class FeaturePattern(Pattern):
    """Places of a matrix of features, each once, row by row.

    Parameters
    ----------
    rows, columns : ndarray of int
        The places, sorted.
    shape : tuple of two int
        Numbers of rows and columns.
    device : torch.device
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], device: torch.device) -> None:
        super().__init__(np.stack([columns, rows]), shape[1], shape[0], device)
        self._row, self._column = rows, columns
        self.places = torch.from_numpy(rows * shape[1] + columns).to(device)
        self._first: dict[int, tuple[FeaturePattern, int]] = {}
        self._taken: dict[int, tuple[Tensor, FeaturePattern, Tensor]] = {}

    def dense(self, values: Tensor) -> Tensor:
        """Return the given values at their places, and zeros."""
        return spread(values, self.places, self.shape)

    def first(self, count: int) -> tuple[FeaturePattern, int]:
        """Return the first rows, and the number of their places."""
        if count not in self._first:
            size = int(np.searchsorted(self._row, count))
            shape = (count, self.shape[1])
            self._first[count] = FeaturePattern(self._row[:size], self._column[:size], shape, self.device), size
        return self._first[count]

    def take(self, rows: Tensor) -> tuple[FeaturePattern, Tensor]:
        """Return some rows, and which place each of theirs was; from memory for a tensor that came before."""
        known = self._taken.get(id(rows))
        if known is None or known[0] is not rows:
            pattern, places = self._made(rows.cpu().numpy())
            known = self._taken[id(rows)] = (rows, pattern, torch.from_numpy(places).to(self.device))
        return known[1], known[2]

    def _made(self, rows: np.ndarray) -> tuple[FeaturePattern, np.ndarray]:
        counts = self._counts[rows]
        places = ranges(self._starts[rows], counts)
        shape = (len(rows), self.shape[1])
        return FeaturePattern(np.repeat(np.arange(len(rows)), counts), self._column[places], shape, self.device), places

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.bincount(self._row, minlength=self.shape[0])

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum(self._counts) - self._counts


def spread(values: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return an array with the given values at sorted places of its flat form, and zeros."""
    size = int(np.prod(shape))
    if len(places) == size:
        return values.view(shape)
    return values.new_zeros(size).index_copy(0, places, values).view(shape)
