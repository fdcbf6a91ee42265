"""Monte Carlo tree search for the connected set of nodes of largest Shapley value."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

from skgnnx.blackbox.shapley import Comparison, SetValues
from skgnnx.graphs.ranking import rank_order

Asking = Generator[np.ndarray, None, bool]


@dataclass(frozen=True)
class SearchSettings:
    """How a tree is searched; see `skgnnx.SubgraphX`.

    Parameters
    ----------
    rollouts, min_atoms, max_nodes, expand_atoms, c_puct, max_evals
        As there; no `max_evals` is no limit.
    few_first : bool
        Whether nodes with the fewest neighbours in a set are removed first.
    """

    rollouts: int
    min_atoms: int
    max_nodes: int
    expand_atoms: int
    c_puct: float
    max_evals: int | None
    few_first: bool


@dataclass(eq=False)
class State:
    """A set of nodes in the tree: its Shapley value, and what rollouts through it have found.

    Parameters
    ----------
    inside : ndarray of bool, shape (n,)
    score : float
        Its Shapley value.
    """

    inside: np.ndarray
    score: float
    visits: int = 0
    total: float = 0.0
    children: list[State] | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = int(self.inside.sum())


@dataclass(frozen=True)
class FoundSets:
    """What a search has found for one instance.

    Parameters
    ----------
    ranking : list of State
        Sets of allowed size that were looked at, the best first.
    evaluations : int
        Coalitions that the model was asked about.
    bound : int
        How many there could have been.
    exhausted : bool
        Whether the search stopped because there were too many.
    """

    ranking: list[State]
    evaluations: int
    bound: int
    exhausted: bool


class ConnectedSearch:
    """Search from all nodes of an instance downwards, one node less in each step and what that cuts off.

    Parameters
    ----------
    values : SetValues
        Shapley values of sets.
    fixed : ndarray of int
        Nodes that are never removed. Every component of a set has one of them; without any, a set is connected, except
        for the root, whose components are its children.
    settings : SearchSettings
    """

    def __init__(self, values: SetValues, fixed: np.ndarray, settings: SearchSettings) -> None:
        self._values, self._connections = values, values.connections
        self._fixed, self._settings = fixed, settings
        self._asked: set[int] = set()
        self._scale = 0.0
        inside = self._kept(values.reached[None])[0] if len(fixed) else values.reached
        self._root = State(inside, 0.0)
        label = self._connections.components(inside[None])[0]
        self._parts = [] if len(fixed) else np.unique(label[inside]).tolist()
        self._label = label
        self._leaf = min(settings.min_atoms, settings.max_nodes)
        self._states = {inside.tobytes(): self._root}
        self._found = self._is_allowed(self._root)
        self._distinct = 2 ** int(values.reached.sum())  # coalitions that there are

    @property
    def bound(self) -> int:
        """The largest number of coalitions that the whole search may ask about."""
        settings = self._settings
        depth = max(self._root.size - self._leaf, 0) + (len(self._parts) > 1)
        children = settings.rollouts * depth * settings.expand_atoms
        return min(1 + self._values.most * (1 + children), self._distinct)

    def check(self, index: int) -> None:
        """Raise ValueError if the first step alone asks about too many coalitions, without asking the model.

        Parameters
        ----------
        index : int
            Of the instance, for the message.
        """
        most = self._settings.max_evals
        if most is None:
            return
        numbers, states = [self._values.everybody()], [self._root.inside] if self._found else []
        states += [] if self._is_leaf(self._root) else list(self._below(self._root))
        made_of = self._values.comparisons(np.array(states)) if states else []
        first = self._new(np.concatenate(numbers + [_numbers(one) for one in made_of]))
        reserve = 0 if any(s.sum() <= self._settings.max_nodes for s in states) else self._values.most
        needed = min(len(first) + reserve, self._distinct)
        if needed > most:
            raise ValueError(
                f"'max_evals' must be at least {needed}, which the first step at index {index} asks about (the whole "
                f"search: at most {self.bound}). Got {most}; raise it, or lower n_samples or expand_atoms."
            )

    def run(self) -> Generator[np.ndarray, None, FoundSets]:
        """Yield numbers of coalitions whose values are needed next; return what is found."""
        allowed = [self._root] if self._found else []
        made_of = self._values.comparisons(np.array([s.inside for s in allowed])) if allowed else []
        everybody = self._values.everybody()
        yield self._take(np.concatenate([everybody, *map(_numbers, made_of)]))
        self._scale = abs(self._values.value(everybody))
        for state, one in zip(allowed, made_of, strict=True):
            state.score = self._values.of(one)
        exhausted = False
        for _ in range(self._settings.rollouts):
            if not (yield from self._rollout()):
                exhausted = True
                break
        if not self._found:
            yield from self._cut_down()
        return FoundSets(self._ranking(), len(self._asked), self.bound, exhausted)

    def _rollout(self) -> Asking:
        """Go down the tree once; False where that would take too many coalitions."""
        path = [self._root]
        while not self._is_leaf(path[-1]):
            state = path[-1]
            if state.children is None and not (yield from self._expand(state)):
                return False
            path.append(self._chosen(state))
        for state in path:
            state.visits += 1
            state.total += path[-1].score
        return True

    def _expand(self, state: State) -> Asking:
        """Score the children of a set, all at once."""
        children = self._below(state)
        new = np.array([inside for inside in children if inside.tobytes() not in self._states])
        made_of = self._values.comparisons(new) if len(new) else []
        if made_of:
            numbers = np.concatenate([_numbers(one) for one in made_of])
            found = self._found or bool((new.sum(axis=1) <= self._settings.max_nodes).any())
            if not self._affords(len(self._new(numbers)) + (0 if found else self._values.most)):
                return False
            yield self._take(numbers)
            self._found = found
        for inside, one in zip(new, made_of, strict=True):
            self._states[inside.tobytes()] = State(inside, self._values.of(one))
        state.children = [self._states[inside.tobytes()] for inside in children]
        return True

    def _chosen(self, state: State) -> State:
        """Return the child that a rollout goes to; near ties go to the first."""
        children = state.children or []
        score, visits, total = (np.array([getattr(s, key) for s in children]) for key in ("score", "visits", "total"))
        mean = total / np.maximum(visits, 1)
        explored = self._settings.c_puct * score * np.sqrt(max(1, visits.sum())) / (1 + visits)
        return children[int(self._ranked(mean + explored)[0])]

    def _cut_down(self) -> Generator[np.ndarray, None, None]:
        """Remove nodes from the best of the smallest sets without asking, until few enough are left, and score that."""
        states = sorted(self._states.values(), key=lambda s: s.size)
        smallest = [s for s in states if s.size == states[0].size]
        inside = smallest[int(self._ranked(np.array([s.score for s in smallest]))[0])].inside
        while inside.sum() > self._settings.max_nodes:
            inside = self._below(State(inside, 0.0))[0]
        (made_of,) = self._values.comparisons(inside[None])
        yield self._take(_numbers(made_of))
        self._states[inside.tobytes()] = State(inside, self._values.of(made_of))

    def _ranking(self) -> list[State]:
        """Return sets of allowed size, the best first; of sets that are tied, the smallest."""
        states = sorted(filter(self._is_allowed, self._states.values()), key=lambda s: s.size)
        return [states[k] for k in self._ranked(np.array([s.score for s in states]))]

    def _ranked(self, scores: np.ndarray) -> np.ndarray:
        # Differences of values near f(G) are tied as those are: their own size may be that of rounding.
        return rank_order(scores + self._scale, np.array([0, len(scores)]))

    def _below(self, state: State) -> np.ndarray:
        """Return the sets of nodes below a set, the first to be tried first (K, n)."""
        if state is self._root and len(self._parts) > 1:
            parts = self._label == np.array(self._parts)[:, None]
            return parts[np.argsort(-parts.sum(axis=1), kind="stable")[: self._settings.expand_atoms]]
        removable = np.setdiff1d(np.flatnonzero(state.inside), self._fixed)
        degree = self._connections.degrees(state.inside)[removable]
        order = np.argsort(degree if self._settings.few_first else -degree, kind="stable")
        removed = removable[order][: self._settings.expand_atoms]
        sets = np.repeat(state.inside[None], len(removed), axis=0)
        sets[np.arange(len(removed)), removed] = False
        distinct = {inside.tobytes(): inside for inside in self._kept(sets)}
        return np.array(list(distinct.values()))

    def _kept(self, sets: np.ndarray) -> np.ndarray:
        """Return of each set the components with fixed nodes, or the largest component."""
        label = self._connections.components(sets)
        if len(self._fixed):
            return (label[:, :, None] == label[:, None, self._fixed]).any(axis=2) & sets
        size = np.stack([np.bincount(row[row >= 0], minlength=label.shape[1]) for row in label])
        return label == size.argmax(axis=1)[:, None]

    def _is_leaf(self, state: State) -> bool:
        if state is self._root and len(self._parts) > 1:
            return False
        return state.size <= max(self._leaf, len(self._fixed))

    def _is_allowed(self, state: State) -> bool:
        return state.size <= self._settings.max_nodes and not (state is self._root and len(self._parts) > 1)

    def _new(self, numbers: np.ndarray) -> set[int]:
        return set(numbers.tolist()) - self._asked

    def _affords(self, number: int) -> bool:
        most = self._settings.max_evals
        return most is None or min(len(self._asked) + number, self._distinct) <= most

    def _take(self, numbers: np.ndarray) -> np.ndarray:
        self._asked |= self._new(numbers)
        return numbers


def _numbers(made_of: Comparison) -> np.ndarray:
    return np.concatenate([made_of.joined, made_of.alone])
