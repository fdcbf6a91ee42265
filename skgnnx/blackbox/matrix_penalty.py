"""Penalties of edge masks as of entries of a whole mask matrix, with the Laplacian term."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.mask_logits import MaskParameters, Penalty
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import whole_graphs


@dataclass(frozen=True, eq=False)
class MatrixPenalty(Penalty):
    r"""``size * sum of M + (entropy * sum of H(M) + laplacian * y^T L y) / n^2`` for the n x n matrix M of an instance.

    M holds the masks of its edges, and L is the Laplacian of M, so that
    :math:`y^T L y = \frac12 \sum_{uv} M_{uv} (y_u - y_v)^2`. Entries that are no edges do not touch any edge, and are
    left out.

    Parameters
    ----------
    laplacian : float
        Coefficient.
    num_nodes : Tensor of shape (B,)
        n of each instance.
    num_entries : Tensor of shape (P,)
        Entries of M that a row of logits stands for: 2 for both directions of an undirected edge, else 1.
    difference : Tensor of shape (P,)
        Squared differences of the classes, as numbers, at both ends.
    """

    laplacian: float = 0.0
    num_nodes: Tensor | None = None
    num_entries: Tensor | None = None
    difference: Tensor | None = None

    def coefficients(self, mask: MaskParameters, num_instances: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the factors of sigma and of H(sigma), in the shape of the weights."""
        entries = mask.weight.double() * self.num_entries  # type: ignore[operator]
        share = entries / self.num_nodes.double().square()[mask.instance]  # type: ignore[union-attr]
        size = self.size * entries + 0.5 * self.laplacian * self.difference * share  # type: ignore[operator]
        return size, self.entropy * share


def matrix_penalty(
    gnn: OpenBox, batch: GraphBatch, mask: MaskParameters, first: Tensor, penalty: Penalty, laplacian: float
) -> MatrixPenalty:
    """Return a penalty of edges as one of a matrix.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    mask : MaskParameters
        Of the edges.
    first : Tensor of shape (P,)
        An edge of each row.
    penalty : Penalty
        With the coefficients of size and entropy.
    laplacian : float
    """
    ones = torch.ones(batch.num_edges, dtype=torch.float64, device=batch.device)
    entries = ones
    if mask.expand is not None:
        entries = torch.zeros(len(first), dtype=torch.float64, device=batch.device).index_add(0, mask.expand, ones)
        entries = torch.where(_is_undirected(batch)[first], 2.0, entries)
    difference = torch.zeros_like(entries)
    classes = node_classes(gnn, batch) if laplacian else None
    if classes is not None:
        source, target = batch.edge_index[:, first]
        difference = (classes[source] - classes[target]).square()
    settings = {name: getattr(penalty, name) for name in ("size", "entropy", "mean", "growth", "relative")}
    return MatrixPenalty(
        **settings,
        laplacian=laplacian,
        num_nodes=batch.num_reached_nodes.clamp_min(1),
        num_entries=entries,
        difference=difference,
    )


def _is_undirected(batch: GraphBatch) -> Tensor:
    """Return which edges have a partner in the whole graph, in the computation graph or not (E,)."""
    partner = batch.X.store.all_partners[batch.graphs.edge_id]
    return torch.from_numpy((partner >= 0) & (partner != batch.graphs.edge_id)).to(batch.device)


def node_classes(gnn: OpenBox, batch: GraphBatch) -> Tensor | None:
    """Return the predicted class of each node of a batch as a number (N,), from its whole graph.

    None unless nodes are explained and the model predicts a class for each.
    """
    if gnn.X.level != "node" or gnn.kind_of_output == "regression" or gnn.kind_of_output.startswith("multilabel"):
        return None
    memo = gnn.memo.setdefault("classes of nodes", {})
    graph_of = gnn.X.graph_index[batch.positions]
    for row, graph in zip(batch.positions, graph_of, strict=True):
        if graph not in memo:
            whole = GraphBatch(gnn.X, np.array([row]), whole_graphs(gnn.X, np.array([row])), device=batch.device)
            with torch.no_grad():
                output = gnn.call(whole)
            if len(output) != whole.num_nodes:
                return None
            classes = heads.predicted(gnn.kind_of_output, output, gnn.box.threshold).double()
            memo[graph] = torch.empty_like(classes).index_copy(0, torch.from_numpy(whole.node_id), classes)
    node_id = torch.from_numpy(batch.node_id)
    instance = batch.node_instance.cpu().numpy()
    found = torch.empty(batch.num_nodes, dtype=torch.float64, device=batch.device)
    for graph in np.unique(graph_of):
        here = torch.from_numpy(graph_of[instance] == graph)
        found[here] = memo[graph][node_id[here]]
    return found
