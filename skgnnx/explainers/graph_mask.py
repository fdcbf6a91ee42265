"""GraphMask: which messages a prediction can do without, layer by layer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from sklearn.utils import Tags
from torch import nn

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.amortised_gates import AmortisedLearning, GateProblem, LearnedGates
from skgnnx.blackbox.gate_networks import GateNetworks
from skgnnx.blackbox.gate_sites import GatesFound, GateSites
from skgnnx.blackbox.gathering import Masks, layer_masks
from skgnnx.blackbox.hard_concrete import HardConcrete
from skgnnx.blackbox.instance_gates import InstanceLearning
from skgnnx.blackbox.multipliers import Multipliers
from skgnnx.explainers.base import explainer
from skgnnx.explainers.learned import LearnedExplainer, LearningSet
from skgnnx.graphs.batch import GraphBatch
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import NonNegativeFloat, PositiveFloat, PositiveInt

STEPS = 3000  # what the default takes for each layer, whatever the number of instances

DUAL_LR = 0.01  # of the multipliers, as in the authors' code

PRESETS: dict[tuple[str, bool], dict[str, Any]] = {  # by name, and whether networks are learned
    ("default", True): {"epochs": None, "lr": 1e-3, "penalty": 5.0, "max_change": 0.02},
    ("default", False): {"epochs": 300, "lr": 0.05, "penalty": 5.0},
    ("paper", True): {"epochs": 25, "lr": 3e-4, "penalty": 5.0, "max_change": 0.05},
    ("paper", False): {"epochs": 25, "lr": 3e-4, "penalty": 5.0},
}


@explainer
class GraphMask(LearnedExplainer):
    r"""Messages that a prediction can do without, layer by layer: gates that are open or closed, as few open as can be.

    Each message :math:`m` of every layer has a gate :math:`z \in \{0, 1\}` and becomes :math:`z m + (1 - z) b` with a
    learned baseline :math:`b` of the layer. Gates follow a hard concrete distribution (see `HardConcrete`), and

    .. math:: \max_{\lambda} \min_{z, b} \; \rho \, \frac{1}{|E|} \sum_k \sum_e P(\bar s^{(k)}_e > 0)
              + \lambda \max(0, \Delta - \beta)

    is solved by Adam for gates and baselines and by gradient ascent for the multiplier :math:`\lambda`, where
    :math:`\Delta` is the growth of the loss (of :math:`-\log p` of the target, or the squared change of a regression).
    Layers are learned from the last to the first; those that have begun go on.

    Amortised, one network per layer (see `GateNetwork`) says from a message and the states of its ends whether the gate
    is open, and :math:`\Delta` is the mean over instances, a running one over steps. What it knows it has learned from
    all instances of `fit`, so it cannot use that a single prediction happens to survive without messages that the model
    needs in general: hindsight bias, which finds sets that are too small. Not amortised, the gates of every instance
    are learned for it alone in `explain`, with a multiplier and baselines of its own, and that bias is there.

    Parameters
    ----------
    amortised : bool, default=True
        Whether networks are learned in `fit`; False needs no `fit`.
    preset : {"default", "paper"}, default="default"
        Values of the parameters below that are None. "paper" is the authors' code for star graphs, which also sets
        ``fit_batch_size=5``.
    epochs : int >= 1, optional
        Passes over the instances for each layer; not amortised, steps. None: as many as make 3000 steps, or 300
        ("default"); 25 ("paper").
    lr : float > 0, optional
        Learning rate; 0.001, or 0.05 where not amortised ("default"); 0.0003 ("paper").
    penalty : float >= 0, optional
        :math:`\rho`; 5. Where layers pass messages once for each relation, their gates count as those of one layer.
    allowance : float >= 0, default=0.03
        :math:`\beta`, as in the authors' code. They count the loss from 0, here it counts from the model's own, so that
        an unsure prediction can be kept, too.
    max_change : float >= 0, optional
        Amortised, the networks are used that leave the fewest gates of held-out instances open after an epoch and
        change no more than this share of predicted classes (of values, relative to their size, in a regression). 0.02
        ("default"); 0.05 ("paper"), which compares a score.
    hidden : int >= 1, optional
        Width of the networks; None is that of the messages, at least 8.
    fit_batch_size : int >= 1 or None, default=128
        Instances in each step of the optimiser; None takes all of them.

    Attributes
    ----------
    network_ : LearnedGates
        Its ``retained`` and ``change`` are the share of open gates and the change of held-out predictions.

    Raises
    ------
    TypeError
        If the model has no MessagePassing layers.

    Notes
    -----
    Schlichtkrull, De Cao & Titov, "Interpreting Graph Neural Networks for NLP with Differentiable Edge Masking", ICLR
    2021. An edge is 1 if any of its gates is open. For each instance ``E.layer_masks`` are all gates (calls, entries),
    0 also where an edge has no message that can reach the prediction; ``E.gate_probabilities`` how likely each is open
    under noise; ``E.edge_means`` the share of an edge's gates that are open; ``E.retained`` the share of all;
    ``E.multiplier`` :math:`\lambda`; ``E.loss`` :math:`\Delta`. Other parameters are those of `LearnedExplainer` and
    `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import GraphMask
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = GraphMask(model, amortised=False, epochs=20).explain(X)
    >>> set(E[0].tolist()) <= {0.0, 1.0}
    True
    """

    amortised: bool = True
    preset: Literal["default", "paper"] = "default"
    epochs: PositiveInt | None = None
    lr: PositiveFloat | None = None
    penalty: NonNegativeFloat | None = None
    allowance: NonNegativeFloat = 0.03
    max_change: NonNegativeFloat | None = None
    hidden: PositiveInt | None = None
    fit_batch_size: PositiveInt | None = 128

    masks_: ClassVar[tuple[str, ...]] = ("edge",)
    taxonomy: ClassVar[Taxonomy] = Taxonomy(
        family="perturbation", learned=True, flow="forward", mask="discrete", deterministic=False
    )
    check_params_: ClassVar[dict[str, Any]] = {"epochs": 1, "lr": 0.3, "max_change": 1.0}

    def _learns(self) -> bool:
        return self.amortised

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = self.amortised
        return tags

    def _setting(self, name: str) -> Any:
        """Return a parameter, or what the preset says where it is None."""
        value = getattr(self, name)
        return PRESETS[self.preset, self.amortised][name] if value is None else value

    def _problem(self, steps_per_epoch: int = 1) -> GateProblem:
        epochs = self._setting("epochs") or -(-STEPS // steps_per_epoch)
        return GateProblem(
            HardConcrete(), self._setting("penalty"), self.allowance, epochs, self._setting("lr"), DUAL_LR
        )

    def _train(
        self, gnn: OpenBox, data: LearningSet, network: nn.Module | None, seed: int, epochs: int | None
    ) -> nn.Module:
        problem = self._problem(len(data.steps))
        if network is None:
            networks = GateNetworks(GateSites(gnn, data.steps[0][0]).calls, self.hidden).to(gnn.device, gnn.dtype)
            network = LearnedGates(networks, Multipliers(1, problem.dual_lr, gnn.device))
        learned: Any = network
        AmortisedLearning(gnn, problem, learned, seed).run(
            data.steps, data.held_out, epochs, self._setting("max_change")
        )
        return network

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        problem = self._problem()
        if self.amortised:
            found = self._amortised(gnn, batch, problem)
        else:
            found = InstanceLearning(gnn, batch, problem, seed).run()
        extras = {
            "layer_masks": layer_masks(batch, found.gates.float()),
            "gate_probabilities": layer_masks(batch, found.probability.float()),
            "edge_means": batch.split(found.edge_means, "edge"),
            "retained": found.retained.tolist(),
            "multiplier": found.multiplier.tolist(),
            "loss": found.excess.tolist(),
            "path": gnn.plain_path(batch),
        }
        return Masks(edge=found.gates.amax(0), extras=extras)

    def _amortised(self, gnn: OpenBox, batch: GraphBatch, problem: GateProblem) -> GatesFound:
        learned: Any = self.network_
        sites = GateSites(gnn, batch)
        with torch.no_grad():
            location = sites.of_edges(learned.best(sites.calls)).double()
            gates = problem.gates.settled(location)
            excess = sites.excess(gates, list(learned.best.baselines))
        multiplier = learned.multiplier.values.expand(len(batch))
        return GatesFound.of(sites, gates, problem.gates.probability(location), excess, multiplier)
