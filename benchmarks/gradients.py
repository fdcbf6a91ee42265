"""Gradient methods over all instances at once, against PyG's captum bridge one instance at a time, in one process.

    python benchmarks/gradients.py --case sensitivity-nodes    # one row, seconds
    python benchmarks/gradients.py                             # all
    python benchmarks/gradients.py --toy                       # a check that it still runs

Edges are scored, on the same network, one thread each; PyG is timed before and after ours. Captum's Saliency is the
absolute gradient, so ours is run with norm="absolute".
"""

from __future__ import annotations

from side_by_side.command import run_cases
from side_by_side.comparison import Case
from side_by_side.peers import PyGCaptum
from side_by_side.tasks import ba_2motifs, ba_shapes, cora_size, molecules

from skgnnx import InputXGradient, SensitivityAnalysis

METHODS = {
    "sensitivity": (SensitivityAnalysis, {"norm": "absolute"}, "Saliency"),
    "input-x-gradient": (InputXGradient, {}, "InputXGradient"),
}
TASKS = {
    "nodes": ("BA-Shapes nodes, GCN-3", ba_shapes, 50, 300),
    "nodes-cora-size": ("nodes of a Cora-size graph, GCN-2", cora_size, 50, 300),
    "graphs": ("BA-2Motifs graphs, GIN-3", ba_2motifs, 20, 60),
    "graphs-molecules": ("molecules of load_benzene, GIN-3", molecules, 20, 60),
}
CASES = [
    Case(f"{method}-{name}", f"{ours.__name__}, {work}", task, ours, given, PyGCaptum(peer), must, aim,
         timed=20, doubled=5)
    for method, (ours, given, peer) in METHODS.items()
    for name, (work, task, must, aim) in TASKS.items()
]  # fmt: skip

if __name__ == "__main__":
    run_cases(__doc__, CASES)
