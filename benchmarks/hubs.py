"""What `max_edges` saves on hubs, and what it costs in truth.

    python benchmarks/hubs.py           # about three minutes, 3 GB of memory
    python benchmarks/hubs.py --toy     # a check that it still runs, seconds

`GNNExplainer` (100 epochs) on the nodes with the most neighbours in a graph of 10^5 nodes with power-law degrees (mean
10). The network (two layers) is trained on classes that depend on a node and its neighbours. *Change* is that of the
explained class's probability when neighbours are left out. *Rank correlation* is Spearman's, of the scores that the
kept edges get with those that they get when the whole instance is explained, or with another seed's scores of the edges
that both keep: edges that lead to a hub by the thousand hardly differ. *Time* is
processor time of one call over all nodes on one thread, divided by their number; what a call costs before the first
instance is explained (a pass over the whole graph, questions to the model) is a part of it.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from scipy.stats import spearmanr
from side_by_side.command import environment
from side_by_side.networks import CONVS, Conv, NodeNetwork, train
from side_by_side.tasks import power_law_links
from torch_geometric.data import Data
from torch_geometric.nn import SAGEConv
from torch_geometric.utils import scatter

from skgnnx import Explanations, GNNExplainer, Instances, RandomExplainer

LAYERS = {"mean (SAGE)": SAGEConv, "normalised (GCN)": CONVS["GCN"], "sum (GIN)": CONVS["GIN"]}
LIMITS = (100, 1_000, 10_000, 100_000, None)


def hubs(num_nodes: int, count: int, conv: Conv, steps: int) -> tuple[NodeNetwork, Instances]:
    """Return a trained network and the nodes with the most neighbours."""
    rng = np.random.default_rng(0)
    edge_index = power_law_links(num_nodes, rng)
    x = torch.from_numpy(rng.standard_normal((num_nodes, 16), dtype=np.float32))
    around = scatter(x[edge_index[0], :3], edge_index[1], 0, num_nodes, reduce="mean")
    network = NodeNetwork(conv, 16, 32, 3, 2)
    train(network, (x, edge_index), (x[:, :3] + 2 * around).argmax(1), steps)
    degree = np.bincount(edge_index[1], minlength=num_nodes)
    return network, Instances.from_nodes(Data(x=x, edge_index=edge_index), np.argsort(-degree)[:count])


def correlation(E: Explanations, F: Explanations) -> float:
    """Return the mean rank correlation over edges that both have scored."""
    found = []
    for i in range(len(E)):
        (ids, values), (other_ids, other_values) = E.entries(i), F.entries(i)
        _, own, other = np.intersect1d(ids, other_ids, return_indices=True)
        if len(own) > 2:
            found.append(spearmanr(values[own], other_values[other]).statistic)
    return float(np.nanmean(found)) if found else float("nan")


def explained(network: NodeNetwork, X: Instances, limit: int | None, epochs: int, seed: int = 0) -> Explanations:
    """Explain without the warnings that say that something was left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Instances must have at most max_edges")
        return GNNExplainer(network, epochs=epochs, max_edges=limit, random_state=seed).explain(X)


def table(network: NodeNetwork, X: Instances, epochs: int) -> None:
    """Print one row per limit."""
    found = {}
    for limit in LIMITS:
        start = time.process_time()
        E = explained(network, X, limit, epochs)
        found[limit] = E, time.process_time() - start
    print("| max_edges | edges kept, median | s per node | change, median / largest |", end="")
    print(" rank correlation with whole | with another seed |\n|---:|---:|---:|---:|---:|---:|")
    for limit, (E, seconds) in found.items():
        said = [s for s in E.extras.get("sampled", []) if s is not None]
        change = np.abs([s["change"] for s in said]) if said else np.zeros(1)
        kept = np.median(np.diff(E.masks["edge"].ptr))
        whole, other = correlation(E, found[None][0]), correlation(E, explained(network, X, limit, epochs, seed=1))
        print(
            f"| {limit} | {kept:,.0f} | {seconds / len(X):.3g} | "
            f"{np.median(change):.3f} / {change.max():.3f} | {whole:.2f} | {other:.2f} |",
            flush=True,
        )


def one_edge_too_many(network: NodeNetwork, X: Instances) -> str:
    """Say what happens to the smallest instance when the limit is one edge less than it has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Instances must have at most max_edges")
        edges = [said["edges"] for said in RandomExplainer(network, max_edges=1).explain(X).sampled]
        smallest = int(np.argmin(edges))
        limit = edges[smallest] - 1
        said = RandomExplainer(network, max_edges=limit).explain(X[smallest : smallest + 1]).sampled[0]
    return f"max_edges={limit:,}: {said['kept']:,} of {said['edges']:,} edges kept, change {said['change']:+.3f}"


def main() -> None:
    """Print a table per kind of layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    toy = parser.parse_args().toy
    torch.set_num_threads(1)
    print(", ".join(f"{key} {value}" for key, value in environment().items()))
    for name, conv in LAYERS.items():
        torch.manual_seed(0)
        network, X = hubs(2_000 if toy else 100_000, 3 if toy else 20, conv, steps=3 if toy else 60)
        print(f"\n{name}, {len(X)} nodes\n")
        table(network, X, epochs=3 if toy else 100)
        print(f"\nOne edge too many: {one_edge_too_many(network, X)}", flush=True)


if __name__ == "__main__":
    main()
