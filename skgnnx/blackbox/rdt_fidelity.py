"""RDT-fidelity: how often a prediction is kept when only some entries of the node features are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.feature_draws import FeatureDraws
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.blackbox.variants import Variants
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.feature_columns import FeatureColumns

NOTHING = -1  # in the place of a unit that would be added
VERSIONS_AT_ONCE = 500_000  # whose numbers, masks and outputs are in memory together


@dataclass(frozen=True, eq=False)
class Selection:
    """Nodes and features of one instance: an entry of its features is known where both are selected.

    Parameters
    ----------
    instance : int
        Position in the batch.
    nodes : ndarray of bool, shape (n,)
    features : ndarray of bool, shape (F,)
    """

    instance: int
    nodes: np.ndarray
    features: np.ndarray

    @property
    def units(self) -> np.ndarray:
        """Nodes and features behind each other (n + F,): the order in which units are numbered."""
        return np.concatenate([self.nodes, self.features])

    def of_units(self, units: np.ndarray) -> Selection:
        """Return another selection of the same instance."""
        nodes, features = np.split(units, [len(self.nodes)])
        return Selection(self.instance, nodes, features)


class RDTFidelity:
    """Runs a model on features of which only a selection is known, all else drawn from the columns of a data set.

    All selections of an instance meet the same draws (common random numbers), so their fidelities differ by what is
    selected, not by luck.

    Parameters
    ----------
    gnn : OpenBox
        A classifier.
    batch : GraphBatch
    columns : FeatureColumns
        What is drawn from.
    seed : int
    numbers : range
        Which draws are meant.

    Attributes
    ----------
    num_runs : ndarray of int, shape (B,)
        How many versions of each instance have run.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, columns: FeatureColumns, seed: int, numbers: range) -> None:
        self._gnn, self._batch, self._columns = gnn, batch, columns
        self.draws = FeatureDraws(batch, columns, seed, numbers)
        rows = torch.from_numpy(batch.positions).to(gnn.device)
        self._explained = says_target(gnn, gnn.reference[rows], batch.targets).cpu().numpy()  # type: ignore[arg-type]
        self.num_runs = np.zeros(len(batch), dtype=np.int64)

    def everything(self, instance: int) -> Selection:
        """Return the selection of all nodes that can reach a prediction and all features that a draw can change."""
        nodes = self._batch.graphs.node_reach[slice(*self._batch.graphs.node_ptr[instance : instance + 2])]
        return Selection(instance, nodes, self._columns.could_change(self.draws.own[instance][nodes]))

    def kept(self, selections: Sequence[Selection]) -> list[np.ndarray]:
        """Return for each selection which draws keep the prediction (S,)."""
        nothing = [np.array([NOTHING])] * len(selections)
        unknown = [np.zeros(len(self.draws), dtype=bool)] * len(selections)
        return [found[0] for found in self.kept_with(selections, unknown, nothing)]

    def kept_with(
        self, selections: Sequence[Selection], kept: Sequence[np.ndarray], candidates: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return which draws keep a prediction when a selection gets one unit more, for every candidate.

        Parameters
        ----------
        selections : sequence of Selection
        kept : sequence of ndarray of bool, shape (S,)
            Which draws keep it under each selection as it is. Where a draw has the very values that a candidate would
            show, this is the answer, and the model does not run.
        candidates : sequence of ndarray of int
            Numbers of units outside of each selection.

        Returns
        -------
        list of ndarray of bool, shape (candidates, S)
        """
        answers = [np.repeat(each[None], len(units), axis=0) for each, units in zip(kept, candidates)]
        waiting, size = [], 0
        for number, (selection, units) in enumerate(zip(selections, candidates)):
            for part in self._parts(selection, units):
                waiting.append(Versions(number, selection, units, *part))
                size += len(waiting[-1])
                if size >= VERSIONS_AT_ONCE:
                    self._answer(waiting, answers)
                    waiting, size = [], 0
        self._answer(waiting, answers)
        return answers

    def _parts(self, selection: Selection, units: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the draw, and the place among the candidates, of what has to run, draw by draw."""
        for part in self.draws.parts():
            drawn, own = self.draws.of(selection.instance, part), self.draws.own[selection.instance]
            draw, place = np.nonzero(changed(drawn, own, selection, units))
            yield draw + part.start, place

    def _answer(self, waiting: Sequence[Versions], answers: Sequence[np.ndarray]) -> None:
        owner = np.concatenate([np.zeros(0, int), *[np.full(len(each), each.selection.instance) for each in waiting]])
        variants = Variants(self._gnn, self._batch, owner)
        first = np.cumsum([0, *[len(each) for each in waiting]])
        shape = self._batch.X.store.columns["x"].values.shape[1:]

        def features(copies: GraphBatch, part: slice) -> Tensor:
            lo, hi = np.searchsorted(first, [part.start, part.stop - 1], side="right") - 1
            x = np.empty((copies.num_nodes, self.draws.own[0].shape[1]), dtype=self.draws.own[0].dtype)
            filled = 0
            for each, start in zip(waiting[lo : hi + 1], first[lo : hi + 1]):
                filled += each.fill(x[filled:], self.draws, slice(max(part.start - start, 0), part.stop - start))
            return torch.from_numpy(x).to(self._batch.device).view(-1, *shape)

        outputs = variants.with_features(features)
        says = says_target(self._gnn, outputs, variants.targets).cpu().numpy()
        found = says == self._explained[owner]
        self.num_runs += np.bincount(owner, minlength=len(self.num_runs))
        for each, (start, stop) in zip(waiting, pairwise(first)):
            answers[each.number][each.place, each.draw] = found[start:stop]


@dataclass(frozen=True, eq=False)
class Versions:
    """Versions of one instance that show a selection and one unit more, draw by draw.

    Parameters
    ----------
    number : int
        Which of the selections that were asked about.
    selection : Selection
    units : ndarray of int
        Candidates.
    draw, place : ndarray of int, shape (V,)
        Draw of each version, ascending, and where its unit is among the candidates.
    """

    number: int
    selection: Selection
    units: np.ndarray
    draw: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.draw)

    def fill(self, rows: np.ndarray, draws: FeatureDraws, part: slice) -> int:
        """Write the features of the nodes of some versions behind each other, and return how many nodes these are."""
        own, draw, added = draws.own[self.selection.instance], self.draw[part], self.units[self.place[part]]
        size = len(draw) * len(own)
        x = rows[:size].reshape(len(draw), *own.shape)
        shown = np.ix_(self.selection.nodes, self.selection.features)
        ends = np.flatnonzero(np.diff(draw, prepend=-1, append=-1))
        for start, stop in pairwise(ends):
            known = draws.of(self.selection.instance, slice(draw[start], draw[start] + 1))[0].copy()
            known[shown] = own[shown]
            x[start:stop] = known
        self._add(x, own, added)
        return size

    def _add(self, x: np.ndarray, own: np.ndarray, added: np.ndarray) -> None:
        """Show the added units of versions (V, n, F)."""
        n = len(own)
        columns, rows = np.flatnonzero(self.selection.features), np.flatnonzero(self.selection.nodes)
        node = np.flatnonzero((added < n) & (added != NOTHING))
        x[node[:, None], added[node, None], columns] = own[added[node, None], columns]
        feature = np.flatnonzero(added >= n)
        column = added[feature, None] - n
        x[feature[:, None], rows, column] = own[rows, column]


def changed(drawn: np.ndarray, own: np.ndarray, selection: Selection, units: np.ndarray) -> np.ndarray:
    """Return where the features would be others with one unit more (draws, candidates); True where none is added."""
    n = len(own)
    result = np.ones((len(drawn), len(units)), dtype=bool)
    nodes, columns = units[(units < n) & (units != NOTHING)], units[units >= n] - n
    shown = drawn[:, nodes][:, :, selection.features] != own[nodes][:, selection.features]
    result[:, (units < n) & (units != NOTHING)] = shown.any(axis=2)
    shown = drawn[:, selection.nodes][:, :, columns] != own[selection.nodes][:, columns]
    result[:, units >= n] = shown.any(axis=1)
    return result


def says_target(gnn: OpenBox, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return whether a model predicts the target, of every row of its outputs (V, C); its label, if there are many."""
    kind, threshold = gnn.kind_of_output, gnn.box.threshold
    if kind.startswith("multilabel"):
        return of_targets(heads.probabilities(kind, outputs.double()), targets) >= threshold
    return heads.predicted(kind, outputs, threshold) == targets
