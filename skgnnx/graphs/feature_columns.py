"""What every column of the node features of a data set holds, as a distribution to draw from."""

from __future__ import annotations

import numpy as np


class FeatureColumns:
    """The values of every column of the node features, sorted: the empirical distribution of each feature.

    Sorted, they are the same for any order of the graphs, and for graphs that are all there twice.

    Parameters
    ----------
    x : ndarray of shape (N, ...)
        Node features of all graphs of a data set.

    Attributes
    ----------
    values : ndarray of shape (N, F)
        Each column of the flattened features in ascending order.
    varying : ndarray of bool, shape (F,)
        Which columns hold more than one value.
    """

    def __init__(self, x: np.ndarray) -> None:
        self.values = np.sort(x.reshape(len(x), int(np.prod(x.shape[1:]))), axis=0)
        self.varying = (self.values[:1] != self.values[-1:]).any(axis=0)

    def at(self, share: np.ndarray) -> np.ndarray:
        """Return the values (n, C) of the C varying columns below which some shares (n, C) of each lie.

        Where shares are uniform on (0, 1), these are draws from the columns.
        """
        row = np.minimum((share * len(self.values)).astype(np.int64), len(self.values) - 1)
        return self.values[row, np.flatnonzero(self.varying)]

    def could_change(self, own: np.ndarray) -> np.ndarray:
        """Return for each column (F,) whether drawing from it can change some nodes' features (n, F)."""
        return self.varying | (own != self.values[:1]).any(axis=0)
