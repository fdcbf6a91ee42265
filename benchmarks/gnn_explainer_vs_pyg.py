"""GNNExplainer over all instances at once, against PyG one instance at a time, in one process.

    python benchmarks/gnn_explainer_vs_pyg.py            # the figures of the documentation, about 6 minutes
    python benchmarks/gnn_explainer_vs_pyg.py --toy      # a check that it still runs, seconds

Same model, epochs, learning rate and objective (preset "pyg"), one thread each. PyG is timed before and after ours.
Masks are compared from equal initial masks, in float32 and float64.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.explain import Explainer
from torch_geometric.explain import GNNExplainer as PyGGNNExplainer
from torch_geometric.nn import GCNConv, GINConv, global_mean_pool
from torch_geometric.utils import from_networkx

from skgnnx import GNNExplainer, Instances
from skgnnx.datasets import make_ba_2motifs, make_ba_shapes
from skgnnx.graphs.batch import GraphBatch

EPOCHS, LR = 100, 0.01


class NodeGCN(nn.Module):
    """A stack of GCN layers with a linear head per node."""

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        widths = [features, *[hidden] * layers]
        self.convs = nn.ModuleList(GCNConv(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return one row of logits per node."""
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return self.head(x)


class GraphGIN(nn.Module):
    """Three GIN layers, mean pool, linear head."""

    def __init__(self, features: int, hidden: int = 20, classes: int = 2) -> None:
        super().__init__()
        widths = [features, hidden, hidden, hidden]
        self.convs = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))) for a, b in pairwise(widths)
        )
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        """Return one row of logits per graph."""
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return self.head(global_mean_pool(x, batch))


def initial_logits(X: Instances, i: int) -> np.ndarray:
    """Return the initial edge logits of one instance, over all its edges."""
    graph = X.graph_index[i]
    key = int(X.element[i, 0]) if X.level == "node" else int(graph)
    draw = np.random.default_rng([7, key]).standard_normal(X.store.num_edges(graph))
    return draw * np.sqrt(2 / X.store.num_nodes(graph))


class FromGivenMasks(GNNExplainer):
    """Ours, started from `initial_logits`."""

    def _initial_edge_logits(self, batch: GraphBatch, seed: int) -> Tensor:
        edge_instance, edge_id = batch.edge_instance.numpy(), batch.edge_id
        values = np.empty(batch.num_edges)
        for b, position in enumerate(batch.positions):
            values[edge_instance == b] = initial_logits(batch.X, position)[edge_id[edge_instance == b]]
        return torch.from_numpy(values)


class PyGFromGivenMasks(PyGGNNExplainer):
    """PyG's, started from `logits`."""

    logits: Tensor

    def _initialize_masks(self, x: Tensor, edge_index: Tensor) -> None:
        super()._initialize_masks(x, edge_index)
        self.edge_mask = nn.Parameter(self.logits.to(x.dtype))


def pyg_mask(model: nn.Module, X: Instances, i: int, epochs: int, graph: Data) -> np.ndarray:
    """Explain one instance with PyG, from the initial masks of `initial_logits`."""
    algorithm = PyGFromGivenMasks(epochs=epochs, lr=LR)
    algorithm.logits = torch.from_numpy(initial_logits(X, i))
    level = "node" if X.level == "node" else "graph"
    config = {"mode": "multiclass_classification", "task_level": level, "return_type": "raw"}
    explainer = Explainer(
        model, algorithm, explanation_type="model", edge_mask_type="object", node_mask_type=None, model_config=config
    )
    index = int(X.element[i, 0]) if level == "node" else None
    return explainer(graph.x, graph.edge_index, index=index).edge_mask.detach().numpy()


@dataclass
class Case:
    """One row of the table."""

    name: str
    model: nn.Module
    X: Instances
    timed: int
    epochs: int = EPOCHS
    pyg_epochs: int = EPOCHS
    truth: bool = True

    def pyg_seconds(self, rows: list[int]) -> tuple[float, list[np.ndarray]]:
        """Return PyG's seconds per instance, scaled to all epochs, and its masks."""
        graphs = [self.X.store.graph(self.X.graph_index[i]) for i in rows]
        start = time.perf_counter()
        masks = [pyg_mask(self.model, self.X, i, self.pyg_epochs, graph) for i, graph in zip(rows, graphs, strict=True)]
        spent = (time.perf_counter() - start) / len(rows)
        if self.pyg_epochs < self.epochs:
            # PyG also runs one plain forward pass for the target; its cost counts once, the epochs' is scaled.
            spent *= self.epochs / self.pyg_epochs
        return spent, masks

    def run(self) -> dict[str, float | str]:
        """Time both sides and compare their masks."""
        rows = np.linspace(0, len(self.X) - 1, self.timed).astype(int).tolist()
        before, masks = self.pyg_seconds(rows)
        ours = FromGivenMasks(self.model, preset="pyg", epochs=self.epochs, lr=LR)
        start = time.perf_counter()
        E = ours.explain(self.X)
        seconds = (time.perf_counter() - start) / len(self.X)
        after, _ = self.pyg_seconds(rows)
        same = ours
        if self.pyg_epochs < self.epochs:
            same = FromGivenMasks(self.model, preset="pyg", epochs=self.pyg_epochs, lr=LR)
        compared = E[np.array(rows)] if same is ours else same.explain(self.X[np.array(rows)])
        difference = max(float(np.abs(compared[k] - masks[k]).max()) for k in range(len(rows)))
        return {
            "case": self.name,
            "instances": len(self.X),
            "ours s": seconds,
            "PyG s": (before + after) / 2,
            "PyG before/after": f"{before:.3g}/{after:.3g}",
            "ratio": (before + after) / 2 / seconds,
            "max diff f32": difference,
            "max diff f64": self.double_difference(rows[: max(2, len(rows) // 4)]),
            "AUC ours": mean_auc(self.X, rows, [compared[k] for k in range(len(rows))]) if self.truth else float("nan"),
            "AUC PyG": mean_auc(self.X, rows, masks) if self.truth else float("nan"),
            "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def double_difference(self, rows: list[int]) -> float:
        """Return the largest difference of masks in float64, in few epochs on large graphs."""
        model = self.model.double()
        try:
            X = self.X.map_graphs(lambda data: data.clone().update({"x": data.x.double()}))
            E = FromGivenMasks(model, preset="pyg", epochs=self.pyg_epochs, lr=LR)
            differences = []
            with E._box().open(X[np.array(rows)]) as gnn:
                for batch in gnn.batches():
                    edge = E._explain_batch(gnn, batch, 0).edge.numpy()
                    for b, i in enumerate(rows):
                        mine = batch.edge_instance.numpy() == b
                        theirs = pyg_mask(model, X, i, self.pyg_epochs, X.store.graph(X.graph_index[i]))
                        ids = batch.edge_id[mine & batch.edge_reach.numpy()]
                        differences.append(np.abs(edge[mine & batch.edge_reach.numpy()] - theirs[ids]).max())
            return float(max(differences))
        finally:
            self.model.float()


def mean_auc(X: Instances, rows: list[int], masks: list[np.ndarray]) -> float:
    """Return the mean ROC-AUC of edges that PyG scores, against the instance's own motif."""
    aucs = []
    for i, mask in zip(rows, masks, strict=True):
        truth = X.truth["edge"][i][0] if X.truth and X.truth["edge"][i] else None
        scored = mask > 0
        if truth is not None and 0 < truth[scored].sum() < scored.sum():
            aucs.append(roc_auc_score(truth[scored], mask[scored]))
    return float(np.mean(aucs)) if aucs else float("nan")


def train(model: nn.Module, batches: list, steps: int, lr: float = 0.01) -> None:
    """Fit a network on (arguments, rows, labels)."""
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=5e-4)
    for _ in range(steps):
        for arguments, rows, labels in batches:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(*arguments)[rows], labels).backward()
            optimiser.step()
    model.eval()


def ba_shapes(toy: bool) -> Case:
    """400 motif nodes of BA-Shapes under a GCN of three layers."""
    bunch = make_ba_shapes(random_state=0)
    graph, y = bunch.graph, torch.as_tensor(bunch.target)
    model = NodeGCN(graph.x.shape[1], 20, 4, 3)
    train(model, [((graph.x, graph.edge_index), slice(None), y)], 20 if toy else 1000)
    nodes = bunch.evaluation_index["all_motif"]
    return Case("BA-Shapes, GCN-3", model, bunch.data[nodes[:10] if toy else nodes], timed=2 if toy else 12)


def ba_2motifs(toy: bool) -> Case:
    """300 graphs of BA-2Motifs under a GIN of three layers."""
    bunch = make_ba_2motifs(n_graphs=40 if toy else 1000, random_state=0)
    y = torch.as_tensor(bunch.target)
    union = Batch.from_data_list([bunch.data.store.graph(g) for g in range(len(y))])
    model = GraphGIN(union.x.shape[1])
    train(model, [((union.x, union.edge_index, union.batch), slice(None), y)], 5 if toy else 200)
    rows = np.linspace(0, len(y) - 1, 10 if toy else 300).astype(int)
    return Case("BA-2Motifs, GIN-3", model, bunch.data[rows], timed=2 if toy else 20)


def power_law(toy: bool) -> Case:
    """50 nodes of a graph with 100,000 nodes and a power-law degree distribution under a GCN of two layers."""
    nodes = 2_000 if toy else 100_000
    graph = from_networkx(nx.barabasi_albert_graph(nodes, 5, seed=0))
    graph.x = torch.randn(nodes, 16, generator=torch.Generator().manual_seed(0))
    chosen = np.random.default_rng(0).choice(nodes, 5 if toy else 50, replace=False)
    X = Instances.from_nodes(graph, chosen)
    return Case(f"power law {nodes:,}, GCN-2", NodeGCN(16, 32, 5, 2).eval(), X, timed=2, pyg_epochs=3, truth=False)


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that it runs")
    toy = parser.parse_args().toy
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, torch {torch.__version__}, one thread, {EPOCHS} epochs")
    for make in (ba_shapes, ba_2motifs, power_law):
        row = make(toy).run()
        print("  ".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()), flush=True)
    print("PyG on the power-law graph is extrapolated from 3 epochs; its masks are compared after 3 epochs.")


if __name__ == "__main__":
    main()
