"""Causal Screening with all candidates of a step in a few forward passes, against one forward pass per candidate.

    python benchmarks/causal_screening.py --case edges-200    # one row, half a minute
    python benchmarks/causal_screening.py                     # all, four minutes
    python benchmarks/causal_screening.py --toy               # a check that it still runs

A graph of 150 nodes and 200 undirected edges under networks with random weights, and graphs under trained ones, one
thread each; the loop calls the same network by hand, before and after ours, and breaks ties as we do. A note to each
row has the seconds of searches among few candidates, and where networks are trained what the first 20 % of the edges
are worth: fidelity+ (what is lost without them), fidelity- (what is lost with only them), and the characterization
that weighs both, beside edges ranked by absolute gradient and at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import networkx as nx
import torch
from side_by_side.command import run_cases
from side_by_side.comparison import Case
from side_by_side.measuring import measured
from side_by_side.networks import CONVS, GraphNetwork
from side_by_side.page import short
from side_by_side.screening_loop import ScreeningLoop
from side_by_side.tasks import Task, ba_2motifs, middle_of_parts, molecules
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx

from skgnnx import CausalScreening, RandomExplainer, SensitivityAnalysis
from skgnnx.metrics import characterization, fidelity_minus, fidelity_plus

SPARSITY = 0.8
FEATURES, HIDDEN = 10, 32
FEW = {
    "10 candidates by gradient": (CausalScreening, {"candidates": 10}),
    "10 candidates at random": (CausalScreening, {"candidates": 10, "prior": "random"}),
}
RANKINGS = {"|gradient|": (SensitivityAnalysis, {"mask": "edge", "norm": "absolute"}), "random": (RandomExplainer, {})}


@dataclass
class ScreeningCase(Case):
    """A row whose note compares ways to rank the edges.

    Parameters
    ----------
    is_trained : bool
        Whether the network is, so that it makes sense to ask what rankings are worth.
    """

    is_trained: bool = False

    def run(self, toy: bool, device: str) -> dict[str, Any]:
        """Return one row."""
        row = super().run(toy, device)
        task = self.task(toy).to(device)
        ways = {"all candidates": (CausalScreening, {})} | FEW | (RANKINGS if self.is_trained else {})
        row["note"] = "; ".join(f"{name}: {self.told(task, *way)}" for name, way in ways.items())
        return row

    def told(self, task: Task, explainer: type, given: dict[str, Any]) -> str:
        """Return the seconds per instance, and the fidelities."""
        X = task.instances()
        with measured() as cost:
            E = explainer(task.network, **given).explain(X)
        seconds = f"{short(cost.seconds / len(task))} s"
        if not self.is_trained:
            return seconds
        worth = [metric(E, sparsity=SPARSITY) for metric in (fidelity_plus, fidelity_minus, characterization)]
        return f"{seconds}, fidelity+ {worth[0]:.3f}, fidelity- {worth[1]:.3f}, characterization {worth[2]:.3f}"


def one_large(toy: bool, conv: str) -> Task:
    """Return a connected random graph, and a network of three layers of 32 with random weights."""
    nodes, links = (15, 20) if toy else (150, 200)
    graph = nx.random_labeled_tree(nodes, seed=0)
    more = nx.gnm_random_graph(nodes, links, seed=1).edges
    graph.add_edges_from([pair for pair in more if not graph.has_edge(*pair)][: links - graph.number_of_edges()])
    x = torch.randn(nodes, FEATURES, generator=torch.Generator().manual_seed(0))
    network = GraphNetwork(CONVS[conv], FEATURES, HIDDEN, 2, 3).eval()
    return Task(network, [Data(x=x, edge_index=from_networkx(graph).edge_index)])


def some_of(toy: bool, task: Any, count: int) -> Task:
    """Return some of the graphs of a task, spread over all."""
    found = task(toy)
    return found.take(middle_of_parts(len(found), count))


CASES = [
    ScreeningCase("edges-200", "a graph of 200 edges, GCN-3", partial(one_large, conv="GCN"), CausalScreening, {},
                  ScreeningLoop(), doubled=0),
    ScreeningCase("edges-200-gin", "a graph of 200 edges, GIN-3", partial(one_large, conv="GIN"), CausalScreening, {},
                  ScreeningLoop(), doubled=0),
    ScreeningCase("molecules", "100 molecules of load_benzene, GIN-3", partial(some_of, task=molecules, count=100),
                  CausalScreening, {}, ScreeningLoop(), is_trained=True),
    ScreeningCase("ba-2motifs", "100 graphs of BA-2Motifs, GIN-3", partial(some_of, task=ba_2motifs, count=100),
                  CausalScreening, {}, ScreeningLoop(), is_trained=True),
]  # fmt: skip

if __name__ == "__main__":
    run_cases(__doc__, CASES)
