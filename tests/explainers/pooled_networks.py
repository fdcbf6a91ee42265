"""Networks that sum up the states of their nodes in one way or another, written in one way or another."""

import torch
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    GINConv,
    GraphConv,
    Linear,
    MaxAggregation,
    MeanAggregation,
    SAGEConv,
    SumAggregation,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

FUNCTIONS = {"mean": global_mean_pool, "add": global_add_pool, "max": global_max_pool}
MODULES = {"mean": MeanAggregation, "add": SumAggregation, "max": MaxAggregation}
CONVS = {
    "gcn": GCNConv,
    "gin": lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))),
    "sage": SAGEConv,
    "graph": GraphConv,
    "gat": lambda i, o: GATConv(i, o // 2, heads=2),
}
WIRINGS = ("functional", "modules", "in place", "norm first", "norm last", "pyg linear")


class Pooling(nn.Module):
    """Two layers, a pool and a Linear; `states` is what is pooled."""

    def __init__(self, conv="gin", pool="mean", wiring="functional", classes=3, bias=True, twice=False):
        super().__init__()
        self.convs = nn.ModuleList([CONVS[conv](4, 6), CONVS[conv](6, 6)])
        if twice:
            self.lift, self.convs[0] = nn.Linear(4, 6), self.convs[1]
        self.wiring, self.twice = wiring, twice
        self.norms = nn.ModuleList([nn.BatchNorm1d(6), nn.BatchNorm1d(6)])
        for norm in self.norms:
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
        self.relu, self.dropout = nn.ReLU(inplace=wiring == "in place"), nn.Dropout()
        self.pool = MODULES[pool]() if wiring == "modules" else FUNCTIONS[pool]
        self.head = (Linear if wiring == "pyg linear" else nn.Linear)(6, classes, bias=bias)

    def activated(self, h, number):
        if self.wiring == "norm first":
            h = self.norms[number](h)
        h = self.relu(h) if self.wiring in ("modules", "in place") else functional.relu(h)
        if self.wiring == "norm last":
            h = self.norms[number](h)
        return self.dropout(h) if self.wiring == "modules" else functional.dropout(h, training=self.training)

    def layers(self, x, edge_index):
        h, found = self.lift(x) if self.twice else x, []
        for number, conv in enumerate(self.convs):
            h = self.activated(conv(h, edge_index), number)
            found.append(h)
        return found

    def states(self, x, edge_index):
        return self.layers(x, edge_index)[-1]

    def forward(self, x, edge_index, batch=None):
        pooled = self.pool(self.states(x, edge_index), batch)
        return self.head(functional.dropout(pooled.view(len(pooled), -1), training=self.training))


def made(make, seed=0):
    """A model in double precision with seeded weights, ready to predict."""
    torch.manual_seed(seed)
    return make().double().eval()


def graphs(count=4, seed=0):
    """Random connected graphs with loops in between, one of them a single node and one without edges."""
    random, found = torch.Generator().manual_seed(seed), []
    for number in range(count):
        n = 4 + number
        edges = torch.cat([torch.randint(n, (2, 2 * n), generator=random), torch.arange(n).unfold(0, 2, 1).T], dim=1)
        x = torch.randn(n, 4, generator=random, dtype=torch.float64)
        found.append(Data(x=x, edge_index=edges[:, edges[0] != edges[1]]))
    lone = torch.randn(4, 4, generator=random, dtype=torch.float64)
    nothing = torch.empty(2, 0, dtype=torch.long)
    return [*found, Data(x=lone[:1], edge_index=nothing), Data(x=lone[1:], edge_index=nothing)]
