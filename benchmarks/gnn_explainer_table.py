"""GNNExplainer's three presets beside gradients, on sets and models that its defaults were not chosen with.

    python benchmarks/gnn_explainer_table.py          # five seeds, some minutes
    python benchmarks/gnn_explainer_table.py --toy    # a check that it still runs, seconds

A seed is one of the data, the network and the explainer; benzene is the same 1,500 molecules each time. Explained is
the predicted class: of every node of a motif, and of every graph with a motif. ROC-AUC is that of one instance at a
time. Spearman compares the edge scores of two seeds of the explainer on one network. Fidelities are at sparsity 0.7.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from skgnnx import GNNExplainer, InputXGradient, Instances, IntegratedGradients, SensitivityAnalysis
from skgnnx.datasets import load_benzene, make_ba_2motifs, make_ba_shapes, make_tree_cycles
from skgnnx.metrics import fidelity_minus, fidelity_plus, roc_auc
from skgnnx.models import GNNClassifier

EXPLAINERS: dict[str, Any] = {
    "|gradient|": SensitivityAnalysis(mask="edge"),
    "InputXGradient": InputXGradient(mask="edge"),
    "IntegratedGradients": IntegratedGradients(mask="edge"),
    "GNNExplainer default": GNNExplainer(),
    'GNNExplainer "paper"': GNNExplainer(preset="paper"),
    'GNNExplainer "pyg"': GNNExplainer(preset="pyg"),
}
LEARNED = [name for name in EXPLAINERS if name.startswith("GNNExplainer")]
GRADIENTS = ("|gradient|", "IntegratedGradients")
Task = tuple[GNNClassifier, Instances, float]


def nodes(make: Any, seed: int, toy: bool) -> Task:
    """Return a GCN on one graph, its motif nodes, and its accuracy on all nodes."""
    bunch = make(random_state=seed)
    X = Instances.from_nodes(bunch.graph)
    model = GNNClassifier(conv="gcn", hidden=32, epochs=20 if toy else 300, random_state=seed).fit(X, bunch.target)
    motif = bunch.evaluation_index["all_motif"]
    return model, bunch.data[motif[:: 40 if toy else 1]], model.score(X, bunch.target)


def graphs(bunch: Any, rows: np.ndarray, epochs: int, seed: int) -> Task:
    """Return a GIN on graphs, those that have a motif, and its accuracy on all."""
    X, y = bunch.data, bunch.target
    model = GNNClassifier(conv="gin", hidden=32, epochs=epochs, random_state=seed).fit(X, y)
    return model, X[rows], model.score(X, y)


def tasks(seed: int, toy: bool) -> dict[str, Task]:
    """Return the four sets, each with a network of its own."""
    motifs = make_ba_2motifs(n_graphs=40 if toy else 1000, random_state=seed)
    benzene = load_benzene()
    rings = np.flatnonzero(benzene.target)
    return {
        "BA-Shapes": nodes(make_ba_shapes, seed, toy),
        "Tree-Cycles": nodes(make_tree_cycles, seed, toy),
        "BA-2Motifs": graphs(motifs, np.arange(0, len(motifs.target), 8 if toy else 1), 2 if toy else 50, seed),
        "benzene": graphs(benzene, rings[:: 100 if toy else 1], 1 if toy else 100, seed),
    }


def agreement(first: Any, second: Any) -> float:
    """Return the mean rank correlation of the scores of two explanations of the same instances."""
    pairs = [(first.entries(i)[1], second.entries(i)[1]) for i in range(len(first))]
    return float(np.mean([spearmanr(a, b).statistic for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]))


def measured(task: Task, seed: int) -> dict[str, list[float]]:
    """Return for each explainer ROC-AUC, agreement between seeds, fidelity+ and fidelity-."""
    model, X, _ = task
    found = {}
    for name, explainer in EXPLAINERS.items():
        explainer.set_params(model=model, random_state=seed)
        E = explainer.explain(X)
        ranks = agreement(E, explainer.set_params(random_state=seed + 100).explain(X)) if name in LEARNED else 1.0
        found[name] = [float(roc_auc(E)), ranks, float(fidelity_plus(E)), float(fidelity_minus(E))]
    return found


def told(name: str, accuracy: list[float], rows: dict[str, np.ndarray]) -> list[str]:
    """Return the lines of one set; `rows` holds for each explainer an array (seeds, 4)."""
    lines = ["", f"{name}, accuracy {np.mean(accuracy):.3f} ({min(accuracy):.3f} to {max(accuracy):.3f})"]
    lines.append(f"{'':24s}{'ROC-AUC':>16s}{'Spearman':>12s}{'fidelity+':>12s}{'fidelity-':>12s}")
    for explainer, values in rows.items():
        auc, (_, ranks, plus, minus) = f"{values[:, 0].mean():.3f} ± {values[:, 0].std():.3f}", values.mean(0)
        lines.append(f"{explainer:24s}{auc:>16s}{ranks:12.3f}{plus:12.3f}{minus:12.3f}")
    best = max(rows[name][:, 0].mean() for name in GRADIENTS)
    ratio = rows[LEARNED[0]][:, 0].mean() / best
    lines.append(f"default / better of |gradient| and IntegratedGradients: {ratio:.3f}")
    return lines


def main() -> None:
    """Print a table per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    toy = parser.parse_args().toy
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Masks must settle")  # what "pyg" says of itself
    warnings.filterwarnings("ignore", "The scores of .* do not sum")  # what IntegratedGradients says of long paths
    seeds = range(1 if toy else 5)
    found = [{name: (task[2], measured(task, s)) for name, task in tasks(s, toy).items()} for s in seeds]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread"
    print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, {machine}; {len(seeds)} seeds, mean ± deviation")
    for name in found[0]:
        rows = {explainer: np.array([each[name][1][explainer] for each in found]) for explainer in EXPLAINERS}
        print("\n".join(told(name, [each[name][0] for each in found], rows)))


if __name__ == "__main__":
    main()
