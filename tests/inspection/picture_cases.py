"""Explanations made by hand, and how to find what was drawn of them."""

import numpy as np
import torch
from torch_geometric.data import Data

from skgnnx.graphs import Entries, Explanations


def both_ways(pairs):
    pairs = np.array(pairs).T
    return torch.from_numpy(np.concatenate([pairs, pairs[::-1]], axis=1))


def explain(X, kind, *scores, errors=None, **options):
    """Explanations with dense scores, one array per instance; None where it failed."""
    scores = [np.zeros(0) if values is None else np.asarray(values, dtype=float) for values in scores]
    ptr = np.cumsum([0] + [len(values) for values in scores])
    ids = np.concatenate([np.arange(len(values)) for values in scores])
    entries = Entries(ptr, ids, np.concatenate(scores))
    return Explanations(X, {kind: entries}, kind, targets=[1] * len(X), errors=errors, **options)


def toluene(**keys):
    """A benzene ring (atoms 0 to 5) and a methyl group (6)."""
    pairs = [(k, (k + 1) % 6) for k in range(6)] + [(0, 6)]
    order = torch.tensor([1.5] * 6 + [1.0]).repeat(2)
    z = torch.full((7,), 6)
    graph = Data(edge_index=both_ways(pairs), **{"x": torch.eye(7), "z": z, "bond_order": order} | keys)
    for key in [key for key, value in graph.to_dict().items() if value is None]:
        del graph[key]
    return graph


RING_ATOMS = np.arange(7) < 6
RING_BONDS = np.tile(np.arange(7) < 6, 2)


def artist(ax, gid):
    (found,) = artists(ax, gid)
    return found


def artists(ax, gid):
    return [child for child in ax.get_children() if child.get_gid() == gid]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def warmth(colours):
    """How far colours are from white, the colour of 0."""
    return 1 - np.asarray(colours)[:, :3].min(axis=1)
