"""Noise that belongs to an instance: the same draw in every batch, order and company."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from skgnnx.graphs.batch import GraphBatch


def draw_normal(batch: GraphBatch, random_state: int, shape: str, columns: int | None) -> Tensor:
    """Draw standard normal noise, one stream per instance; see `GraphBatch.noise`."""
    graphs = batch.graphs
    reach = {"edge": graphs.edge_reach, "node": graphs.node_reach, "instance": np.ones(len(batch), dtype=bool)}[shape]
    ptr = {"edge": graphs.edge_ptr, "node": graphs.node_ptr, "instance": np.arange(len(batch) + 1)}[shape]
    size = (len(reach),) if columns is None else (len(reach), columns)
    values = np.zeros(size)
    for i, digest in enumerate(_digests(batch)):
        seed = hashlib.blake2b(digest + f"{random_state}|{shape}".encode(), digest_size=16).digest()
        stream = np.random.Generator(np.random.Philox(int.from_bytes(seed, "little")))
        rows = np.flatnonzero(reach[ptr[i] : ptr[i + 1]]) + ptr[i]
        values[rows] = stream.standard_normal((len(rows), *size[1:]))
    return torch.from_numpy(values).to(batch.device)


def _digests(batch: GraphBatch) -> list[bytes]:
    """Digest of each instance: features, edges and attributes that reach it, element and target."""
    graphs, ends = batch.graphs, batch.edge_index.cpu().numpy()
    rank = np.cumsum(graphs.node_reach) - 1
    columns = batch.X.store.columns
    node_keys = [key for key in ("x", "pos") if key in columns and columns[key].slot == "node"]
    edge_keys = [key for key in ("edge_attr", "edge_weight", "edge_type") if key in columns]
    edge_keys = [key for key in edge_keys if columns[key].slot == "edge"]
    rows = np.atleast_2d(batch.rows.cpu().numpy())
    digests = []
    for i in range(len(batch)):
        nodes = np.arange(graphs.node_ptr[i], graphs.node_ptr[i + 1])[
            graphs.node_reach[slice(*graphs.node_ptr[i : i + 2])]
        ]
        edges = np.arange(graphs.edge_ptr[i], graphs.edge_ptr[i + 1])[
            graphs.edge_reach[slice(*graphs.edge_ptr[i : i + 2])]
        ]
        first = rank[nodes[0]] if len(nodes) else 0
        content = hashlib.blake2b(str((len(nodes), len(edges))).encode(), digest_size=16)
        content.update((rank[ends[:, edges]] - first).tobytes())
        for key in node_keys:
            content.update(columns[key].values[graphs.node_id[nodes]].tobytes())
        for edge_key in edge_keys:
            content.update(columns[edge_key].values[graphs.edge_id[edges]].tobytes())
        if batch.X.level != "graph":
            content.update((rank[rows[:, i]] - first).tobytes())
        if batch.targets is not None:
            content.update(int(batch.targets[i]).to_bytes(8, "little", signed=True))
        digests.append(content.digest())
    return digests
