"""Guided backpropagation: the gradient without what any ReLU would send back as negative."""

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
class GuidedBackprop(BackwardExplainer):
    r"""Gradient of the score in which every ReLU holds back what is negative, signed.

    The score :math:`s_c` of the target is sent back as in the gradient, but a ReLU of :math:`z` passes
    :math:`g \, [z > 0] \, [g > 0]` of what reaches it, :math:`g`. It does not matter how the ReLU is written: as a
    function, a method or a module, or in place. Other activations pass their gradient as it is, and one warning names
    them. Only what goes into a ReLU is nonnegative: the first layer has weights of both signs, so scores have, too.

    Parameters
    ----------
    mask : {"edge", "node", "node_feature", "feature"}, default="edge"
        What is scored. Edges carry a gate of 1 on each of their messages. "node" and "feature" sum over the features of
        a node and over the nodes, as other signed gradients do: squares would hide which way a node acts.
    clip_input : bool, default=False
        True also sets to 0 what is negative at the inputs or gates themselves, before it is summed.
    per_layer : bool, default=False
        True also leaves what reaches the gates of each propagate call in ``E.layer_masks``: for each instance an array
        (calls, entries), its columns in the order of ``E.entries(i)``. They sum to the edge scores.

    Raises
    ------
    TypeError
        If the model runs no ReLU; one that is written as a clamp or a maximum is not known as one, but named.

    Notes
    -----
    Springenberg, Dosovitskiy, Brox & Riedmiller, "Striving for Simplicity: The All Convolutional Net", 2015; for graphs
    Baldassarre & Azizpour, 2019, whose code also clips behind every other operation. Other parameters are those of
    `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import GuidedBackprop
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = GuidedBackprop(model, mask="node_feature", clip_input=True).explain(X)
    >>> bool((E[0] >= 0).all())
    True
    """

    mask: Literal["edge", "node", "node_feature", "feature"] = "edge"
    clip_input: bool = False
    per_layer: bool = False

    masks_: ClassVar[tuple[str, ...]] = ("edge", "node", "node_feature", "feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="gradients")

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> ForwardPass:
        return gnn.guided_pass(batch, wanted_input(self.mask, self.per_layer))

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: ForwardPass) -> Masks:
        guided = passed.gradient(batch.targets)
        guided = guided.clamp_min(0) if self.clip_input else guided
        if self.mask == "edge":
            layers = {"layer_masks": layer_masks(batch, guided)} if self.per_layer else {}
            return Masks(edge=guided.sum(0) if self.per_layer else guided, extras=layers)
        return entry_masks(batch, self.mask, guided)
