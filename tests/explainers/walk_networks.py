"""Networks whose layers are a chain, and what their walks come to when each is followed by a pass of its own."""

from itertools import product

import numpy as np
import torch
from pooled_networks import CONVS, FUNCTIONS, made
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import ChebConv, GATConv, GATv2Conv, GCNConv, SAGEConv, SGConv

from skgnnx import GNNLRP, Instances

KINDS = CONVS | {
    "sage max": lambda i, o: SAGEConv(i, o, aggr="max"),
    "gatv2": lambda i, o: GATv2Conv(i, o // 2, heads=2),
    "sg": lambda i, o: SGConv(i, o, K=2),
    "cheb": lambda i, o: ChebConv(i, o, K=2),
    "gcn without loops": lambda i, o: GCNConv(i, o, add_self_loops=False),
}
JUMPING = ("sg",)  # a step may lead over two edges
WIRINGS = ("functional", "modules", "in place", "norm first", "norm last")


class Chain(nn.Module):
    """Layers one behind the other, and a head; `kept` says which nodes hand gradients on, layer by layer."""

    def __init__(self, conv="gcn", depth=2, wiring="functional", pool="mean", level="graph", *, classes=3, width=6,
                 hidden=False, lift=None, bias=True):  # fmt: skip
        super().__init__()
        self.lift = {None: nn.Identity, "linear": lambda: nn.Linear(4, width), "table": lambda: nn.Embedding(4, width)}[
            lift
        ]()
        first = 4 if lift is None else width
        self.convs = nn.ModuleList([KINDS[conv](first if number == 0 else width, width) for number in range(depth)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(depth)])
        for norm in self.norms:
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
        self.extra = nn.Linear(width, width) if hidden else None
        self.head = nn.Linear(width, classes, bias=bias)
        self.wiring, self.pool, self.level = wiring, FUNCTIONS[pool], level
        self.act = nn.ReLU(inplace=wiring == "in place")
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name.endswith("bias"):
                    value.uniform_(-0.2, 0.4) if bias else value.zero_()
                elif value.dim() > 1:
                    value.mul_(1.5)

    def activated(self, h, number):
        h = self.norms[number](h) if self.wiring == "norm first" else h
        h = functional.relu(h) if self.wiring == "functional" else self.act(h)
        return self.norms[number](h) if self.wiring == "norm last" else h

    def states(self, x, edge_index, kept=None):
        h = self.lift(x.view(-1) if isinstance(self.lift, nn.Embedding) else x)
        for number, conv in enumerate(self.convs):
            h = conv(_kept(h, kept, number), edge_index)
            h = h if number == len(self.convs) - 1 else self.activated(h, number)
        return self.activated(_kept(h, kept, len(self.convs)), len(self.convs) - 1)

    def after(self, h, batch=None, edge_label_index=None):
        if self.level == "graph":
            h = self.pool(h, torch.zeros(len(h), dtype=torch.long) if batch is None else batch)
        elif self.level == "edge":
            h = h[edge_label_index[0]] + h[edge_label_index[1]]
        return self.head(h if self.extra is None else self.extra(h).relu())

    def forward(self, x, edge_index, batch=None, edge_label_index=None):
        return self.after(self.states(x, edge_index), batch, edge_label_index)


def _kept(h, kept, number):
    """The same values; gradients pass at one node only."""
    if kept is None:
        return h
    gate = torch.zeros(len(h), 1, dtype=h.dtype)
    gate[kept[number]] = 1
    return h * gate + (h * (1 - gate)).detach()


class FrozenAttention(nn.Module):
    """A GATConv or GATv2Conv whose attention is what it is for one graph, and constant."""

    def __init__(self, conv, x, edge_index):
        super().__init__()
        self.conv = conv
        _, (self.ends, attention) = conv(x, edge_index, return_attention_weights=True)
        self.attention = attention.detach().unsqueeze(-1)

    def forward(self, h, edge_index):
        lin = self.conv.lin if isinstance(self.conv, GATConv) else self.conv.lin_l
        sent = lin(h).view(len(h), self.conv.heads, -1)[self.ends[0]] * self.attention
        return torch.zeros(len(h), *sent.shape[1:], dtype=h.dtype).index_add(0, self.ends[1], sent).flatten(1) + (
            self.conv.bias
        )


def with_frozen_attention(model, data):
    """The model for one graph; other layers than GAT stay."""
    h, frozen = data.x, []
    for number, conv in enumerate(model.convs):
        frozen.append(FrozenAttention(conv, h, data.edge_index) if isinstance(conv, (GATConv, GATv2Conv)) else conv)
        h = model.activated(conv(h, data.edge_index), number)
    model.convs = nn.ModuleList(frozen)
    return model


def one_pass_per_walk(model, data, target, row=0):
    """Relevance of every walk under the zero rule: one forward and one backward pass for each."""
    found = {}
    for walk in product(range(data.num_nodes), repeat=len(model.convs) + 1):
        x = data.x.clone().requires_grad_()
        score = model.after(model.states(x, data.edge_index, kept=walk))[row, target]
        (slope,) = torch.autograd.grad(score, x)
        found[walk] = float((x * slope)[walk[0]].sum().detach())
    return found


def graph(kind="random", n=5, seed=0):
    """A graph with what may be odd about it."""
    random = torch.Generator().manual_seed(seed)
    ring = torch.stack([torch.arange(n), torch.arange(1, n + 1) % n])
    edges = {
        "random": torch.cat([torch.randint(n, (2, n), generator=random), ring[:, :-1], ring[:, :-1].flip(0)], dim=1),
        "isolated": torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
        "loops": torch.tensor([[0, 1, 1, 2, 2, 0, 3], [1, 0, 1, 1, 2, 0, 2]]),
        "parallel": torch.tensor([[0, 0, 1, 1, 2, 0, 3, 3], [1, 1, 0, 2, 1, 1, 2, 2]]),
        "directed": torch.tensor([[0, 1, 2, 0], [1, 2, 3, 3]]),
        "empty": torch.empty(2, 0, dtype=torch.long),
        "one": torch.empty(2, 0, dtype=torch.long),
    }[kind]
    n = 1 if kind == "one" else n
    if kind == "random":
        edges = torch.unique(edges[:, edges[0] != edges[1]], dim=1)
    return Data(x=torch.randn(n, 4, generator=random, dtype=torch.float64), edge_index=edges)


GRAPHS = ("random", "isolated", "loops", "parallel", "directed", "empty", "one")


def all_graphs(target=1):
    return Instances.from_graphs([graph(kind, seed=number) for number, kind in enumerate(GRAPHS)], target=target)


def chain(*args, **options):
    """A network most of whose last units are awake, so that its walks carry something."""
    for seed in range(20):
        model = made(lambda: Chain(*args, **options), seed)
        x = torch.tensor([[0], [1], [2], [3], [0]]) if options.get("lift") == "table" else graph().x
        if (model.states(x, graph().edge_index) > 0).double().mean() > 0.4:
            return model
    raise AssertionError("no seed has units that are awake")


def as_dict(E, i=0):
    """Relevance by walk; every walk once."""
    found = {tuple(map(int, walk)): float(score) for walk, score in zip(E.walks[i], E.walk_scores[i], strict=True)}
    assert len(found) == len(E.walks[i])
    return found


def check_walks(E, i, expected):
    """Assert that every walk has its relevance; what is not listed has none."""
    found = as_dict(E, i)
    size = max(map(abs, expected.values()))
    assert set(found) <= set(expected)
    for walk, score in expected.items():
        np.testing.assert_allclose(found.get(walk, 0.0), score, rtol=1e-9, atol=1e-12 * max(size, 1), err_msg=str(walk))


def every_walk(model, X, **options):
    return GNNLRP(model, walks="all", **options).explain(X)
