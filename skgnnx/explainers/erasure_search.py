"""Erasure search: the smallest set of messages under which a prediction stays what it is."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gate_search import BEYOND_REACH, GateSearch, GateUnits, gate_units, num_sets
from skgnnx.blackbox.gate_sites import GateSites
from skgnnx.blackbox.gathering import Masks, layer_masks
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs import Explanations
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import NonNegativeFloat, NonNegativeInt, PositiveInt


@explainer
class ErasureSearch(BaseExplainer):
    r"""The smallest set of open gates that keeps the predicted class, by trying all sets of one size after another.

    .. math:: \min_{z \in \{0, 1\}^n} \sum z \qquad \text{such that} \qquad \hat y(z) = \hat y(1)

    where message `j` is multiplied by :math:`z_j`: a closed gate is no removed edge, degrees stay. Among sets of one
    size the one with the highest probability of the target is taken; probabilities within 1e-5 relative are tied, and
    ties go to the earlier edges by (source, target, occurrence) and call. The class that is kept is the predicted one,
    whatever the target. A binary or multi-label head keeps its decision at `threshold`, a regression its value up to
    `tol`.

    That a prediction survives does not mean that the model looked at nothing else: where one edge is enough, all
    others that the model counted are left out. This hindsight bias is what `GraphMask` learns to avoid.

    Parameters
    ----------
    per_layer : bool, default=True
        Whether an edge has a gate of its own in every propagate call, as in the source, or one for all of them.
    tie_directions : bool, default=False
        Whether the two directions of an edge of an undirected graph share their gates.
    max_size : int >= 0 or None, default=None
        Largest set that is tried. None tries larger and larger ones until one keeps the prediction.
    max_evals : int >= 1, default=1048576
        Most sets of an instance; 2 ** 20, the limit of 20 gates in the source. How many sets there are is known, and
        told, before the first is tried; usually far fewer are, because the search stops at the first size that will do.
    on_budget : {"raise", "greedy"}, default="raise"
        What an instance with more sets does: it is an error, or its gates are closed one after the other, each time the
        one without which the target stays most probable, until none can be closed. ``E.exact`` tells which; a set that
        was found greedily holds no gate that could be closed, but a smaller one may exist.
    tol : float >= 0, default=0.05
        How far the value of a regression may move, as a share of its size.

    Warns
    -----
    UserWarning
        If an instance has no set of at most `max_size`: all its gates stay open, and ``E.found`` is False.

    Raises
    ------
    ValueError
        If an instance has more sets than `max_evals`, with on_budget="raise", or if closing gates greedily could take
        more than that.
    TypeError
        If the model passes no messages.

    Notes
    -----
    The comparison method of Schlichtkrull, De Cao & Titov, "Interpreting graph neural networks for NLP with
    differentiable edge masking", ICLR 2021, after Li, Monroe & Jurafsky, "Understanding neural networks through
    representation erasure", 2016. Scores are 1 for edges with an open gate in some call, else 0. ``E.layer_masks``
    holds for each instance an array (calls, entries) of its gates with `per_layer`, columns in the order of
    ``E.entries(i)``; ``E.num_evaluations`` says how many sets were tried. Other parameters are those of
    `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import ErasureSearch
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = ErasureSearch(model, per_layer=False, on_budget="greedy").explain(X)
    >>> all(E.found), set(E[0].tolist()) <= {0.0, 1.0}
    (True, True)
    """

    mask: Literal["edge"] = "edge"
    per_layer: bool = True
    tie_directions: bool = False
    max_size: NonNegativeInt | None = None
    max_evals: PositiveInt = 2**20
    on_budget: Literal["raise", "greedy"] = "raise"
    tol: NonNegativeFloat = 0.05

    masks_: ClassVar[tuple[str, ...]] = ("edge",)
    chooses: ClassVar[bool] = True
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="perturbation", flow="forward", mask="discrete")
    check_params_: ClassVar[dict[str, Any]] = {"per_layer": False, "max_evals": 2**12, "on_budget": "greedy"}

    def name_left_out(self, E: Explanations, stacklevel: int = 4) -> None:
        """Warn as all explainers do, and of instances without a set that is small enough."""
        super().name_left_out(E, stacklevel + 1)
        missing = [i for i, found in enumerate(E.extras.get("found", [])) if found is False]
        if missing:
            warnings.warn(
                f"No set of at most max_size={self.max_size} gates keeps the prediction of {len(missing)} of {len(E)} "
                f"instances, the first at index {missing[0]}: all their gates stay open; raise max_size, see E.found.",
                UserWarning,
                stacklevel=stacklevel - 1,  # warned from here, not from a function that this calls
            )

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        active = GateSites(gnn, batch).active.cpu().numpy()
        units = gate_units(batch, active, per_layer=self.per_layer, tie_directions=self.tie_directions)
        exact = self._fits(batch, units)
        search = GateSearch(gnn, batch, units, self.tol)
        search.search_all(np.flatnonzero(exact), self.max_size)
        search.close_greedily(np.flatnonzero(~exact), self.max_size)
        result = search.result
        gates = active & np.append(result.is_open, False)[units.of_gate]
        extras: dict[str, list[Any]] = {
            "found": result.found.tolist(),
            "exact": exact.tolist(),
            "num_evaluations": result.num_evaluations.tolist(),
        }
        opened = torch.from_numpy(gates).to(batch.device, torch.float32)
        if self.per_layer:
            extras["layer_masks"] = layer_masks(batch, opened)
        return Masks(edge=opened.amax(0), extras=extras)

    def _fits(self, batch: GraphBatch, units: GateUnits) -> np.ndarray:
        """Return whether all sets of each instance may be tried; ValueError for those that are refused."""
        exact = np.ones(len(batch), dtype=bool)
        for i, count in enumerate(units.counts.tolist()):
            needed = num_sets(count, self.max_size)
            exact[i] = needed <= self.max_evals
            closings = count * (count + 1) // 2
            if exact[i] or (self.on_budget == "greedy" and closings <= self.max_evals):
                continue
            advice = "on_budget='greedy', per_layer=False or a max_size"
            if self.on_budget == "greedy":
                needed, advice = closings, "per_layer=False or another method"
            raise ValueError(
                f"An instance must not need more than max_evals={self.max_evals} evaluations of ErasureSearch. Got "
                f"{count} gates at index {batch.positions[i]}, up to {_said(needed)} evaluations; use {advice}, or "
                "raise max_evals."
            )
        return exact


def _said(number: int) -> str:
    return f"{number:,}" if number < BEYOND_REACH else f"more than {BEYOND_REACH:.0e}"
