"""Planted motifs with networks that find them, and which instances are learned from and which are explained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from side_by_side.networks import CONVS, GraphNetwork, NodeNetwork
from skgnnx import Instances
from skgnnx.datasets import make_ba_2motifs, make_ba_shapes, make_tree_cycles

LAYERS = {"BA-Shapes": 3, "Tree-Cycles": 5, "BA-2Motifs": 3}  # of a tree, three see ten edges, a fifth of which is two
CLASSES = {"BA-Shapes": 4, "Tree-Cycles": 2, "BA-2Motifs": 2}
STEPS = {"BA-Shapes": 1000, "Tree-Cycles": 800, "BA-2Motifs": 800}
DROPPED = 0.1
MAKERS = {"BA-Shapes": make_ba_shapes, "Tree-Cycles": make_tree_cycles}


@dataclass
class MotifCase:
    """A network and instances whose reason is known.

    Parameters
    ----------
    name : str
    network : nn.Module
        GIN layers of 20 units, in evaluation mode.
    accuracy : float
        Share of all nodes or graphs that it has right.
    lost : float
        Probability of its predictions that it loses, in the mean, where only the edges of motifs are left.
    learned, explained : Instances
        Two halves: an explainer learns from one, and is judged on the other.
    """

    name: str
    network: nn.Module
    accuracy: float
    lost: float
    learned: Instances
    explained: Instances


def made(name: str, seed: int, *, graphs: int = 500, steps: int | None = None) -> MotifCase:
    """Return a case from the generators, and a network trained on all of it."""
    if name == "BA-2Motifs":
        bunch = make_ba_2motifs(n_graphs=graphs, random_state=seed)
        return case_of(name, bunch.data, np.arange(graphs), torch.as_tensor(bunch.target), seed, steps)
    bunch = MAKERS[name](random_state=seed)
    motifs = bunch.evaluation_index["all_motif"]
    return case_of(name, bunch.data, motifs, torch.as_tensor(bunch.target), seed, steps)


def published(name: str, folder: Path) -> MotifCase:
    """Return a case from a published draw in a folder, and a network trained on all of it."""
    data = np.load(folder / f"{name.lower().replace('-', '_')}.npz")
    y = torch.from_numpy(data["y"].astype(np.int64))
    edges = torch.from_numpy(data["edge_index"].astype(np.int64))
    if name == "BA-2Motifs":
        nodes, ends = data["node_ptr"].astype(np.int64), data["edge_ptr"].astype(np.int64)
        x = torch.full((int(nodes[-1]), int(data["feature_dim"])), float(data["feature_value"]))
        graphs = [Data(x=x[nodes[g] : nodes[g + 1]], edge_index=edges[:, ends[g] : ends[g + 1]]) for g in range(len(y))]
        truth = [data["edge_gt"][ends[g] : ends[g + 1]].astype(bool) for g in range(len(y))]
        return case_of(name, Instances.from_graphs(graphs, truth={"edge": truth}), np.arange(len(y)), y, 0)
    own = [data["edge_motif"] == motif if motif >= 0 else None for motif in data["node_motif"]]
    X = Instances.from_nodes(Data(x=torch.from_numpy(data["x"]).float(), edge_index=edges), truth={"edge": own})
    return case_of(name, X, np.flatnonzero(data["node_motif"] >= 0), y, 0)


def case_of(name: str, X: Instances, rows: np.ndarray, y: Tensor, seed: int, steps: int | None = None) -> MotifCase:
    """Return a case whose instances are some rows of `X`, of which `y` holds the labels."""
    union: Data = Batch.from_data_list([X.store.graph(g) for g in range(X.store.num_graphs)])
    arguments = (union.x, union.edge_index) + ((union.batch,) if X.level == "graph" else ())
    motifs = np.zeros(union.num_edges, dtype=bool)
    for row in rows.tolist():
        first = X.store.edge_ptr[X.graph_index[row]]
        (truth,) = X.truth["edge"][row]
        motifs[first : first + len(truth)] |= truth
    torch.manual_seed(seed)
    kind = GraphNetwork if X.level == "graph" else NodeNetwork
    network = kind(CONVS["GIN"], union.x.shape[1], 20, CLASSES[name], LAYERS[name])
    train_dropping_edges(network, arguments, y, steps or STEPS[name])
    accuracy = (network(*arguments).argmax(1) == y).float().mean().item()
    loss = lost(network, arguments, torch.from_numpy(motifs), rows)
    halves = np.array_split(np.random.default_rng(seed).permutation(rows), 2)
    learned, explained = (X[np.sort(half)] for half in halves)
    return MotifCase(name, network, accuracy, loss, learned, explained)


def train_dropping_edges(network: nn.Module, arguments: tuple[Tensor, ...], y: Tensor, steps: int) -> None:
    """Fit a network to the labels; in every second step, a tenth of the edges is left out (Rong et al., ICLR 2020).

    Networks that have only seen whole graphs may predict anything of parts of them, whichever part that is: fidelity
    then tells no explanation from another.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    x, edge_index, *more = arguments
    for step in range(steps):
        kept = edge_index[:, torch.rand(edge_index.shape[1]) > DROPPED] if step % 2 else edge_index
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x, kept, *more), y).backward()
        optimizer.step()
        schedule.step()
    network.eval()


def lost(network: nn.Module, arguments: tuple[Tensor, ...], motifs: Tensor, rows: np.ndarray) -> float:
    """Return how much probability the predicted classes of some rows lose where only the motifs' edges are left."""
    x, edge_index, *more = arguments
    with torch.no_grad():
        whole, part = (network(x, edges, *more).softmax(1)[rows] for edges in (edge_index, edge_index[:, motifs]))
    predicted = whole.argmax(1, keepdim=True)
    return (whole - part).gather(1, predicted).mean().item()
