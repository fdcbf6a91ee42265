"""One case: ours over all instances at once, the peer one at a time before and after, and one row of figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from side_by_side.masks import Scored, Whole, largest_difference, scored_entries, spread_out
from side_by_side.measuring import Cost, measured
from side_by_side.own_calls import BatchesOfOne, OneCallEach
from side_by_side.peers import EPOCHS, PyGCaptum, PyGGNNExplainer
from side_by_side.tasks import Task, middle_of_parts
from skgnnx import Explanations
from skgnnx.explainers.base import BaseExplainer

ENOUGH_SECONDS, MOST_REPEATS = 10.0, 3
Peer = PyGGNNExplainer | PyGCaptum | OneCallEach


class HasOurs(Protocol):
    """A case, as far as our side of it goes."""

    def ours(self, task: Task) -> BaseExplainer:
        """Return our explainer."""


@dataclass
class Case:
    """One row of the table.

    Parameters
    ----------
    name : str
        For the command line.
    work : str
        What is explained, for the table.
    task : callable
        Makes the task; its argument tells whether a toy is enough.
    explainer : type
        Ours.
    given : dict
        Parameters of ours, equal to what the peer does.
    peer : PyGGNNExplainer, PyGCaptum, OneCallEach or BatchesOfOne
        The peer.
    must, aim : float or None
        Ratios asked for.
    start : dict or None
        Parameters with which ours returns its initial masks; None for methods that have none.
    timed : int
        Instances that the peer explains, spread over the sizes of computation graphs.
    doubled : int
        How many of these are compared in double precision, too.
    large : bool
        Whether the case runs only when asked for.
    note : str
        What a reader has to know.
    """

    name: str
    work: str
    task: Callable[[bool], Task]
    explainer: type[BaseExplainer]
    given: dict[str, Any]
    peer: Peer
    must: float | None = None
    aim: float | None = None
    start: dict[str, Any] | None = None
    timed: int = 5
    doubled: int = 2
    large: bool = False
    note: str = ""

    def ours(self, task: Task, epochs: int = EPOCHS) -> BaseExplainer:
        """Return our explainer."""
        return self.explainer(task.network, **self.given, **({} if self.start is None else {"epochs": epochs}))

    def initial(self, task: Task) -> list[Scored]:
        """Return our initial masks, or our masks where a method has none."""
        return scored_entries(self.explainer(task.network, **self.given | (self.start or {})), task)

    def run(self, toy: bool, device: str) -> dict[str, Any]:
        """Return one row."""
        task = self.task(toy).to(device)
        initial = self.initial(task)
        sizes = np.array([num_edges(scored, task, i) for i, scored in enumerate(initial)])
        by_size = np.argsort(sizes, kind="stable")
        few = task.take(by_size[middle_of_parts(len(task), 1 if toy else self.timed)])
        start = self.initial(few)
        self.peer.explain(few, 0, spread_out(start[0], few, 0, elsewhere=0.5), 1)  # a first call costs more
        before, theirs = peer_cost(self.peer, few, start)
        ours, making, E = our_costs(self, task, 1 if toy else MOST_REPEATS)
        after, _ = peer_cost(self.peer, few, start)
        middle = ours[len(ours) // 2]
        seconds = middle.seconds / len(task)
        return {
            "case": self.name,
            "work": self.work,
            "instances": len(task),
            "ours s": seconds,
            "Instances s": making.seconds / len(task),
            "peer s before": before.seconds,
            "peer s after": after.seconds,
            "ratio": (before.seconds + after.seconds) / 2 / seconds,
            "must": self.must,
            "aim": self.aim,
            "difference float32": self.difference(few, theirs),
            "difference float64": self.difference_in_double(few) if self.doubled else None,
            "edges": float(sizes.mean()),
            "peer edges": before.edge_visits / before.forwards,
            "forwards": middle.forwards,
            "peer forwards": before.forwards,
            "edge visits": middle.edge_visits / len(task),
            "peer edge visits": before.edge_visits,
            "start MB": middle.start_megabytes,
            "peak MB": middle.peak_megabytes,
            "peer peak MB": before.peak_megabytes,
            "repeats": len(ours),
            "peer instances": len(few),
            "peer epochs": self.peer.epochs_run if self.start else None,
            "path": path_of(E),
            "note": self.note,
        }

    def difference(self, task: Task, theirs: list[Whole]) -> float:
        """Return the largest difference between the peer's masks and ours after as many epochs, over whole graphs."""
        mine = scored_entries(self.ours(task, self.peer.epochs_run), task)
        spread = [spread_out(scored, task, i, elsewhere=0.0) for i, scored in enumerate(mine)]
        return largest_difference(spread, theirs)

    def difference_in_double(self, task: Task) -> float:
        """Return the same in double precision, for a few."""
        task = task.take(np.arange(min(self.doubled, len(task)))).double()
        start = self.initial(task)
        return self.difference(task, [one_of_peer(self.peer, task, i, start)[1] for i in range(len(task))])


def num_edges(scored: Scored, task: Task, i: int) -> int:
    """Return the size of a computation graph, that of the whole graph where edges are not scored."""
    return len(scored["edge"][1]) if "edge" in scored else task.graph(i).num_edges


def peer_cost(peer: Peer, task: Task, start: list[Scored]) -> tuple[Cost, list[Whole]]:
    """Return the median cost per instance with all epochs, and the masks after those that were run."""
    if isinstance(peer, BatchesOfOne):
        return peer.cost(task)
    costs, masks = zip(*(one_of_peer(peer, task, i, start) for i in range(len(task))), strict=True)
    median = {name: float(np.median([vars(cost)[name] for cost in costs])) for name in vars(costs[0])}
    return Cost(**median | {"peak_megabytes": max(cost.peak_megabytes for cost in costs)}), list(masks)


def one_of_peer(peer: Peer, task: Task, i: int, start: list[Scored]) -> tuple[Cost, Whole]:
    """Explain one instance; epochs that are left out cost the slope between the first and the last that is run."""
    given = spread_out(start[i], task, i, elsewhere=0.5)
    with measured() as cost:
        masks = peer.explain(task, i, given, peer.epochs_run)
    if not peer.is_extrapolated:
        return cost, masks
    with measured() as first:
        peer.explain(task, i, given, 1)
    left_out = (EPOCHS - peer.epochs_run) / (peer.epochs_run - 1)
    for name in ("seconds", "forwards", "edge_visits"):
        few, one = getattr(cost, name), getattr(first, name)
        setattr(cost, name, few + left_out * (few - one))
    return cost, masks


def our_costs(case: HasOurs, task: Task, repeats: int) -> tuple[list[Cost], Cost, Explanations]:
    """Return the costs of some runs, the cheapest first, that of making instances, and the result.

    Every run starts from new instances, so each indexes its graphs again.
    """
    costs: list[Cost] = []
    while len(costs) < repeats and sum(cost.seconds for cost in costs) < ENOUGH_SECONDS:
        with measured() as making:
            X = task.instances()
        explainer = case.ours(task)
        with measured() as cost:
            E = explainer.explain(X)
        costs.append(cost)
    return sorted(costs, key=lambda cost: cost.seconds), making, E


def path_of(E: Explanations) -> str:
    """Return which ways the layers took, where the result tells."""
    return "; ".join(sorted({str(path) for path in E.extras.get("path", [])}))
