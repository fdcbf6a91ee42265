"""Computation graphs of many nodes at once, against PyG's `k_hop_subgraph` called once per node.

    python benchmarks/computation_graphs.py            # graphs of 10^3 to 10^5 nodes, half a minute
    python benchmarks/computation_graphs.py --large    # 10^6 nodes, too: two minutes, 3 GB of memory
    python benchmarks/computation_graphs.py --toy      # a check that it still runs, seconds

Graphs have power-law degrees (mean 10), models two layers. Times are processor times of one thread; ours are medians
of runs between which other nodes are cut, so that nothing of the graph is in the processor's cache for us alone. PyG is
timed before and after. Nodes must be the same; PyG's edges are those whose target is a message nearer than the
outermost nodes, since it also returns edges that carry nothing to the node.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side.command import environment
from side_by_side.tasks import power_law_links
from torch_geometric.data import Data
from torch_geometric.utils import k_hop_subgraph

from skgnnx import Instances
from skgnnx.graphs.computation_graph import ComputationGraphs, receptive_fields

HOPS, TIMED, BETWEEN, REPEATS = 2, 100, 1_000, 7


def ours(X: Instances) -> ComputationGraphs:
    """Cut all nodes at once."""
    return receptive_fields(X, np.arange(len(X)), HOPS, ring=0, both_ways=False)


def seconds_of(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def of_pyg(data: Data, nodes: np.ndarray) -> np.ndarray:
    """Return the seconds of each call."""
    cut = partial(k_hop_subgraph, num_hops=HOPS, edge_index=data.edge_index, num_nodes=data.num_nodes)
    return np.array([seconds_of(partial(cut, node)) for node in nodes.tolist()])


def agree(data: Data, nodes: np.ndarray, graphs: ComputationGraphs) -> bool:
    """Return True if nodes, edges and the ends of edges are PyG's, for every node."""
    for i, node in enumerate(nodes.tolist()):
        reached, _, _, among = k_hop_subgraph(node, HOPS, data.edge_index, num_nodes=data.num_nodes)
        inner, *_ = k_hop_subgraph(node, HOPS - 1, data.edge_index, num_nodes=data.num_nodes)
        among = among.nonzero().flatten().numpy()
        edges = among[np.isin(data.edge_index[1, among].numpy(), inner.numpy())]
        mine, at = graphs.node_id[graphs.node_ptr[i] : graphs.node_ptr[i + 1]], slice(*graphs.edge_ptr[i : i + 2])
        pairs = [
            (mine, np.sort(reached.numpy())),
            (graphs.edge_id[at], edges),
            (mine[graphs.ends[:, at]], data.edge_index[:, edges].numpy()),
        ]
        if not all(np.array_equal(own, theirs) for own, theirs in pairs):
            return False
    return True


def from_disk(X: Instances) -> dict[str, float]:
    """Return what saving and opening costs, and cutting the same nodes out of the opened graph."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph"
        start = time.perf_counter()
        X.save(path)
        saved = time.perf_counter()
        opened = Instances.open(path)
        ready = time.perf_counter()
        ours(opened)
        return {
            "save s": saved - start,
            "folder MB": sum(file.stat().st_size for file in path.iterdir()) / 2**20,
            "open ms": 1e3 * (ready - saved),
            "ours ms per node, opened": 1e3 * seconds_of(partial(ours, opened)) / len(X),
        }


def compare(num_nodes: int, timed: int) -> dict[str, Any]:
    """Return one row of the table."""
    rng = np.random.default_rng(0)
    data = Data(edge_index=power_law_links(num_nodes, rng), num_nodes=num_nodes)
    X = Instances.from_nodes(data, rng.choice(num_nodes, timed, replace=False))
    nodes = X.element[:, 0]
    index = seconds_of(lambda: X.store.in_edges)
    before = of_pyg(data, nodes)
    together, alone, per_edge = [], [], []
    for _ in range(REPEATS):
        others = Instances.from_nodes(X, rng.choice(num_nodes, min(BETWEEN, num_nodes), replace=False))
        start = time.process_time()
        found = ours(others)
        per_edge.append((time.process_time() - start) / len(found.edge_id))
        together.append(seconds_of(partial(ours, X)) / timed)
        alone.append(seconds_of(partial(ours, others[:1])))
    after = of_pyg(data, nodes)
    graphs = ours(X)
    peer = float(np.mean([before, after]))
    return {
        "nodes": num_nodes,
        "edges": data.num_edges,
        "index s": index,
        "edges of a computation graph, median": np.median(np.diff(graphs.edge_ptr)),
        "mean": len(graphs.edge_id) / timed,
        "ours ms per node": 1e3 * np.median(together),
        "one node alone ms": 1e3 * np.median(alone),
        "PyG ms per node": 1e3 * peer,
        "PyG before / after": f"{1e3 * before.mean():.4g} / {1e3 * after.mean():.4g}",
        "ratio": peer / np.median(together),
        "same nodes and edges": agree(data, nodes, graphs),
        "ns per edge found": 1e9 * np.median(per_edge),
        **from_disk(X),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Print one row per size, and how the cost per edge grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    parser.add_argument("--large", action="store_true", help="a graph of 10^6 nodes, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(", ".join(f"{key} {value}" for key, value in environment().items()))
    sizes = [500, 1_000] if arguments.toy else [10**3, 10**4, 10**5] + [10**6] * arguments.large
    per_edge = {}
    for size in sizes:
        row = compare(size, 5 if arguments.toy else TIMED)
        per_edge[size] = row["ns per edge found"]
        print("  ".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()), flush=True)
    small, large = sizes[-1] // 100 if arguments.large else sizes[0], sizes[-1]
    print(f"cost per edge found, {large:,} against {small:,} nodes: {per_edge[large] / per_edge[small]:.2f} times")


if __name__ == "__main__":
    main()
