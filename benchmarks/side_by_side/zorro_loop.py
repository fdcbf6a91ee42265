"""Zorro's search as a loop: one forward pass for each candidate and each draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Cut(NamedTuple):
    """A computation graph in the user's order of nodes.

    Parameters
    ----------
    x : Tensor of shape (n, F)
    edge_index : Tensor of shape (2, e)
    draws : Tensor of shape (S, n, F)
    row : int
        The row of the output that is explained.
    reached : ndarray of bool, shape (n,)
        Which nodes can reach the prediction.
    features : ndarray of int
        Columns that vary.
    target : int
    """

    x: Tensor
    edge_index: Tensor
    draws: Tensor
    row: int
    reached: np.ndarray
    features: np.ndarray
    target: int


class Loop:
    """Asks a network about one changed graph after the other.

    Parameters
    ----------
    network : nn.Module
    cut : Cut
    """

    def __init__(self, network: nn.Module, cut: Cut) -> None:
        self._network, self._cut = network, cut
        self.nodes = np.flatnonzero(cut.reached).tolist()
        self.features = cut.features.tolist()
        self.num_runs = 0

    def hits(self, nodes: list[int], features: list[int]) -> int:
        """Return of how many draws the target is predicted when some nodes' features are known."""
        cut, count = self._cut, 0
        mask = torch.zeros(cut.x.shape, dtype=torch.bool)
        mask[torch.tensor(nodes, dtype=torch.long)[:, None], torch.tensor(features, dtype=torch.long)] = True
        with torch.no_grad():
            for drawn in cut.draws:
                output = self._network(torch.where(mask, cut.x, drawn), cut.edge_index)
                count += int(output[cut.row].argmax()) == cut.target
                self.num_runs += 1
        return count


def greedy(loop: Loop, enough: int, most: int) -> tuple[list[int], list[int], int]:
    """Return selected nodes and features, in ascending order, and how many draws they keep."""
    nodes: list[int] = []
    features: list[int] = []
    hits = loop.hits(nodes, features)
    if hits >= enough:
        return nodes, features, hits
    of_node = {v: loop.hits([v], loop.features) for v in loop.nodes}
    of_feature = {j: loop.hits(loop.nodes, [j]) for j in loop.features}
    rest_nodes = sorted(loop.nodes, key=lambda v: -of_node[v])
    rest_features = sorted(loop.features, key=lambda j: -of_feature[j])
    if of_feature[rest_features[0]] >= of_node[rest_nodes[0]]:
        features.append(rest_features.pop(0))
    else:
        nodes.append(rest_nodes.pop(0))
    while hits < enough and (rest_nodes or rest_features):
        with_feature = {j: loop.hits(nodes, [*features, j]) for j in rest_features[:most]}
        with_node = {v: loop.hits([*nodes, v], features) for v in rest_nodes[:most]}
        hits = max([*with_feature.values(), *with_node.values()])
        feature = next((j for j, count in with_feature.items() if count == hits), None)
        if feature is None:
            node = next(v for v, count in with_node.items() if count == hits)
            nodes.append(node)
            rest_nodes.remove(node)
        else:
            features.append(feature)
            rest_features.remove(feature)
    return sorted(nodes), sorted(features), hits


def num_passes(loop: Loop, found: dict[str, Any], draws: int, most: int) -> int:
    """Return how many forward passes the loop takes to find an explanation, less the last steps that run short."""
    steps = len(found["nodes"]) + len(found["features"])
    if not steps:
        return draws
    candidates = min(most, len(loop.nodes)) + min(most, len(loop.features))
    return draws * (1 + len(loop.nodes) + len(loop.features) + (steps - 1) * candidates)
