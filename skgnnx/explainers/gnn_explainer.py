"""GNNExplainer: soft masks of edges and features, learned for each prediction."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks
from skgnnx.blackbox.mask_learning import LearnedMasks, edge_pairs, learn_masks
from skgnnx.blackbox.mask_logits import MaskParameters, Penalty
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import NonNegativeFloat, PositiveFloat, PositiveInt

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"lr": 0.1, "epochs": 100, "init_mean": 4.0, "edge_size": 0.02, "edge_entropy": 0.0,
                "feature_size": 1.0, "feature_entropy": 0.1, "tie_directions": True},
    "paper": {"lr": 0.1, "epochs": 100, "init_mean": 1.0, "edge_size": 0.005, "edge_entropy": 1.0,
              "feature_size": 1.0, "feature_entropy": 0.0, "tie_directions": True},
    "pyg": {"lr": 0.01, "epochs": 100, "init_mean": 0.0, "edge_size": 0.005, "edge_entropy": 1.0,
            "feature_size": 1.0, "feature_entropy": 0.1, "tie_directions": False},
}  # fmt: skip


@explainer
class GNNExplainer(BaseExplainer):
    r"""Masks that keep the prediction while they shrink, learned by gradient descent.

    For each instance, edge logits :math:`m` and feature logits :math:`f` minimise

    .. math:: -\log p_c(G \odot \sigma(m), X \odot \sigma(f)) + a_s \sum \sigma(m) + a_e \,\mathrm{mean}\, H(\sigma(m))
              + b_s \,\mathrm{mean}\, \sigma(f) + b_e \,\mathrm{mean}\, H(\sigma(f))

    by Adam, where :math:`H` is the binary entropy and sums and means run over the computation graph of the instance.
    A feature that is zero can be neither shown nor hidden: "node_feature" masks exist only where a feature of a node is
    not zero, "feature" masks only for features that are not zero on some node of the computation graph. Anything else
    is scored 0 and not penalised, and means run over the masks that exist.

    Regression models use the squared change of the output instead of the log-probability. All instances are optimised
    together: losses are summed, so each takes the steps it would take alone.

    Parameters
    ----------
    mask : {"edge", "node", "feature", "node_feature"}, default="edge"
        The primary mask: edges, nodes (one logit per node, scaling its features), features shared by all nodes of the
        instance, or features of each node.
    feature_mask : {None, "node", "feature", "node_feature"}, default=None
        A second mask learned together with edges.
    preset : {"default", "paper", "pyg"}, default="default"
        Values of the parameters below that are None. "paper" is the authors' code: learning rate 0.1, logits around 1,
        one logit per undirected pair. "pyg" is PyG 2.8's: 0.01, around 0, a logit per direction, no penalty in the
        first step, entries without gradient in the first step scored 0. "default" starts from nearly open masks without
        an entropy penalty, which holds edges without any effect open; it shares the best mean characterization of the
        grid in ``benchmarks/gnn_explainer_defaults.py`` with its neighbours, up to noise.
    epochs : int >= 1, optional
        Steps of Adam; 100 in all presets.
    lr : float > 0, optional
        Learning rate; 0.1 ("default", "paper") or 0.01 ("pyg").
    init_mean : float, optional
        Mean of the initial edge logits, whose standard deviation is sqrt(2 / nodes); 4 ("default"), 1 ("paper") or 0
        ("pyg").
    edge_size, edge_entropy : float >= 0, optional
        Penalties :math:`a_s` (0.02 "default", 0.005 "paper", "pyg") and :math:`a_e` (0 "default", 1 "paper", "pyg").
    feature_size, feature_entropy : float >= 0, optional
        Penalties :math:`b_s` (1) and :math:`b_e` (0.1; 0 in "paper", whose code computes it without adding it).
    tie_directions : bool, optional
        Whether the two directions of an undirected edge share a logit; True ("default", "paper") or False ("pyg").
    n_init : int >= 1, default=1
        Runs from different initial masks; masks are their mean, ``E.spread`` holds the standard deviation per entry.
    tol : float > 0, optional
        Stop an instance once its loss has changed by less than `tol` relative in each of 10 consecutive steps; None
        runs all epochs.

    Notes
    -----
    Ying, Bourgeois, You, Zitnik & Leskovec, "GNNExplainer: Generating Explanations for Graph Neural Networks", NeurIPS
    2019. ``E.loss`` is the final loss of each instance, ``E.n_iter`` its number of steps; ``E.steps`` says whether
    their tensor operations were taken down once and done again ("from a tape", which changes no bit), or why not.
    Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import GNNExplainer
    >>> from skgnnx.testing import example
    >>> model, X = example("node")
    >>> E = GNNExplainer(model, epochs=5).explain(X)
    >>> bool((E[0] >= 0).all() and (E[0] <= 1).all())
    True
    """

    mask: Literal["edge", "node", "feature", "node_feature"] = "edge"
    feature_mask: Literal["node", "feature", "node_feature"] | None = None
    preset: Literal["default", "paper", "pyg"] = "default"
    epochs: PositiveInt | None = None
    lr: PositiveFloat | None = None
    init_mean: float | None = None
    edge_size: NonNegativeFloat | None = None
    edge_entropy: NonNegativeFloat | None = None
    feature_size: NonNegativeFloat | None = None
    feature_entropy: NonNegativeFloat | None = None
    tie_directions: bool | None = None
    n_init: PositiveInt = 1
    tol: PositiveFloat | None = None

    masks_: ClassVar[tuple[str, ...]] = ("edge", "node", "feature", "node_feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="perturbation", flow="forward", mask="soft", deterministic=False)
    check_params_: ClassVar[dict[str, Any]] = {"epochs": 3, "init_mean": 0.0}  # three steps that can be seen

    def _setting(self, name: str) -> Any:
        """Return a parameter, or what the preset says where it is None."""
        value = getattr(self, name)
        return PRESETS[self.preset][name] if value is None else value

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        second: list[str] = [] if self.feature_mask in (None, self.mask) else [str(self.feature_mask)]
        kinds = [str(self.mask), *second]
        runs = [self._run(gnn, batch, kinds, seed + run) for run in range(self.n_init)]
        masks = {kind: torch.stack([run.masks[kind] for run in runs]) for kind in kinds}
        extras = {"loss": runs[-1].loss.tolist(), "n_iter": runs[-1].num_steps.tolist()}
        extras["steps"] = [runs[-1].path] * len(batch)
        if self.n_init > 1:
            spread = masks[self.mask].std(dim=0, correction=0)
            extras["spread"] = batch.split(self._scores(gnn, batch, self.mask, spread), self.mask)
        return Masks(**{k: self._scores(gnn, batch, k, values.mean(0)) for k, values in masks.items()}, extras=extras)

    def _scores(self, gnn: OpenBox, batch: GraphBatch, kind: str, values: Tensor) -> Tensor:
        """Return scores of everything that a kind of mask can score, from values where it has any."""
        return values if kind == "edge" else gnn.masked_features(batch).units(kind).scores(values)

    def _run(self, gnn: OpenBox, batch: GraphBatch, kinds: list[str], seed: int) -> LearnedMasks:
        """Optimise one set of initial masks to the end."""
        penalties = {
            kind: Penalty(self._setting(f"{name}_size"), self._setting(f"{name}_entropy"), mean=kind != "edge")
            for kind in kinds
            for name in ("edge" if kind == "edge" else "feature",)
        }
        return learn_masks(
            lambda part, masks: self._objective(gnn, part, masks),
            batch,
            {kind: self._parameters(gnn, batch, kind, seed) for kind in kinds},
            penalties,
            epochs=self._setting("epochs"),
            lr=self._setting("lr"),
            tol=self.tol,
            gradient_support=self.preset == "pyg",
        )

    def _objective(self, gnn: OpenBox, batch: GraphBatch, masks: dict[str, Tensor]) -> Tensor:
        """Return how badly the masked graph predicts what the whole graph predicts (B,)."""
        of_features = {kind: mask for kind, mask in masks.items() if kind != "edge"}
        x = gnn.masked_features(batch).under(of_features) if of_features else None
        return gnn.prediction_loss(batch, x=x, edge_mask=masks.get("edge"))

    def _parameters(self, gnn: OpenBox, batch: GraphBatch, kind: str, seed: int) -> MaskParameters:
        """Return the initial logits of one kind of mask."""
        if kind == "edge":
            return self._edge_parameters(gnn, batch, seed)
        features = gnn.masked_features(batch)
        units, noise = features.units(kind), features.noise(batch, kind, seed)
        return MaskParameters(0.1 * noise, units.instance, units.reached.to(noise.dtype))

    def _edge_parameters(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> MaskParameters:
        gnn.check_maskable()
        logits = self._initial_edge_logits(batch, seed).to(gnn.dtype)
        reached = batch.edge_reach & torch.from_numpy(gnn.explained_edges(batch)).to(batch.device)
        weight = reached.to(gnn.dtype)
        if not self._setting("tie_directions"):
            return MaskParameters(logits, batch.edge_instance, weight)
        unit, first = edge_pairs(batch)
        tied_weight = torch.zeros(len(first), dtype=gnn.dtype, device=batch.device).scatter_reduce(
            0, unit, weight, "amax"
        )
        return MaskParameters(logits[first], batch.edge_instance[first], tied_weight, expand=unit)

    def _initial_edge_logits(self, batch: GraphBatch, seed: int) -> Tensor:
        """Draw one logit per edge (E,)."""
        std = (2 / batch.num_reached_nodes.clamp_min(1)).sqrt()[batch.edge_instance]
        return self._setting("init_mean") + std * batch.noise(seed, "edge")
