"""LRP: the score of a prediction, shared out layer by layer among what went in."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks, entry_masks, layer_masks, layer_nodes
from skgnnx.blackbox.relevance import RelevancePass, Rules, Surrogate, check_gap, shares
from skgnnx.explainers.backward import BackwardExplainer
from skgnnx.explainers.base import explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import NonNegativeFloat, PositiveFloat


@explainer
class LRP(BackwardExplainer):
    r"""Layer-wise relevance propagation, on the model as it is.

    The pre-softmax score :math:`s_c` of the target, or the value of a regression, is handed back layer by layer. A unit
    with value :math:`z_j = \sum_i x_i w_{ij} + b_j` and relevance :math:`R_j` gives to its inputs

    .. math:: R_i = \sum_j \frac{c_{ij} + \gamma c_{ij}^\pm}{z_j + \gamma (\sum_i c_{ij}^\pm + b_j^\pm)} R_j

    with :math:`c_{ij} = x_i w_{ij}`, where :math:`\pm` takes contributions of the sign of :math:`z_j`, so that
    quotients stay below 1. A whole graph convolution is one such layer: attention, degrees and winners of maxima are
    kept as they are. What goes to biases is reported: the score is the sum of all node features and the bias share,
    and the difference, the gap, is checked.

    Parameters
    ----------
    mask : {"node", "edge", "node_feature", "feature"}, default="node"
        What is scored. Nodes and features are sums over the features of a node and over the nodes; an edge gets what
        its messages carry, summed over the layers.
    rule : {"gamma", "zero", "epsilon", "zplus"}, default="gamma"
        "zero" is the formula with gamma 0, and equals `InputXGradient` where there is no attention; "epsilon" adds
        epsilon times the sign of a unit to the divisor, the share of which is counted with the biases; "zplus" hands
        relevance to positive contributions only, and nothing to biases where there are any.
    gamma : float >= 0, sequence of such, or None, default=None
        One for all graph convolutions, or one for each. None goes from 3 at the first linearly to 0 at the last, as the
        authors of GNN-LRP do. Layers before the first or between convolutions use that of the first or previous one.
    epsilon : float > 0, default=0.01
        In units of a layer's outputs. Ours; much smaller values, 1e-9 for example, only avoid divisions by zero.
    head : {"zero", "same"}, default="zero"
        Rule of what comes behind the last graph convolution, "zero" as the authors of GNN-LRP do.
    per_layer : bool, default=False
        True also leaves for each instance ``E.layer_masks`` (calls, entries of the edges), ``E.loop_masks`` (calls,
        nodes), the same for loops that layers make themselves, and ``E.layer_nodes`` (convolutions + 1, nodes), the
        relevance of node states that go into each convolution and out of the last. Nodes are those that reach the
        prediction, in the user's order.

    Raises
    ------
    TypeError
        If relevance cannot pass a layer: attention inside of a message (TransformerConv), gates, sigmoids; if scores
        before a softmax cannot be found.
    ValueError
        If relevance got lost: the gap of an instance is larger than rounding; if a gamma or z-plus rule meets negative
        edge weights.

    Notes
    -----
    Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation",
    PLOS ONE 2015; gamma for graphs: Schnake et al., "Higher-Order Explanations of Graph Neural Networks via Relevant
    Walks", TPAMI 2022. The sign-split gamma equals theirs where inputs are not negative. Batch normalisation is folded
    into the layer before it; divisors, as in layer normalisation, are constants; ReLU and other elementwise activations
    hand on what they get; each factor of a product gets half. Each instance has "score", "bias_share" and "gap" as
    extras, and "rules": how relevance passed each layer, as a whole or by its parts, and by which rule. Forward
    hooks on parts inside a layer see its extra runs. Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import LRP
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = LRP(model).explain(X)
    >>> bool(abs(E[0].sum() + E.bias_share[0] - E.score[0]) < 1e-5)
    True
    """

    mask: Literal["node", "edge", "node_feature", "feature"] = "node"
    rule: Literal["gamma", "zero", "epsilon", "zplus"] = "gamma"
    gamma: NonNegativeFloat | list | tuple | np.ndarray | None = None
    epsilon: PositiveFloat = 0.01
    head: Literal["zero", "same"] = "zero"
    per_layer: bool = False

    masks_: ClassVar[tuple[str, ...]] = ("node", "edge", "node_feature", "feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="decomposition", remainder="bias_share")

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> RelevancePass:
        if self.mask in ("node_feature", "feature"):
            gnn.float_features(batch, "mask='node' or 'edge'")
        rules = Rules(self.rule, self.gamma, self.epsilon, self.head)
        return Surrogate(gnn, rules).pass_forward(batch, gated=self.mask == "edge" or self.per_layer)

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: RelevancePass) -> Masks:
        found = passed.relevances(batch.targets)
        check_gap(found, batch)
        extras = shares(found, passed)
        edges, loops = found.gates, found.loops
        if self.per_layer and edges is not None and loops is not None:
            states = torch.stack(found.states)
            extras |= {"layer_masks": layer_masks(batch, edges)}
            extras |= {"loop_masks": layer_nodes(batch, loops), "layer_nodes": layer_nodes(batch, states)}
        if edges is not None and self.mask == "edge":
            return Masks(edge=edges.sum(0), extras=extras)
        return entry_masks(batch, self.mask, found.x, extras)
