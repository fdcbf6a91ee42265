"""Gradient-weighted class activation mapping, on the states of nodes between layers."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks
from skgnnx.blackbox.layer_states import LayerStates, layer_states
from skgnnx.blackbox.readouts import Made
from skgnnx.explainers.backward import BackwardExplainer
from skgnnx.explainers.base import explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy


@explainer
class GradCAM(BackwardExplainer):
    r"""Node states weighted by the gradient of the score.

    With :math:`G = \partial s_c / \partial H` for the states :math:`H` of the nodes, "gradcam" scores a node by
    :math:`\mathrm{ReLU}(\sum_k \alpha_k H_{nk})`, where :math:`\alpha_k` is the mean of :math:`G_{nk}` over the nodes
    of the graph, and "hirescam" by :math:`\sum_k G_{nk} H_{nk}`, signed. After the last layer of a network that ends in
    one pooling and one Linear, "hirescam" is `CAM`, and so is "gradcam" up to its ReLU for a sum or a mean.

    Parameters
    ----------
    mask : {"node"}, default="node"
        Nodes are scored; `Explanations.to_kind` gives edges.
    variant : {"gradcam", "hirescam"} or None, default=None
        None is "gradcam" for graphs and "hirescam" for nodes and links, where the mean of gradients does not depend on
        which node is explained.
    layers : {"last", "mean"}, int or None, default=None
        Whose states are taken: of the last layer, the mean of the maps of all layers, or of one layer by its number.
        For graphs these are the states that a layer hands on, activated and normalised, to the next one or to the
        readout; for nodes and links those that go into a layer, so that nothing outside of the receptive field is
        scored. None is "last" for graphs, as in the paper, and "mean" for nodes and links.
    relu : bool or None, default=None
        Whether negative scores become 0 in the map of each layer. None is True for "gradcam", as in the paper, and
        False for "hirescam", whose sums it would break.
    allow_global : bool, default=False
        True allows "gradcam" for nodes and links, with a mean over the computation graph.

    Raises
    ------
    TypeError
        If the model has no message-passing layers, its readout cannot be told, or "gradcam" is asked for nodes or
        links without `allow_global`.
    ValueError
        If there is no layer of that number.

    Notes
    -----
    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization", ICCV 2017; for
    graphs Pope et al., CVPR 2019; Draelos & Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
    convolutional neural networks", 2020. Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import GradCAM
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> bool((GradCAM(model).explain(X)[0] >= 0).all())
    True
    """

    mask: Literal["node"] = "node"
    variant: Literal["gradcam", "hirescam"] | None = None
    layers: Literal["last", "mean"] | int | None = None
    relu: bool | None = None
    allow_global: bool = False

    masks_: ClassVar[tuple[str, ...]] = ("node",)
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="gradients", states=True)

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> LayerStates:
        if self.variant == "gradcam" and batch.X.level != "graph" and not self.allow_global:
            raise TypeError(
                f"variant='gradcam' averages gradients over all nodes, so that its map does not depend on which "
                f"{batch.X.level} of a graph is explained. Got {batch.X.level} instances for {gnn.name}; use "
                "variant='hirescam', or allow_global=True."
            )
        passed = layer_states(gnn, batch)
        return passed._replace(states=self._chosen(passed, gnn, batch))

    def _chosen(self, passed: LayerStates, gnn: OpenBox, batch: GraphBatch) -> list[Made]:
        layers = self.layers if self.layers is not None else "last" if batch.X.level == "graph" else "mean"
        if layers == "mean":
            return passed.states
        number, n = -1 if layers == "last" else int(layers), len(passed.states)
        if not -n <= number < n:
            raise ValueError(
                f"'layers' must be 'last', 'mean' or the number of a layer, in [{-n}, {n}) for {gnn.name}. Got "
                f"{number}."
            )
        return [passed.states[number]]

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: LayerStates) -> Masks:
        gradients = passed.gradients(passed.states, batch.targets)
        maps = [self._map(batch, one.value, gradient) for one, gradient in zip(passed.states, gradients)]
        return Masks(node=torch.stack(maps).mean(dim=0), extras={"path": gnn.plain_path(batch)})

    def _map(self, batch: GraphBatch, states: Tensor, gradient: Tensor) -> Tensor:
        averaged = self.variant == "gradcam" or (self.variant is None and batch.X.level == "graph")
        if averaged:
            mean = batch.sum_nodes(gradient) / batch.num_reached_nodes.view(-1, 1).to(gradient.dtype)
            gradient = mean[batch.node_instance]
        scores = (states.detach() * gradient).sum(dim=1)
        return scores.clamp_min(0) if (averaged if self.relu is None else self.relu) else scores
