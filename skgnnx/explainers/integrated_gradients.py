"""Integrated gradients: the share of each input in what the score gains on the way from a baseline."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks, layer_masks
from skgnnx.blackbox.line import Inputs, Integral, Line, integrated
from skgnnx.explainers.backward import wanted_input
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs import Explanations, Instances
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import PositiveFloat, PositiveInt

SMALL_CHANGE = 0.01


@explainer
class IntegratedGradients(BaseExplainer):
    r"""Gradients integrated from a baseline to the input, signed; they sum to the change of the score.

    .. math:: A = (z - z_0) \int_0^1 \frac{\partial s_c}{\partial z}\bigl(z_0 + a (z - z_0)\bigr) \, da
       \qquad \sum A = s_c(z) - s_c(z_0)

    for the pre-softmax score :math:`s_c` of the target, by the Gauss-Legendre rule. For edges :math:`z` are gates on
    all messages of an edge, in every layer the same, which go from 0 to 1: a closed gate is no removed edge, degrees
    stay. All gates move together, so what each layer has of the sum can be told. The number of steps of an instance is
    doubled until the sum is right up to `tol`, so that instances which need few steps do not pay for others. Steps of
    small batches run together, as copies in one union.

    Parameters
    ----------
    mask : {"edge", "node", "node_feature", "feature"}, default="edge"
        What is scored. "node" and "feature" sum over the features of a node and over the nodes. Nodes whose features
        are categories are scored at the outputs of their embeddings.
    baseline : {"zero", "mean"} or array-like of shape (F,), default="zero"
        Where the features of every node start: at 0, at their mean over the nodes that can reach the prediction, or at
        given values. Zero is the usual choice, but rarely a possible input: no atom is without an element.
    joint : bool, default=False
        True moves gates and features together: edges and nodes (or what `mask` says) are both scored, in
        ``E.edge_mask`` and ``E.node_mask``, and the two sum to the change of the score.
    per_layer : bool, default=False
        True also leaves the shares of each propagate call in ``E.layer_masks``, where edges are scored: for each
        instance an array (calls, entries), its columns in the order of ``E.entries(i, "edge")``; the score of an edge
        is their sum.
    n_steps : int >= 1, default=50
        Steps to begin with, as many as captum takes.
    max_steps : int >= 1, default=400
        Steps are doubled as long as they are not more than this; at least `n_steps`.
    tol : float > 0, default=0.01
        How far the sum may be from the change of the score, relative to that change, or to a hundredth of both scores'
        sizes where the change is smaller.

    Warns
    -----
    UserWarning
        If the sum of an instance is farther off after `max_steps`.

    Raises
    ------
    ValueError
        If `baseline` does not fit the node features, `n_steps` is more than `max_steps`, or `per_layer` is asked for
        where no edges are scored.

    Notes
    -----
    Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks", ICML 2017. For each instance ``E.score`` and
    ``E.baseline_score`` are the scores at both ends, ``E.completeness_gap`` is how far the sum is from their
    difference, and ``E.steps_used`` the number of steps. Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import IntegratedGradients
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = IntegratedGradients(model, mask="node").explain(X)
    >>> change = E.score[0] - E.baseline_score[0]
    >>> bool(abs(E[0].sum() - change) <= 0.01 * abs(change))
    True
    """

    mask: Literal["edge", "node", "node_feature", "feature"] = "edge"
    baseline: Literal["zero", "mean"] | np.ndarray | list | tuple = "zero"
    joint: bool = False
    per_layer: bool = False
    n_steps: PositiveInt = 50
    max_steps: PositiveInt = 400
    tol: PositiveFloat = 0.01

    masks_: ClassVar[tuple[str, ...]] = ("edge", "node", "node_feature", "feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="gradients", remainder="baseline_score")
    check_params_: ClassVar[dict[str, Any]] = {"n_steps": 8, "max_steps": 64, "tol": 0.05}

    def explain_targets(self, X: Any, targets: Sequence[int] | None = None) -> list[Explanations]:
        """Explain every instance for several targets; one forward pass along the path serves all of them.

        Parameters and returned explanations are those of `BaseExplainer.explain_targets`.
        """
        found = super().explain_targets(X, targets)
        for E in found[1:]:
            self._name_incomplete(E, stacklevel=3)
        return found

    def _checked(self, X: Any, reset: bool = False) -> Instances:
        X = super()._checked(X, reset)
        if self.n_steps > self.max_steps:
            raise ValueError(
                f"'n_steps' must be at most 'max_steps' of IntegratedGradients. Got {self.n_steps} and "
                f"{self.max_steps}; lower the first or raise the second."
            )
        if self.per_layer and not self._scores_edges():
            raise ValueError(
                f"'per_layer' of IntegratedGradients must be False where no edges are scored. Got mask={self.mask!r}; "
                "use mask='edge' or joint=True."
            )
        return X

    def name_left_out(self, E: Explanations, stacklevel: int = 4) -> None:
        """Warn as all explainers do, and of sums that are not the change of the score."""
        super().name_left_out(E, stacklevel + 1)
        self._name_incomplete(E, stacklevel)

    def _name_incomplete(self, E: Explanations, stacklevel: int) -> None:
        ends = (E.extras.get(key, []) for key in ("score", "baseline_score", "completeness_gap"))
        open_ones = [i for i, known in enumerate(zip(*ends)) if None not in known and not self._is_complete(*known)]
        if open_ones:
            worst = max(E.extras["completeness_gap"][i] for i in open_ones)
            warnings.warn(
                f"The scores of {len(open_ones)} of {len(E)} instances do not sum to the change of the model's score "
                f"up to tol={self.tol}, the first at index {open_ones[0]}: they are up to {worst:.2g} off after "
                f"max_steps={self.max_steps}; raise it, see E.completeness_gap.",
                UserWarning,
                stacklevel=stacklevel,
            )

    def _scores_edges(self) -> bool:
        return self.mask == "edge" or self.joint

    def _is_complete(self, score: Any, start: Any, gap: Any) -> Any:
        return gap <= self.tol * np.maximum(abs(score - start), SMALL_CHANGE * (abs(score) + abs(start)))

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        return self._explain_each(gnn, batch, seed, [batch])[0]

    def _explain_each(self, gnn: OpenBox, batch: GraphBatch, seed: int, asked: Sequence[GraphBatch]) -> list[Masks]:
        targets = [one.targets for one in asked if one.targets is not None]
        found = integrated(self._line(gnn, batch), targets, self.n_steps, self.max_steps, self._is_complete)
        return [self._masks(batch, each) for each in found]

    def _line(self, gnn: OpenBox, batch: GraphBatch) -> Line:
        start: Inputs = {}
        end: Inputs = {}
        if self.mask != "edge" or self.joint:
            end["x"] = gnn.input_values(
                batch, "node" if self.mask == "edge" else wanted_input(self.mask, False)
            ).detach()
            start["x"] = self._baseline_of(batch, end["x"])
        if self._scores_edges():
            gates = gnn.input_values(batch, wanted_input("edge", self.per_layer))
            end["edge_mask"] = gates.T.contiguous() if self.per_layer else gates
            start["edge_mask"] = torch.zeros_like(end["edge_mask"])
        return Line(gnn, batch, start, end)

    def _baseline_of(self, batch: GraphBatch, x: Tensor) -> Tensor:
        if isinstance(self.baseline, str) and self.baseline == "zero":
            return torch.zeros_like(x)
        if isinstance(self.baseline, str):
            reached = batch.node_reach.to(x).view(-1, *(1,) * (x.dim() - 1))
            count = batch.sum_nodes(reached).clamp_min(1)
            return (batch.sum_nodes(x * reached) / count)[batch.node_instance]
        given, shape = _numbers(self.baseline), tuple(x.shape[1:])
        if given is None or given.shape != shape:
            raise ValueError(
                f"The 'baseline' of IntegratedGradients must be 'zero', 'mean' or finite numbers of shape {shape}, one "
                f"per node feature. Got {self.baseline if given is None else f'shape {given.shape}'}."
            )
        return torch.from_numpy(given).to(x).expand_as(x)

    def _masks(self, batch: GraphBatch, found: Integral) -> Masks:
        masks = Masks(extras=found.extras())
        if "edge_mask" in found.shares:
            share = found.shares["edge_mask"]
            masks.edge = share.sum(1) if self.per_layer else share
            if self.per_layer:
                masks.extras["layer_masks"] = layer_masks(batch, share.T)
        if "x" in found.shares:
            share = found.shares["x"]
            if self.mask == "feature":
                masks.feature = batch.sum_nodes(share)
            elif self.mask == "node_feature":
                masks.node_feature = share
            else:
                masks.node = share.flatten(1).sum(1)
        return masks


def _numbers(values: Any) -> np.ndarray | None:
    """Return values as an array of float64, None if they are no finite numbers."""
    try:
        array = np.array(values, dtype=None if np.iscomplexobj(values) else np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind == "f" and np.isfinite(array).all() else None
