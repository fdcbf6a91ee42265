"""Columns: the values of one key over many graphs, and how graphs become columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data, HeteroData

READ_BY_MODELS = frozenset({"x", "edge_attr", "edge_weight", "edge_type", "pos"})
STRUCTURE_KEYS = frozenset({"edge_index", "adj_t", "adj", "num_nodes", "batch", "ptr"})


@dataclass(frozen=True)
class Column:
    """The values of one key over all graphs.

    Parameters
    ----------
    slot : {"node", "edge", "graph"}
        What one row belongs to.
    values : ndarray
        Rows of all graphs, one graph after the other; keys that hold node ids (``"index"`` in the name) run along the
        last axis instead.
    ptr : ndarray of shape (num_graphs + 1,)
        First row of each graph.
    """

    slot: str
    values: np.ndarray
    ptr: np.ndarray
    along_last: bool = False

    def of(self, graph: int) -> np.ndarray:
        """Return the rows of one graph."""
        span = slice(self.ptr[graph], self.ptr[graph + 1])
        return self.values[..., span] if self.along_last else self.values[span]


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenate ``arange(start, start + count)`` for every pair."""
    counts = np.asarray(counts)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(np.asarray(starts) - (ends - counts), counts) + np.arange(total)


def id_type(count: int) -> type[np.signedinteger[Any]]:
    """Return the smallest of int32 and int64 that numbers so many things."""
    return np.int32 if count <= np.iinfo(np.int32).max else np.int64


def stable_order(keys: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the stable order of int64 keys in ``[0, bound)``, and the keys in that order."""
    bits = len(keys).bit_length()
    if bound.bit_length() + bits > 63:
        order = np.argsort(keys, kind="stable")
        return order, keys[order]
    # A key and its place in one number: plain sorting is vectorised, and several times faster than sorting places.
    packed = keys.astype(np.int64)
    packed <<= bits
    packed |= np.arange(len(keys))
    packed.sort()
    ordered = packed >> bits
    packed &= (1 << bits) - 1
    return packed, ordered


def offsets(sizes: Iterable[int]) -> np.ndarray:
    """Return where each of several consecutive parts starts, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.fromiter(sizes, dtype=np.int64))])


def checked_graph(graph: Any, i: int) -> Data:
    """Return a graph, or raise TypeError if it is not a homogeneous `Data`."""
    if isinstance(graph, HeteroData) or not isinstance(graph, Data):
        raise TypeError(f"Each graph must be a torch_geometric Data. Got {type(graph).__name__} at index {i}.")
    return graph


def edges_of(graph: Data, i: int) -> np.ndarray:
    """Return the (2, E) ends of the edges of a graph, from ``edge_index`` or a sparse ``adj_t``."""
    if graph.get("edge_index") is not None:
        edge_index = graph.edge_index.detach().cpu()
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(
                f"'edge_index' must have shape (2, num_edges). Got {tuple(edge_index.shape)} in graph {i}."
            )
        if edge_index.is_floating_point() and not torch.equal(edge_index, edge_index.floor()):
            raise ValueError(f"'edge_index' must hold whole numbers. Got dtype {edge_index.dtype} in graph {i}.")
        return torch.as_tensor(edge_index, dtype=torch.int64).numpy()
    adjacency = graph.get("adj_t")
    if not torch.is_tensor(adjacency) or adjacency.layout == torch.strided:
        raise ValueError(
            f"Each graph must have 'edge_index', or 'adj_t' as a torch sparse tensor. Got none in graph {i}."
        )
    target, source = adjacency.detach().cpu().to_sparse_coo().coalesce().indices()
    return torch.stack([source, target]).numpy()


def _check_none_missing(key: str, values: list[Any]) -> None:
    """Raise ValueError if some graphs lack what models read of all others."""
    have = [torch.is_tensor(value) for value in values]
    if key in READ_BY_MODELS and any(have) and not all(have):
        without, with_it = have.index(False), have.index(True)
        raise ValueError(f"All graphs must have {key!r}, or none. Got none in graph {without}, but in graph {with_it}.")


def weights_of(graphs: list[Data]) -> np.ndarray | None:
    """Return the values of all sparse ``adj_t``, None where they are all one."""
    values = [graph.adj_t.detach().cpu().to_sparse_coo().coalesce().values() for graph in graphs]
    for i, value in enumerate(values):
        if value.dim() != 1:
            raise ValueError(
                f"'adj_t' must hold one number per edge. Got values of shape {tuple(value.shape)} in graph {i}; put "
                "more into 'edge_attr'."
            )
    weight = torch.cat(values).numpy()
    return None if (weight == 1).all() else weight


def check_ends(edge_index: np.ndarray, node_ptr: np.ndarray, edge_ptr: np.ndarray) -> None:
    """Raise ValueError with the first edge that leads to a node that its graph does not have."""
    if not edge_index.size:
        return
    limit = np.diff(node_ptr)
    limit = np.broadcast_to(limit, edge_ptr[-1]) if len(limit) == 1 else np.repeat(limit, np.diff(edge_ptr))
    bad = ((edge_index < 0) | (edge_index >= limit)).any(axis=0)
    if bad.any():
        edge = int(np.argmax(bad))
        graph = int(np.searchsorted(edge_ptr, edge, side="right")) - 1
        raise ValueError(
            f"'edge_index' must hold node ids in [0, {limit[edge]}). Got edge {tuple(edge_index[:, edge].tolist())} "
            f"at position {edge - edge_ptr[graph]} of graph {graph}; set num_nodes or repair the ids."
        )


def as_column(
    key: str, values: list[Any], graphs: list[Data], node_ptr: np.ndarray, edge_ptr: np.ndarray
) -> Column | None:
    """Return the column of one key, or None where the values cannot be one array."""
    if not all(torch.is_tensor(value) and value.layout == torch.strided and value.dim() for value in values):
        _check_none_missing(key, values)
        return None
    if "index" in key and all(value.dim() > 1 for value in values):
        slot, ptr = "graph", None  # pairs of node ids, be they as many as nodes or edges
    elif all(graph.is_node_attr(key) for graph in graphs):
        slot, ptr = "node", node_ptr
    elif all(graph.is_edge_attr(key) for graph in graphs):
        slot, ptr = "edge", edge_ptr
    else:
        slot, ptr = "graph", None
    along_last = slot == "graph" and "index" in key
    shapes = [value.shape[:-1] if along_last else value.shape[1:] for value in values]
    for i, shape in enumerate(shapes):
        if shape == shapes[0]:
            continue
        if slot == "graph":
            return None
        raise ValueError(
            f"All graphs must have the same number of columns in {key!r}. Got {tuple(shape)} in graph {i} "
            f"and {tuple(shapes[0])} in graph 0."
        )
    axis = -1 if along_last else 0
    tensors = [value.detach().cpu() for value in values]
    joined = tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=axis)
    if joined.dtype == torch.bfloat16:
        raise TypeError(f"{key!r} must have a type that numpy knows. Got torch.bfloat16; use float16 or float32.")
    return Column(slot, joined.numpy(), offsets(t.shape[axis] for t in tensors) if ptr is None else ptr, along_last)
