"""Information bottleneck: how much of each message a prediction needs, the rest being noise."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from torch import nn

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.amortised_gates import GateProblem
from skgnnx.blackbox.bottleneck import BottleneckLearning, LearnedBottleneck, priors
from skgnnx.blackbox.gate_networks import GateNetworks
from skgnnx.blackbox.gate_sites import GateSites
from skgnnx.blackbox.gathering import Masks, layer_masks
from skgnnx.blackbox.hard_concrete import HardConcrete
from skgnnx.blackbox.multipliers import Multipliers
from skgnnx.explainers.base import explainer
from skgnnx.explainers.learned import LearnedExplainer, LearningSet
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import NonNegativeFloat, PositiveFloat, PositiveInt


@explainer
class InformationBottleneck(LearnedExplainer):
    r"""Gates that mix messages with noise, learned so that little information passes and predictions stay.

    .. math:: \tilde m_e \sim N\bigl(g_e m_e + (1 - g_e) \mu, ((1 - g_e) s)^2\bigr), \qquad
              \min \frac{\rho}{E} \sum_e \frac{1}{d} KL\bigl(\tilde m_e \,\|\, N(\mu, s^2)\bigr)
              \quad \text{such that losses grow by at most } \beta

    where :math:`\mu` and `s` are mean and standard deviation of each of the `d` numbers of a message, over all messages
    of the same propagate call in `fit`. Gates are made by networks that read the message and the states of its ends, as
    those of `GraphMask`, so `explain` learns nothing. A message behind a closed gate is not absent but an average one
    with noise, and scores are shares of what passes, never exactly 0 or 1.

    Parameters
    ----------
    epochs : int >= 1, default=100
        Passes over the instances in `fit` before the next layer from the top is learned, too.
    lr : float > 0, default=0.01
        Learning rate of Adam.
    penalty : float >= 0, default=5
        :math:`\rho`. Of a few values of these three, the ones that left the least information on star graphs while
        predictions stayed; 5 is also the penalty of GraphMask's authors.
    allowance : float >= 0, default=0.03
        :math:`\beta`, by how much the loss of the model's own prediction may grow; that of the source.
    max_change : float >= 0, default=0.05
        Share of the held-out predictions that may change: of the epochs in which no more do, the one with the least
        information is kept. In a regression, the relative change of the values.
    hidden : int >= 1, optional
        Width of the hidden layers of gate networks; None takes that of the messages, at least 8.
    fit_batch_size : int >= 1 or None, default=256
        Instances in each step of the optimiser; None takes all of them.

    Raises
    ------
    TypeError
        If the model passes no messages.

    Notes
    -----
    The comparison method of Schlichtkrull, De Cao & Titov, "Interpreting graph neural networks for NLP with
    differentiable edge masking", ICLR 2021, after Schulz et al., "Restricting the flow: Information bottlenecks for
    attribution", ICLR 2020. Scores are the largest gates of an edge over all calls; ``E.layer_masks`` holds for each
    instance an array (calls, entries) of gates and ``E.layer_information`` one of nats, columns in the order of
    ``E.entries(i)``. Other parameters are those of `LearnedExplainer`.

    Examples
    --------
    >>> from skgnnx import InformationBottleneck
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = InformationBottleneck(model, epochs=2).fit(X[:2]).explain(X[2:])
    >>> bool((E.layer_information[0] >= 0).all())
    True
    """

    mask: Literal["edge"] = "edge"
    epochs: PositiveInt = 100
    lr: PositiveFloat = 0.01
    penalty: NonNegativeFloat = 5.0
    allowance: NonNegativeFloat = 0.03
    max_change: NonNegativeFloat = 0.05
    hidden: PositiveInt | None = None
    fit_batch_size: PositiveInt | None = 256

    masks_: ClassVar[tuple[str, ...]] = ("edge",)
    taxonomy: ClassVar[Taxonomy] = Taxonomy(
        family="perturbation", learned=True, flow="forward", mask="soft", deterministic=False
    )
    check_params_: ClassVar[dict[str, Any]] = {"epochs": 1, "max_change": 1.0}

    def _train(
        self, gnn: OpenBox, data: LearningSet, network: nn.Module | None, seed: int, epochs: int | None
    ) -> nn.Module:
        problem = GateProblem(HardConcrete(), self.penalty, self.allowance, self.epochs, self.lr, dual_lr=0.01)
        if network is None:
            known = [GateSites(gnn, batch) for batches in data.steps for batch in batches]
            networks = GateNetworks(known[0].calls, self.hidden).to(gnn.device, gnn.dtype)
            network = LearnedBottleneck(networks, Multipliers(1, problem.dual_lr, gnn.device), priors(known))
        learned = cast(LearnedBottleneck, network)
        BottleneckLearning(gnn, problem, learned, seed).run(data.steps, data.held_out, epochs, self.max_change)
        return learned

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        sites, learned = GateSites(gnn, batch), cast(LearnedBottleneck, self.network_)
        with torch.no_grad():
            locations = [location.double() for location in learned.best(sites.calls)]
            told = [
                prior.information(location, call.messages)
                for prior, location, call in zip(learned.priors, locations, sites.calls, strict=True)
            ]
            gates = sites.of_edges([location.sigmoid() for location in locations]) * sites.active
        extras = {
            "layer_masks": layer_masks(batch, gates.float()),
            "layer_information": layer_masks(batch, (sites.of_edges(told) * sites.active).float()),
        }
        return Masks(edge=gates.amax(0), extras=extras)
