"""The networks that the estimators train: plain PyG modules that every explainer can take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch_geometric.nn import (
    GATConv,
    GCNConv,
    GINConv,
    GINEConv,
    GraphConv,
    MessagePassing,
    SAGEConv,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

POOLS: dict[str, Callable[..., Tensor]] = {"sum": global_add_pool, "mean": global_mean_pool, "max": global_max_pool}
NORMS: dict[str | None, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    None: lambda _: nn.Identity(),
}
READS_EDGE_ATTR = frozenset({"gine", "gat"})
READS_EDGE_WEIGHT = frozenset({"gcn", "graphconv"})
GAT_HEADS = 4


class GNN(nn.Module):
    """Message passing layers, a pooling where the prediction is about graphs, and a linear head.

    Each layer is followed by its normalisation, a ReLU and dropout. There is one linear map after the pooling, so that
    class activation maps are defined.

    Parameters
    ----------
    layers : list of nn.Module
        Message passing layers.
    width : int
        Output channels of every layer.
    out_channels : int
        Columns of the output.
    pool : {"sum", "mean", "max"} or None
        None for predictions about nodes.
    norm : {"batch", "layer"} or None
        Normalisation after every layer.
    dropout : float
        Share of the hidden units that are dropped in training, in [0, 1).
    reads : str
        Input of the layers beside the node features: "edge_attr", "edge_weight" or "".
    """

    def __init__(
        self,
        layers: list[nn.Module],
        width: int,
        out_channels: int,
        *,
        pool: str | None,
        norm: str | None,
        dropout: float,
        reads: str = "",
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(layers)
        self.norms = nn.ModuleList(NORMS[norm](width) for _ in layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, out_channels)
        self.pool = pool
        self.reads = reads

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        edge_weight: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Return one row of raw outputs per graph, or per node without a pooling.

        Parameters
        ----------
        x : Tensor of shape (num_nodes, in_channels)
            Node features; integers are read as numbers.
        edge_index : Tensor of shape (2, num_edges)
            Edges from source to target.
        batch : Tensor of shape (num_nodes,), optional
            Graph of every node; None means one graph.
        edge_attr : Tensor of shape (num_edges, edge_dim), optional
            Edge features, for layers that read them.
        edge_weight : Tensor of shape (num_edges,), optional
            Edge weights, for layers that read them.
        batch_size : int, optional
            Number of graphs, where the last of them may have no node.

        Returns
        -------
        Tensor of shape (num_graphs, out_channels) or (num_nodes, out_channels)
        """
        dtype = self.head.weight.dtype
        x = _rows(x).to(dtype)
        extra: tuple[Tensor, ...] = ()
        if self.reads == "edge_attr" and edge_attr is not None:
            extra = (_rows(edge_attr).to(dtype),)
        elif self.reads == "edge_weight" and edge_weight is not None:
            extra = (edge_weight.to(dtype).view(-1),)
        for conv, norm in zip(self.convs, self.norms):
            x = self.dropout(_normalised(norm, conv(x, edge_index, *extra)).relu())
        if self.pool is not None:
            x = POOLS[self.pool](x, batch, batch_size)
        return self.head(x)

    @torch.no_grad()
    def rescale_output(self, scale: Tensor, shift: Tensor) -> None:
        """Replace every output z by ``z * scale + shift``, by changing the head alone."""
        self.head.weight.mul_(scale.view(-1, 1))
        self.head.bias.mul_(scale).add_(shift)


def _rows(values: Tensor) -> Tensor:
    return values.flatten(1) if values.dim() > 1 else values.unsqueeze(1)


def _normalised(norm: nn.Module, x: Tensor) -> Tensor:
    if isinstance(norm, nn.BatchNorm1d) and norm.training and len(x) == 1:
        # a single node has no variance of its own; what was seen before has
        return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return norm(x)


def build_network(
    conv: str | Callable[[int, int], nn.Module],
    in_channels: int,
    edge_channels: int,
    out_channels: int,
    *,
    hidden: int,
    layers: int,
    pool: str | None,
    norm: str | None,
    dropout: float,
) -> nn.Module:
    """Build the network that an estimator trains.

    Parameters
    ----------
    conv : str or callable
        Name of a layer, or ``factory(in_channels, out_channels)`` that returns one message passing layer, to be
        stacked, or else a whole network, which is taken as it is.
    in_channels, edge_channels, out_channels : int
        Node features, edge features (0 for none) and outputs.
    hidden, layers, pool, norm, dropout
        As in `GNN`.

    Returns
    -------
    nn.Module

    Raises
    ------
    TypeError
        If `conv` is a network instead of a factory, or the factory does not return a module.
    ValueError
        If the layer reads edge features and there are none.
    """
    if isinstance(conv, nn.Module):
        raise TypeError(
            f"A 'conv' that is no name must be a factory, because every fit trains a new network. Got a "
            f"{type(conv).__name__}; pass its class, or a function of (in_channels, out_channels) that returns it."
        )
    widths = [in_channels, *[hidden] * layers]
    reads = ""
    if isinstance(conv, str):
        if conv == "gine" and not edge_channels:
            raise ValueError("conv='gine' must find 'edge_attr' in the graphs. Got graphs without it; use conv='gin'.")
        reads = "edge_attr" if conv in READS_EDGE_ATTR and edge_channels else ""
        reads = "edge_weight" if conv in READS_EDGE_WEIGHT else reads
        stack = [_named_layer(conv, a, b, edge_channels) for a, b in pairwise(widths)]
    else:
        first = conv(in_channels, hidden)
        if not isinstance(first, nn.Module):
            raise TypeError(f"A 'conv' factory must return an nn.Module. Got {type(first).__name__}.")
        if not isinstance(first, MessagePassing):
            return conv(in_channels, out_channels)
        stack = [first, *[conv(a, b) for a, b in pairwise(widths[1:])]]
    return GNN(stack, hidden, out_channels, pool=pool, norm=norm, dropout=dropout, reads=reads)


def _named_layer(conv: str, a: int, b: int, edge_channels: int) -> nn.Module:
    def mlp() -> nn.Module:
        return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))

    makers: dict[str, Callable[[], Any]] = {
        "gin": lambda: GINConv(mlp()),
        "gine": lambda: GINEConv(mlp(), edge_dim=edge_channels),
        "gcn": lambda: GCNConv(a, b),
        "sage": lambda: SAGEConv(a, b),
        "gat": lambda: GATConv(a, b, heads=GAT_HEADS, concat=False, edge_dim=edge_channels or None),
        "graphconv": lambda: GraphConv(a, b),
    }
    return makers[conv]()
