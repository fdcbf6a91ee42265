"""Graphs and networks for the tests of the black box."""

import warnings
from contextlib import contextmanager

import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import global_add_pool

from skgnnx.blackbox import BlackBox
from skgnnx.testing.networks import CONVS

LOCAL = tuple(kind for kind in CONVS if kind != "mixing")


@contextmanager
def opened(model, X, **options):
    """The model, borrowed for `X`."""
    with BlackBox(model, **options).open(X) as gnn:
        yield gnn


@contextmanager
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def random_graph(seed=0, nodes=12, edges=24, features=3, undirected=False, loops=0, dtype=torch.float32):
    """Random edges without repetition, in random order, with loops at random places."""
    random = torch.Generator().manual_seed(seed)
    pairs = torch.randint(nodes, (2, edges), generator=random)
    pairs = torch.unique(pairs[:, pairs[0] != pairs[1]], dim=1)
    if undirected:
        pairs = torch.unique(torch.cat([pairs, pairs.flip(0)], dim=1), dim=1)
    own = torch.randperm(nodes, generator=random)[:loops].repeat(2, 1)
    edge_index = torch.cat([pairs, own], dim=1)
    edge_index = edge_index[:, torch.randperm(edge_index.shape[1], generator=random)]
    x = torch.randn(nodes, features, generator=random, dtype=torch.float64).to(dtype)
    return Data(x=x, edge_index=edge_index, num_nodes=nodes)


class Stack(nn.Module):
    """Layers called as ``layer(x, edge_index)``, with tanh in between, and a pool if asked."""

    def __init__(self, *layers, pool=False, activation=torch.tanh):
        super().__init__()
        self.layers, self.pool, self.activation = nn.ModuleList(layers), pool, activation

    def forward(self, x, edge_index, batch=None):
        for number, layer in enumerate(self.layers):
            x = layer(self.activation(x) if number else x, edge_index)
        return global_add_pool(x, batch) if self.pool else x


def seeded(make, seed=0):
    """Build a model with random but repeatable weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def whole_mask(batch, mask, num_edges):
    """Spread the mask of a batch of one graph over all edges of the user's graph, 1 elsewhere."""
    full = mask.new_ones(len(batch), num_edges)
    full[batch.edge_instance, torch.from_numpy(batch.edge_id)] = mask
    return full
