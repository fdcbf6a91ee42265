"""PyG's explainers, one instance at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.explain import CaptumExplainer, Explainer, GNNExplainer
from torch_geometric.explain.algorithm import ExplainerAlgorithm
from torch_geometric.utils import k_hop_subgraph

from side_by_side.masks import Whole
from side_by_side.tasks import Task

EPOCHS, LR = 100, 0.01
NODE_MASKS = {"feature": "common_attributes", "node_feature": "attributes"}


@dataclass
class PyGGNNExplainer:
    """PyG's GNNExplainer, on the whole graph or on a subgraph cut out by hand.

    Parameters
    ----------
    feature_mask : {None, "feature", "node_feature"}
        The mask beside that of edges.
    epochs_run : int
        Steps that are really run; where all of them would take too long, the rest is extrapolated.
    hops : int or None
        If given, PyG gets the subgraph that holds this many hops and one more, for the degrees at its rim.
    """

    feature_mask: str | None = None
    epochs_run: int = EPOCHS
    hops: int | None = None

    @property
    def is_extrapolated(self) -> bool:
        """Whether fewer steps are run than counted."""
        return self.epochs_run < EPOCHS

    def explain(self, task: Task, i: int, initial: Whole, epochs: int) -> Whole:
        """Explain one instance from the given initial masks; nothing outside of a subgraph is important."""
        graph, node = task.graph(i), task.node(i)
        if self.hops is None:
            return self._explain(task.network, graph, node, initial, epochs)
        nodes, edge_index, node, kept = k_hop_subgraph(
            node, self.hops + 1, graph.edge_index, relabel_nodes=True, num_nodes=graph.num_nodes
        )
        part = Data(x=graph.x[nodes], edge_index=edge_index)
        kept = kept.cpu().numpy()
        found = self._explain(task.network, part, int(node), {"edge": initial["edge"][kept]}, epochs)
        edge = np.zeros(len(kept), dtype=found["edge"].dtype)
        edge[kept] = found["edge"]
        return {"edge": edge}

    def _explain(self, network: nn.Module, graph: Data, node: int | None, initial: Whole, epochs: int) -> Whole:
        algorithm = FromGivenMasks(epochs=epochs, lr=LR)
        algorithm.initial = initial
        return pyg_masks(network, algorithm, graph, node, NODE_MASKS.get(str(self.feature_mask)))


class FromGivenMasks(GNNExplainer):
    """PyG's GNNExplainer, started from `initial` masks instead of random ones."""

    initial: Whole

    def _initialize_masks(self, x: Tensor, edge_index: Tensor) -> None:
        super()._initialize_masks(x, edge_index)
        for kind, values in self.initial.items():
            logits = torch.as_tensor(values, dtype=x.dtype, device=x.device).logit()
            if kind == "edge":
                self.edge_mask = nn.Parameter(logits)
            else:
                self.node_mask = nn.Parameter(logits.view_as(self.node_mask))


@dataclass
class PyGCaptum:
    """PyG's bridge to captum.

    Parameters
    ----------
    method : str
        Name of the class in captum.
    mask : {"edge", "node_feature"}
        What is scored.
    """

    method: str
    mask: str = "edge"
    epochs_run: ClassVar[int] = EPOCHS
    is_extrapolated: ClassVar[bool] = False

    def explain(self, task: Task, i: int, initial: Whole, epochs: int) -> Whole:
        """Explain one instance; there are no initial masks and no epochs."""
        graph, usual = task.graph(i), torch.get_default_dtype()
        torch.set_default_dtype(graph.x.dtype)  # the type of the gates that PyG makes
        try:
            edge, node = ("object", None) if self.mask == "edge" else (None, NODE_MASKS[self.mask])
            return pyg_masks(task.network, CaptumExplainer(self.method), graph, task.node(i), node, edge)
        finally:
            torch.set_default_dtype(usual)


def pyg_masks(
    network: nn.Module,
    algorithm: ExplainerAlgorithm,
    graph: Data,
    node: int | None,
    node_mask_type: str | None,
    edge_mask_type: str | None = "object",
) -> Whole:
    """Return PyG's masks of one prediction."""
    explainer = Explainer(
        network,
        algorithm,
        explanation_type="model",
        edge_mask_type=edge_mask_type,
        node_mask_type=node_mask_type,
        model_config={
            "mode": "multiclass_classification",
            "task_level": "graph" if node is None else "node",
            "return_type": "raw",
        },
    )
    given: dict[str, Any] = {} if node is None else {"index": node}
    explanation = explainer(graph.x, graph.edge_index, **given)
    found = {} if edge_mask_type is None else {"edge": explanation.edge_mask.detach().cpu().numpy()}
    if node_mask_type is not None:
        kind = "feature" if node_mask_type == "common_attributes" else "node_feature"
        values = explanation.node_mask.detach().cpu().numpy()
        found[kind] = values.ravel() if kind == "feature" else values
    return found
