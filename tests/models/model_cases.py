"""Small graphs with a planted reason: a molecule-like ring with a tail, labelled by whether a marked node is in it."""

import numpy as np
import torch
from torch_geometric.data import Data

from skgnnx import Instances


def planted_graphs(n=24, seed=0, edge_attr=False):
    """Half of the graphs hold a node whose first feature is 1; the others have zeros there."""
    rng = np.random.default_rng(seed)
    graphs = []
    for i in range(n):
        size = int(rng.integers(5, 9))
        path = np.stack([np.arange(size - 1), np.arange(1, size)])
        edges = torch.from_numpy(np.concatenate([path, path[::-1]], axis=1))
        x = torch.from_numpy(rng.random((size, 3)).astype(np.float32))
        x[:, 0] = 0
        x[int(rng.integers(size)), 0] = float(i % 2)
        data = Data(x=x, edge_index=edges)
        if edge_attr:
            data.edge_attr = torch.from_numpy(rng.random((edges.shape[1], 2)).astype(np.float32))
            data.edge_weight = torch.from_numpy(rng.random(edges.shape[1]).astype(np.float32))
        graphs.append(data)
    return graphs, np.arange(n) % 2


def planted_nodes(n=30, seed=0):
    """A ring in which a node's label says whether one of its neighbours is marked."""
    rng = np.random.default_rng(seed)
    ring = np.stack([np.arange(n), (np.arange(n) + 1) % n])
    marked = rng.random(n) < 0.4
    x = torch.from_numpy(np.stack([marked, rng.random(n)], axis=1).astype(np.float32))
    data = Data(x=x, edge_index=torch.from_numpy(np.concatenate([ring, ring[::-1]], axis=1)))
    y = (marked[(np.arange(n) + 1) % n] | marked[(np.arange(n) - 1) % n]).astype(int)
    return data, y


def as_instances(n=24, **options):
    graphs, y = planted_graphs(n, **options)
    return Instances.from_graphs(graphs), y
