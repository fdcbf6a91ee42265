"""Small networks of every kind that an explainer has to cope with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    APPNP,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GINEConv,
    GraphConv,
    GraphNorm,
    RGCNConv,
    SAGEConv,
    SGConv,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

NUM_CATEGORIES = 5
NUM_RELATIONS = 2
EDGE_WIDTH = 2
HIDDEN = 6
POOLS = {"mean": global_mean_pool, "add": global_add_pool, "max": global_max_pool}
EDGE_INPUTS = {"gine": "edge_attr", "rgcn": "edge_type", "weighted": "edge_weight"}
LONG_LAYERS = {"sg": 3, "appnp": 3}
WHOLE_GRAPH = 10**6


class MixingConv(nn.Module):
    """Neighbours, then a normalisation over all nodes there are: as in node classification, it is not given `batch`.

    Parameters
    ----------
    width, out : int
        Numbers per node before and after.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.neighbours, self.norm = GraphConv(width, out), GraphNorm(out)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return new features of the nodes."""
        return self.norm(self.neighbours(x, edge_index))


CONVS: dict[str, Callable[[int, int], nn.Module]] = {
    "gcn": GCNConv,
    "graph": GraphConv,
    "sage": SAGEConv,
    "gin": lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))),
    "gat": lambda i, o: GATConv(i, o // 2, heads=2),
    "gatv2": lambda i, o: GATv2Conv(i, o // 2, heads=2),
    "sg": lambda i, o: SGConv(i, o, K=LONG_LAYERS["sg"]),
    "appnp": lambda i, o: APPNP(K=LONG_LAYERS["appnp"], alpha=0.2),
    "reused": GraphConv,
    "rgcn": lambda i, o: RGCNConv(i, o, NUM_RELATIONS),
    "gine": lambda i, o: GINEConv(nn.Linear(i, o), edge_dim=EDGE_WIDTH),
    "weighted": GraphConv,
    "mixing": MixingConv,
}


class Network(nn.Module):
    """A graph network of two layers (or one that passes messages three times) with random weights.

    Parameters
    ----------
    conv : str, default="gcn"
        A key of `CONVS`; "reused" runs one layer twice, "weighted" reads ``edge_weight``, "mixing"
        normalises over all nodes of a batch.
    level : {"graph", "node", "edge"}, default="graph"
        What is predicted.
    num_features : int, default=3
        Columns of ``x``.
    categories : bool, default=False
        True if ``x`` holds integers in [0, 5), which are embedded.
    norm : bool, default=False
        Whether a batch normalisation follows the first layer.
    module_relu : bool, default=False
        Whether ReLUs are modules or function calls.
    log_softmax : bool, default=False
        Whether the output is log-probabilities or logits.
    pool : {"mean", "add", "max"}, default="mean"
        How a graph is summed up.
    num_classes : int, default=3
        Columns of the output.
    seed : int, default=0
        Seed of the weights.
    """

    def __init__(
        self,
        conv: str = "gcn",
        level: str = "graph",
        *,
        num_features: int = 3,
        categories: bool = False,
        norm: bool = False,
        module_relu: bool = False,
        log_softmax: bool = False,
        pool: str = "mean",
        num_classes: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.conv, self.level, self.pool = conv, level, pool
        self.num_features, self.num_classes, self.log_softmax = num_features, num_classes, log_softmax
        self.edge_input = EDGE_INPUTS.get(conv)
        self.hops = WHOLE_GRAPH if conv == "mixing" else LONG_LAYERS.get(conv, 2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(NUM_CATEGORIES, HIDDEN) if categories else None
            width = HIDDEN if categories else num_features
            needs_width = conv in ("appnp", "reused")
            self.lift = nn.Linear(width, HIDDEN) if needs_width else nn.Identity()
            self.layers = self._layers(HIDDEN if needs_width else width)
            self.norm = nn.BatchNorm1d(HIDDEN) if norm else None
            self.relu = nn.ReLU() if module_relu else None
            self.dropout = nn.Dropout()
            self.head = nn.Linear(HIDDEN, num_classes)
            for name, buffer in self.named_buffers():
                if name.startswith("norm.running"):  # a normalisation that does something
                    buffer.uniform_(0.5, 1.5)

    def _layers(self, width: int) -> nn.ModuleList:
        make = CONVS[self.conv]
        if self.conv in LONG_LAYERS:
            return nn.ModuleList([make(width, HIDDEN)])
        first = make(width, HIDDEN)
        return nn.ModuleList([first, first if self.conv == "reused" else make(HIDDEN, HIDDEN)])

    @property
    def categories(self) -> bool:
        """Whether node features are integers."""
        return self.embedding is not None

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        edge_type: Tensor | None = None,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
        edge_label_index: Tensor | None = None,
    ) -> Tensor:
        """Return one row of logits or log-probabilities per prediction."""
        per_edge = {"edge_attr": edge_attr, "edge_type": edge_type, "edge_weight": edge_weight}
        given: dict[str, Any] = {self.edge_input: per_edge[self.edge_input]} if self.edge_input else {}
        h = self.lift(x if self.embedding is None else self.embedding(x).sum(dim=1))
        for number, layer in enumerate(self.layers):
            h = layer(h, edge_index, **given)
            if number == 0 and self.norm is not None:
                h = self.norm(h)
            h = self.dropout(h.relu() if self.relu is None else self.relu(h))
        if self.level == "graph":
            h = POOLS[self.pool](h, batch)
        elif self.level == "edge" and edge_label_index is not None:
            h = h[edge_label_index[0]] * h[edge_label_index[1]]
        out = self.head(h)
        return out.log_softmax(dim=-1) if self.log_softmax else out
