"""GNNExplainer: soft masks of edges and features, learned for each prediction."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks
from skgnnx.blackbox.mask_learning import LearnedMasks, edge_pairs, learn_masks
from skgnnx.blackbox.mask_logits import MaskParameters, Penalty
from skgnnx.blackbox.matrix_penalty import matrix_penalty
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs import Explanations
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import Interval, NonNegativeFloat, PositiveFloat, PositiveInt

AtLeastOne = Annotated[float, Interval(float, 1)]

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"lr": 0.1, "epochs": 100, "n_init": 4, "init_mean": 2.5, "init_range": 1.5, "init_scale": 0.0,
                "edge_size": 0.1, "size_growth": 1000.0, "size_unit": "gradient", "edge_entropy": 0.0, "laplacian": 0.0,
                "penalty_over": "edges", "average_steps": True, "feature_init_scale": 0.0, "feature_size": 1.0,
                "feature_entropy": 0.1, "tie_directions": True},
    "paper": {"lr": 0.1, "epochs": 100, "n_init": 1, "init_mean": 1.0, "init_range": 0.0, "init_scale": 1.0,
              "edge_size": 0.005, "size_growth": 1.0, "size_unit": "loss", "edge_entropy": 1.0, "laplacian": 1.0,
              "penalty_over": "matrix", "average_steps": False, "feature_init_scale": 0.0, "feature_size": 1.0,
              "feature_entropy": 0.0, "tie_directions": True},
    "pyg": {"lr": 0.01, "epochs": 100, "n_init": 1, "init_mean": 0.0, "init_range": 0.0, "init_scale": 1.0,
            "edge_size": 0.005, "size_growth": 1.0, "size_unit": "loss", "edge_entropy": 1.0, "laplacian": 0.0,
            "penalty_over": "edges", "average_steps": False, "feature_init_scale": 0.1, "feature_size": 1.0,
            "feature_entropy": 0.1, "tie_directions": False},
}  # fmt: skip
FEWEST_STEPS = 50  # who asks for fewer cannot expect a decision


@explainer
class GNNExplainer(BaseExplainer):
    r"""Masks that keep the prediction while they shrink, learned by gradient descent.

    For each instance, edge logits :math:`m` and feature logits :math:`f` minimise

    .. math:: -\log p_c(G \odot \sigma(m), X \odot \sigma(f)) + a_t \sum \sigma(m) + a_e \,\mathrm{mean}\, H(\sigma(m))
              + \frac{a_l}{n^2} y^\top L y + b_s \,\mathrm{mean}\, \sigma(f) + b_e \,\mathrm{mean}\, H(\sigma(f))

    by Adam, where :math:`H` is the binary entropy, :math:`L` the Laplacian of the masked graph, :math:`y` the predicted
    classes of its nodes as numbers, and sums and means run over the computation graph of the instance. The size
    coefficient :math:`a_t` may grow with the steps t: what the prediction can do without closes early, what it needs
    holds out, so that the mean over all steps ranks edges where the end of the run has closed most of them.
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
        Values of the parameters below that are None, told in the order "default", "paper", "pyg". "paper" is the code
        of the authors [1]_ (not its target, the true label: targets are those of `X`): penalties over the n x n mask
        matrix, with the Laplacian term for predictions about nodes. "pyg" is PyG 2.8's [2]_: no penalty in the first
        step, entries without gradient in the first step scored 0. "default" was chosen by fidelity on sets that no
        table is made of (``benchmarks/gnn_explainer_defaults.py``); it draws no noise, so no seed changes it.
    epochs : int >= 1, optional
        Steps of Adam in each run; 100 in all presets.
    lr : float > 0, optional
        Learning rate; 0.1, 0.1, 0.01.
    n_init : int >= 1, optional
        Runs from different initial masks, of which the mean is returned; 4 (1 for masks without edges), 1, 1.
        ``E.spread`` holds the standard deviation per entry where there are several.
    init_mean, init_range : float, optional
        Mean of the initial edge logits: evenly spaced over the runs from ``init_mean - init_range`` to ``init_mean +
        init_range``; 2.5 and 1.5, 1 and 0, 0 and 0.
    init_scale, feature_init_scale : float >= 0, optional
        Standard deviations of the initial edge logits in units of sqrt(2 / nodes), 0, 1, 1; and of those of features,
        around 0: 0, 0, 0.1.
    edge_size : float >= 0, optional
        Penalty :math:`a_0`; 0.1, 0.005, 0.005.
    size_growth : float >= 1, optional
        How many times as large the size penalty is in the last step, growing geometrically; 1000, 1, 1.
    size_unit : {"gradient", "loss"}, optional
        What `edge_size` and `edge_entropy` are multiples of: the mean absolute gradient of the loss by the masks of the
        instance at the start of each run, or 1; "gradient", "loss", "loss".
    edge_entropy : float >= 0, optional
        Penalty :math:`a_e`; 0, 1, 1.
    laplacian : float >= 0, optional
        Penalty :math:`a_l`, used with ``penalty_over="matrix"`` where nodes are explained and the model predicts a
        class for each; 0, 1, 0.
    penalty_over : {"edges", "matrix"}, optional
        Whether a logit counts once and entropy is a mean over logits, or as in [1]_ a logit counts as the entries of
        the n x n matrix that it stands for, both directions of a pair as two, and entropy is divided by n^2; "edges",
        "matrix", "edges".
    average_steps : bool, optional
        Whether edge scores are means of the masks after each step, or the masks after the last; True, False, False.
    feature_size, feature_entropy : float >= 0, optional
        Penalties :math:`b_s` (1) and :math:`b_e`: 0.1, 0 ([1]_ computes it without adding it), 0.1.
    tie_directions : bool, optional
        Whether the two directions of an undirected edge share a logit; True, True, False.
    tol : float > 0, optional
        Stop an instance once its loss has changed by less than `tol` relative in each of 10 consecutive steps; None
        runs all epochs.

    Notes
    -----
    Scores are the mean over all steps, or the last iterate as in both references, never the step of lowest loss: while
    penalties grow, losses of different steps are of different problems.

    ``E.loss`` is the loss of each instance in the last step of its last run, ``E.n_iter`` the number of steps;
    ``E.steps`` says whether their tensor operations were taken down once and done again ("from a tape", which changes
    no bit), or why not. ``E.undecided`` is True where in every run most masks were still on their way between 0.1 and
    0.9 (if the last ones count), or none had left its start by 0.01, or the loss had no gradient. Runs of 50 steps or
    more warn if that is so for more than half of the instances. Other parameters are those of
    `BaseExplainer`.

    References
    ----------
    .. [1] Ying, Bourgeois, You, Zitnik & Leskovec, "GNNExplainer: Generating Explanations for Graph Neural Networks",
       NeurIPS 2019; the coefficients are those of github.com/RexYing/gnn-model-explainer.
    .. [2] ``torch_geometric.explain.GNNExplainer``, 2.8.

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
    n_init: PositiveInt | None = None
    init_mean: float | None = None
    init_range: NonNegativeFloat | None = None
    init_scale: NonNegativeFloat | None = None
    feature_init_scale: NonNegativeFloat | None = None
    edge_size: NonNegativeFloat | None = None
    size_growth: AtLeastOne | None = None
    size_unit: Literal["gradient", "loss"] | None = None
    edge_entropy: NonNegativeFloat | None = None
    laplacian: NonNegativeFloat | None = None
    penalty_over: Literal["edges", "matrix"] | None = None
    average_steps: bool | None = None
    feature_size: NonNegativeFloat | None = None
    feature_entropy: NonNegativeFloat | None = None
    tie_directions: bool | None = None
    tol: PositiveFloat | None = None

    masks_: ClassVar[tuple[str, ...]] = ("edge", "node", "feature", "node_feature")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="perturbation", flow="forward", mask="soft", deterministic=False)
    # Three steps that can be seen, from starts that a seed changes.
    check_params_: ClassVar[dict[str, Any]] = {
        "epochs": 3,
        "n_init": 1,
        "init_mean": 0.0,
        "init_scale": 1.0,
        "feature_init_scale": 0.1,
    }

    def _setting(self, name: str) -> Any:
        """Return a parameter, or what the preset says where it is None."""
        value = getattr(self, name)
        return PRESETS[self.preset][name] if value is None else value

    def name_left_out(self, E: Explanations, stacklevel: int = 4) -> None:
        """Warn once of edges without a score, of sampled neighbours, and of runs that ended undecided."""
        super().name_left_out(E, stacklevel + 1)
        flags = E.extras.get("undecided", [])
        said = [flag for flag in flags if flag is not None]
        if self._setting("epochs") < FEWEST_STEPS or 2 * sum(said) <= len(said):
            return
        i = flags.index(True)
        warnings.warn(
            f"Masks must settle to rank what they mask. Got {sum(said)} of {len(said)} instances undecided, the first "
            f"is {i}: most masks were still moving, or none has moved, or the prediction has no gradient; see "
            "E.undecided, and use preset='default', more epochs or a larger lr.",
            UserWarning,
            stacklevel=stacklevel,
        )

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        second: list[str] = [] if self.feature_mask in (None, self.mask) else [str(self.feature_mask)]
        kinds = [str(self.mask), *second]
        # Runs differ by what edges start from: one is enough where there are none.
        num_runs = self._setting("n_init") if "edge" in kinds else self.n_init or 1
        runs = [self._run(gnn, batch, kinds, seed + run, shift) for run, shift in enumerate(self._shifts(num_runs))]
        masks = {kind: torch.stack([run.masks[kind] for run in runs]) for kind in kinds}
        extras = {"loss": runs[-1].loss.tolist(), "n_iter": runs[-1].num_steps.tolist()}
        extras["undecided"] = torch.stack([run.undecided for run in runs]).all(0).tolist()
        extras["steps"] = [runs[-1].path] * len(batch)
        if num_runs > 1:
            values = masks[self.mask]
            spread = (values - values.mean(0)).square().mean(0).sqrt()  # std warns where there are no edges
            extras["spread"] = batch.split(self._scores(gnn, batch, self.mask, spread), self.mask)
        return Masks(**{k: self._scores(gnn, batch, k, values.mean(0)) for k, values in masks.items()}, extras=extras)

    def _shifts(self, num_runs: int) -> list[float]:
        """Return how far from `init_mean` the mean of the edge logits is at the start of each run."""
        reach = self._setting("init_range") if num_runs > 1 else 0.0
        return np.linspace(-reach, reach, num_runs).tolist()

    def _scores(self, gnn: OpenBox, batch: GraphBatch, kind: str, values: Tensor) -> Tensor:
        """Return scores of everything that a kind of mask can score, from values where it has any."""
        return values if kind == "edge" else gnn.masked_features(batch).units(kind).scores(values)

    def _run(self, gnn: OpenBox, batch: GraphBatch, kinds: list[str], seed: int, shift: float) -> LearnedMasks:
        """Optimise one set of initial masks to the end."""
        parameters, penalties = {}, {}
        for kind in kinds:
            make = self._edges if kind == "edge" else self._features
            parameters[kind], penalties[kind] = make(gnn, batch, kind, seed, shift)
        return learn_masks(
            lambda part, masks: self._objective(gnn, part, masks),
            batch,
            parameters,
            penalties,
            epochs=self._setting("epochs"),
            lr=self._setting("lr"),
            tol=self.tol,
            gradient_support=self.preset == "pyg",
            average=("edge",) if self._setting("average_steps") else (),
        )

    def _objective(self, gnn: OpenBox, batch: GraphBatch, masks: dict[str, Tensor]) -> Tensor:
        """Return how badly the masked graph predicts what the whole graph predicts (B,)."""
        of_features = {kind: mask for kind, mask in masks.items() if kind != "edge"}
        x = gnn.masked_features(batch).under(of_features) if of_features else None
        return gnn.prediction_loss(batch, x=x, edge_mask=masks.get("edge"))

    def _features(
        self, gnn: OpenBox, batch: GraphBatch, kind: str, seed: int, shift: float
    ) -> tuple[MaskParameters, Penalty]:
        """Return the initial logits of one kind of feature mask, and their penalty."""
        features = gnn.masked_features(batch)
        units, noise = features.units(kind), features.noise(batch, kind, seed)
        logits = self._setting("feature_init_scale") * noise
        penalty = Penalty(self._setting("feature_size"), self._setting("feature_entropy"), mean=True)
        return MaskParameters(logits, units.instance, units.reached.to(noise.dtype)), penalty

    def _edges(
        self, gnn: OpenBox, batch: GraphBatch, kind: str, seed: int, shift: float
    ) -> tuple[MaskParameters, Penalty]:
        """Return the initial logits of edges, and their penalty."""
        gnn.check_maskable()
        logits = (self._initial_edge_logits(batch, seed) + shift).to(gnn.dtype)
        reached = batch.edge_reach & torch.from_numpy(gnn.explained_edges(batch)).to(batch.device)
        weight, first = reached.to(gnn.dtype), torch.arange(batch.num_edges, device=batch.device)
        mask = MaskParameters(logits, batch.edge_instance, weight)
        if self._setting("tie_directions"):
            unit, first = edge_pairs(batch)
            tied = torch.zeros(len(first), dtype=gnn.dtype, device=batch.device)
            tied = tied.scatter_reduce(0, unit, weight, "amax")
            mask = MaskParameters(logits[first], batch.edge_instance[first], tied, expand=unit)
        penalty = Penalty(
            self._setting("edge_size"),
            self._setting("edge_entropy"),
            mean=False,
            growth=self._setting("size_growth"),
            relative=self._setting("size_unit") == "gradient",
        )
        if self._setting("penalty_over") == "matrix":
            penalty = matrix_penalty(gnn, batch, mask, first, penalty, self._setting("laplacian"))
        return mask, penalty

    def _initial_edge_logits(self, batch: GraphBatch, seed: int) -> Tensor:
        """Draw one logit per edge (E,)."""
        mean, scale = self._setting("init_mean"), self._setting("init_scale")
        if scale == 0:
            return torch.full((batch.num_edges,), mean, dtype=torch.float64, device=batch.device)
        std = scale * (2 / batch.num_reached_nodes.clamp_min(1)).sqrt()[batch.edge_instance]
        return mean + std * batch.noise(seed, "edge")
