"""How the defaults of GNNClassifier were found: cross-validated accuracy of each setting on four small tasks.

    python benchmarks/gnn_classifier_defaults.py          # about 15 minutes
    python benchmarks/gnn_classifier_defaults.py --toy    # a check that it still runs, seconds

Every setting is cross-validated with several seeds of the weights; the least accuracy of a task matters as much as the
mean, because training that sometimes fails is of no use to somebody who wants to explain its result.
"""

import argparse
import time

import numpy as np
import torch
import torch_geometric
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_score

from skgnnx.datasets import load_benzene, load_mutag, make_ba_2motifs, make_ba_shapes
from skgnnx.models import GNNClassifier

DEFAULT = GNNClassifier()
SETTINGS = {
    "defaults": {},
    "constant rate": {"schedule": "constant"},
    "no normalisation": {"norm": None},
    "layer normalisation": {"norm": "layer"},
    "mean pooling": {"pool": "mean"},
    "max pooling": {"pool": "max"},
    "rate 0.005": {"lr": 0.005},
    "rate 0.001": {"lr": 0.001},
    "two layers of 32": {"layers": 2, "hidden": 32},
}


def tasks(toy):
    """Return (name, instances, labels, further parameters) of every task."""
    mutag, benzene = load_mutag(), load_benzene()
    shapes, motifs = make_ba_shapes(random_state=0), make_ba_2motifs(n_graphs=40 if toy else 300, random_state=0)
    size = 60 if toy else 600
    return [
        ("benzene", benzene.data[:size], benzene.target[:size], {"conv": "gine", "epochs": 30}),
        ("mutag", mutag.data, mutag.target, {"conv": "gine"}),
        ("ba_2motifs", motifs.data, motifs.target, {"epochs": 30}),
        ("ba_shapes (nodes)", shapes.data, shapes.target, {"epochs": 300}),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="two settings, few epochs, to check that it runs")
    toy = parser.parse_args().toy
    torch.set_num_threads(1)
    settings = dict(list(SETTINGS.items())[:2]) if toy else SETTINGS
    found = tasks(toy)
    print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, torch-geometric {torch_geometric.__version__}")
    print(
        f"accuracy, mean (least) over seeds and folds\n| setting | {' | '.join(name for name, *_ in found)} | seconds |"
    )
    print("|---" * (len(found) + 2) + "|")
    for name, params in settings.items():
        start, cells = time.perf_counter(), []
        for _, X, y, given in found:
            given = {**given, "epochs": 2} if toy else given
            scores = [
                cross_val_score(clone(DEFAULT).set_params(**given | params, random_state=seed), X, y, cv=folds(seed))
                for seed in range(1 if toy else 3)
            ]
            cells.append(f"{np.mean(scores):.3f} ({np.min(scores):.3f})")
        print(f"| {name} | {' | '.join(cells)} | {time.perf_counter() - start:.0f} |", flush=True)


def folds(seed):
    return StratifiedKFold(3, shuffle=True, random_state=seed)


if __name__ == "__main__":
    main()
