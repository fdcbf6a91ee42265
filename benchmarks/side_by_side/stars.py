"""The star-graph task of GraphMask: a network that counts colours, and how explanations of it are scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.utils import Bunch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import FastRGCNConv, global_add_pool

BATCH_SIZE, LR = 64, 2e-3


class StarNetwork(nn.Module):
    """A network before, one R-GCN layer, and a network behind it that reads the centre of the star.

    The layer adds up messages, without which nothing can be counted, and passes those of all colours in one call.
    """

    def __init__(self, features: int = 12, colours: int = 6, hidden: int = 64) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.conv = FastRGCNConv(hidden, hidden, colours, aggr="add")
        self.behind = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2))

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor, batch: Tensor | None = None) -> Tensor:
        """Return the logits (graphs, 2)."""
        states = self.conv(self.before(x), edge_index, edge_type).relu()
        return self.behind(global_add_pool(states * (x[:, :1] < 0), batch))


def trained_star_network(graphs: Sequence[Data], epochs: int, seed: int) -> StarNetwork:
    """Return a network fitted to the labels of some stars."""
    torch.manual_seed(seed)
    network = StarNetwork()
    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    steps = -(-len(graphs) // BATCH_SIZE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(graphs)).split(BATCH_SIZE):
            union = Batch.from_data_list([graphs[i] for i in rows.tolist()])
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits(network, union), union.y).backward()
            optimiser.step()
            decay.step()
    return network.eval()


def logits(network: StarNetwork, union: Batch) -> Tensor:
    """Return what the network says of a union of stars."""
    return network(union.x, union.edge_index, union.edge_type, union.batch)


def accuracy(network: StarNetwork, graphs: Sequence[Data]) -> float:
    """Return the share of stars whose label is predicted."""
    union = Batch.from_data_list(list(graphs))
    with torch.no_grad():
        return float((logits(network, union).argmax(1) == union.y).float().mean())


def micro_average(chosen: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> Bunch:
    """Return precision, recall and their harmonic mean over the edges of all graphs taken together.

    Parameters
    ----------
    chosen, truth : sequence of bool arrays
        Edges of each graph; graphs without a true edge count, too.
    """
    found, true = np.concatenate(list(chosen)), np.concatenate(list(truth))
    hits = float((found & true).sum())
    precision, recall = hits / max(found.sum(), 1), hits / max(true.sum(), 1)
    return Bunch(precision=precision, recall=recall, f1=2 * hits / max(found.sum() + true.sum(), 1))
