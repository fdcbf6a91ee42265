"""Class activation mapping: the share of each node in a score that is linear in pooled node states."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks
from skgnnx.blackbox.open_box import of_targets
from skgnnx.blackbox.pooled_head import PooledHead, pooled_head
from skgnnx.blackbox.relevance import RelevancePass, Rules, Surrogate
from skgnnx.explainers.backward import BackwardExplainer
from skgnnx.explainers.base import explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy


@explainer
class CAM(BackwardExplainer):
    r"""Class activation mapping: what each node adds to a score that is one Linear of pooled node states.

    For :math:`s_c = w_c \cdot \mathrm{pool}_n H_n + b_c` a node is scored by its part of the sum:
    :math:`w_c \cdot H_n / |V|` for the mean, :math:`w_c \cdot H_n` for the sum; each feature's maximum goes to the node
    that has it, and nodes within 1e-5 relative share it. The scores of a graph sum to :math:`s_c - b_c`. States,
    pooling (or several, concatenated) and Linear are found by running the model, however it is written; all classes
    come from that one run.

    Parameters
    ----------
    mask : {"node"}, default="node"
        Nodes are scored; `Explanations.to_kind` gives edges.
    relu : bool, default=False
        True keeps positive scores only, as the papers do; then they do not sum to the score.
    paper_scale : bool, default=False
        True leaves out the :math:`1/|V|` of a mean, as the papers do.

    Raises
    ------
    TypeError
        If the model is of another form, or its logits cannot be reached.

    Notes
    -----
    ``E.score`` and ``E.bias`` hold the explained score of each instance and the bias of its class. Predictions about
    nodes or links are refused, because a Linear on the state of one node leaves everything to that node, unless scores
    of nodes come out of the last graph convolution: then what goes into it is scored, with attention as it is.

    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016; for graphs Pope et al.,
    "Explainability Methods for Graph Convolutional Neural Networks", CVPR 2019. Other parameters are those of
    `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import CAM
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = CAM(model).explain(X)
    >>> bool(abs(E[0].sum() - (E.score[0] - E.bias[0])) < 1e-5)
    True
    """

    mask: Literal["node"] = "node"
    relu: bool = False
    paper_scale: bool = False

    masks_: ClassVar[tuple[str, ...]] = ("node",)
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="gradients", tasks=("graph",), states=True, remainder="bias")

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> PooledHead | RelevancePass:
        if batch.X.level == "graph":
            return pooled_head(gnn, batch)
        passed = Surrogate(gnn, Rules("zero")).pass_forward(batch) if batch.X.level == "node" else None
        if passed is None or not passed.ends_in_layer:
            raise TypeError(
                f"CAM explains predictions about graphs: without a pooling {gnn.name} leaves all of the score to the "
                f"explained {batch.X.level}. Got {batch.X.level} instances; use GradCAM, whose variant='hirescam' goes "
                "back to the inputs of the layers."
            )
        return passed

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: PooledHead | RelevancePass) -> Masks:
        if isinstance(passed, RelevancePass):
            found = passed.relevances(batch.targets)
            node, score = found.states[-2], found.score
            bias = score - batch.sum_nodes(node)
        else:
            node = self._shares(batch, passed)
            score, bias = of_targets(passed.scores, batch.targets), passed.bias[batch.targets]
        extras = {"score": score.tolist(), "bias": bias.tolist(), "path": gnn.plain_path(batch)}
        return Masks(node=node.clamp_min(0) if self.relu else node, extras=extras)

    def _shares(self, batch: GraphBatch, passed: PooledHead) -> Tensor:
        shares = [
            block.states.value if self.paper_scale and block.pool == "mean" else block.shares(batch)
            for block in passed.blocks
        ]
        return (torch.cat(shares, dim=1) * passed.weight[batch.targets][batch.node_instance]).sum(dim=1)
