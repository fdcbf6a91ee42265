"""A stand-in for graphs that were not saved: sizes, no content."""

from __future__ import annotations

from typing import Any

import numpy as np

from skgnnx.graphs.entries import offsets
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.store import GraphStore


class StrippedStore(GraphStore):
    """Sizes of graphs without their edges and attributes, as a file saved with ``graphs=False`` has them.

    Parameters
    ----------
    node_ptr, edge_ptr : ndarray of shape (num_graphs + 1,)
        First node and first edge of each graph.
    """

    def __init__(self, node_ptr: np.ndarray, edge_ptr: np.ndarray) -> None:
        self.node_ptr = node_ptr
        self.edge_ptr = edge_ptr
        self.sparse = False

    def __getattr__(self, name: str) -> Any:
        if name in ("edge_index", "columns", "objects"):
            raise ValueError(
                "Edges and attributes must be known here. Got explanations from a file saved with graphs=False; "
                "pass what was explained to Explanations.load as instances=."
            )
        raise AttributeError(name)

    def select(self, graphs: np.ndarray) -> StrippedStore:
        """Return the sizes of the given graphs only."""
        return StrippedStore(offsets(np.diff(self.node_ptr)[graphs]), offsets(np.diff(self.edge_ptr)[graphs]))


def same_shapes(X: Instances, Y: Instances) -> bool:
    """Return True if two groups of instances agree in their elements and in the sizes of their graphs."""
    return np.array_equal(X.element, Y.element) and all(
        np.array_equal(np.diff(getattr(X.store, ptr))[X.graph_index], np.diff(getattr(Y.store, ptr))[Y.graph_index])
        for ptr in ("node_ptr", "edge_ptr")
    )
