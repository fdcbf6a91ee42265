"""ExcitationBP: the chance that a walk down from the explained unit, along excitatory connections, arrives here."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks, entry_masks
from skgnnx.blackbox.relevance.excitation import ExcitationPass, nonnegative
from skgnnx.explainers.backward import BackwardExplainer
from skgnnx.explainers.base import explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy


@explainer
class ExcitationBP(BackwardExplainer):
    r"""Excitation backpropagation: where a mass of 1 at the explained unit comes from.

    Mass goes from a unit :math:`j` to the units :math:`i` of the layer below in proportion to what excites it,

    .. math:: P(i) = \sum_j \frac{a_i w_{ij}^+}{\sum_{i'} a_{i'} w_{i'j}^+} P(j)

    for activations :math:`a_i \ge 0` and positive weights :math:`w^+`. A whole graph convolution is one layer, with its
    attention, degrees and winners of maxima as they are. Scores are not negative and sum to 1, less the mass that gets
    lost at units which nothing excites, or goes to constants that a model adds outside of its layers.

    Parameters
    ----------
    mask : {"node", "edge", "node_feature", "feature"}, default="node"
        What is scored. Nodes and features are sums over the features of a node and over the nodes; an edge gets what
        its messages carry, summed over the layers.
    contrastive : bool, default=False
        True subtracts the mass that a unit with the negated weights of the explained one would send, and keeps what is
        positive: what speaks for this class and not for all. The sum is then no mass. False is the method itself.
    shift_input : bool, default=False
        Node features must not be negative. True subtracts from all features of an instance the smallest of those that
        reach its prediction, if that is negative, and explains the activations that the model has then.

    Raises
    ------
    ValueError
        If features are negative and `shift_input` is False.
    TypeError
        If activations between layers are negative, as behind tanh or LeakyReLU; if anything is subtracted or negative
        in a sum (ChebConv, LEConv, residuals before a ReLU, normalisation layers other than batch normalisation); if
        scores are no output of a linear layer; and for models that `LRP` refuses.

    Notes
    -----
    Zhang et al., "Top-Down Neural Attention by Excitation Backprop", IJCV 2018; for graphs: Pope et al.,
    "Explainability Methods for Graph Convolutional Neural Networks", CVPR 2019. Batch normalisation is folded into the
    layer before it. A binary model of one output column is taken for two units with opposite weights. Each instance has
    "lost_mass" as an extra. Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import ExcitationBP
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = ExcitationBP(model, shift_input=True).explain(X)
    >>> bool(abs(E[0].sum() + E.lost_mass[0] - 1) < 1e-5)
    True
    """

    mask: Literal["node", "edge", "node_feature", "feature"] = "node"
    contrastive: bool = False
    shift_input: bool = False

    masks_: ClassVar[tuple[str, ...]] = ("node", "edge", "node_feature", "feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="decomposition")
    check_params_: ClassVar[dict[str, Any]] = {"shift_input": True}

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> ExcitationPass:
        if self.mask in ("node_feature", "feature"):
            gnn.float_features(batch, "mask='node' or 'edge'")
        x = nonnegative(batch, gnn.node_inputs(batch), shift=self.shift_input)
        return ExcitationPass(gnn, batch, x, gated=self.mask == "edge", with_other=self.contrastive)

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: ExcitationPass) -> Masks:
        mass, other = passed.masses(batch.targets)
        extras = {"lost_mass": (1 - batch.sum_nodes(mass.x.flatten(1).sum(1))).tolist()}
        if self.contrastive and other is not None:
            mass = mass.less(other)
        if mass.gates is not None:
            return Masks(edge=mass.gates.sum(0), extras=extras)
        return entry_masks(batch, self.mask, mass.x, extras)
