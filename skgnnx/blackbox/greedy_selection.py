"""Greedy selection of nodes and features that keep a prediction, many searches in lock-step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from skgnnx.blackbox.rdt_fidelity import RDTFidelity, Selection


@dataclass(eq=False)
class Branch:
    """One greedy search: what may be selected, what is, and which draws keep the prediction under it.

    Parameters
    ----------
    allowed : Selection
        All nodes and features that may be selected.
    unknown : ndarray of bool, shape (S,)
        Which draws keep the prediction when nothing is selected.
    """

    allowed: Selection
    unknown: np.ndarray
    selection: Selection = field(init=False)
    kept: np.ndarray = field(init=False)
    nodes: np.ndarray = field(init=False)
    features: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.selection = self.allowed.of_units(np.zeros_like(self.allowed.units))
        self.kept = self.unknown
        self.nodes = np.flatnonzero(self.allowed.nodes)
        self.features = np.flatnonzero(self.allowed.features) + len(self.allowed.nodes)

    def starts(self) -> list[tuple[Selection, np.ndarray]]:
        """Return what the first scores are about: each node with all features, and each feature with all nodes."""
        nothing = self.selection
        with_features = Selection(nothing.instance, nothing.nodes, self.allowed.features)
        with_nodes = Selection(nothing.instance, self.allowed.nodes, nothing.features)
        return [(with_features, self.nodes), (with_nodes, self.features)]

    def begin(self, of_nodes: np.ndarray, of_features: np.ndarray) -> None:
        """Order nodes and features by their first scores, and select the better of the two best."""
        self.nodes = self.nodes[np.argsort(-of_nodes, kind="stable")]
        self.features = self.features[np.argsort(-of_features, kind="stable")]
        node_first = of_nodes.max(initial=-1) > of_features.max(initial=-1)
        self.add(self.nodes[0] if node_first else self.features[0], self.unknown)

    def candidates(self, most: int | None) -> np.ndarray:
        """Return what competes now, features first: among equals the first one is selected."""
        return np.concatenate([self.features[:most], self.nodes[:most]])

    def add(self, unit: int, kept: np.ndarray) -> None:
        """Select a node or a feature."""
        units = self.selection.units
        units[unit] = True
        self.selection, self.kept = self.selection.of_units(units), kept
        self.nodes, self.features = self.nodes[self.nodes != unit], self.features[self.features != unit]

    def others(self) -> list[Selection]:
        """Return what is allowed without the nodes that are selected, and without the features."""
        if not (self.selection.nodes.any() and self.selection.features.any()):
            return []
        allowed, found = self.allowed, self.selection
        return [
            Selection(allowed.instance, allowed.nodes & ~found.nodes, allowed.features),
            Selection(allowed.instance, allowed.nodes, allowed.features & ~found.features),
        ]


class GreedySearch:
    """Greedy searches in lock-step: every step asks about the candidates of all of them at once.

    Parameters
    ----------
    fidelity : RDTFidelity
    tau : float
        Fidelity that is enough.
    most : int or None
        Nodes, and features, that compete in each step.
    """

    def __init__(self, fidelity: RDTFidelity, tau: float, most: int | None) -> None:
        self.fidelity = fidelity
        self._most = most
        self._enough = math.ceil(tau * len(fidelity.draws) - 1e-9)  # of so many draws, which are exact numbers

    def explanations(self, num_instances: int, most: int) -> list[list[Branch]]:
        """Return up to so many disjoint explanations of each instance, breadth first."""
        everything = [self.fidelity.everything(i) for i in range(num_instances)]
        unknown = self.fidelity.kept([each.of_units(np.zeros_like(each.units)) for each in everything])
        found: list[list[Branch]] = [[] for _ in everything]
        # What is left of a sampled neighbourhood may keep nothing: then all of it is selected.
        level = [Branch(each, unknown[each.instance]) for each in everything]
        while level:
            self._run(level)
            for branch in level:
                found[branch.selection.instance].append(branch)
            room = [most - len(each) for each in found]
            regions = [region for branch in level for region in branch.others() if room[region.instance]]
            level = []
            for region in self._reaching(regions):
                if room[region.instance] > 0:
                    room[region.instance] -= 1
                    level.append(Branch(region, unknown[region.instance]))
        return found

    def _reaching(self, regions: Sequence[Selection]) -> list[Selection]:
        """Return the selections that reach the fidelity that is enough."""
        return [region for region, kept in zip(regions, self.fidelity.kept(regions)) if self._is_enough(kept)]

    def _is_enough(self, kept: np.ndarray) -> bool:
        return int(kept.sum()) >= self._enough

    def _run(self, branches: Sequence[Branch]) -> None:
        """Take all searches to their ends."""
        active = [branch for branch in branches if not self._is_enough(branch.kept)]
        self._begin(active)
        while active := [each for each in active if not self._is_enough(each.kept) and len(each.candidates(1))]:
            candidates = [branch.candidates(self._most) for branch in active]
            answers = self.fidelity.kept_with([b.selection for b in active], [b.kept for b in active], candidates)
            for branch, units, kept in zip(active, candidates, answers):
                best = int(np.argmax(kept.sum(axis=1)))
                branch.add(int(units[best]), kept[best])

    def _begin(self, branches: Sequence[Branch]) -> None:
        asked = [(selection, branch.unknown, units) for branch in branches for selection, units in branch.starts()]
        scores = [kept.sum(axis=1) for kept in self.fidelity.kept_with(*zip(*asked))] if asked else []
        for branch, of_nodes, of_features in zip(branches, scores[::2], scores[1::2]):
            branch.begin(of_nodes, of_features)
