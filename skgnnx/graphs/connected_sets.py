"""Connected sets of the nodes of one graph: components, neighbours and distances, for many sets at once."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph


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
        ones = np.ones(len(pairs), dtype=np.int32)
        self._matrix = sparse.csr_array((ones, (self._ends[0], self._ends[1])), shape=(num_nodes, num_nodes))

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
        number, n = len(inside), self.num_nodes
        source, target = self._ends
        which, edge = np.nonzero(inside[:, source] & inside[:, target])
        size = number * n
        rows, columns = which * n + source[edge], which * n + target[edge]
        copies = sparse.coo_array((np.ones(len(edge), dtype=bool), (rows, columns)), shape=(size, size))
        label = csgraph.connected_components(copies, directed=False)[1] if size else np.zeros(0, dtype=np.int64)
        _, first, of_node = np.unique(label, return_index=True, return_inverse=True)
        lowest = (first[of_node] % max(n, 1)).reshape(inside.shape)
        return np.where(inside, lowest, -1)

    def degrees(self, inside: np.ndarray) -> np.ndarray:
        """Return for each node how many of its neighbours are in a set (n,)."""
        return self._matrix @ inside.astype(np.int32)

    def within(self, inside: np.ndarray, hops: int) -> np.ndarray:
        """Return which nodes are at most so many edges away from each of K sets, these included (K, n)."""
        reached = inside.copy()
        for _ in range(min(hops, self.num_nodes)):
            farther = reached | (self._matrix @ reached.T.astype(np.int32) > 0).T
            if np.array_equal(farther, reached):
                break
            reached = farther
        return reached
