"""Causal Screening by hand: a forward pass of the network for every candidate, one after another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from side_by_side.masks import Whole
from side_by_side.own_calls import OneCallEach
from side_by_side.tasks import Task
from skgnnx import CausalScreening
from skgnnx.explainers.base import BaseExplainer

TIE = 1e-5


@dataclass
class ScreeningLoop(OneCallEach):
    """The exact greedy search over undirected edges of graphs, on the network as it is."""

    explainer: type[BaseExplainer] = CausalScreening

    def explain(self, task: Task, i: int, initial: Whole, epochs: int) -> Whole:
        """Rank the edges of one graph."""
        graph, network = task.graph(i), task.network
        nodes = torch.zeros(graph.num_nodes, dtype=torch.long, device=graph.x.device)
        low, high = (ends.cpu().numpy() for ends in (graph.edge_index.min(0).values, graph.edge_index.max(0).values))
        _, pair = np.unique(low * graph.num_nodes + high, return_inverse=True)
        left, kept = list(range(pair.max() + 1)), np.zeros(graph.num_edges, dtype=bool)
        mask = np.zeros(graph.num_edges)
        with torch.no_grad():
            target = int(network(graph.x, graph.edge_index, nodes).argmax())

            def value(edges: np.ndarray) -> float:
                columns = torch.from_numpy(np.flatnonzero(edges)).to(graph.x.device)
                output = network(graph.x, graph.edge_index[:, columns], nodes)
                return float(output.double().log_softmax(1)[0, target])

            for step in range(len(left)):
                values = np.array([value(kept | (pair == unit)) for unit in left])
                best = int(np.argmax(values >= values.max() - TIE * max(1.0, abs(values.max()))))
                kept |= pair == left[best]
                mask[pair == left.pop(best)] = 1 - step / (pair.max() + 1)
        return {"edge": mask}
