"""Input times gradient: the first-order share of each input in the score."""

from __future__ import annotations

from typing import ClassVar, Literal

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks, entry_masks, layer_masks
from skgnnx.blackbox.open_box import ForwardPass
from skgnnx.explainers.backward import BackwardExplainer, wanted_input
from skgnnx.explainers.base import explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy


@explainer
class InputXGradient(BackwardExplainer):
    r"""Input times the gradient of the score, signed.

    :math:`A = z \cdot \partial s_c / \partial z` for the pre-softmax score :math:`s_c` of the target. For a network of
    ReLUs without biases the node-feature scores sum to the score. Edges carry a gate of 1 on each of their messages, so
    an edge is scored by the gradient of its gate.

    Parameters
    ----------
    mask : {"edge", "node", "node_feature", "feature"}, default="edge"
        What is scored. "node" and "feature" sum over the features of a node and over the nodes.
    per_layer : bool, default=False
        True also leaves the shares of the gates of each propagate call in ``E.layer_masks``: for each instance an array
        (calls, entries), its columns in the order of ``E.entries(i)``. They sum to the edge scores.

    Notes
    -----
    Shrikumar, Greenside & Kundaje, "Learning Important Features Through Propagating Activation Differences", ICML 2017;
    it is LRP with the zero rule on ReLU networks. Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import InputXGradient
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> InputXGradient(model, mask="node").explain(X).kind
    'node'
    """

    mask: Literal["edge", "node", "node_feature", "feature"] = "edge"
    per_layer: bool = False

    masks_: ClassVar[tuple[str, ...]] = ("edge", "node", "node_feature", "feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="gradients")

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> ForwardPass:
        return gnn.forward_pass(batch, wanted_input(self.mask, self.per_layer))

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: ForwardPass) -> Masks:
        share = passed.value.detach() * passed.gradient(batch.targets)
        if self.mask == "edge":
            layers = {"layer_masks": layer_masks(batch, share)} if self.per_layer else {}
            return Masks(edge=share.sum(0) if self.per_layer else share, extras=layers)
        return entry_masks(batch, self.mask, share)
