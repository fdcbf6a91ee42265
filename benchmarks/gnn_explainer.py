"""GNNExplainer over all instances at once, against PyG one instance at a time, in one process.

    python benchmarks/gnn_explainer.py --case ba-shapes    # one row, a minute or two
    python benchmarks/gnn_explainer.py                     # all but the graphs of a million nodes
    python benchmarks/gnn_explainer.py --toy               # a check that it still runs

Same network, same objective (preset "pyg"), 100 epochs, one thread each. PyG is timed before and after ours. Masks are
compared from equal initial masks: PyG starts from ours. Ours includes the index of the graph, the extraction of the
computation graphs and the proof of every cut.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from side_by_side.command import run_cases
from side_by_side.comparison import Case
from side_by_side.peers import LR, PyGGNNExplainer
from side_by_side.tasks import ba_2motifs, ba_shapes, cora_size, molecules, power_law

from skgnnx import GNNExplainer

# Steps too small to move a mask; no preset "pyg", which scores what has no gradient 0.
START = {"preset": "paper", "init_mean": 0.0, "tie_directions": False, "epochs": 1, "lr": 1e-30}
FEW = "PyG extrapolated from {} epochs, after which masks are compared"


def case(name: str, work: str, task: Any, peer: PyGGNNExplainer | None = None, **given: Any) -> Case:
    """Return a case whose two sides learn the same masks."""
    peer = peer or PyGGNNExplainer()
    ours = {"preset": "pyg", "lr": LR, "feature_mask": peer.feature_mask}
    if peer.is_extrapolated:
        given["note"] = FEW.format(peer.epochs_run)
    return Case(name, work, task, GNNExplainer, ours, peer, start=START, **given)


def power_law_case(size: str, num_nodes: int, timed: int = 2, **given: Any) -> Case:
    """Return a case whose peer runs on the whole graph, at the same cost for any node, for a few epochs."""
    work, task = f"{num_nodes:,} nodes of power-law degrees, GCN-2", partial(power_law, num_nodes=num_nodes)
    return case(f"power-law-{size}", work, task, PyGGNNExplainer(epochs_run=3), timed=timed, **given)


def with_subgraph(whole: Case) -> list[Case]:
    """Return the case, and one whose peer gets a subgraph cut out by hand."""
    by_hand = PyGGNNExplainer(epochs_run=5, hops=2)
    work, note = f"{whole.work}, PyG on an exact subgraph", FEW.format(by_hand.epochs_run)
    return [
        whole,
        replace(whole, name=f"{whole.name}-subgraph", work=work, peer=by_hand, must=1000, aim=5000, timed=5, note=note),
    ]


CASES = [
    case("ba-shapes", "BA-Shapes nodes, GCN-3", ba_shapes, must=300, aim=800),
    case("cora-size", "nodes of a Cora-size graph, GCN-2", cora_size, must=500, aim=1500),
    power_law_case("1e4", 10_000, doubled=1),
    *with_subgraph(power_law_case("1e5", 100_000, must=5000, aim=20_000, doubled=1)),
    *with_subgraph(power_law_case("1e6", 1_000_000, must=30_000, aim=100_000, timed=1, doubled=0, large=True)),
    case("ba-2motifs", "BA-2Motifs graphs, GIN-3", ba_2motifs, must=40, aim=60),
    case("molecules", "molecules, GIN-3", molecules, must=25, aim=35,
         note="the largest molecules of load_benzene, 25 atoms; Mutagenicity's have 30"),
    case("features-sparse", "edge and feature masks, Cora-size graph", cora_size, PyGGNNExplainer("feature"),
         must=1000, aim=5000, timed=3, doubled=1),
    case("node-features-sparse", "edge and node-feature masks, Cora-size graph", cora_size,
         PyGGNNExplainer("node_feature"), must=1000, aim=5000, timed=2, doubled=1),
    case("features-dense", "edge and feature masks, BA-Shapes", ba_shapes, PyGGNNExplainer("feature"),
         must=100, aim=400),
    case("node-features-dense", "edge and node-feature masks, BA-Shapes", ba_shapes, PyGGNNExplainer("node_feature"),
         must=100, aim=400),
    *(case(f"{conv.lower()}-nodes", f"BA-Shapes nodes, {conv}-3 (general path)", partial(ba_shapes, conv=conv),
           must=15, aim=50) for conv in ("GAT", "SAGE-max")),
    *(case(f"{conv.lower()}-graphs", f"BA-2Motifs graphs, {conv}-3 (general path)",
           partial(ba_2motifs, conv=conv, count=300), must=15, aim=25) for conv in ("GAT", "SAGE-max")),
    case("single", "one BA-Shapes node, GCN-3", partial(ba_shapes, count=1), must=4, aim=15, doubled=1),
]  # fmt: skip

if __name__ == "__main__":
    run_cases(__doc__, CASES)
