"""The smallest sets of gates under which predictions stay what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice
from math import comb
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.blackbox.variants import Variants
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import ranges
from skgnnx.graphs.edge_units import edge_units
from skgnnx.graphs.ranking import TIE, TINY

Sets = tuple[int, np.ndarray]  # an instance, and which of its units are open in each set (sets, units)
BEYOND_REACH = 10**18  # sets
ENTRIES_AT_ONCE = 2**20  # gates of settings that are written out together


class GateUnits(NamedTuple):
    """What is opened and closed as one, in the order that breaks ties: by instance, source, target, occurrence, call.

    Parameters
    ----------
    of_gate : ndarray of int, shape (L, E)
        Unit of each gate, -1 for gates that do nothing.
    ptr : ndarray of int, shape (B + 1,)
        First unit of each instance, and how many there are.
    """

    of_gate: np.ndarray
    ptr: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """How many units each instance has (B,)."""
        return np.diff(self.ptr)


def gate_units(batch: GraphBatch, active: np.ndarray, *, per_layer: bool, tie_directions: bool) -> GateUnits:
    """Return the units of the gates that do something (L, E): one per edge, or one per edge and call."""
    somewhere = np.logical_or.reduce(active, axis=0)
    edges = edge_units(batch, somewhere, tie_directions=tie_directions)
    rows = active if per_layer else somewhere[None]
    call, edge = np.nonzero(rows)
    key = edges.of_edge[edge] * len(rows) + call
    known, unit = np.unique(key, return_inverse=True)
    of_gate = np.full(rows.shape, -1, dtype=np.int64)
    of_gate[call, edge] = unit
    counts = np.bincount(edges.instance[known // max(len(rows), 1)], minlength=len(batch))
    return GateUnits(of_gate if per_layer else np.repeat(of_gate, len(active), axis=0), np.append(0, counts.cumsum()))


def num_sets(num_units: int, max_size: int | None) -> int:
    """Return how many sets of at most so many of some units there are, up to a number that is beyond reach."""
    if max_size is None or max_size >= num_units:
        return int(min(2 ** min(num_units, 64), BEYOND_REACH))
    number, size = 0, 0
    while size <= max_size and number < BEYOND_REACH:
        number += comb(num_units, size)
        size += 1
    return min(number, BEYOND_REACH)


@dataclass
class SetsFound:
    """Sets of open gates, one for each instance of a batch.

    Parameters
    ----------
    is_open : ndarray of bool, shape (units,)
    found : ndarray of bool, shape (B,)
        Whether the set keeps the prediction and is as small as asked for.
    num_evaluations : ndarray of int, shape (B,)
        How many sets were tried.
    """

    is_open: np.ndarray
    found: np.ndarray
    num_evaluations: np.ndarray


class GateSearch:
    """Tries sets of open gates in all instances of a batch; a message behind a closed gate is zero.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    units : GateUnits
    tol : float >= 0
        How far the value of a regression may move, as a share of its size.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, units: GateUnits, tol: float) -> None:
        self._gnn, self._batch, self._units, self._tol = gnn, batch, units, tol
        with torch.no_grad():
            self._own = gnn.forward(batch)
        everything = np.ones(units.ptr[-1], dtype=bool)
        self.result = SetsFound(everything, np.zeros(len(batch), dtype=bool), np.zeros(len(batch), dtype=np.int64))

    def search_all(self, instances: np.ndarray, max_size: int | None) -> None:
        """Find for some instances a smallest set that keeps the prediction: all of one size, then all of the next."""
        counts, waiting = self._units.counts, instances
        most = counts if max_size is None else np.minimum(counts, max_size)
        for size in range(int(most[instances].max(initial=-1)) + 1):
            waiting = waiting[(most[waiting] >= size) & ~self.result.found[waiting]]
            if len(waiting):
                self._try_size(waiting, size)

    def _try_size(self, instances: np.ndarray, size: int) -> None:
        """Try all sets of one size, and keep the best of each instance if there is one."""
        values_of_all = self._tried(self._sets(instances, size))
        ends = np.cumsum([comb(int(count), size) for count in self._units.counts[instances]])
        for instance, values in zip(instances, np.split(values_of_all, ends[:-1])):
            self.result.num_evaluations[instance] += len(values)
            best = first_best(values)
            if best is not None:
                count = int(self._units.counts[instance])
                chosen = next(islice(combinations(range(count), size), best, None))
                self._keep(instance, np.isin(np.arange(count), chosen))

    def _sets(self, instances: np.ndarray, size: int) -> Iterator[Sets]:
        """Yield all sets of one size, those of an instance in lexicographic order."""
        for instance in instances:
            count = int(self._units.counts[instance])
            stream = combinations(range(count), size)
            for number in _portions(comb(count, size), self._room(instance)):
                chosen = np.fromiter(chain.from_iterable(islice(stream, number)), dtype=np.int64, count=number * size)
                is_open = np.zeros((number, count), dtype=bool)
                is_open[np.repeat(np.arange(number), size), chosen] = True
                yield instance, is_open

    def _room(self, instance: int) -> int:
        """Return how many sets of an instance are written out together."""
        return max(1, ENTRIES_AT_ONCE // self._entries(instance))

    def _entries(self, instance: int) -> int:
        """Return how many gates and units one set of an instance has."""
        edges = int(np.diff(self._batch.graphs.edge_ptr)[instance])
        return edges * len(self._units.of_gate) + int(self._units.counts[instance]) + 1

    def close_greedily(self, instances: np.ndarray, max_size: int | None) -> None:
        """Close one gate after the other for some instances, the one whose loss costs the prediction least.

        What is left cannot lose another gate; a smaller set of others may exist.
        """
        ptr = self._units.ptr
        self.result.found[instances] = True
        waiting = instances
        while len(waiting):
            opened = [np.flatnonzero(self.result.is_open[ptr[i] : ptr[i + 1]]) for i in waiting]
            ends = np.cumsum([len(closable) for closable in opened])
            values = np.split(self._tried(self._closings(waiting, opened)), ends[:-1])
            still = np.zeros(len(waiting), dtype=bool)
            for number, (instance, closable, found) in enumerate(zip(waiting, opened, values)):
                self.result.num_evaluations[instance] += len(found)
                best = first_best(found)
                if best is not None:
                    self.result.is_open[ptr[instance] + closable[best]] = False
                    still[number] = True
            waiting = waiting[still]
        for instance in instances:
            mine = self.result.is_open[ptr[instance] : ptr[instance + 1]]
            if max_size is not None and mine.sum() > max_size:
                mine[:], self.result.found[instance] = True, False

    def _closings(self, instances: np.ndarray, opened: Sequence[np.ndarray]) -> Iterator[Sets]:
        """Yield sets in which one more unit of an instance is closed."""
        ptr = self._units.ptr
        for instance, closable in zip(instances, opened):
            start = 0
            for number in _portions(len(closable), self._room(instance)):
                is_open = np.repeat(self.result.is_open[None, ptr[instance] : ptr[instance + 1]], number, axis=0)
                is_open[np.arange(number), closable[start : start + number]] = False
                start += number
                yield instance, is_open

    def _keep(self, instance: int, is_open: np.ndarray) -> None:
        self.result.is_open[self._units.ptr[instance] : self._units.ptr[instance + 1]] = is_open
        self.result.found[instance] = True

    def _tried(self, sets: Iterator[Sets]) -> np.ndarray:
        """Return how good sets are, see `_values`; many are tried together."""
        found, owners, states = [np.zeros(0)], [], []
        entries = 0
        for instance, is_open in sets:
            owners.append(np.full(len(is_open), instance))
            states.append(is_open.ravel())
            entries += len(is_open) * self._entries(instance)
            if entries >= ENTRIES_AT_ONCE:
                found.append(self._values(np.concatenate(owners), np.concatenate(states)))
                owners, states, entries = [], [], 0
        if owners:
            found.append(self._values(np.concatenate(owners), np.concatenate(states)))
        return np.concatenate(found)

    def _values(self, owner: np.ndarray, is_open: np.ndarray) -> np.ndarray:
        """Return how good sets are (V,): the target's probability, -inf where the prediction is another."""
        variants = Variants(self._gnn, self._batch, owner)
        outputs = variants.under_masks(self._masks(owner, is_open, variants.edge_ptr))
        own = self._own[torch.from_numpy(owner).to(self._own.device)]
        kept, value = self._judged(outputs, own, variants.targets)
        return torch.where(kept, value, -torch.inf).cpu().numpy()

    def _masks(self, owner: np.ndarray, is_open: np.ndarray, edge_ptr: np.ndarray) -> list[Tensor]:
        units, edge_counts = self._units, np.diff(edge_ptr)
        edges = ranges(self._batch.graphs.edge_ptr[owner], edge_counts)
        first = np.append(0, units.counts[owner].cumsum())[:-1] - units.ptr[owner]
        shift = np.repeat(first, edge_counts)
        # a gate of no unit reads the last place, which is open
        states = torch.from_numpy(np.append(is_open, True)).to(self._batch.device, self._gnn.dtype)
        unit = units.of_gate[:, edges]
        return list(states[torch.from_numpy(np.where(unit < 0, len(is_open), unit + shift)).to(states.device)])

    def _judged(self, outputs: Tensor, own: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether outputs keep predictions, and how good they are (V,) each."""
        gnn, kind = self._gnn, self._gnn.kind_of_output
        value, before = (of_targets(heads.probabilities(kind, each.double()), targets) for each in (outputs, own))
        if kind == "regression":
            change = (value - before).abs()
            return change <= self._tol * before.abs() * (1 + TIE) + TINY, before.abs() - change
        if kind.startswith("multilabel"):
            limit = gnn.box.threshold * (1 - TIE)
            return (value >= limit) == (before >= limit), value
        classes = [heads.predicted(kind, each, gnn.box.threshold) for each in (outputs, own)]
        return classes[0] == classes[1], value


def first_best(values: np.ndarray) -> int | None:
    """Return the first position whose value is the largest up to 1e-5 relative, None if all are -inf."""
    best = values.max(initial=-np.inf)
    if best == -np.inf:
        return None
    return int(np.argmax(values >= best - TIE * max(abs(best), TINY)))


def _portions(total: int, most: int) -> Iterator[int]:
    for start in range(0, total, most):
        yield min(most, total - start)
