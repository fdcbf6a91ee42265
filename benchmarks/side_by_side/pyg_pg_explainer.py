"""PyG's PGExplainer, a step and a run of the whole graph per instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.explain import Explainer, PGExplainer

from skgnnx import Explanations, Instances


class PyGPGExplainer:
    """PyG's, learned from instances and asked about others.

    Parameters
    ----------
    network : nn.Module
    epochs : int

    Attributes
    ----------
    masks : list of ndarray
        Of the instances that were explained last, on whole graphs.
    """

    def __init__(self, network: nn.Module, epochs: int) -> None:
        self.network, self.epochs = network, epochs
        self.masks: list[np.ndarray] = []
        self._explainer: Any = None

    def fit(self, X: Instances) -> None:
        """Learn, one instance at a time."""
        torch.manual_seed(0)
        self._explainer = Explainer(
            self.network,
            PGExplainer(epochs=self.epochs),
            explanation_type="phenomenon",
            edge_mask_type="object",
            model_config={
                "mode": "multiclass_classification",
                "task_level": X.level,
                "return_type": "raw",
            },
        )
        asked = self._asked(X)
        for epoch in range(self.epochs):
            for graph, given in asked:
                self._explainer.algorithm.train(epoch, self.network, graph.x, graph.edge_index, **given)

    def explain(self, X: Instances) -> None:
        """Explain, one instance at a time."""
        found = [self._explainer(graph.x, graph.edge_index, **given) for graph, given in self._asked(X)]
        self.masks = [one.edge_mask.detach().numpy() for one in found]

    def _asked(self, X: Instances) -> list[tuple[Data, dict[str, Any]]]:
        """Return the graph of each instance, and what the network predicts of it."""
        if X.level == "graph":
            graphs = [X.store.graph(g) for g in X.graph_index]
            return [(graph, {"target": self._predicted(graph)}) for graph in graphs]
        graph = X.store.graph(0)
        target = self._predicted(graph)
        return [(graph, {"target": target, "index": int(node)}) for node in X.element[:, 0]]

    def _predicted(self, graph: Data) -> Tensor:
        with torch.no_grad():
            return self.network(graph.x, graph.edge_index).argmax(1)


def pooled_auc(E: Explanations, masks: Sequence[np.ndarray]) -> float:
    """Return the area under the curve of masks on whole graphs, over the edges that can reach a prediction."""
    truth, scores = [], []
    for i in range(len(E)):
        ids, _ = E.entries(i)
        known = E.instances[i : i + 1].truth["edge"][0]
        if known is not None:
            truth.append(known[0][ids])
            scores.append(masks[i][ids])
    return float(roc_auc_score(np.concatenate(truth), np.concatenate(scores)))
