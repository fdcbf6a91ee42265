"""One case about walks: ours lists all of them in one call, the peer is timed on a few before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from side_by_side.comparison import our_costs
from side_by_side.measuring import Cost, measured
from side_by_side.tasks import Task, middle_of_parts
from side_by_side.walk_passes import ByHand, OnTheModel
from skgnnx import GNNLRP, Explanations

Walk = tuple[int, np.ndarray, float]


@dataclass
class WalkCase:
    """One row of the table, in which the unit is a walk.

    Parameters
    ----------
    name, work, task, must, aim
        As for `Case`.
    peer : type
        The naive way.
    timed : int
        Walks that the peer runs, spread over graphs and over the ranks of their relevance.
    """

    name: str
    work: str
    task: Callable[[bool], Task]
    peer: type[ByHand | OnTheModel]
    must: float | None = None
    aim: float | None = None
    timed: int = 100
    large: bool = False

    def ours(self, task: Task) -> GNNLRP:
        """Return our explainer."""
        return GNNLRP(task.network, walks="all")

    def run(self, toy: bool, device: str) -> dict[str, Any]:
        """Return one row."""
        task = self.task(toy).to(device)
        E = self.ours(task).explain(task.instances())
        few = some_walks(E, 4 if toy else self.timed)
        self.peer_cost(task, E, few[:1])  # a first call costs more
        before, theirs = self.peer_cost(task, E, few)
        costs, making, E = our_costs(self, task, 1 if toy else 3)
        after, _ = self.peer_cost(task, E, few)
        middle, walks = costs[len(costs) // 2], sum(map(len, E.walk_scores))
        return {
            "case": self.name,
            "work": self.work,
            "instances": walks,
            "ours s": middle.seconds / walks,
            "Instances s": making.seconds / walks,
            "peer s before": before.seconds,
            "peer s after": after.seconds,
            "ratio": (before.seconds + after.seconds) / 2 / (middle.seconds / walks),
            "must": self.must,
            "aim": self.aim,
            "difference float32": largest_difference(few, theirs),
            "difference float64": self.difference_in_double(task, len(few)),
            "edges": float(np.mean([graph.num_edges for graph in task.graphs])),
            "peer edges": before.edge_visits / before.forwards,
            "forwards": middle.forwards,
            "peer forwards": before.forwards,
            "edge visits": middle.edge_visits / walks,
            "peer edge visits": before.edge_visits,
            "start MB": middle.start_megabytes,
            "peak MB": middle.peak_megabytes,
            "peer peak MB": before.peak_megabytes,
            "repeats": len(costs),
            "peer instances": len(few),
            "peer epochs": None,
            "path": "",
            "note": f"one call took {middle.seconds:.3g} s; the peer ran {len(few)} of {walks:,} walks",
        }

    def peer_cost(self, task: Task, E: Explanations, few: list[Walk]) -> tuple[Cost, list[float]]:
        """Return the mean cost of a walk, and the relevance of each."""
        peer, total, found = self.peer(task), Cost(), []
        for i in sorted({graph for graph, _, _ in few}):
            mine = [walk for graph, walk, _ in few if graph == i]
            with peer.opened(i) as relevance, measured() as cost:
                found += [relevance(walk, int(E.targets[i])) for walk in mine]
            for name in ("seconds", "forwards", "edge_visits"):
                setattr(total, name, getattr(total, name) + getattr(cost, name) / len(few))
            total.peak_megabytes = max(total.peak_megabytes, cost.peak_megabytes)
        return total, found

    def difference_in_double(self, task: Task, count: int) -> float:
        """Return the largest difference of any score in double precision."""
        task = task.double()
        E = self.ours(task).explain(task.instances())
        few = some_walks(E, count)
        return largest_difference(few, self.peer_cost(task, E, few)[1])


def some_walks(E: Explanations, count: int, most_graphs: int = 5) -> list[Walk]:
    """Return some walks (graph, nodes, relevance), by graph, spread over the ranks."""
    graphs = middle_of_parts(len(E), most_graphs)
    return [
        (int(i), E.walks[i][k], float(E.walk_scores[i][k]))
        for i in graphs
        for k in middle_of_parts(len(E.walks[i]), max(1, count // len(graphs)))
    ]


def largest_difference(few: list[Walk], theirs: list[float]) -> float:
    """Return the largest difference, as a share of the largest relevance."""
    mine = np.array([relevance for _, _, relevance in few])
    return float(np.abs(mine - theirs).max() / np.abs(mine).max())
