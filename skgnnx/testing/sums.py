"""Law 7: shares of a score sum to the score, without what a method says that it leaves."""

from __future__ import annotations

import numpy as np
from torch import nn

from skgnnx.graphs import Instances
from skgnnx.testing.running import (
    Factory,
    build,
    explained,
    for_all,
    masks_of,
    plain_outputs,
    require,
    tags_of,
    with_mask,
)

ROUNDING = 1e-4


def check_sums(factory: Factory) -> None:
    """The scores of the nodes and the remainder sum to ``E.score``, which is what the model says before its softmax.

    For methods whose tag `remainder` names where they leave the rest: the share of biases, or the score at a baseline.
    A sum that is off may be so by no more than ``E.completeness_gap`` or ``E.gap`` says, where a method tells it.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    remainder = tags_of(factory).remainder
    if not remainder:
        return

    def body(model: nn.Module, X: Instances) -> None:
        explainer = build(factory, model)
        if "node" in masks_of(explainer):
            explainer = with_mask(explainer, "node")
        E = explained(explainer, X)
        require("score" in E.extras and remainder in E.extras, explainer, f"E must hold 'score' and {remainder!r}.")
        score, rest = np.array(E.extras["score"]), np.array(E.extras[remainder])
        own = _scores(model, X, E.targets)
        told = np.abs(E.extras.get("completeness_gap", E.extras.get("gap", [0.0] * len(X))))
        for i in range(len(X)):
            values = np.asarray(E[i], dtype=np.float64)
            size = max(1.0, abs(score[i]), abs(rest[i]), float(np.abs(values).sum()))
            gap = abs(values.sum() + rest[i] - score[i])
            law = f"Scores and {remainder!r} must sum to the score."
            require(gap <= ROUNDING * size + told[i], explainer, law, f"a difference of {gap:.2g}")
            gap = abs(own[i] - score[i])
            require(gap <= ROUNDING * size, explainer, "E.score must be the model's own score.", f"{gap:.2g} off")

    for_all(factory, body)


def _scores(model: nn.Module, X: Instances, targets: np.ndarray) -> np.ndarray:
    """Return the logits of the targets, also of a network that returns log-probabilities."""
    was, model.log_softmax = model.log_softmax, False  # type: ignore[assignment]
    try:
        return plain_outputs(model, X)[np.arange(len(X)), targets].detach().numpy().astype(np.float64)
    finally:
        model.log_softmax = was
