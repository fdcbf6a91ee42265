"""Cost per explanation as a graph grows around it, and memory under a budget: ours alone.

    python benchmarks/large_graphs.py            # graphs of 10^4 and 10^5 nodes, a minute
    python benchmarks/large_graphs.py --large    # 10^6 nodes, too: two minutes, 2 GB of memory
    python benchmarks/large_graphs.py --toy      # a check that it still runs, seconds

Graphs have power-law degrees (mean 10), networks are GCNs of two layers, GNNExplainer takes 100 epochs (preset "pyg").
Seconds are processor times of one thread, the median of five runs from new instances, so the index of the graph, the
targets and all proofs are in them. Memory is what the first run of a new process takes at most beyond what the process
held before, the graph and its index among it: the budget and 300 MB are asked for.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from side_by_side.command import environment
from side_by_side.measuring import measured
from side_by_side.tasks import Task, power_law

from skgnnx import GNNExplainer, config_context

EXPLAINED, IN_MEMORY, REPEATS = 200, 100, 5
BUDGETS, ALLOWED = (200, 2_000), 300  # MB


def once(task: Task) -> tuple[float, float, int]:
    """Explain from new instances; return the seconds of the index, of all, and the edges of all computation graphs."""
    X = task.instances()
    with measured() as index:
        X.store.in_edges  # noqa: B018
    with measured() as cost:
        E = GNNExplainer(task.network, preset="pyg").explain(X)
    return index.seconds, index.seconds + cost.seconds, sum(len(E.entries(i)[0]) for i in range(len(E)))


def growth(num_nodes: int, toy: bool) -> dict[str, Any]:
    """Return what an edge of a computation graph costs."""
    task = power_law(toy, num_nodes, EXPLAINED)
    once(task)  # a first run costs more
    runs = sorted((once(task) for _ in range(1 if toy else REPEATS)), key=itemgetter(1))
    index, seconds, edges = runs[len(runs) // 2]
    return {
        "nodes": task.graphs[0].num_nodes,
        "instances": len(task),
        "edges of a computation graph": edges / len(task),
        "index s": index,
        "ms per instance": 1e3 * seconds / len(task),
        "ns per edge": 1e9 * seconds / edges,
    }


def memory(saved: Path, budget: int) -> dict[str, Any]:
    """Return what a run takes under a budget."""
    torch.set_num_threads(1)
    task = torch.load(saved, weights_only=False)
    X = task.instances()
    X.store.in_edges  # noqa: B018
    with measured() as cost, config_context(memory_budget=budget * 2**20):
        GNNExplainer(task.network, preset="pyg").explain(X)
    return {
        "nodes": task.graphs[0].num_nodes,
        "instances": len(X),
        "budget MB": budget,
        "peak MB beyond graph and index": cost.peak_megabytes - cost.start_megabytes,
        "allowed MB": budget + ALLOWED,
        "ms per instance": 1e3 * cost.seconds / len(X),
    }


def in_fresh_processes(task: Task) -> Iterator[dict[str, Any]]:
    """Yield a row per budget; what a process has given back before would hide what it takes then."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "task.pt"
        torch.save(task, saved)
        for budget in BUDGETS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                yield fresh.submit(memory, saved, budget).result()


def shown(row: dict[str, Any]) -> str:
    """Return a row as text."""
    return "  ".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items())


def main() -> None:
    """Print one row per size, how the cost of an edge grows, and one row per budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    parser.add_argument("--large", action="store_true", help="a graph of 10^6 nodes, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(", ".join(f"{key} {value}" for key, value in environment().items()))
    sizes = [10**4, 10**5] + [10**6] * arguments.large
    rows = []
    for size in sizes:
        rows.append(growth(size, arguments.toy))
        print(shown(rows[-1]), flush=True)
    small, large = rows[0], rows[-1]
    print(
        f"cost per edge of a computation graph, {large['nodes']:,} against {small['nodes']:,} nodes: "
        f"{large['ns per edge'] / small['ns per edge']:.2f} times"
    )
    for row in in_fresh_processes(power_law(arguments.toy, sizes[-1], IN_MEMORY)):
        print(shown(row), flush=True)


if __name__ == "__main__":
    main()
