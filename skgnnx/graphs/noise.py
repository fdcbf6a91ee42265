"""Noise that belongs to an instance: the same draw in every batch, order and company."""

from __future__ import annotations

import hashlib
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

if TYPE_CHECKING:
    from skgnnx.graphs.batch import GraphBatch

DIGESTS = ("digests",)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def draw_normal(
    batch: GraphBatch,
    random_state: int,
    shape: str,
    columns: int | None,
    places: tuple[np.ndarray, np.ndarray] | None = None,
) -> Tensor:
    """Draw standard normal noise, one stream per instance; see `GraphBatch.noise`.

    A stream is SplitMix64 (Steele, Lea and Flood 2014), whose numbers can be had in any order, so all instances draw at
    once.
    """
    graphs = batch.graphs
    reach = {"edge": graphs.edge_reach, "node": graphs.node_reach, "instance": np.ones(len(batch), dtype=bool)}[shape]
    ptr = {"edge": graphs.edge_ptr, "node": graphs.node_ptr, "instance": np.arange(len(batch) + 1)}[shape]
    size = (len(reach),) if columns is None else (len(reach), columns)
    rows, own_ptr, number = _reached(reach, ptr)
    seed = hashlib.blake2b(f"{random_state}|{shape}".encode(), digest_size=8).digest()
    if DIGESTS not in batch.memo:
        batch.memo[DIGESTS] = _digests(batch)
    digest = batch.memo[DIGESTS]
    if batch.targets is not None:
        digest = _mixed(digest * GOLDEN + batch.targets.cpu().numpy().astype(np.uint64))
    streams = _mixed(digest ^ np.frombuffer(seed, dtype="<u8"))
    width = int(np.prod(size[1:]))
    start = np.repeat(streams, np.diff(own_ptr)) + number * np.uint64(width) * GOLDEN
    if places is None:
        values = np.zeros(size)
        values[rows] = _normal(start[:, None], np.arange(width)).reshape(-1, *size[1:])
    else:
        start_of_row = np.zeros(len(reach), dtype=np.uint64)
        start_of_row[rows] = start
        values = np.where(reach[places[0]], _normal(start_of_row[places[0]], places[1]), 0.0)
    return torch.from_numpy(values).to(batch.device)


def _normal(start: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return some draws of streams, told by their numbers."""
    bits = _mixed(start + (number.astype(np.uint64) + np.uint64(1)) * GOLDEN)
    # 52 bits and a half: the largest is still below 1, whose normal quantile is infinite.
    return ndtri(((bits >> np.uint64(12)) + 0.5) * 2.0**-52)


def _digests(batch: GraphBatch) -> np.ndarray:
    """Digest of each instance: features, edges and attributes that reach it, and element."""
    graphs, columns = batch.graphs, batch.X.store.columns
    nodes, node_ptr, node_number = _reached(graphs.node_reach, graphs.node_ptr)
    edges, edge_ptr, edge_number = _reached(graphs.edge_reach, graphs.edge_ptr)
    rank = np.zeros(batch.num_nodes, dtype=np.uint64)  # among the nodes of an instance that reach it
    rank[nodes] = node_number
    counts = np.stack([np.diff(node_ptr), np.diff(edge_ptr)], axis=1)
    digest = _mixed(_of_rows(counts))
    parts = [(_of_rows(rank[batch.edge_index.cpu().numpy()[:, edges]].T), edge_ptr, edge_number)]
    for key in ("x", "pos"):
        if key in columns and columns[key].slot == "node":
            # Instances that share nodes have the same rows many times over.
            ids, copy_of = np.unique(graphs.node_id[nodes], return_inverse=True)
            parts.append((_of_rows(columns[key].values[ids])[copy_of], node_ptr, node_number))
    for key in ("edge_attr", "edge_weight", "edge_type"):
        if key in columns and columns[key].slot == "edge":
            parts.append((_of_rows(columns[key].values[graphs.edge_id[edges]]), edge_ptr, edge_number))
    for hashed, ptr, number in parts:
        each = _mixed(hashed + (number + np.uint64(1)) * GOLDEN)
        total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(each, dtype=np.uint64)])
        digest = _mixed(digest * GOLDEN + total[ptr[1:]] - total[ptr[:-1]])
    if batch.X.level != "graph":
        ends = np.atleast_2d(batch.rows.cpu().numpy())
        digest = _mixed(digest + _of_rows(rank[ends].T))
    return digest


def _reached(reach: np.ndarray, ptr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what reaches a prediction, the first of each instance among it, and its number within the instance."""
    reached = np.flatnonzero(reach)
    own_ptr = np.searchsorted(reached, ptr)
    number = np.arange(len(reached)) - np.repeat(own_ptr[:-1], np.diff(own_ptr))
    return reached, own_ptr, number.astype(np.uint64)


def _of_rows(values: np.ndarray) -> np.ndarray:
    """Hash each row: its bits times one odd number per column, summed modulo 2^64."""
    rows = np.ascontiguousarray(values.reshape(len(values), int(np.prod(values.shape[1:]))))
    bits = rows.view(f"u{gcd(rows.itemsize * rows.shape[1], 8)}").astype(np.uint64, copy=False)
    factors = _mixed(np.arange(1, bits.shape[1] + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)
    return bits @ factors


def _mixed(keys: np.ndarray) -> np.ndarray:
    """Return the output function of SplitMix64: every bit of a key changes half of the bits."""
    keys = keys ^ (keys >> np.uint64(30))
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    return keys
