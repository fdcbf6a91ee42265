"""Law 3: the explained prediction is the model's prediction."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn

from skgnnx.graphs import Instances
from skgnnx.testing.running import Factory, build, explained, for_all, plain_outputs, require

TIE = 1e-5


def check_targets(factory: Factory) -> None:
    """``E.targets`` is the class that the model predicts when it is called by hand, or the target that was given.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances) -> None:
        explainer = build(factory, model)
        E = explained(explainer, X)
        if X.target is not None:
            require(np.array_equal(E.targets, X.target), explainer, "Targets that are given must be explained.")
            return
        output = plain_outputs(model, X)
        best = output.max(dim=1).values
        chosen = output.gather(1, torch.from_numpy(E.targets)[:, None]).squeeze(1)
        law = "The predicted class of every instance must be explained."
        require(bool((chosen >= best - TIE * best.abs() - TIE).all()), explainer, law, f"targets {E.targets}")

    for_all(factory, body)


def check_prediction_survives(factory: Factory) -> None:
    """What is explained predicts what the model predicts: computation graphs give the outputs of whole graphs.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances) -> None:
        require_prediction_survives(build(factory, model), model, X)

    for_all(factory, body)


def require_prediction_survives(explainer: object, model: nn.Module, X: Instances) -> None:
    """Raise AssertionError unless the explainer's batches give the outputs of the model called by hand.

    Parameters
    ----------
    explainer : BaseExplainer
        Explains `model`.
    model : nn.Module
        A network with the signature of `skgnnx.testing.networks.Network`.
    X : Instances
        What would be explained.
    """
    plain = plain_outputs(model, X)
    scale = max(1.0, float(plain.abs().max()))
    law = "A batch must predict what the model predicts on whole graphs."
    with warnings.catch_warnings(), explainer._box().open(X) as gnn:  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", UserWarning)
        for batch in gnn.batches():
            with torch.no_grad():
                gap = float((gnn.forward(batch) - plain[batch.positions]).abs().max())
            require(gap <= TIE * scale, explainer, law, f"outputs that differ by {gap:.2g}")
