"""PGExplainer on planted motifs, beside two controls that know nothing of the model; then against PyG's.

    python benchmarks/pg_explainer.py                  # about five minutes
    python benchmarks/pg_explainer.py --toy            # a check that it still runs, seconds
    python benchmarks/pg_explainer.py --data FOLDER    # on draws in ba_shapes.npz, tree_cycles.npz, ba_2motifs.npz

What is explained is disjoint from what was learned from. One control is the same run with the model's loss switched
off, the other a network that was never trained: an area under the curve alone proves nothing. Settings are the
defaults, which were chosen by fidelity on other draws and networks (`pg_explainer_defaults.py`); no truth had a say.
Networks have seen graphs with missing edges while they were trained, so that fidelity asks them what they can answer.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side.motif_cases import MotifCase, made, published
from side_by_side.pyg_pg_explainer import PyGPGExplainer, pooled_auc

from skgnnx import Explanations, Instances, PGExplainer, SensitivityAnalysis
from skgnnx.metrics import fidelity_minus, fidelity_plus, roc_auc

SETS = ("BA-Shapes", "Tree-Cycles", "BA-2Motifs")
MUST = {"BA-Shapes": 0.95, "Tree-Cycles": 0.90, "BA-2Motifs": 0.90}
SPARSITY = 0.8
FIGURES: dict[str, Callable[[Explanations], float]] = {
    "ROC-AUC, pooled": lambda E: float(roc_auc(E, average="pooled")),
    "ROC-AUC, instances": lambda E: float(roc_auc(E)),
    f"fidelity+ at {SPARSITY}": lambda E: float(fidelity_plus(E, sparsity=SPARSITY)),
    f"fidelity- at {SPARSITY}": lambda E: float(fidelity_minus(E, sparsity=SPARSITY)),
    "mask deviation": lambda E: float(np.mean([np.std(E.entries(i)[1]) for i in range(len(E))])),
    "collapsed": lambda E: float(np.mean(E.extras.get("collapsed", [False]))),
}


class WithoutModel(PGExplainer):
    """The same run, in which no prediction costs anything."""

    def _train(self, gnn: Any, *given: Any) -> Any:
        gnn.prediction_loss = lambda batch, **masks: torch.zeros(len(batch), dtype=gnn.dtype)
        return super()._train(gnn, *given)


def contenders(toy: bool) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return what is compared, with parameters."""
    few = {"epochs": 2} if toy else {}
    return {
        "PGExplainer": (PGExplainer, few),
        "loss off": (WithoutModel, few),
        "untrained": (WithoutModel, {"epochs": 1, "lr": 1e-30}),
        "|gradient|": (SensitivityAnalysis, {"mask": "edge"}),
    }


def explained(method: Any, given: dict[str, Any], case: MotifCase, seed: int) -> Explanations:
    """Return explanations of one half by what was learned from the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # masks that are all the same show in the figures
        explainer = method(case.network, random_state=seed, **given).fit(case.learned)
        return explainer.explain(case.explained)


def compared(case: MotifCase, seeds: int, toy: bool) -> None:
    """Print a table of one set: a row per figure, mean and deviation over the seeds."""
    sizes = f"{len(case.learned)} learned from, {len(case.explained)} others explained"
    network = f"network with accuracy {case.accuracy:.3f}, which loses {case.lost:.3f} where only motifs are left"
    print(f"\n{case.name}: {network}; {sizes}, {seeds} seeds", flush=True)
    columns = {}
    for name, (method, given) in contenders(toy).items():
        runs = range(1 if method is SensitivityAnalysis else seeds)
        found = [explained(method, given, case, seed) for seed in runs]
        columns[name] = {figure: [of(E) for E in found] for figure, of in FIGURES.items()}
    print(f"  {'':20s}" + "".join(f"{name:>24s}" for name in columns))
    for figure in FIGURES:
        cells = [mean_and_deviation(column[figure]) for column in columns.values()]
        must = f"   must: {MUST[case.name]:.2f}" if figure == "ROC-AUC, pooled" else ""
        print(f"  {figure:20s}" + "".join(f"{cell:>24s}" for cell in cells) + must)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Return a cell: the mean, the deviation and the least where there are several."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values):.3f} ({min(values):.3f})"


def raced(case: MotifCase, toy: bool) -> None:
    """Print how long both sides take to learn from the same instances and to explain the same others."""
    everything = Instances.concat([case.learned, case.explained])
    learned, others = (everything[:5], everything[-5:]) if toy else (everything[:300], everything[-100:])
    epochs = {"ours": 2 if toy else 100, "PyG": 1 if toy else 5}
    print(f"\n{case.name}, {len(learned)} learned from, {len(others)} explained, one thread")
    peer = PyGPGExplainer(case.network, epochs["PyG"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ours = PGExplainer(case.network, epochs=epochs["ours"])
        seconds = {"ours": (clocked(lambda: ours.fit(learned)), clocked(lambda: ours.explain(others)))}
        seconds["PyG"] = clocked(lambda: peer.fit(learned)), clocked(lambda: peer.explain(others))
        E = ours.explain(others)
    auc = {"ours": pooled_auc(E, list(E.edge_mask)), "PyG": pooled_auc(E, peer.masks)}
    each = {side: (fit / epochs[side], explain / len(others)) for side, (fit, explain) in seconds.items()}
    for side, (epoch, one) in each.items():
        whole = f"fit {seconds[side][0]:.2f} s in {epochs[side]} epochs"
        print(
            f"  {side:5s} ROC-AUC {auc[side]:.3f}, {whole}: {1e3 * epoch:.1f} ms an epoch; explain {1e3 * one:.2f} ms"
        )
    ratios = [each["PyG"][k] / each["ours"][k] for k in (0, 1)]
    print(f"  ratio {ratios[0]:.0f} per epoch (must: 20), {ratios[1]:.0f} to explain one")


def clocked(use: Callable[[], Any]) -> float:
    """Return the processor time of the one thread that something takes, in seconds."""
    start = time.process_time()
    use()
    return time.process_time() - start


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    parser.add_argument("--data", type=Path, help="folder of the published draws, instead of generated ones")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}; mean ± deviation (least) over seeds")
    sizes = {"graphs": 20, "steps": 5} if given.toy else {}
    cases = [published(name, given.data) if given.data else made(name, 0, **sizes) for name in SETS]
    for case in cases:
        compared(case, 1 if given.toy else 10, given.toy)
    for case in (cases[0], cases[2]):
        raced(case, given.toy)


if __name__ == "__main__":
    main()
