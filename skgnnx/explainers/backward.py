"""What methods share that run once forward, and then send something back from the score of each target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks
from skgnnx.explainers.base import BaseExplainer
from skgnnx.graphs.batch import GraphBatch


class BackwardExplainer(BaseExplainer):
    """Base of methods that go backward; a subclass writes its fields, `_forward` and `_backward`.

    One forward pass serves every target of a batch, see `BaseExplainer.explain_targets`.
    """

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> Any:
        """Return all that going back needs: scores of all targets, and what they depend on."""
        raise NotImplementedError(f"{type(self).__name__} must define _forward(gnn, batch).")

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: Any) -> Masks:
        """Return the masks of ``batch.targets``, given what `_forward` returned."""
        raise NotImplementedError(f"{type(self).__name__} must define _backward(gnn, batch, passed) -> Masks.")

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        return self._backward(gnn, batch, self._forward(gnn, batch))

    def _explain_each(self, gnn: OpenBox, batch: GraphBatch, seed: int, asked: Sequence[GraphBatch]) -> list[Masks]:
        passed = self._forward(gnn, batch)
        return [self._backward(gnn, one, passed) for one in asked]


def wanted_input(mask: str, per_layer: bool) -> str:
    """Return by which input of the model a kind of mask is scored: see `OpenBox.forward_pass`."""
    if mask == "edge":
        return "layer" if per_layer else "edge"
    return "node" if mask == "node" else "x"
