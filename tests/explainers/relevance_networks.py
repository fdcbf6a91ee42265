"""Networks of every convolution, wiring, pool and head through which relevance has to pass."""

import torch
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import (
    ARMAConv,
    ChebConv,
    ClusterGCNConv,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCN2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    LEConv,
    MessagePassing,
    SAGEConv,
    SGConv,
    TAGConv,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

POOLS = {"mean": global_mean_pool, "add": global_add_pool, "max": global_max_pool}


class Concatenating(MessagePassing):
    """A layer of the user's own: messages and update are small networks."""

    def __init__(self, i, o):
        super().__init__(aggr="mean")
        self.inner, self.outer = nn.Linear(2 * i, o), nn.Linear(i + o, o)

    def forward(self, x, edge_index):
        return self.outer(torch.cat([x, self.propagate(edge_index, x=x)], dim=1))

    def message(self, x_i, x_j):
        return self.inner(torch.cat([x_i, x_j], dim=1)).relu()


class Nested(MessagePassing):
    """A layer with another one inside, and a bias that it adds itself."""

    def __init__(self, i, o):
        super().__init__(aggr="add")
        self.inner, self.bias = GCNConv(i, o), nn.Parameter(torch.rand(o))

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.inner(x, edge_index)) + self.bias

    def message(self, x_j):
        return x_j


class Initial(nn.Module):
    """A layer that is also given what it made of the input, and changes sums in place."""

    def __init__(self, i, o):
        super().__init__()
        self.lift, self.conv = nn.Linear(i, o), GCN2Conv(o, alpha=0.3, theta=0.5, layer=1)

    def forward(self, x, edge_index):
        h = self.lift(x)
        return self.conv(h.relu(), h, edge_index)


def mlp(i, o):
    return nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))


def normed_mlp(i, o):
    return nn.Sequential(nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU(), nn.Linear(o, o))


CONVS = {
    "gcn": GCNConv,
    "graph": GraphConv,
    "sage": SAGEConv,
    "sage max": lambda i, o: SAGEConv(i, o, aggr="max"),
    "sage several": lambda i, o: SAGEConv(i, o, aggr=["mean", "max"]),
    "gin": lambda i, o: GINConv(mlp(i, o), train_eps=True),
    "gin norm": lambda i, o: GINConv(normed_mlp(i, o)),
    "gat": lambda i, o: GATConv(i, o // 2, heads=2),
    "gat residual": lambda i, o: GATConv(i, o, heads=2, concat=False, residual=True),
    "gatv2": lambda i, o: GATv2Conv(i, o // 2, heads=2),
    "gatv2 shared": lambda i, o: GATv2Conv(i, o // 2, heads=2, share_weights=True),
    "sg": lambda i, o: SGConv(i, o, K=2),
    "tag": lambda i, o: TAGConv(i, o, K=2),
    "cheb": lambda i, o: ChebConv(i, o, K=3),
    "le": LEConv,
    "cluster": ClusterGCNConv,
    "arma": lambda i, o: ARMAConv(i, o, num_stacks=2, num_layers=2),
    "edge": lambda i, o: EdgeConv(mlp(2 * i, o)),
    "initial": Initial,
    "own": Concatenating,
    "nested": Nested,
}
ACTIVATIONS = {
    "relu": functional.relu,
    "relu_": lambda h: functional.relu_(h),
    "leaky": functional.leaky_relu,
    "elu": functional.elu,
    "elu_": lambda h: functional.elu_(h),
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "tanh_": lambda h: h.tanh_(),
    "maximum": lambda h: torch.maximum(h, torch.zeros_like(h)),
    "clamp": lambda h: h.clamp(min=0),
}
HEADS = {
    "linear": lambda o, c: nn.Linear(o, c),
    "no bias": lambda o, c: nn.Linear(o, c, bias=False),
    "two": lambda o, c: nn.Sequential(nn.Linear(o, o), nn.ReLU(), nn.Linear(o, c)),
    "normed": lambda o, c: nn.Sequential(nn.Linear(o, o), nn.BatchNorm1d(o), nn.ReLU(), nn.Linear(o, c)),
    "log_softmax": lambda o, c: nn.Sequential(nn.Linear(o, c), nn.LogSoftmax(dim=-1)),
    "softmax": lambda o, c: nn.Sequential(nn.Linear(o, c), nn.Softmax(dim=-1)),
}
WIRINGS = (
    "plain", "module", "in place", "norm first", "norm last", "residual", "jumping", "bias outside", "dropout",
    "layer norm", "normalized", "virtual node", "positions", "twice", "quotient", "conv last",
)  # fmt: skip


class Network(nn.Module):
    """Two layers, an activation, a pool unless nodes or links are predicted, and a head."""

    def __init__(
        self, conv="gcn", wiring="plain", pool="add", head="linear", activation="relu", classes=3, level="graph"
    ):
        super().__init__()
        self.level, self.wiring, self.pool, self.activation = level, wiring, POOLS[pool], ACTIVATIONS[activation]
        self.convs = nn.ModuleList([CONVS[conv](4, 6), CONVS[conv](6, 6)])
        if wiring == "twice":
            self.lift, self.convs[0] = nn.Linear(4, 6), self.convs[1]
        self.norms = nn.ModuleList([nn.BatchNorm1d(6), nn.BatchNorm1d(6)])
        self.layer_norm, self.dropout, self.virtual = nn.LayerNorm(6), nn.Dropout(), nn.Linear(6, 6)
        self.relu, self.bias = nn.ReLU(inplace=wiring == "in place"), nn.Parameter(torch.rand(6) - 0.5)
        self.table = nn.Embedding(9, 6)
        self.head = HEADS[head](12 if wiring == "jumping" else 6, classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.uniform_(module.running_mean, -1, 1)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, -1, 1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.uniform_(parameter, -0.5, 0.5)

    def activated(self, h, number):
        if self.wiring == "norm first":
            h = self.norms[number](h)
        if self.wiring == "bias outside":
            h += self.bias
        if self.wiring == "layer norm":
            h = self.layer_norm(h)
        h = self.relu(h) if self.wiring in ("module", "in place") else self.activation(h)
        if self.wiring == "norm last":
            h = self.norms[number](h)
        if self.wiring == "normalized":
            h = functional.normalize(h, dim=-1)
        return self.dropout(h) if self.wiring == "dropout" else h

    def states(self, x, edge_index, batch):
        h, found = self.lift(x) if self.wiring == "twice" else x, []
        for number, conv in enumerate(self.convs):
            last = self.wiring == "conv last" and number == 1
            found.append(conv(h, edge_index) if last else self.activated(conv(h, edge_index), number))
            if self.wiring == "residual" and number:
                found[-1] = found[-1] + h
            if self.wiring == "virtual node":
                found[-1] = found[-1] + self.virtual(global_add_pool(found[-1], batch) + self.bias)[batch]
            if self.wiring == "positions":
                found[-1] = found[-1] + self.table(torch.bincount(edge_index[1], minlength=len(x)).clamp(max=8))
            if self.wiring == "quotient":
                found[-1] = found[-1] / (found[-1].std(dim=1, keepdim=True) + 1)
            h = found[-1]
        return torch.cat(found, dim=1) if self.wiring == "jumping" else h

    def forward(self, x, edge_index, batch=None, edge_label_index=None):
        batch = torch.zeros(len(x), dtype=torch.long) if batch is None else batch
        h = self.states(x, edge_index, batch)
        if self.level == "graph":
            h = self.pool(h, batch)
        if self.level == "edge":
            source, target = edge_label_index
            return (h[source] * h[target]).sum(dim=-1)
        return self.head(h)


def made(*args, seed=0, dtype=torch.float64, **kwargs):
    """A network with seeded weights, ready to predict."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(*args, **kwargs).to(dtype).eval()


def graphs(seed=0, dtype=torch.float64):
    """A connected graph, one with loops and multiple edges, one with an isolated node, one node, no edges."""
    random = torch.Generator().manual_seed(seed)

    def graph(n, edges):
        return Data(x=torch.randn(n, 4, generator=random, dtype=torch.float64).to(dtype), edge_index=edges)

    ring = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 3, 1]])
    rich = torch.tensor([[0, 0, 0, 1, 2, 2, 3, 1], [1, 1, 0, 2, 2, 3, 0, 0]])
    nothing = torch.empty(2, 0, dtype=torch.long)
    return [graph(5, ring), graph(4, rich), graph(6, ring), graph(1, nothing), graph(3, nothing)]
