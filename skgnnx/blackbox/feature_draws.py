"""Random node features of the instances of a batch, drawn from the columns of a whole data set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import ndtr
from torch import Tensor

from skgnnx.config import memory_budget
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.feature_columns import FeatureColumns

SHARE_OF_BUDGET = 4  # the rest is for the forward passes


class FeatureDraws:
    """Draws of the features of all nodes, every entry independently from its column; the same in any batch.

    What cannot reach a prediction keeps its own features. Draws that fit a quarter of the memory budget stay in memory,
    others are drawn again when they are asked for.

    Parameters
    ----------
    batch : GraphBatch
    columns : FeatureColumns
        What is drawn from.
    seed : int
        Root seed; a draw depends on it, on its number, and on the content of the instance.
    numbers : range
        Which draws.

    Attributes
    ----------
    own : list of ndarray of shape (n, F)
        The features that the nodes of each instance have, flattened.
    """

    def __init__(self, batch: GraphBatch, columns: FeatureColumns, seed: int, numbers: range) -> None:
        self._batch, self._columns, self._seed, self._numbers = batch, columns, seed, numbers
        x = batch.x.detach().cpu().numpy()  # type: ignore[union-attr]
        self._own = x.reshape(len(x), int(np.prod(x.shape[1:])))
        self._ptr = batch.graphs.node_ptr
        self.own = np.split(self._own, self._ptr[1:-1])
        self._kept: np.ndarray | None = None
        self._last: tuple[int, np.ndarray] = (-1, self._own)
        if self._own.nbytes * len(numbers) * SHARE_OF_BUDGET <= memory_budget():
            self._kept = np.empty((len(numbers), *self._own.shape), dtype=self._own.dtype)
            for position in range(len(numbers)):
                self._kept[position] = self._drawn(position)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def are_kept(self) -> bool:
        """Whether all draws stay in memory."""
        return self._kept is not None

    def of(self, instance: int, draws: slice) -> np.ndarray:
        """Return some draws of the features of one instance (draws, n, C)."""
        nodes = slice(self._ptr[instance], self._ptr[instance + 1])
        if self._kept is not None:
            return self._kept[draws, nodes]
        return np.stack([self._again(position)[nodes] for position in range(len(self))[draws]])

    def parts(self) -> Iterator[slice]:
        """Yield slices of all draws, each of which may be in memory at once."""
        size = len(self) if self._kept is not None else 1
        return (slice(start, start + size) for start in range(0, len(self), max(size, 1)))

    def _again(self, position: int) -> np.ndarray:
        if self._last[0] != position:
            self._last = position, self._drawn(position)
        return self._last[1]

    def _drawn(self, position: int) -> np.ndarray:
        drawn = self._own.copy()
        nodes, varying = np.flatnonzero(self._batch.graphs.node_reach), np.flatnonzero(self._columns.varying)
        drawn[nodes] = self._columns.values[0]
        # Numbers of draws stay below 2^32, so no two seeds share one.
        number, width = self._seed * 2**32 + self._numbers[position], self._own.shape[1]
        places = np.repeat(nodes, len(varying)), np.tile(varying, len(nodes))
        noise = self._batch.noise(number, "node", width, places=places).cpu().numpy()
        drawn[nodes[:, None], varying] = self._columns.at(ndtr(noise).reshape(len(nodes), len(varying)))
        return drawn


def batches_of_draws(batch: GraphBatch, num_draws: int) -> Iterator[GraphBatch]:
    """Yield batches of consecutive instances whose draws stay in memory, or of one whose draws do not."""
    x: Tensor = batch.x  # type: ignore[assignment]  # graphs without features are refused
    size = batch.graphs.node_ptr * int(np.prod(x.shape[1:])) * x.element_size() * num_draws * SHARE_OF_BUDGET
    start = 0
    while start < len(batch):
        stop = max(int(np.searchsorted(size, size[start] + memory_budget(), side="right")) - 1, start + 1)
        yield batch if stop - start == len(batch) else batch.take(np.arange(start, stop))
        start = stop
