"""GraphMask's star graphs: who finds all edges that a network has counted, beside the published table.

    python benchmarks/star_graphs.py          # three seeds, about seven minutes of one thread
    python benchmarks/star_graphs.py --toy    # a check that it still runs, seconds

For every seed 10,000 stars train an R-GCN, other 4,000 fit what learns, and other 500 are explained. Precision, recall
and F1 are of the edges of all explained stars together; graphs without a true edge count, too. Thresholds are those of
the authors' code: 0.55 of the largest for integrated gradients, 0.35 (they suggest 0.3 to 0.4) for the bottleneck, 0.1
for GNNExplainer with their penalties, and 0.5 for ours.

How ground truth was used: three settings of GraphMask (stars to fit and max_change) and five of the bottleneck (epochs,
rate, penalty) were tried on seed 0 with its true edges in sight. With 1,000 stars, GraphMask fell short of the recall
that is asked for, at its default of max_change=0.05 and at 0.01; with 4,000 and 0.01 it did not. The seeds of the
table, from 10 on, are others, drawn after all settings were settled.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from side_by_side.command import environment
from side_by_side.stars import StarNetwork, accuracy, micro_average, trained_star_network
from sklearn.utils import Bunch

from skgnnx import (
    ErasureSearch,
    Explanations,
    GNNExplainer,
    GraphMask,
    InformationBottleneck,
    Instances,
    IntegratedGradients,
)
from skgnnx.datasets import make_star_graphs
from skgnnx.explainers.base import BaseExplainer

FIRST_SEED = 10
# penalties of GraphMask's authors for GNNExplainer, and as many steps
THEIR_GNN_EXPLAINER = {"preset": "pyg", "epochs": 2000, "edge_size": 0.0005, "edge_entropy": 0.001}


@dataclass
class Method:
    """One row of the table.

    Parameters
    ----------
    name : str
    make : callable
        From a network and whether a toy is enough to an explainer.
    published : tuple of three float or None
        Precision, recall and F1 in the paper, in percent.
    cut : float or None
        Share of the largest size from which an edge is chosen; None takes `threshold`.
    threshold : float
        Score above which an edge is chosen.
    goal : str
        What must be shown.
    """

    name: str
    make: Callable[[StarNetwork, bool], BaseExplainer]
    published: tuple[float, float, float] | None
    threshold: float = 0.0
    cut: float | None = None
    goal: str = ""

    def chosen(self, E: Explanations) -> list[np.ndarray]:
        """Return which edges of every star are chosen."""
        if self.cut is None:
            return [scores > self.threshold for scores in E]
        return [np.abs(scores) > self.cut * np.abs(scores).max(initial=0) for scores in E]


def bottleneck(network: StarNetwork, toy: bool) -> BaseExplainer:
    """Return the information bottleneck."""
    return InformationBottleneck(network, epochs=3 if toy else 25)


def graph_mask(amortised: bool) -> Callable[[StarNetwork, bool], BaseExplainer]:
    """Return what makes GraphMask, learned once for all stars or for each alone."""
    given = {"amortised": amortised, "max_change": 0.01}
    return lambda network, toy: GraphMask(network, **given, **({"epochs": 3} if toy else {}))


def their_gnn_explainer(network: StarNetwork, toy: bool) -> BaseExplainer:
    """Return GNNExplainer with the penalties of GraphMask's authors."""
    return GNNExplainer(network, **THEIR_GNN_EXPLAINER | ({"epochs": 3} if toy else {}))


METHODS = [
    Method("ErasureSearch", lambda network, toy: ErasureSearch(network), (100, 16.7, 28.6), goal="recall < 50"),
    Method(
        "IntegratedGradients(per_layer=True)",
        lambda network, toy: IntegratedGradients(network, per_layer=True),
        (88.3, 93.5, 90.8),
        cut=0.55,
    ),
    Method("InformationBottleneck(epochs=25)", bottleneck, (55.3, 51.5, 52.6), threshold=0.35),
    Method(
        "GNNExplainer, authors' penalties",
        their_gnn_explainer,
        (100, 16.8, 28.7),
        threshold=0.1,
        goal="recall < 50",
    ),
    Method("GNNExplainer", lambda network, toy: GNNExplainer(network), None, threshold=0.5, goal="recall < 50"),
    Method("GraphMask(amortised=False)", graph_mask(False), (96.7, 26.2, 41.2), goal="recall < 50"),
    Method("GraphMask(max_change=0.01)", graph_mask(True), (98.8, 100, 99.4), goal="F1 >= 95, recall >= 98"),
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="few stars and one seed, to check that it runs")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("  ".join(f"{name}: {value}" for name, value in environment().items()), flush=True)
    rows: dict[str, list[Bunch]] = {method.name: [] for method in METHODS}
    for seed in range(FIRST_SEED, FIRST_SEED + (1 if arguments.toy else arguments.seeds)):
        run_seed(seed, arguments.toy, rows)
    print("\n" + table(rows) + "\n" + __doc__[__doc__.index("\nFor every seed") :].rstrip())


def run_seed(seed: int, toy: bool, rows: dict[str, list[Bunch]]) -> None:
    """Train a network and explain it by every method."""
    sizes = (300, 40, 20) if toy else (10_000, 4000, 500)
    drawn = [make_star_graphs(n_graphs=size, random_state=3 * seed + part) for part, size in enumerate(sizes)]
    training, fitted, explained = drawn
    start = time.process_time()
    network = trained_star_network(training.graphs, 2 if toy else 6, seed)
    seconds = time.process_time() - start
    share = accuracy(network, explained.graphs)
    print(
        f"seed {seed}: R-GCN trained in {seconds:.0f} s, {100 * share:.1f} % of the explained stars right", flush=True
    )
    for method in METHODS:
        explainer = method.make(network, toy).set_params(random_state=seed)
        found = scored(method, explainer, fitted.data, explained)
        rows[method.name].append(found)
        print(f"  {method.name}: {said([found])}, {found.seconds:.1f} s", flush=True)


def scored(method: Method, explainer: BaseExplainer, fitted: Instances, explained: Bunch) -> Bunch:
    """Return precision, recall, F1 and processor time of one method."""
    start = time.process_time()
    if explainer.__sklearn_tags__().requires_fit:
        explainer.fit(fitted)
    E = explainer.explain(explained.data)
    return Bunch(**micro_average(method.chosen(E), explained.edge_truth), seconds=time.process_time() - start)


def said(found: Sequence[Bunch]) -> str:
    """Return precision / recall / F1 in percent, the mean over seeds."""
    return " / ".join(f"{100 * np.mean([each[key] for each in found]):.1f}" for key in ("precision", "recall", "f1"))


def least(found: Sequence[Bunch]) -> str:
    """Return the range of recall and of F1 over seeds."""
    ranges = [[100 * each[key] for each in found] for key in ("recall", "f1")]
    return ", ".join(f"{min(each):.1f} to {max(each):.1f}" for each in ranges)


def table(rows: dict[str, list[Bunch]]) -> str:
    """Return the table as Markdown."""
    lines = ["| method | precision / recall / F1, % | recall, F1 over seeds | published | goal | s per seed |"]
    lines.append("|---" * 6 + "|")
    for method in METHODS:
        found = rows[method.name]
        published = "-" if method.published is None else " / ".join(f"{value:g}" for value in method.published)
        seconds = np.mean([each.seconds for each in found])
        cells = [method.name, said(found), least(found), published, method.goal or "reported", f"{seconds:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
