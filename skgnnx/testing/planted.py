"""Law 4: masks land on the right edges, found with networks in which exactly one edge matters."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GraphConv, MessagePassing, RGCNConv, global_add_pool

from skgnnx.graphs import Explanations, Instances
from skgnnx.testing.drawing import Source, choice, draw_graph
from skgnnx.testing.running import Factory, build, explained, for_all_of, masks_of, require, tags_of, with_mask

LAYERS = ("gate", "graph", "gcn", "rgcn", "sparse graph", "sparse gcn")
WIDTH = 3
UNMOVED = 1e-6
STRENGTH = 0.3  # far from where a softmax saturates


class GateConv(MessagePassing):
    """Messages times the weight of their edge, summed; a layer of nobody's library."""

    def __init__(self) -> None:
        super().__init__(aggr="add")

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        """Return the sum of weighted neighbours."""
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
        """Scale a message."""
        return x_j * edge_weight.view(-1, 1)


class PlantedNetwork(nn.Module):
    """A network that reads one feature along the one edge of weight 1 (or of relation 1), and nothing else.

    Parameters
    ----------
    layer : str
        One of `LAYERS`: how messages are passed; "gcn" makes self loops of its own, which also read the target node,
        and the sparse ones read a sparse matrix.
    level : {"graph", "node", "edge"}
        What is predicted.
    feature : int
        Column of ``x`` that is read.
    strength : float
        Weight of what is read; 0 makes a network of the same form to which no edge matters.
    """

    def __init__(self, layer: str, level: str, feature: int, strength: float) -> None:
        super().__init__()
        self.level, self.feature, self.strength = level, feature, strength
        self.relations = layer == "rgcn"
        if layer == "gate":
            self.conv: nn.Module = GateConv()
        elif layer == "rgcn":
            self.conv = RGCNConv(WIDTH, WIDTH, 2, aggr="add", bias=False)
        else:
            self.conv = {"gcn": GCNConv, "graph": GraphConv}[layer.split()[-1]](WIDTH, WIDTH, bias=False)
        with torch.no_grad():
            for name, parameter in self.conv.named_parameters():
                reads = name in ("lin.weight", "lin_rel.weight", "weight")
                parameter.copy_(torch.eye(WIDTH).expand(parameter.shape) if reads else torch.zeros(parameter.shape))
            if self.relations:
                self.conv.weight[0] = 0.0  # type: ignore[operator]

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        edge_type: Tensor | None = None,
        batch: Tensor | None = None,
        edge_label_index: Tensor | None = None,
    ) -> Tensor:
        """Return two logits of opposite sign."""
        h = self.conv(x, edge_index, edge_type if self.relations else edge_weight)
        h = h[:, self.feature : self.feature + 1] * self.strength
        if self.level == "graph":
            h = global_add_pool(h, batch)
        elif self.level == "edge" and edge_label_index is not None:
            h = h[edge_label_index[0]] + h[edge_label_index[1]]
        return torch.cat([h, -h], dim=1)


def check_right_entries(factory: Factory) -> None:
    """If one edge, node or feature alone matters, its score alone moves: with loops, repeated edges and relations.

    Networks of one form are explained: exactly one edge speaks for the target, or against it, or not at all.
    Methods that score states of nodes inside of the model may score the target of the edge instead of its source.
    Methods that search discrete masks have to rank the edge first instead. Baselines do not look at the model, and what
    a method learns from many instances is shared by all of their entries: both are passed over.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    tags = tags_of(factory)
    if tags.family == "baseline" or tags.learned:
        return
    kinds = masks_of(build(factory, PlantedNetwork("gate", "graph", 0, STRENGTH)))

    def draw(source: Source) -> tuple[Any, ...]:
        data = draw_graph(source, min_nodes=2, num_features=WIDTH)
        layer, level, kind = choice(source, LAYERS), choice(source, tags.tasks), choice(source, kinds)
        return data, layer, level, kind, source.integer(0, max(data.num_edges - 1, 0))

    for_all_of(draw, lambda *case: _check_planted(factory, *case))


def _check_planted(factory: Factory, data: Data, layer: str, level: str, kind: str, edge: int) -> None:
    if data.num_edges == 0:
        return
    if layer.startswith("sparse"):
        data, edge = _in_sparse_order(data, edge)
    source, target = data.edge_index[:, edge].tolist()
    loops = data.edge_index[0, data.edge_index[0] == data.edge_index[1]].tolist()
    if layer.endswith("gcn") and (source == target or kind != "edge" or source in loops):
        return  # a planted loop has weight 0, which leaves its node without degree and the edge without effect
    feature = edge % WIDTH
    X = _planted_instances(data, level, edge, target, layer)
    found = {}
    for strength in (STRENGTH, 0.0, -STRENGTH):
        explainer = with_mask(build(factory, PlantedNetwork(layer, level, feature, strength)), kind)
        found[strength] = explained(explainer, X)
    # A squared gradient does not see the sign; Adam's first steps see nothing but the sign.
    scores = {strength: _values(E, kind) for strength, E in found.items()}
    planted = scores[STRENGTH]
    moved = np.maximum(np.abs(planted - scores[0.0]), np.abs(planted - scores[-STRENGTH])) > UNMOVED
    expected = np.zeros(moved.shape, dtype=bool)
    expected[{"edge": edge, "node": source, "feature": feature, "node_feature": (source, feature)}[kind]] = True
    where = f"{kind} {np.argwhere(moved).tolist()} instead of {np.argwhere(expected).tolist()} of {data}"
    law = f"Only the {kind} that matters may get another score ({layer} layer)."
    if tags_of(factory).mask in ("discrete", "approximated"):
        # With an edge goes its share of the degree: the loop of the layer then counts more, which may outweigh it.
        signs = (STRENGTH, -STRENGTH) if layer.endswith("gcn") else (STRENGTH,)
        first = any(scores[sign][expected].min() >= scores[sign].max() for sign in signs)
        require(first, explainer, f"The {kind} that matters must be first.")
        return
    allowed = expected | _partners(X, edge, kind, moved.shape)
    if tags_of(factory).states:
        allowed[target] = True
        expected = allowed & moved if moved.any() else expected
    require(bool(moved[expected].all() and allowed[moved].all()), explainer, law, where)


def _in_sparse_order(data: Data, edge: int) -> tuple[Data, int]:
    """Return the graph with each edge once, by target and source, and the new place of one of its edges."""
    ordered = data.edge_index.flip(0).unique(dim=1).flip(0)
    place = int((ordered == data.edge_index[:, edge : edge + 1]).all(dim=0).nonzero())
    return Data(x=data.x, edge_index=ordered, num_nodes=data.num_nodes), place


def _planted_instances(data: Data, level: str, edge: int, target: int, layer: str) -> Instances:
    data = Data(x=data.x.abs().clamp(max=1) + 0.5, edge_index=data.edge_index, num_nodes=data.num_nodes)
    planted = torch.zeros(data.num_edges)
    planted[edge] = 1.0
    if layer.startswith("sparse"):
        data.adj_t = _as_sparse(data.edge_index, planted, data.num_nodes)
        del data.edge_index
    elif layer == "rgcn":
        data.edge_type = planted.long()
    else:
        data.edge_weight = planted
    if level == "graph":
        return Instances.from_graphs([data], target=0)
    if level == "node":
        return Instances.from_nodes(data, [target], target=0)
    return Instances.from_edges(data, [[target], [target]], target=0)


def _as_sparse(edge_index: Tensor, values: Tensor, num_nodes: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its sparse matrices a beta
        return torch.sparse_coo_tensor(edge_index.flip(0), values, (num_nodes, num_nodes)).to_sparse_csr()


def _partners(X: Instances, edge: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Mark the other direction of an undirected edge, which may share its score."""
    marked: Any = np.zeros(shape, dtype=bool)
    if kind == "edge" and X.store.partner(0)[edge] >= 0:
        marked[X.store.partner(0)[edge]] = True
    return marked


def _values(E: Explanations, kind: str) -> np.ndarray:
    return np.asarray(E.node_feature_mask[0] if kind == "node_feature" else E[0])  # type: ignore[index]
