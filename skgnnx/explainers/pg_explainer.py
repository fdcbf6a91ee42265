"""PGExplainer: one network, learned from some instances, that scores the edges of others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.edge_scorer import EdgeScorer, ScoredEdges
from skgnnx.blackbox.gate_learning import Concrete, GateCosts, ScorerTraining, scores
from skgnnx.blackbox.gathering import Masks
from skgnnx.blackbox.node_states import NodeEmbedder
from skgnnx.explainers.base import explainer
from skgnnx.explainers.learned import LearnedExplainer, LearningSet
from skgnnx.graphs import Explanations
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import Interval, NonNegativeFloat, PositiveFloat, PositiveInt

COLLAPSED = 0.01  # standard deviation of a mask below which its entries are taken to be all the same
PRESETS: dict[str, dict[str, Any]] = {
    "default": {"embedding": "concat", "epochs": 100, "lr": 0.01, "first_temperature": 1.0, "last_temperature": 1.0,
                "noise_margin": 0.0, "edge_size": 3.0, "mean_size": True, "edge_entropy": 0.1, "first_logit": 2.0,
                "standardise": True, "tie_directions": True, "fit_batch_size": None},
    "paper": {"embedding": "concat", "epochs": 30, "lr": 0.003, "first_temperature": 5.0, "last_temperature": 2.0,
              "noise_margin": 0.0, "edge_size": 0.05, "mean_size": False, "edge_entropy": 1.0, "first_logit": 0.0,
              "standardise": False, "tie_directions": True, "fit_batch_size": None},
    "pyg": {"embedding": "last", "epochs": 30, "lr": 0.003, "first_temperature": 5.0, "last_temperature": 2.0,
            "noise_margin": 0.01, "edge_size": 0.05, "mean_size": False, "edge_entropy": 1.0, "first_logit": 0.0,
            "standardise": False, "tie_directions": False, "fit_batch_size": 1},
}  # fmt: skip


@explainer
class PGExplainer(LearnedExplainer):
    r"""A network from the embeddings of an edge's ends to its score, learned once and then applied to new instances.

    With embeddings :math:`z` of the whole graph, an edge of a graph, of a node t or of a link (a, b) has the logit

    .. math:: \omega_{uv} = \mathrm{MLP}([z_u; z_v]), \quad \mathrm{MLP}([z_u; z_v; z_t]) \quad \text{or} \quad
              \mathrm{MLP}([z_u; z_v; z_a; z_b]).

    In `fit`, gates :math:`s = \sigma((\log \epsilon - \log(1 - \epsilon) + \omega) / \tau)` with uniform
    :math:`\epsilon`, averaged over the two directions of an undirected edge, minimise

    .. math:: \sum_i -\log p_{c_i}(G_i \odot s) + a_s \sum s + a_e \,\mathrm{mean}\, H(0.99 s + 0.005)

    by Adam; regression models use the squared change of the output. `explain` returns :math:`\sigma(\omega)`, averaged
    likewise: one pass through the network, without noise.

    Parameters
    ----------
    preset : {"default", "paper", "pyg"}, default="default"
        Values of the parameters below that are None, and of `fit_batch_size`. "paper" is the authors', "pyg" PyG 2.8's:
        a step per instance, a gate per direction. Both start from gates of a half, under which many models predict
        nothing useful, and their gates tend to end up all the same. "default" starts from open gates and reads
        standardised embeddings; it was chosen by characterization on data of no table, see
        ``benchmarks/pg_explainer_defaults.py``.
    embedding : {"last", "concat"}, str, or callable, optional
        "last" ("pyg") is the output of the last message passing layer, or what goes into it where its output is the
        model's own. "concat" ("default", "paper") puts the outputs of all layers side by side, without the model's own.
        Any other name is that of a module, as in ``model.named_modules()``. A callable gets (model, PyG Batch of whole
        graphs) and returns a row for each node.
    epochs : int >= 1, optional
        100 ("default") or 30.
    lr : float > 0, optional
        Learning rate of Adam; 0.01 ("default") or 0.003.
    first_temperature, last_temperature : float > 0, optional
        :math:`\tau` goes from one to the other geometrically; 1 ("default"), 5 to 2 ("paper", "pyg").
    noise_margin : float in [0, 0.5], optional
        Distance that :math:`\epsilon` keeps from 0 and 1; at 0.5 there is no noise. 0, or 0.01 ("pyg").
    edge_size : float >= 0, optional
        Penalty :math:`a_s`; 3 ("default") or 0.05.
    mean_size : bool, optional
        Whether the size is the mean of the gates ("default"), so that graphs of any size are pressed alike, or their
        sum.
    edge_entropy : float >= 0, optional
        Penalty :math:`a_e`; 0.1 ("default") or 1.
    first_logit : float, optional
        Added to all logits before learning; 2 ("default") or 0.
    standardise : bool, optional
        Whether the network reads embeddings relative to their mean and deviation in `fit`; True ("default").
    tie_directions : bool, optional
        Whether the directions of an undirected edge share their mean; False in "pyg" only.
    budget : float >= 0, default=0.0
        Size that costs nothing, in edges (or as a share of them with `mean_size`).
    connectivity : float >= 0, default=0.0
        Coefficient of the mean cross-entropy between gates of edges that share a node, the authors' option.
    hidden_units : int >= 1, default=64
        Width of the network; that of all references.

    Attributes
    ----------
    network_ : EdgeScorer
        The network of the epoch with the least loss on held-out instances, of the epochs of the last call of `fit` or
        `partial_fit`, which may have had others; never one chosen by ground truth. Learning goes on from there.
    loss_curve_, validation_curve_ : list of float
        Mean loss per instance in each epoch: under noise while it was learned from, and without noise of the held-out
        instances. `partial_fit` and `warm_start` append to them.
    best_epoch_ : int
        Position of the chosen epoch in both.
    mask_std_ : float
        Mean over the held-out instances of the standard deviation of their masks.

    Notes
    -----
    Luo, Cheng, Xu, Yu, Zong, Chen & Zhang, "Parameterized Explainer for Graph Neural Network", NeurIPS 2020. Masks that
    are all the same are its known failure: ``E.mask_std`` holds the standard deviation over the edges of each instance,
    ``E.collapsed`` whether that is below 0.01, and one warning tells where most are, in `fit` and in `explain`. Noise
    belongs to instance and epoch, so that what is learned does not depend on memory. Other parameters are those of
    `LearnedExplainer` and `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import PGExplainer
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> explainer = PGExplainer(model, epochs=10).fit(X[:2])
    >>> E = explainer.explain(X[2:])
    >>> bool((E[0] >= 0).all() and (E[0] <= 1).all())
    True
    """

    preset: Literal["default", "paper", "pyg"] = "default"
    embedding: str | Callable | None = None
    epochs: PositiveInt | None = None
    lr: PositiveFloat | None = None
    first_temperature: PositiveFloat | None = None
    last_temperature: PositiveFloat | None = None
    noise_margin: Annotated[float, Interval(float, 0, 0.5)] | None = None
    edge_size: NonNegativeFloat | None = None
    mean_size: bool | None = None
    edge_entropy: NonNegativeFloat | None = None
    first_logit: float | None = None
    standardise: bool | None = None
    tie_directions: bool | None = None
    budget: NonNegativeFloat = 0.0
    connectivity: NonNegativeFloat = 0.0
    hidden_units: PositiveInt = 64

    taxonomy: ClassVar[Taxonomy] = Taxonomy(
        family="perturbation", learned=True, flow="forward", mask="soft", deterministic=False
    )
    check_params_: ClassVar[dict[str, Any]] = {"epochs": 2, "lr": 0.003, "first_logit": 0.0}

    def _setting(self, name: str) -> Any:
        """Return a parameter, or what the preset says where it is None."""
        value = getattr(self, name)
        return PRESETS[self.preset][name] if value is None else value

    def _instances_per_step(self) -> int | None:
        return self._setting("fit_batch_size")

    def _train(
        self, gnn: OpenBox, data: LearningSet, network: nn.Module | None, seed: int, epochs: int | None
    ) -> nn.Module:
        known = network if isinstance(network, EdgeScorer) else None
        steps = [[self._scored(gnn, batch, known) for batch in step] for step in data.steps]
        held_out = [self._scored(gnn, batch, known) for batch in data.held_out]
        training = ScorerTraining(
            gnn,
            known or self._new_network([edges for step in steps for edges in step]),
            Concrete(*(self._setting(f"{end}_temperature") for end in ("first", "last")), **self._schedule()),
            GateCosts(self._setting("edge_size"), self._setting("edge_entropy"), self.connectivity,
                      self._setting("mean_size"), self.budget),
            lr=self._setting("lr"),
            tied=self._setting("tie_directions"),
            seed=seed,
        )  # fmt: skip
        training.run(steps, held_out, epochs or self._setting("epochs"))
        self._note(training, held_out, going_on=known is not None)
        return training.network

    def _schedule(self) -> dict[str, Any]:
        return {"epochs": self._setting("epochs"), "margin": self._setting("noise_margin")}

    def _new_network(self, known: list[ScoredEdges]) -> EdgeScorer:
        first = known[0]
        network = EdgeScorer(
            first.states.shape[1], first.num_elements, self.hidden_units, self._setting("first_logit")
        ).to(first.states.device)
        if self._setting("standardise"):
            network.standardise(known)
        return network

    def _note(self, training: ScorerTraining, held_out: list[ScoredEdges], *, going_on: bool) -> None:
        """Keep what the curves look like, and warn if what was learned tells no edges apart."""
        losses, held_out_losses = (self.loss_curve_, self.validation_curve_) if going_on else ([], [])
        self.best_epoch_: int = len(losses) + training.best_epoch
        self.loss_curve_: list[float] = losses + training.losses
        self.validation_curve_: list[float] = held_out_losses + training.held_out_losses
        spreads, flat = zip(*(self._spread(training.network, edges)[1:] for edges in held_out), strict=True)
        spread, collapsed = np.concatenate(spreads), np.concatenate(flat)
        self.mask_std_: float = float(spread.mean())
        self._warn_of_collapse(collapsed, "learn gates that differ between the edges of a held-out instance", 6)

    def _spread(self, network: EdgeScorer, edges: ScoredEdges) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Return the scores of a batch, their deviation within each instance, and where they are all the same."""
        with torch.no_grad():
            gates = scores(network, edges, tied=self._setting("tie_directions"))
        spread = edges.spread(gates).cpu().numpy()
        return gates, spread, (spread < COLLAPSED) & (edges.num_units.cpu().numpy() > 1)

    def _warn_of_collapse(self, collapsed: np.ndarray, what: str, stacklevel: int) -> None:
        if 2 * collapsed.sum() > len(collapsed):
            warnings.warn(
                f"PGExplainer should {what}. Got masks with a standard deviation below {COLLAPSED} for "
                f"{collapsed.sum()} of {len(collapsed)}; lower 'edge_size', raise 'first_logit' or 'epochs', or try "
                "another 'embedding'.",
                UserWarning,
                stacklevel=stacklevel,
            )

    def name_left_out(self, E: Explanations, stacklevel: int = 4) -> None:
        """Warn also of masks whose entries are all the same."""
        super().name_left_out(E, stacklevel + 1)
        collapsed = np.array([bool(one) for one in E.extras.get("collapsed", [])])
        self._warn_of_collapse(collapsed, "tell the edges of an instance apart", stacklevel)

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        network = cast(EdgeScorer, self.network_)
        edges = self._scored(gnn, batch, network)
        gates, spread, collapsed = self._spread(network, edges)
        extras = {"mask_std": spread.tolist(), "collapsed": collapsed.tolist()}
        return Masks(edge=gates.to(gnn.dtype), extras=extras)

    def _scored(self, gnn: OpenBox, batch: GraphBatch, network: EdgeScorer | None) -> ScoredEdges:
        """Return what the network reads of a batch, which must be what it has learned from."""
        embedding = self._setting("embedding")
        if "embedder" not in gnn.memo:
            gnn.memo["embedder"] = NodeEmbedder(gnn, embedding)
        edges = ScoredEdges.of(gnn.memo["embedder"], batch)
        got = (edges.states.shape[1], edges.num_elements)
        if network is not None and got != (network.width, network.num_elements):
            raise ValueError(
                f"X and embedding must be of the kind in fit: {network.width} numbers per node and "
                f"{network.num_elements} explained nodes per instance. Got {got[0]} and {got[1]}; fit again with "
                "instances of this level."
            )
        return edges
