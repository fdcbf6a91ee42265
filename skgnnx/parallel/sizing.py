"""Cutting instances into chunks of equal work."""

from __future__ import annotations

import numpy as np

from skgnnx.graphs import Instances
from skgnnx.graphs.columns import offsets, ranges

EDGES_PER_CHUNK = 2_000_000  # seconds of a learned mask: larger chunks are not faster, and more is lost with a worker
GRAPHS_PER_CHUNK = 4  # every chunk runs the model on whole graphs first, which its own work should outweigh


def balanced(work: np.ndarray, least: int, most: int, shared_edges: int) -> list[np.ndarray]:
    """Cut instances into runs of equal work.

    Parameters
    ----------
    work : ndarray of shape (n,)
        Positive work of each instance, see `work_of`.
    least, most : int >= 1
        About how many chunks to make: towards `least` where the instances are little work beside the graph that they
        lie in, more than `most` only where chunks would be larger than `EDGES_PER_CHUNK`.
    shared_edges : int
        Edges of the largest graph that several chunks lie in, 0 if there is none.

    Returns
    -------
    list of ndarray
        Consecutive rows, all of them. The cut depends on nothing else, so a store finds its chunks again.
    """
    done = np.cumsum(work)
    share = min(done[-1] / most, EDGES_PER_CHUNK)
    share = max(share, min(GRAPHS_PER_CHUNK * shared_edges, done[-1] / least))
    chunk = ((done - work / 2) // share).astype(np.int64)
    return np.split(np.arange(len(work)), np.flatnonzero(np.diff(chunk)) + 1)


def work_of(X: Instances) -> np.ndarray:
    """Return what an instance costs, roughly: nodes and edges of its graph, or within two hops of its nodes."""
    store = X.store
    size = (np.diff(store.edge_ptr) + np.diff(store.node_ptr))[X.graph_index]
    if X.level == "graph":
        return np.maximum(size, 1)
    nodes = (store.node_ptr[X.graph_index][:, None] + X.element).reshape(-1)
    index = store.in_edges
    degree = np.diff(index.ptr)
    neighbours = index.far_end[ranges(index.ptr[nodes], degree[nodes])]
    second = np.concatenate([[0], np.cumsum(degree[neighbours])])
    ptr = offsets(degree[nodes])
    near = 1 + degree[nodes] + second[ptr[1:]] - second[ptr[:-1]]
    return np.minimum(near.reshape(X.element.shape).sum(axis=1), size)
