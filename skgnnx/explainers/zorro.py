"""Zorro: nodes and features that keep the prediction when everything else is drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import nn

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.feature_draws import batches_of_draws
from skgnnx.blackbox.gathering import Masks
from skgnnx.blackbox.greedy_selection import GreedySearch
from skgnnx.blackbox.rdt_fidelity import RDTFidelity, Selection
from skgnnx.blackbox.soft_selection import learn_selection
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs import Instances
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.feature_columns import FeatureColumns
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt

COLUMNS = "columns of features"


@explainer
class Zorro(BaseExplainer):
    r"""A small set of nodes and features that keeps the prediction, found greedily.

    For nodes :math:`V_s` and features :math:`F_s`, the RDT-fidelity is the probability

    .. math:: P_Z[\text{the prediction on } M \odot X + (1 - M) \odot Z \text{ is that on } X],
              \qquad M = v_s f_s^\top,

    where every entry of :math:`Z` is drawn from its column of the node features of the whole data set. It is counted
    over the same draws for all candidates (common random numbers). First every node is scored with all features, and
    every feature with all nodes; the better of the two best begins. Then each step adds the node or the feature that
    helps most, out of the `n_candidates` nodes and as many features not yet selected that were best at first, until the
    fidelity reaches `tau`. Among equals a feature goes first, then what was better at first, then the lower number.

    All candidates of a step of all instances run together. A draw that has the very values that a candidate would show
    is not run, and features that are constant in the data set are no candidates.

    The data set is that of `fit`, or all graphs of `X` where nothing was fitted. Node features may be categories.

    With ``soft=True`` (SoftZorro) nothing is searched: :math:`v_s` and :math:`f_s` are weights in [0, 1] that minimise
    minus the mean probability of the target over the draws, plus `size` times their sums and `entropy` times the means
    of their binary entropies, by Adam from uniform weights, brought back into [0, 1] after each step.

    Parameters
    ----------
    mask : {"node", "feature", "node_feature"}, default="node"
        The primary mask: the nodes, the features, or the entries where both are selected. All are 0 or 1, and those of
        nodes and features are always there (``E.node_mask``, ``E.feature_mask``).
    tau : float in [0, 1], default=0.98
        Fidelity that is enough; 0.98 and 0.85 are the authors' values.
    n_samples : int >= 1, default=100
        Draws; the authors' value.
    n_candidates : int >= 1 or None, default=10
        Nodes, and features, that compete in each step; the authors' value. None lets all of them compete.
    n_explanations : int >= 1, default=1
        Most explanations of each instance. After one is found, the search goes on without its nodes, and apart from
        that without its features, as long as what is left reaches `tau`; breadth first.
    soft : bool, default=False
        Whether weights are learned instead. This needs a network, floating-point features, and ignores `tau` and
        `n_candidates`.
    epochs : int >= 1, default=200
        Steps of Adam, if soft; this and the following are the authors' values.
    lr : float > 0, default=0.01
        Learning rate, if soft.
    size, entropy : float >= 0, default=0.01, 0.1
        Penalties of the sum of weights and of the mean of their entropy, if soft.

    Raises
    ------
    TypeError
        If the model is a regression, or the graphs have no node features; if soft, also for a callable as model and for
        features that are whole numbers.
    ValueError
        If several explanations are asked for and soft.

    Notes
    -----
    Funke, Khosla, Rathee & Anand, "Zorro: Valid, Sparse, and Stable Explanations in Graph Neural Networks", TKDE 2022.
    What is kept is the answer to the question whether the target is predicted. For each instance ``E.explanations``
    holds one dict for each explanation found: its "nodes" and "features", its "fidelity" on fresh draws, and its
    "search_fidelity" on those of the search. Masks are those of the first one, as are ``E.fidelity`` and
    ``E.search_fidelity``; ``E.n_runs`` is the number of changed graphs that the model saw. If soft, both fidelities are
    mean probabilities of the target, and ``E.loss`` is the final loss. Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import Zorro
    >>> from skgnnx.testing import example
    >>> model, X = example("node")
    >>> E = Zorro(model, tau=0.85, mask="node_feature").explain(X)
    >>> bool(np.isin(E[0], (0, 1)).all() and E.search_fidelity[0] >= 0.85)
    True
    """

    mask: Literal["node", "feature", "node_feature"] = "node"
    tau: Fraction = 0.98
    n_samples: PositiveInt = 100
    n_candidates: PositiveInt | None = 10
    n_explanations: PositiveInt = 1
    soft: bool = False
    epochs: PositiveInt = 200
    lr: PositiveFloat = 0.01
    size: NonNegativeFloat = 0.01
    entropy: NonNegativeFloat = 0.1

    masks_: ClassVar[tuple[str, ...]] = ("node", "feature", "node_feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(
        family="perturbation", black_box=True, flow="forward", mask="discrete", deterministic=False
    )
    check_params_: ClassVar[dict[str, Any]] = {"n_samples": 4, "n_candidates": 2}

    def _fit(self, X: Instances) -> None:
        self.columns_ = _columns_of(X)

    def for_workers(self, X: Instances, on_error: str | None = None) -> Self:
        """Return a copy that explains a part in one process, and draws from the features of all of `X`."""
        worker = super().for_workers(X, on_error)
        worker.columns_ = getattr(self, "columns_", None) or _columns_of(X)
        return worker

    def _columns(self, gnn: OpenBox) -> FeatureColumns:
        if COLUMNS not in gnn.memo:
            _check_features(gnn.X)
            _check_explainable(gnn, self.soft)
            gnn.memo[COLUMNS] = getattr(self, "columns_", None) or _columns_of(gnn.X)
        return gnn.memo[COLUMNS]

    def _checked(self, X: Any, reset: bool = False) -> Instances:
        X = super()._checked(X, reset)
        if self.soft and self.n_explanations > 1:
            raise ValueError(
                f"'n_explanations' must be 1 for Zorro(soft=True), whose weights are shares of one explanation. Got "
                f"{self.n_explanations}; use soft=False."
            )
        return X

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        columns = self._columns(gnn)
        parts = batches_of_draws(batch, self.n_samples)
        masks = self._learned(gnn, parts, columns, seed) if self.soft else self._found(gnn, parts, columns, seed)
        if self.mask == "node_feature":
            masks.node_feature = masks.node[:, None] * masks.feature[batch.node_instance]  # type: ignore[index]
        return masks

    def _found(self, gnn: OpenBox, parts: Iterator[GraphBatch], columns: FeatureColumns, seed: int) -> Masks:
        """Return 0/1 masks of nodes and features, and what was found about them."""
        found, said = [], []
        for part in parts:
            of_part = self._explained(gnn, part, columns, seed)
            ids = np.split(part.node_id, part.graphs.node_ptr[1:-1])
            said += [[each.said(own) for each in one] for one, own in zip(of_part, ids)]
            found += of_part
        nodes = np.concatenate([each[0].selection.nodes for each in found])
        features = np.stack([each[0].selection.features for each in found])
        extras = {
            "explanations": said,
            "fidelity": [one[0]["fidelity"] for one in said],
            "search_fidelity": [one[0]["search_fidelity"] for one in said],
            "n_runs": [one[0].num_runs for one in found],
        }
        node, feature = (torch.from_numpy(mask).to(gnn.device) for mask in (nodes, features))
        return Masks(node=node, feature=feature, extras=extras)

    def _learned(self, gnn: OpenBox, parts: Iterator[GraphBatch], columns: FeatureColumns, seed: int) -> Masks:
        """Return weights of nodes and features, and what they reach."""
        given: dict[str, Any] = {name: getattr(self, name) for name in ("n_samples", "epochs", "lr", "size", "entropy")}
        found = [learn_selection(gnn, part, columns, seed, **given) for part in parts]
        named = ("loss", "search_fidelity", "fidelity")
        extras = {name: [value for each in found for value in getattr(each, name).tolist()] for name in named}
        nodes, features = (torch.cat([getattr(each, name) for each in found]) for name in ("nodes", "features"))
        return Masks(node=nodes, feature=features, extras=extras)

    def _explained(self, gnn: OpenBox, batch: GraphBatch, columns: FeatureColumns, seed: int) -> list[list[Explained]]:
        """Return the explanations of each instance of a batch, with their fidelities."""
        search = GreedySearch(
            RDTFidelity(gnn, batch, columns, seed, range(self.n_samples)), self.tau, self.n_candidates
        )
        found = search.explanations(len(batch), self.n_explanations)
        runs = search.fidelity.num_runs
        del search
        fresh = RDTFidelity(gnn, batch, columns, seed, range(self.n_samples, 2 * self.n_samples))
        kept = iter(fresh.kept([each.selection for one in found for each in one]))
        return [
            [Explained(each.selection, each.kept.mean(), next(kept).mean(), int(runs[i])) for each in one]
            for i, one in enumerate(found)
        ]


@dataclass(frozen=True, eq=False)
class Explained:
    """One explanation, its fidelity on the draws of its search and on others, and what finding it took."""

    selection: Selection
    search_fidelity: float
    fidelity: float
    num_runs: int

    def said(self, node_id: np.ndarray) -> dict[str, Any]:
        """Return what users read of it."""
        return {
            "nodes": node_id[self.selection.nodes],
            "features": np.flatnonzero(self.selection.features),
            "fidelity": float(self.fidelity),
            "search_fidelity": float(self.search_fidelity),
        }


def _columns_of(X: Instances) -> FeatureColumns:
    _check_features(X)
    return FeatureColumns(X.store.columns["x"].values)


def _check_features(X: Instances) -> None:
    if "x" not in X.store.columns:
        raise TypeError(
            "Zorro needs node features 'x', which it hides by drawing others. Got graphs without; use "
            "GNNExplainer(mask='edge') instead."
        )


def _check_explainable(gnn: OpenBox, soft: bool) -> None:
    if gnn.kind_of_output == "regression":
        raise TypeError(
            f"Zorro needs a classifier, because it counts how often a class is kept. Got {gnn.name}, a regression; use "
            "GNNExplainer(mask='node_feature') or IntegratedGradients instead."
        )
    if soft and not isinstance(gnn.box.model, nn.Module):
        raise TypeError(f"Zorro(soft=True) needs a network, for its gradients. Got {gnn.name}; use soft=False.")
    if soft:
        gnn.float_features(gnn.look.batch, "soft=False")
