"""Backward passes over all graphs at once, against the same one by one, one pass per walk, and PyG's captum bridge.

    python benchmarks/backward.py --case walks    # one row, seconds
    python benchmarks/backward.py                 # all, two minutes
    python benchmarks/backward.py --toy           # a check that it still runs

128 random graphs of 20 nodes, a GIN of three layers of 20 units, one thread each; the peers are timed before and after
ours. LRP is compared with our own single calls, which open the model each time, and with batches of one graph in a
single call, which open it once. Walks are those of graphs of 25 nodes; `--case walks` is against a pass per walk on the
model as it is, `--case walks-by-hand` against the same written for this one network, which explains no other. For
integrated gradients both sides take 50 steps.
"""

from __future__ import annotations

from functools import partial

import networkx as nx
import torch
from side_by_side.command import run_cases
from side_by_side.comparison import Case
from side_by_side.networks import CONVS, GraphNetwork
from side_by_side.own_calls import BatchesOfOne, OneCallEach
from side_by_side.peers import PyGCaptum
from side_by_side.tasks import Task
from side_by_side.walk_case import WalkCase
from side_by_side.walk_passes import ByHand, OnTheModel
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx

from skgnnx import LRP, IntegratedGradients

FEATURES, HIDDEN, LAYERS = 10, 20, 3
STEPS = {"n_steps": 50, "max_steps": 50, "tol": 1e9}  # no doubling: captum's steps are as many


def random_graphs(toy: bool, count: int, num_nodes: int, num_links: int) -> Task:
    """Return connected random graphs whose features are not negative, and a network of random weights."""
    generator = torch.Generator().manual_seed(0)
    drawn = (nx.gnm_random_graph(num_nodes, num_links, seed=seed) for seed in range(100 * count))
    connected = [graph for graph in drawn if nx.is_connected(graph)][: min(count, 4) if toy else count]
    graphs = [
        Data(x=torch.rand(num_nodes, FEATURES, generator=generator), edge_index=from_networkx(graph).edge_index)
        for graph in connected
    ]
    return Task(GraphNetwork(CONVS["GIN"], FEATURES, HIDDEN, 2, LAYERS).eval(), graphs)


many = partial(random_graphs, count=128, num_nodes=20, num_links=40)
one_of_25 = partial(random_graphs, count=1, num_nodes=25, num_links=38)
many_of_25 = partial(random_graphs, count=64, num_nodes=25, num_links=38)

CASES = [
    Case("lrp", "LRP of nodes, against one call per graph", many, LRP, {}, OneCallEach(LRP), must=20, timed=20),
    Case("lrp-opened", "LRP of nodes, against batches of one graph in one call", many, LRP, {}, BatchesOfOne(LRP),
         timed=128),
    WalkCase("walks", "all walks of a graph, against a pass per walk on the model as it is", one_of_25, OnTheModel,
             must=200),
    WalkCase("walks-by-hand", "all walks of a graph, against a pass per walk by hand", one_of_25, ByHand, must=200),
    WalkCase("walks-many-on-model", "all walks of 64 graphs, against a pass per walk on the model as it is", many_of_25,
             OnTheModel, must=200),
    WalkCase("walks-many", "all walks of 64 graphs, against a pass per walk by hand", many_of_25, ByHand, must=200),
    Case("ig-features", "IntegratedGradients of node features, against PyG's captum bridge", many, IntegratedGradients,
         {"mask": "node_feature"} | STEPS, PyGCaptum("IntegratedGradients", "node_feature"), must=20, timed=20),
    Case("ig-edges", "IntegratedGradients of edges, against PyG's captum bridge", many, IntegratedGradients, STEPS,
         PyGCaptum("IntegratedGradients"), must=20, timed=20),
]  # fmt: skip

if __name__ == "__main__":
    run_cases(__doc__, CASES)
