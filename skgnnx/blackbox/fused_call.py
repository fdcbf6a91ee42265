"""One propagate call of one batch as a sparse product."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.edge_matching import NOT_AN_EDGE, is_same
from skgnnx.blackbox.fusing import Fusion
from skgnnx.blackbox.lazy_features import summed
from skgnnx.blackbox.masked_sum import Pattern


class FusedCall:
    """The sums of a propagate call, under any edge mask.

    Parameters
    ----------
    fusion : Fusion
        What the call does.
    edge_index : Tensor
        The edges that it runs over.
    ends : Tensor of shape (2, messages)
        Source and target of each message.
    kept : ndarray of bool or None
        Messages that can still reach a prediction; None for all.
    shape : tuple of two int
        Numbers of targets and sources.
    """

    def __init__(
        self, fusion: Fusion, edge_index: Tensor, ends: Tensor, kept: np.ndarray | None, shape: tuple[int, int]
    ) -> None:
        self.fusion = fusion
        self.edge_index = edge_index
        self.shape = shape
        own = ends.detach().cpu().numpy()
        position = np.arange(own.shape[1]) if kept is None else np.flatnonzero(kept)
        self.pattern = Pattern(own if kept is None else own[:, position], shape[1], shape[0], ends.device)
        self._message = torch.from_numpy(position[self.pattern.order.cpu().numpy()]).to(ends.device)
        self._constant: tuple[Any, int, Tensor] | None = None
        self._edge = torch.empty(0, dtype=torch.int64, device=ends.device)
        self._all_edges = False

    def runs_over(self, edge_index: Tensor, shape: tuple[int, int]) -> bool:
        """Return True if the call runs over all of these edges, between so many nodes."""
        return self.shape == shape and is_same(self.edge_index, edge_index)

    def like(self, fusion: Fusion, edge_index: Tensor) -> FusedCall:
        """Return another call between the same ends, whose edges may be others: of another relation, or loops."""
        twin = copy.copy(self)
        twin.fusion, twin.edge_index, twin._constant = fusion, edge_index, None
        twin._edge = self._edge[:0]
        return twin

    def knows_edges(self) -> bool:
        """Return True once the edge of each message has been told."""
        return len(self._edge) == len(self.pattern)

    def tell_edges(self, edge: np.ndarray, num_edges: int) -> None:
        """Note the edge of each message of the call, -1 for loops, which are never masked."""
        of_message = torch.from_numpy(edge).to(self._message.device)[self._message]
        self._all_edges = not bool((of_message == NOT_AN_EDGE).any())
        self._edge = torch.where(of_message == NOT_AN_EDGE, num_edges, of_message)

    def __call__(self, given: dict[str, Any], mask: Tensor | None) -> Tensor:
        """Return what the call returns.

        Parameters
        ----------
        given : dict
            Its arguments.
        mask : Tensor of shape (E,), optional
            Factor of each edge.
        """
        x = self.fusion.rows(given)
        weight = self._weight(given[self.fusion.weight] if self.fusion.weight else None, x)
        if mask is None:
            return summed(weight, x, self.pattern)
        mask = mask.to(x.dtype)
        padded = mask if self._all_edges else torch.cat([mask, mask.new_ones(1)])
        gates = padded.index_select(0, self._edge)
        plain = self.fusion.weight is None and not self.fusion.mean
        return summed(gates if plain else gates * weight, x, self.pattern)

    def _weight(self, weight: Tensor | None, x: Tensor) -> Tensor:
        """Return the weight of each message with an open mask; computed once where it stays."""
        known, version = self._constant, 0 if weight is None else weight._version
        if known is not None and known[0] is weight and known[1] == version and known[2].dtype == x.dtype:
            return known[2]
        if weight is None:
            values = torch.ones(len(self.pattern), dtype=x.dtype, device=x.device)
        else:
            values = weight.reshape(-1).index_select(0, self._message).to(x.dtype)
        if self.fusion.mean:
            count = torch.bincount(self.pattern.targets, minlength=self.shape[0])
            values = values / count.index_select(0, self.pattern.targets)
        if not values.requires_grad:
            self._constant = (weight, version, values)
        return values
