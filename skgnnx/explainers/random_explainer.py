"""Random scores: the baseline that every explainer has to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from scipy.special import ndtr
from torch import Tensor

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy


@explainer
class RandomExplainer(BaseExplainer):
    """Independent uniform scores, reproducible per instance.

    Every unit is scored by a draw from the uniform distribution on (0, 1), seeded by `random_state` and the content of
    the instance's computation graph.

    Parameters
    ----------
    mask : {"edge", "node", "node_feature", "feature"}, default="edge"
        What is scored.

    Notes
    -----
    The control of every table; see Faber, Moghaddam & Wattenhofer, "When Comparing to Ground Truth is Wrong", KDD 2021.
    Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import RandomExplainer
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> a, b = (RandomExplainer(model, random_state=1).explain(X) for _ in range(2))
    >>> bool((a[0] == b[0]).all())
    True
    """

    mask: Literal["edge", "node", "node_feature", "feature"] = "edge"

    masks_: ClassVar[tuple[str, ...]] = ("edge", "node", "node_feature", "feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(black_box=True, flow="forward", deterministic=False)

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        features = batch.X.num_units("feature", 0)
        if self.mask == "edge":
            return Masks(edge=_uniform(batch.noise(seed, "edge")))
        if self.mask == "node":
            return Masks(node=_uniform(batch.noise(seed, "node")))
        if self.mask == "node_feature":
            return Masks(node_feature=_uniform(batch.noise(seed, "node", features)))
        return Masks(feature=_uniform(batch.noise(seed, "instance", features)))


def _uniform(noise: Tensor) -> Tensor:
    return torch.from_numpy(ndtr(noise.cpu().numpy()))
