"""How the defaults of GNNExplainer were found: by fidelity, never by ground truth.

    python benchmarks/gnn_explainer_defaults.py          # the whole grid, about half a minute
    python benchmarks/gnn_explainer_defaults.py --toy    # a check that it still runs, seconds

Every setting explains three data sets that no table of the documentation is made of: BA-Shapes with random attachment
and sparser base graph, every fourth molecule of MUTAG, and BA-2Motifs from another seed. The mean characterization
decides.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
import torch
from side_by_side.networks import CONVS, GraphNetwork, NodeNetwork, train
from torch import nn
from torch_geometric.data import Batch

from skgnnx import GNNExplainer, Instances, RandomExplainer, SensitivityAnalysis
from skgnnx.datasets import load_mutag, make_ba_2motifs, make_ba_shapes
from skgnnx.metrics import characterization, fidelity_minus, fidelity_plus


def node_task(toy: bool) -> tuple[nn.Module, Instances]:
    """Return a GCN on BA-Shapes with random attachment, and every eighth motif node."""
    bunch = make_ba_shapes(random_state=5, attach="random", m=2)
    graph, y = bunch.graph, torch.as_tensor(bunch.target)
    model = NodeNetwork(CONVS["GCN"], graph.x.shape[1], 20, 4, 3)
    train(model, (graph.x, graph.edge_index), y, 20 if toy else 1500)
    return model, bunch.data[bunch.evaluation_index["all_motif"][:: 80 if toy else 8]]


def graph_task(bunch: dict, step: int, epochs: int) -> tuple[nn.Module, Instances]:
    """Return a GIN on graphs, and every `step`-th graph."""
    X, y = bunch["data"], torch.as_tensor(bunch["target"])
    union = Batch.from_data_list([X.store.graph(g) for g in range(len(y))])
    model = GraphNetwork(CONVS["GIN"], union.x.shape[1], 32, 2, 3)
    train(model, (union.x, union.edge_index, union.batch), y, epochs)
    return model, X[::step]


def main() -> None:
    """Print one row per setting, best mean characterization last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    toy = parser.parse_args().toy
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tasks = [
        node_task(toy),
        graph_task(load_mutag(), 40 if toy else 4, 5 if toy else 300),
        graph_task(make_ba_2motifs(n_graphs=40 if toy else 400, random_state=9), 8, 5 if toy else 400),
    ]
    grid = [(1.0, 0.005, 1.0)] if toy else itertools.product((0.0, 1.0, 2.0, 4.0), (0.005, 0.02, 0.1), (0.0, 0.1, 1.0))
    settings = {
        f"init_mean={mean:g} edge_size={size:g} edge_entropy={entropy:g}": {
            "init_mean": mean, "edge_size": size, "edge_entropy": entropy,
        }
        for mean, size, entropy in grid
    }  # fmt: skip
    explainers = {"random": RandomExplainer(), "gradient": SensitivityAnalysis(), "pyg": GNNExplainer(preset="pyg")}
    explainers |= {"paper": GNNExplainer(preset="paper")}
    explainers |= {name: GNNExplainer(**given) for name, given in settings.items()}
    print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}; fidelity+ / fidelity- / characterization per task")
    rows = []
    for name, explainer in explainers.items():
        results = [explainer.set_params(model=model).explain(X) for model, X in tasks]
        cells = [f"{fidelity_plus(E):.3f} / {fidelity_minus(E):.3f} / {characterization(E):.3f}" for E in results]
        rows.append((float(np.mean([characterization(E) for E in results])), name, cells))
    for mean, name, cells in sorted(rows):
        print(f"{mean:.3f}  {name:50s}  {'   '.join(cells)}")


if __name__ == "__main__":
    main()
