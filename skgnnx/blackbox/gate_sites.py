"""Where gates on messages may act in a batch, and what its predictions lose behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.message_gates import CallMessages, MessageGates
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.graphs.batch import GraphBatch


class GateSites:
    """The gates of a batch: one for each edge in each propagate call where it has a message.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch

    Attributes
    ----------
    calls : list of CallMessages
        Of the model as it is.

    Raises
    ------
    TypeError
        If the model passes no messages.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch) -> None:
        gnn.check_maskable()
        self.batch = batch
        self.calls = gnn.messages(batch)
        self._gnn = gnn

    @cached_property
    def active(self) -> Tensor:
        """Which edges have a message in each call that can reach the prediction (L, E)."""
        batch, trace = self.batch, self._gnn.trace
        explained = torch.from_numpy(self._gnn.explained_edges(batch)).to(batch.device) & batch.edge_reach
        level = torch.from_numpy(batch.graphs.node_level).to(batch.device)
        found = torch.zeros(len(self.calls), batch.num_edges + 1, dtype=torch.bool, device=batch.device)
        for number, call in enumerate(self.calls):
            found[number, call.edge] = True  # no edge is -1, the last place
        for number, (kind, reach) in enumerate(zip(trace.kinds, trace.reach, strict=True)):
            found[number, :-1] &= explained & (level[batch.edge_index[0 if kind.flipped else 1]] < reach)
        return found[:, :-1]

    @cached_property
    def num_edges(self) -> Tensor:
        """How many edges of each instance have gates (B,)."""
        return self.batch.sum_edges(self.active.any(0).double())

    @cached_property
    def num_gates(self) -> Tensor:
        """How many gates each instance has (B,)."""
        return self.total(torch.ones_like(self.active, dtype=torch.float64))

    def total(self, values: Tensor) -> Tensor:
        """Sum what gates have (L, E) over each instance (B,)."""
        return self.batch.sum_edges((values * self.active).sum(0))

    def retained(self, gates: Tensor) -> Tensor:
        """Return the share of the gates of each instance that are open (B,), 0 where there are none."""
        return self.total(gates.double()) / self.num_gates.clamp_min(1)

    def of_edges(self, values: Sequence[Tensor]) -> Tensor:
        """Return what the messages of each call have as one row of edges per call (L, E), 0 where there is none."""
        rows = []
        for call, given in zip(self.calls, values, strict=True):
            row = given.new_zeros(self.batch.num_edges + 1).index_put((call.edge,), given)
            rows.append(row[:-1])
        return torch.stack(rows)

    @cached_property
    def own_loss(self) -> Tensor:
        """The loss of each instance (B,) in a run of the model as it is."""
        with torch.no_grad():
            return self._loss(MessageGates([], []))

    def excess(self, gates: Tensor, baselines: Sequence[Tensor]) -> Tensor:
        """Return how much larger the loss of each instance (B,) is behind gates (L, E)."""
        return self._loss(MessageGates(gates.unbind(), baselines)) - self.own_loss

    def _loss(self, gates: MessageGates) -> Tensor:
        return self._gnn.prediction_loss(self.batch, edge_mask=gates).double()

    def change(self, gates: Tensor, baselines: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return how much the prediction of each instance changes, and what that is to be compared with (B,) each.

        For classes 1 if another one is predicted, and 1; for values the sizes of the change and of the value.
        """
        gnn, positions = self._gnn, torch.from_numpy(self.batch.positions)
        with torch.no_grad():
            output = gnn.forward(self.batch, edge_mask=MessageGates(gates.unbind(), baselines))
        kind, before = gnn.kind_of_output, gnn.reference[positions.to(gnn.reference.device)]
        if kind == "regression" or kind.startswith("multilabel"):
            values = (of_targets(heads.probabilities(kind, each), self.batch.targets) for each in (before, output))
            first, second = (each.double() for each in values)
            return (second - first).abs(), first.abs()
        threshold = gnn.box.threshold
        classes = [heads.predicted(kind, each, threshold) for each in (before, output)]
        return (classes[0] != classes[1]).double(), torch.ones(len(output), dtype=torch.float64, device=output.device)


@dataclass
class GatesFound:
    """Gates of a batch without noise, and what is known of them.

    Parameters
    ----------
    gates : Tensor of shape (L, E)
        0 or 1; 0 where an edge has no message that can reach the prediction.
    probability : Tensor of shape (L, E)
        Of being 1 under noise.
    edge_means : Tensor of shape (E,)
        Share of open ones among the gates of each edge.
    retained, excess, multiplier : Tensor of shape (B,)
        Share of open gates, growth of the loss behind them, and what that is multiplied by.
    """

    gates: Tensor
    probability: Tensor
    edge_means: Tensor
    retained: Tensor
    excess: Tensor
    multiplier: Tensor

    @classmethod
    def of(cls, sites: GateSites, gates: Tensor, probability: Tensor, excess: Tensor, multiplier: Tensor) -> GatesFound:
        """Return what is known of gates, those left out that do nothing."""
        gates = gates * sites.active
        means = gates.sum(0) / sites.active.sum(0).clamp_min(1)
        return cls(gates, probability * sites.active, means, sites.retained(gates), excess, multiplier)


def stages(calls: Sequence[CallMessages], readouts: Sequence[bool]) -> list[np.ndarray]:
    """Return the numbers of calls by runs of layers, from the last run of a layer to the first.

    A layer that passes messages several times in one run, once for each relation for example, is one stage. Readouts,
    whose messages run along no edge, are none.
    """
    run = np.array([-1 if readout else call.run for call, readout in zip(calls, readouts, strict=True)])
    return [np.flatnonzero(run == number) for number in np.unique(run[run >= 0])[::-1]]
