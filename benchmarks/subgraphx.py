"""SubgraphX against the same search with one call of the network per coalition, and its fidelity beside gradients.

    python benchmarks/subgraphx.py           # about two minutes
    python benchmarks/subgraphx.py --toy     # a check that it still runs, seconds

*Ours* is one call over all graphs. The *loop* is the same search, graph after graph, in which every coalition is one
call of the network on one graph, written by hand: the first row asks about each coalition once, as ours does, the
second each time that the search needs it. Times are processor time of one thread per graph, ours before and after the
loop, which explains a few of the graphs; sets are compared on these. The ratio is that of times per different
coalition, because graphs differ in how many they need. Nodes that are removed have zero features, or
lose their edges (split).

Fidelity is the change of the explained class's probability when the nodes of the explanation are taken out (+, higher
is better) or all others (-, lower is better), by features of zero and by taking nodes out of the graph (induced). All
methods keep the same share of nodes, 0.3; SubgraphX may keep fewer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from side_by_side.command import environment
from side_by_side.tasks import Task, ba_2motifs, middle_of_parts, molecules
from torch import Tensor

from skgnnx import Explanations, RandomExplainer, SensitivityAnalysis, SubgraphX
from skgnnx.blackbox.coalitions import CoalitionValues
from skgnnx.metrics import fidelity_minus, fidelity_plus

MUST = 20
TASKS: dict[str, tuple[Callable[[bool], Task], str]] = {
    "molecules, GIN-3, zero": (molecules, "zero"),
    "molecules, GIN-3, split": (molecules, "split"),
    "BA-2Motifs, GIN-3, split": (ba_2motifs, "split"),
}


@dataclass
class Loop:
    """Stands in for what removes nodes: one call of the network for each coalition."""

    network: torch.nn.Module
    removal: str

    def __call__(self, gnn: Any, batch: Any, owner: np.ndarray, there: np.ndarray) -> Tensor:
        """Return the outputs (V, C) of versions of one graph."""
        x, edges = batch.x, batch.edge_index
        together = torch.zeros(len(x), dtype=torch.long)
        rows = []
        for here in torch.from_numpy(there.reshape(len(owner), -1)):
            changed = x * here[:, None] if self.removal == "zero" else x
            left = edges if self.removal == "zero" else edges[:, here[edges].all(0)]
            rows.append(self.network(changed, left, together))
        return torch.cat(rows)


class LoopedSubgraphX(SubgraphX):
    """The same search, with one call per coalition."""

    remembers = True

    def coalition_values(self, gnn: Any, batch: Any) -> CoalitionValues:
        """Return values that a loop finds."""
        return CoalitionValues(gnn, batch, Loop(self.model, self.removal), self.remembers)


class ForgetfulSubgraphX(LoopedSubgraphX):
    """One that asks again about what it has known."""

    remembers = False


def timed(explainer: Any, task: Task) -> tuple[float, Explanations]:
    """Return processor time and result."""
    X = task.instances()
    start = time.process_time()
    with torch.no_grad():
        E = explainer.explain(X)
    return time.process_time() - start, E


def speed(tasks: dict[str, Task], toy: bool) -> None:
    """Print how much faster ours is than loops."""
    print("| work | graphs | coalitions each | ours, s, before / after | loop | coalitions | loop, s |", end="")
    print(f" ratio (must {MUST}) | same sets |\n|---|---:|---:|---:|---|---:|---:|---:|---:|")
    for name, task in tasks.items():
        removal = TASKS[name][1]
        given: dict[str, Any] = {"removal": removal, "rollouts": 2 if toy else 5, "max_evals": None}
        few = middle_of_parts(len(task), 1 if toy else 3)
        for kind, loop in (("each once", LoopedSubgraphX), ("each time", ForgetfulSubgraphX)):
            before, E = timed(SubgraphX(task.network, **given), task)
            seconds, theirs = timed(loop(task.network, **given, batch_size=1), task.take(few))
            after, _ = timed(SubgraphX(task.network, **given), task)
            same = sum(np.array_equal(E[i], F) for i, F in zip(few, theirs, strict=True))
            ours, own = (before + after) / 2 / sum(E.evaluations), seconds / sum(E[few].evaluations)
            print(
                f"| {name} | {len(task)} | {np.mean(E.evaluations):,.0f} | {before / len(task):.3f} / "
                f"{after / len(task):.3f} | {kind} | {np.mean(theirs.evaluations):,.0f} | {seconds / len(few):.3g} | "
                f"**{own / ours:.1f}** | {same} of {len(few)} |",
                flush=True,
            )


def fidelity(tasks: dict[str, Task], toy: bool) -> None:
    """Print fidelity beside that of gradients and of chance."""
    print("\n| work | method | s per graph | nodes | + zero | - zero | + induced | - induced |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, task in tasks.items():
        removal = TASKS[name][1]
        methods = {
            "|gradient|": SensitivityAnalysis(task.network, mask="node"),
            "random": RandomExplainer(task.network, mask="node"),
            "SubgraphX": SubgraphX(task.network, removal=removal),
            "SubgraphX, high2low": SubgraphX(task.network, removal=removal, order="high2low"),
        }
        for method, explainer in list(methods.items())[: 3 if toy else None]:
            seconds, E = timed(explainer, task)
            kept = E if E.hard else E.at_sparsity(0.7)
            found = [
                float(metric(kept, removal=how))
                for how in ("zero", "induced")
                for metric in (fidelity_plus, fidelity_minus)
            ]
            nodes = np.mean([mask.sum() for mask in kept])
            figures = " | ".join(f"{value:.3f}" for value in found)
            print(f"| {name} | {method} | {seconds / len(task):.3f} | {nodes:.1f} | {figures} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    toy = parser.parse_args().toy
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(", ".join(f"{key} {value}" for key, value in environment().items()) + "\n")
    tasks = {}
    for name, (make, _) in TASKS.items():
        task = make(toy)
        tasks[name] = task.take(middle_of_parts(len(task), 2 if toy else 10))
    speed(tasks, toy)
    fidelity(tasks, toy)


if __name__ == "__main__":
    main()
