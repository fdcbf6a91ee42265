"""Law 6, first part: the same seed gives the same masks, relabelled graphs relabelled masks, and shapes are right."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from sklearn.base import clone
from torch import nn
from torch_geometric.data import Data

from skgnnx.graphs import Explanations, Instances
from skgnnx.testing.networks import Network
from skgnnx.testing.running import (
    KINDS,
    Factory,
    build,
    build_for,
    explained,
    for_all,
    masks_of,
    require,
    require_same,
    tags_of,
    with_mask,
)


def check_same_seed(factory: Factory) -> None:
    """Explaining twice, or with a clone, gives equal bits.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances, kind: int) -> None:
        explainer = build_for(factory, model, kind, random_state=7)
        first = explained(explainer, X)
        require_same(explainer, first, explained(explainer, X), "Twice the same must give the same bits.", tolerance=0)
        law = "A clone must give the same bits."
        require_same(explainer, first, explained(clone(explainer), X), law, tolerance=0)

    for_all(factory, body, KINDS)


def check_relabelling(factory: Factory) -> None:
    """If nodes are renumbered and edges reordered, scores move along; for methods without noise.

    Where discrete masks are searched, ties are broken by (source, target, occurrence): nodes then keep their numbers,
    and repeated edges their order.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    tags = tags_of(factory)
    if not tags.deterministic:
        return
    breaks_ties = tags.mask == "discrete"

    def body(model: Network, X: Instances, seed: int, kind: int) -> None:
        model.double()
        random = np.random.RandomState(seed)
        graphs = [X.store.graph(g) for g in range(X.store.num_graphs)]
        nodes = [random.permutation(data.num_nodes) for data in graphs]
        edges = [random.permutation(data.num_edges) for data in graphs]
        if breaks_ties:
            nodes = [np.arange(data.num_nodes) for data in graphs]
            edges = [_with_repeated_in_order(*each) for each in zip(graphs, edges)]
        turned = [_relabelled(*each) for each in zip(graphs, nodes, edges)]
        Z = _with_graphs(X, [_double(data) for data in graphs], None)
        explainer = build_for(factory, model, kind)
        E = explained(explainer, Z)
        F = explained(explainer, _with_graphs(X, [_double(data) for data in turned], nodes), learn_from=Z)
        for i, graph in enumerate(X.graph_index):
            moved = _moved(E, i, nodes[graph], edges[graph])
            gap = float(np.abs(moved - F[i]).max(initial=0))
            law = "Scores must move along with renumbered nodes and reordered edges."
            require(gap <= 1e-6 * max(1.0, float(np.abs(moved).max(initial=0))), explainer, law, f"a gap of {gap:.2g}")

    for_all(factory, body, range(100), KINDS, pools=("add", "mean"))


def _relabelled(data: Data, nodes: np.ndarray, edges: np.ndarray) -> Data:
    """Give node v the number ``nodes[v]``, and put edge ``edges[k]`` at position k."""
    place = torch.from_numpy(nodes)
    order = torch.from_numpy(edges)
    turned = Data(edge_index=place[data.edge_index[:, order]], num_nodes=data.num_nodes)
    turned.x = torch.empty_like(data.x)
    turned.x[place] = data.x
    for key in ("edge_attr", "edge_type", "edge_weight"):
        if key in data:
            turned[key] = data[key][order]
    return turned


def _with_repeated_in_order(data: Data, edges: np.ndarray) -> np.ndarray:
    """Return an order of edges in which those with the same ends come in the order in which they are now."""
    place = np.argsort(edges)
    source, target = data.edge_index.numpy()
    # Sorted by ends, groups of repeated edges are at the same rows in both orders.
    place[np.lexsort((np.arange(len(place)), target, source))] = place[np.lexsort((place, target, source))]
    return np.argsort(place)


def _double(data: Data) -> Data:
    return data.apply(lambda value: value.double() if value.is_floating_point() else value)


def _with_graphs(X: Instances, graphs: list[Data], nodes: list[np.ndarray] | None) -> Instances:
    if X.level == "graph":
        return Instances.from_graphs([graphs[g] for g in X.graph_index], X.target)
    element = X.element if nodes is None else nodes[0][X.element]
    if X.level == "node":
        return Instances.from_nodes(graphs[0], element[:, 0], X.target)
    return Instances.from_edges(graphs[0], element.T, X.target, exclude_link=X.exclude_link)


def _moved(E: Explanations, i: int, nodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    values = E[i]
    if E.kind == "feature":
        return values
    if E.kind == "edge":
        return values[edges]
    moved = np.empty_like(values)
    moved[nodes] = values
    return moved


def check_outside(factory: Factory) -> None:
    """Nothing outside of the computation graph is important: farther away than the model passes messages.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: Network, X: Instances, choice: int) -> None:
        explainer = build(factory, model)
        kinds = [kind for kind in masks_of(explainer) if kind != "feature"]
        kind = kinds[choice % len(kinds)] if kinds else masks_of(explainer)[0]
        if X.level == "graph" or kind == "feature":
            return
        E = explained(with_mask(explainer, kind), X)
        for i in range(len(X)):
            distance = _distance(X, i)
            far_node = distance > model.hops
            outside = distance[X.store.edges(0)[1]] > model.hops - 1 if kind == "edge" else far_node
            require(not E[i][outside].any(), explainer, "What cannot reach the prediction must be scored 0.")
            require(not E.explained[i][outside].any(), explainer, "What cannot reach the prediction is not explained.")

    for_all(factory, body, range(4))


def _distance(X: Instances, i: int) -> np.ndarray:
    """Return how many messages each node is away from the explained element."""
    distance = np.full(X.num_units("node", i), 1_000)
    distance[X.element[i]] = 0
    queue = deque(X.element[i].tolist())
    edges = X.store.edges(X.graph_index[i])
    while queue:
        v = queue.popleft()
        for u in edges[0, edges[1] == v]:
            if distance[u] > distance[v] + 1:
                distance[u] = distance[v] + 1
                queue.append(int(u))
    return distance
