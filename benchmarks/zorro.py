"""Zorro: steps of many instances at once against a loop of single forward passes, and what is found on citations.

    python benchmarks/zorro.py                    # about two and a half minutes of processor time
    python benchmarks/zorro.py --toy              # a check that it still runs
    python benchmarks/zorro.py --cora cora.npz    # the citation graph itself instead of a random one of its size

A step asks about every candidate and every draw. The loop answers with one forward pass each, over the same computation
graph, given the draws; ours is one call over all instances, with the drawing, and its time is divided by their number.
Processor time of one thread each. "Equal" says whether both select the same units with the same fidelity. On citations
the loop is timed on some of its forward passes, and has as many as it would take.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from backward import random_graphs
from side_by_side.command import environment
from side_by_side.measuring import measured
from side_by_side.page import short
from side_by_side.tasks import Task, cora_size, molecules
from side_by_side.zorro_loop import Cut, Loop, greedy, num_passes
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from skgnnx import Explanations, Zorro
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.feature_draws import FeatureDraws
from skgnnx.blackbox.rdt_fidelity import RDTFidelity, Selection
from skgnnx.graphs.feature_columns import FeatureColumns

MUST, TAUS = 20, (0.85, 0.98)


class Row(NamedTuple):
    """Seconds per instance of both sides, and whether they agree; None where the loop is not run to its end."""

    work: str
    ours: float
    loop: float
    equal: bool | None
    must: int | None = MUST

    def __str__(self) -> str:
        """Return the row as a line of the table."""
        ratio = f"**{short(self.loop / self.ours)}**"
        equal = {True: "equal", False: "DIFFERENT", None: "-"}[self.equal]
        return f"| {self.work} | {short(self.ours)} | {short(self.loop)} | {ratio} | {short(self.must)} | {equal} |"


class GCN(nn.Module):
    """Two layers of 16 units."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(features, 16), GCNConv(16, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        h = self.conv1(x, edge_index).relu()
        return self.conv2(nn.functional.dropout(h, training=self.training), edge_index)


def one_step(task: Task, draws: int) -> Row:
    """Time the first step of all graphs: every node, with all features."""
    X, n = task.instances(), task.graphs[0].num_nodes
    columns = FeatureColumns(X.store.columns["x"].values)
    features = np.ones(columns.values.shape[1], dtype=bool)
    with BlackBox(task.network).open(X) as gnn, measured() as ours:
        (batch,) = gnn.batches()
        fidelity = RDTFidelity(gnn, batch, columns, 0, range(draws))
        nothing = [Selection(i, np.zeros(n, dtype=bool), features) for i in range(len(X))]
        unknown = [np.zeros(draws, dtype=bool)] * len(X)
        answers = fidelity.kept_with(nothing, unknown, [np.arange(n)] * len(X))
    loops = [Loop(task.network, cut) for cut in cuts(task, range(min(len(X), 3)), range(draws))]
    with measured() as loop:
        found = [[one.hits([v], loops[0].features) for v in range(n)] for one in loops]
    equal = all(answers[i].sum(axis=1).tolist() == found[i] for i in range(len(loops)))
    return Row(f"one step: {n} nodes, {draws} draws", ours.seconds / len(X), loop.seconds / len(loops), equal)


def whole_search(task: Task, draws: int, tau: float) -> Row:
    """Time searches to their ends."""
    X = task.instances()
    with measured() as ours:
        E = Zorro(task.network, tau=tau, n_samples=draws).explain(X)
    steps = [len(found[0]["nodes"]) + len(found[0]["features"]) for found in E.explanations]
    few = np.argsort(steps)[len(steps) // 2 :][:2]  # of medium length
    loops = [Loop(task.network, cut) for cut in cuts(task, few.tolist(), range(draws))]
    with measured() as loop:
        found = [greedy(one, int(np.ceil(tau * draws - 1e-9)), 10) for one in loops]
    equal = True
    for i, (nodes, features, hits) in zip(few, found):
        first = E.explanations[i][0]
        equal &= (nodes, features) == (first["nodes"].tolist(), first["features"].tolist())
        equal &= E.search_fidelity[i] == hits / draws
    return Row(f"whole search of a molecule, tau={tau}", ours.seconds / len(X), loop.seconds / len(few), equal)


def citations(task: Task, draws: int, tau: float, timed: int) -> tuple[Row, str]:
    """Explain some nodes, and tell what the loop would take and what was found."""
    with measured() as ours:
        E = Zorro(task.network, tau=tau, n_samples=draws).explain(task.instances())
    seconds = []
    for i, cut in enumerate(cuts(task, range(len(E)), range(1))):
        loop = Loop(task.network, cut)
        loop.hits([], [])  # a first call costs more
        with measured() as one:
            for feature in loop.features[: max(1, timed // len(E))]:
                loop.hits(loop.nodes, [feature])
        passes = num_passes(loop, E.explanations[i][0], draws, 10)
        seconds.append(one.seconds / loop.num_runs * passes)
    row = Row(f"whole search of a node, tau={tau}", ours.seconds / len(E), float(np.mean(seconds)), None, None)
    return row, found_on(E, tau, ours.seconds / len(E))


def found_on(E: Explanations, tau: float, seconds: float) -> str:
    """Return what was found as a line of the table."""
    sizes = np.array([[len(found[0]["nodes"]), len(found[0]["features"])] for found in E.explanations])
    asked = np.flatnonzero(sizes.sum(axis=1))  # others are predicted the same whatever comes
    reached = np.mean([E.explained[i].sum() for i in asked]) if len(asked) else 0.0
    figures: Sequence[Any] = [
        tau,
        len(E),
        len(asked),
        float(np.mean(E.fidelity)),
        float(np.mean(E.search_fidelity)),
        " / ".join(short(float(np.median(sizes[asked, k]))) for k in (0, 1)) if len(asked) else "-",
        " / ".join(short(float(np.mean(sizes[asked, k]))) for k in (0, 1)) if len(asked) else "-",
        float(reached),
        float(np.mean(E.n_runs)),
        seconds,
    ]
    return "| " + " | ".join(map(short, figures)) + " |"


def cuts(task: Task, which: Sequence[int], numbers: range) -> list[Cut]:
    """Return computation graphs with draws, as the loop takes them."""
    X, found = task.instances(), []
    columns = FeatureColumns(X.store.columns["x"].values)
    with BlackBox(task.network).open(X) as gnn:
        for i in which:
            (batch,) = gnn.batches(np.array([i]))
            drawn = torch.from_numpy(FeatureDraws(batch, columns, 0, numbers).of(0, slice(None)))
            order = np.arange(batch.num_nodes) if X.level == "graph" else np.argsort(batch.node_id)
            place = torch.from_numpy(np.argsort(order))
            row = int(place[batch.rows[0]]) if X.level == "node" else 0
            reached = batch.graphs.node_reach[order]
            features = np.flatnonzero(columns.varying)
            found.append(
                Cut(
                    batch.x[order],
                    place[batch.edge_index],
                    drawn[:, order],
                    row,
                    reached,
                    features,
                    int(gnn.targets[i]),
                )
            )
    return found


def cora(path: Path, count: int) -> Task:
    """Return the citation graph of a file, a GCN trained on its split, and nodes of the authors' list."""
    given = np.load(path)
    x = torch.zeros(len(given["y"]), int(given["num_features"]))
    row = np.repeat(np.arange(len(x)), np.diff(given["x_indptr"].astype(np.int64)))
    x[row, given["x_indices"].astype(np.int64)] = 1.0
    edges, y = (torch.from_numpy(given[key].astype(np.int64)) for key in ("edge_index", "y"))
    network, training = GCN(x.shape[1], int(y.max()) + 1), torch.from_numpy(given["split"] == 0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x, edges)[training], y[training]).backward()
        optimiser.step()
    right = network.eval()(x, edges).argmax(1) == y
    print(f"Cora: accuracy {right[given['split'] == 2].float().mean():.3f} on the test nodes")
    return Task(network, [Data(x=x, edge_index=edges)], given["zorro_nodes"][:count].astype(np.int64))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    parser.add_argument("--cora", type=Path, help="file of the citation graph Cora")
    parser.add_argument("--nodes", type=int, default=10, help="how many nodes of it are explained")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("  ".join(f"{name}: {value}" for name, value in environment().items()), end="\n\n")
    with threadpool_limits(1):
        draws = 5 if arguments.toy else 100
        few = molecules(arguments.toy)
        few = few.take(np.arange(0, len(few), 10))
        rows = [one_step(random_graphs(arguments.toy, 128, 15, 25), draws)]
        rows += [whole_search(few, draws, tau) for tau in TAUS]
        if arguments.cora:
            task = cora(arguments.cora, arguments.nodes)
        else:
            task = cora_size(arguments.toy)
            task = task.take(np.arange(2 if arguments.toy else arguments.nodes))
        found = [citations(task, draws, tau, timed=500) for tau in TAUS]
    print("| work | ours, s | loop, s | ratio | must | selections |\n|---|---|---|---|---|---|")
    print("\n".join(map(str, rows + [row for row, _ in found])), end="\n\n")
    print(
        "| tau | nodes | not empty | fidelity, fresh draws | in the search | nodes / features, median | mean |", end=""
    )
    print(" nodes reached | graphs run | s |\n|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(line for _, line in found))


if __name__ == "__main__":
    main()
