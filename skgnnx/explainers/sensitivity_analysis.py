"""Sensitivity analysis: how much the score moves when an input moves a little."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks, layer_masks
from skgnnx.blackbox.open_box import ForwardPass
from skgnnx.explainers.backward import BackwardExplainer, wanted_input
from skgnnx.explainers.base import explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy


@explainer
class SensitivityAnalysis(BackwardExplainer):
    r"""Gradient of the score with respect to edges, nodes or features.

    With :math:`g = \partial s_c / \partial z` for the pre-softmax score :math:`s_c` of the target, an entry is scored
    by :math:`g^2`, and a node by the sum of its entries. Edges carry a gate of 1 on each of their messages and are
    scored by the gate's gradient; a gate is not the edge weight, which also enters degrees.

    Parameters
    ----------
    mask : {"edge", "node", "node_feature", "feature"}, default="edge"
        What is scored. "feature" sums over the nodes of the computation graph.
    norm : {"squared", "absolute", "l2"}, default="squared"
        Squared gradients as in the paper, their absolute values, or the Euclidean norm over the entries of a node.
        Scores are float32, whose range squares leave where gradients are below 1e-22 or beyond 1e19.
    per_layer : bool, default=False
        True also leaves the sizes of the gradients by the gates of each propagate call in ``E.layer_masks``: for each
        instance an array (calls, entries), its columns in the order of ``E.entries(i)``.

    Notes
    -----
    Baldassarre & Azizpour, "Explainability Techniques for Graph Convolutional Networks", 2019. Other parameters are
    those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.testing import example
    >>> model, X = example("node")
    >>> E = SensitivityAnalysis(model).explain(X)
    >>> E[0].shape == (X[0].graph.num_edges,), bool((E[0] >= 0).all())
    (True, True)
    """

    mask: Literal["edge", "node", "node_feature", "feature"] = "edge"
    norm: Literal["squared", "absolute", "l2"] = "squared"
    per_layer: bool = False

    masks_: ClassVar[tuple[str, ...]] = ("edge", "node", "node_feature", "feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="gradients")

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> ForwardPass:
        return gnn.forward_pass(batch, wanted_input(self.mask, self.per_layer))

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: ForwardPass) -> Masks:
        # In float64, because a norm may lie in the range of a type that its squares leave.
        gradient = passed.gradient(batch.targets).double()
        if self.mask == "edge":
            layers = {"layer_masks": layer_masks(batch, self._root(self._sizes(gradient)))} if self.per_layer else {}
            return Masks(edge=self._root(self._sizes(gradient.sum(0) if self.per_layer else gradient)), extras=layers)
        sizes = self._sizes(gradient)
        if self.mask == "node":
            return Masks(node=self._root(sizes.flatten(1).sum(1)))
        if self.mask == "node_feature":
            return Masks(node_feature=self._root(sizes))
        return Masks(feature=self._root(batch.sum_nodes(sizes)))

    def _sizes(self, gradient: Tensor) -> Tensor:
        return gradient.abs() if self.norm == "absolute" else gradient.square()

    def _root(self, sums: Tensor) -> Tensor:
        return sums.sqrt() if self.norm == "l2" else sums
