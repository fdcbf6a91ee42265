"""Connected sets of the nodes of one graph: components, neighbours and distances, for many sets at once."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

SMALL = 64  # nodes up to which products of dense matrices are faster than what sparse ones take to be made


class Connections:
    """Which nodes of a graph are neighbours; directions, loops and repetitions of edges do not matter.

    Parameters
    ----------
    ends : ndarray of int, shape (2, E)
        Both ends of each edge.
    num_nodes : int
        How many nodes there are.
    """

    def __init__(self, ends: np.ndarray, num_nodes: int) -> None:
        source, target = ends[:, ends[0] != ends[1]].astype(np.int64)
        pairs = np.unique(np.concatenate([source * num_nodes + target, target * num_nodes + source]))
        self.num_nodes = num_nodes
        self._ends = np.stack(np.divmod(pairs, max(num_nodes, 1)))
        ones = np.ones(len(pairs), dtype=np.float32)
        matrix = sparse.csr_array((ones, (self._ends[0], self._ends[1])), shape=(num_nodes, num_nodes))
        self._matrix = matrix.toarray() if num_nodes <= SMALL else matrix

    def components(self, inside: np.ndarray) -> np.ndarray:
        """Return for each node of each set the lowest node of its component.

        Parameters
        ----------
        inside : ndarray of bool, shape (K, n)
            K sets of nodes.

        Returns
        -------
        ndarray of int, shape (K, n)
            -1 for what is outside of a set.
        """
        n = self.num_nodes
        if n <= SMALL:
            return self._small_components(inside)
        source, target = self._ends
        which, edge = np.nonzero(inside[:, source] & inside[:, target])
        size = len(inside) * n
        rows, columns = which * n + source[edge], which * n + target[edge]
        if not size:
            return np.full(inside.shape, -1)
        copies = sparse.coo_array((np.ones(len(edge)), (rows, columns)), shape=(size, size))
        label = csgraph.connected_components(copies, directed=False)[1]
        first = np.zeros(size, dtype=np.int64)
        first[label[::-1]] = np.arange(size)[::-1]  # the last one that is written stays
        return np.where(inside, (first[label] % n).reshape(inside.shape), -1)

    def _small_components(self, inside: np.ndarray) -> np.ndarray:
        """Return the same by squaring: what is within 1, 2, 4, ... edges of each node."""
        if not inside.size:
            return np.full(inside.shape, -1)
        both = inside[:, :, None] & inside[:, None, :]
        near = ((self._matrix + np.eye(self.num_nodes)) > 0) & both
        for _ in range(self.num_nodes.bit_length()):
            factor = near.astype(np.float32)
            near = factor @ factor > 0
        return np.where(inside, near.argmax(axis=2), -1)

    def degrees(self, inside: np.ndarray) -> np.ndarray:
        """Return for each node how many of its neighbours are in a set (n,)."""
        return (self._matrix @ inside.astype(np.float32)).astype(np.int64)

    def within(self, inside: np.ndarray, hops: int) -> np.ndarray:
        """Return which nodes are at most so many edges away from each of K sets, these included (K, n)."""
        reached = inside.copy()
        for _ in range(min(hops, self.num_nodes)):
            farther = reached | (self._matrix @ reached.T.astype(np.float32) > 0).T
            if np.array_equal(farther, reached):
                break
            reached = farther
        return reached
