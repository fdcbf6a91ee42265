"""Learning soft masks by gradient descent, for all instances of a batch at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.mask_logits import STILL, MaskLogits, MaskParameters, Penalty
from skgnnx.blackbox.mask_progress import Progress
from skgnnx.blackbox.operations import TapeError
from skgnnx.blackbox.repeating import Repeated
from skgnnx.graphs.batch import GraphBatch

Objective = Callable[[GraphBatch, dict[str, Tensor]], Tensor]


@dataclass
class LearnedMasks:
    """What `learn_masks` returns.

    Parameters
    ----------
    masks : dict of Tensor
        Values per edge, node or instance.
    loss, num_steps : Tensor of shape (B,)
        The last losses, before the last step, and the steps taken.
    undecided : Tensor of bool of shape (B,)
        Whether most masks of an instance were still on their way, or none had left its start, or none mattered.
    path : str
        How the steps ran.
    """

    masks: dict[str, Tensor]
    loss: Tensor
    num_steps: Tensor
    undecided: Tensor
    path: str


def learn_masks(
    objective: Objective,
    batch: GraphBatch,
    parameters: dict[str, MaskParameters],
    penalties: dict[str, Penalty],
    *,
    epochs: int,
    lr: float,
    tol: float | None = None,
    gradient_support: bool = False,
    average: Collection[str] = (),
    taped: bool = True,
) -> LearnedMasks:
    """Minimise ``objective(batch, masks) + penalties`` by Adam over the logits.

    The loss is a sum over instances and Adam works element by element, so every instance takes the steps that it would
    take alone. Once half of a batch has stopped, the others go on in a smaller one.

    Parameters
    ----------
    objective : callable
        From a batch and masks in (0, 1), one value per edge or node, to the loss of each instance (B,).
    batch : GraphBatch
    parameters, penalties : dict by kind of mask
    epochs : int
    lr : float
    tol : float, optional
        An instance whose loss has changed by less than `tol` relative in each of the last 10 steps stops.
    gradient_support : bool, default=False
        If True, the first step has no penalties, and logits whose first gradient is zero are never penalised and end
        at 0, as in PyG.
    average : collection of str, default=()
        Kinds of masks that are returned as means over all steps, instead of as they are after the last.
    taped : bool, default=True
        Whether the objective may be done again from a tape, see `Repeated`; False calls it in every step.
    """

    def starts() -> dict[str, MaskLogits]:
        return {
            kind: MaskLogits(rows, penalties[kind], len(batch), lr, steps=epochs, average=kind in average)
            for kind, rows in parameters.items()
        }

    descend = partial(_descend, objective, batch, starts, epochs, tol, gradient_support)
    try:
        return descend("" if taped else "not asked for")
    except TapeError as error:
        problem = str(error)
    # Only now, because an error that is being handled keeps everything alive that led to it.
    return descend(problem)


def _descend(
    objective: Objective,
    batch: GraphBatch,
    starts: Callable[[], dict[str, MaskLogits]],
    epochs: int,
    tol: float | None,
    gradient_support: bool,
    problem: str,
) -> LearnedMasks:
    logits = starts()
    parameters = {kind: each.rows for kind, each in logits.items()}
    support: dict[str, Tensor] = {}
    progress = Progress(len(batch), tol, batch.device)
    losses = Losses(objective, batch, logits, epochs, problem)
    for step in range(epochs):
        penalised = step > 0 or not gradient_support
        loss = losses.step(penalised)
        if not penalised:
            support = {kind: each.gradient != 0 for kind, each in logits.items()}
        # Nobody looks at the penalties themselves before the end, only at their gradients.
        if tol is not None or step == epochs - 1:
            terms = [each.value(len(batch)) for each in logits.values()] if penalised else []
            progress.note(sum(terms, loss.double()), step + 1, logits)
            if not progress.active.any():
                break
        for kind, each in logits.items():
            if not penalised:
                each.penalise_only(support[kind], len(batch))
            each.step()
        if progress.is_sparse(batch):
            losses.check()
            batch = progress.compacted(batch, logits)
            losses = Losses(objective, batch, logits, epochs - step, problem)
    losses.check()
    progress.settle(progress.active, epochs, logits)
    found = {
        kind: parameters[kind].entries((each.final * support.get(kind, 1)).to(parameters[kind].logits.dtype))
        for kind, each in logits.items()
    }
    undecided = _undecided(logits, parameters)
    return LearnedMasks(found, progress.loss, progress.num_steps, undecided, losses.path)


def _undecided(logits: dict[str, MaskLogits], parameters: dict[str, MaskParameters]) -> Tensor:
    """Return which instances have learned nothing, or most of whose masks were still on their way (B,)."""
    reacts = torch.stack([each.reacts for each in logits.values()]).any(dim=0)
    count, going, moved = (torch.zeros(len(reacts), dtype=torch.float64, device=reacts.device) for _ in range(3))
    for kind, each in logits.items():
        rows = parameters[kind]
        support = rows.weight.double().expand_as(each.final)
        left = (each.final - rows.logits.double().sigmoid()).abs() > STILL
        for total, values in ((count, support), (going, each.open_ended * support), (moved, left * support)):
            total += rows.per_instance(values, len(reacts))
    return (count > 0) & (~reacts | (2 * going > count) | (moved == 0))


class Losses:
    """The loss of each instance of a batch under its masks, and the gradients for the logits.

    Parameters
    ----------
    objective : callable
        See `learn_masks`.
    batch : GraphBatch
    logits : dict of MaskLogits
    calls : int
        How many steps will come.
    problem : str
        Why they cannot come from a tape; empty if they may.
    """

    def __init__(
        self, objective: Objective, batch: GraphBatch, logits: dict[str, MaskLogits], calls: int, problem: str
    ) -> None:
        self._logits = logits
        self._expand = {kind: each.rows.entries for kind, each in logits.items()}
        self._objective = partial(objective, batch)
        self._repeated = Repeated(self._with_gradients, calls, problem)

    def step(self, penalised: bool) -> Tensor:
        """Return the losses (B,) without penalties, and give each of the logits its gradient."""
        loss, *gradients = self._repeated(*(each.masks() for each in self._logits.values()))
        for each, gradient in zip(self._logits.values(), gradients, strict=True):
            each.take_gradient(gradient, penalised=penalised)
        return loss  # type: ignore[return-value]

    @property
    def path(self) -> str:
        """How the steps ran, and why not faster."""
        return f"in full ({self._repeated.problem})" if self._repeated.problem else "from a tape"

    def check(self) -> None:
        """Raise `TapeError` if the objective no longer does what the tape does."""
        self._repeated.check(*(each.masks() for each in self._logits.values()))

    def _with_gradients(self, *leaves: Tensor) -> list[Tensor | None]:
        loss = self._objective({kind: expand(leaf) for (kind, expand), leaf in zip(self._expand.items(), leaves)})
        if not loss.requires_grad:
            return [loss, *[None] * len(leaves)]
        return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves, allow_unused=True)]


def edge_pairs(batch: GraphBatch) -> tuple[Tensor, Tensor]:
    """Return the unit of each edge (E,), and one edge of each unit that reaches the prediction if any does.

    The two directions of an undirected edge are one unit where both are in the batch.
    """
    store, edge_id = batch.X.store, batch.graphs.edge_id
    partner = store.all_partners[edge_id]
    lead = np.where(partner < 0, edge_id, np.minimum(edge_id, partner))
    key = batch.edge_instance.cpu().numpy() * max(store.edge_index.shape[1], 1) + lead
    reached_first = np.argsort(~batch.graphs.edge_reach, kind="stable")
    _, first, unit = np.unique(key[reached_first], return_index=True, return_inverse=True)
    unit_of_edge = np.empty(len(key), dtype=np.int64)
    unit_of_edge[reached_first] = unit
    chosen = reached_first[first]
    return torch.from_numpy(unit_of_edge).to(batch.device), torch.from_numpy(chosen).to(batch.device)
