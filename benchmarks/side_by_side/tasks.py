"""What is explained: a network, graphs, and the nodes or graphs of interest."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from side_by_side.networks import CONVS, GraphNetwork, NodeNetwork, train
from skgnnx import Instances
from skgnnx.datasets import load_benzene, make_ba_2motifs, make_ba_shapes


@dataclass
class Task:
    """A network and what it predicts.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    graphs : list of Data
        One graph that holds all the nodes, or one graph per instance.
    nodes : ndarray or None
        Explained nodes; None where graphs are explained.
    """

    network: nn.Module
    graphs: list[Data]
    nodes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.graphs if self.nodes is None else self.nodes)

    def instances(self) -> Instances:
        """Return new instances, on which nothing has been indexed yet."""
        if self.nodes is None:
            return Instances.from_graphs(self.graphs)
        return Instances.from_nodes(self.graphs[0], self.nodes)

    def graph(self, i: int) -> Data:
        """Return the graph of one instance."""
        return self.graphs[i if self.nodes is None else 0]

    def node(self, i: int) -> int | None:
        """Return the explained node of one instance, None where its graph is explained."""
        return None if self.nodes is None else int(self.nodes[i])

    def take(self, rows: np.ndarray) -> Task:
        """Return the task with some of its instances."""
        if self.nodes is None:
            return replace(self, graphs=[self.graphs[i] for i in rows])
        return replace(self, nodes=self.nodes[rows])

    def double(self) -> Task:
        """Return the task in double precision."""
        graphs = [Data(x=graph.x.double(), edge_index=graph.edge_index) for graph in self.graphs]
        return Task(copy.deepcopy(self.network).double(), graphs, self.nodes)

    def to(self, device: str) -> Task:
        """Return the task on a device."""
        return Task(self.network.to(device), [graph.to(device) for graph in self.graphs], self.nodes)


def ba_shapes(toy: bool, conv: str = "GCN", count: int = 400) -> Task:
    """BA-Shapes (700 nodes), three layers of 20 units, up to 400 motif nodes."""
    bunch = make_ba_shapes(random_state=0)
    network = _node_network(bunch.graph, conv, hidden=20, layers=3, steps=20 if toy else 1000)
    nodes = bunch.evaluation_index["all_motif"]
    return Task(network, [_bare(bunch.graph)], nodes[middle_of_parts(len(nodes), min(count, 10) if toy else count)])


def cora_size(toy: bool) -> Task:
    """Return a random graph of Cora's size and sparsity with planted classes, GCN of two layers of 16, 400 nodes."""
    graph = planted_classes(300 if toy else 2708, features=100 if toy else 1433)
    network = _node_network(graph, "GCN", hidden=16, layers=2, steps=5 if toy else 200)
    return Task(network, [_bare(graph)], middle_of_parts(graph.num_nodes, 10 if toy else 400))


def power_law(toy: bool, num_nodes: int, count: int = 200) -> Task:
    """Return a graph of power-law degrees (mean 10), random GCN of two layers of 32, five classes."""
    num_nodes = 2_000 if toy else num_nodes
    rng = np.random.default_rng(0)
    graph = Data(
        x=torch.from_numpy(rng.standard_normal((num_nodes, 16), dtype=np.float32)),
        edge_index=power_law_links(num_nodes, rng),
    )
    network = NodeNetwork(CONVS["GCN"], 16, 32, 5, 2).eval()
    return Task(network, [graph], rng.choice(num_nodes, 5 if toy else count, replace=False))


def ba_2motifs(toy: bool, conv: str = "GIN", count: int = 1000) -> Task:
    """BA-2Motifs (25 nodes each), three layers of 20 units; trained on all graphs."""
    bunch = make_ba_2motifs(n_graphs=20 if toy else 1000, random_state=0)
    return _graph_task(bunch, conv, hidden=20, steps=3 if toy else 200, count=10 if toy else count)


def molecules(toy: bool) -> Task:
    """Return the 300 largest molecules of the benzene data under a GIN of three layers of 32."""
    task = _graph_task(load_benzene(), "GIN", hidden=32, steps=1 if toy else 60)
    sizes = np.array([graph.num_nodes for graph in task.graphs])
    return task.take(np.argsort(-sizes, kind="stable")[: 10 if toy else 300])


def middle_of_parts(size: int, count: int) -> np.ndarray:
    """Return the middle of each of `count` equal parts of `size` positions, or all positions where there are fewer."""
    count = min(count, size)
    return ((np.arange(count) + 0.5) * size / count).astype(int)


def planted_classes(num_nodes: int, features: int, classes: int = 7, homophily: float = 0.8) -> Data:
    """Return a random graph of mean degree 4 whose links and words mostly stay within a class."""
    rng = np.random.default_rng(0)
    label = rng.integers(classes, size=num_nodes)
    source = rng.integers(num_nodes, size=2 * num_nodes)
    members = [np.flatnonzero(label == c) for c in range(classes)]
    same = np.array([rng.choice(members[c]) for c in label[source]])
    target = np.where(rng.random(len(source)) < homophily, same, rng.integers(num_nodes, size=len(source)))
    word = rng.integers(features, size=(num_nodes, 18))
    own = rng.random(word.shape) < 0.2
    word[own] = (word // classes * classes + label[:, None])[own] % features
    x = torch.zeros(num_nodes, features)
    x[np.arange(num_nodes)[:, None], word] = 1.0
    return Data(x=x, edge_index=_both_ways(source, target, num_nodes), y=torch.from_numpy(label))


def power_law_links(num_nodes: int, rng: np.random.Generator, exponent: float = 2.5) -> torch.Tensor:
    """Return a graph of degrees that follow a power law up to its natural cut-off, linked at random; mean degree 10."""
    largest = 1.5 * num_nodes ** (1 / (exponent - 1))
    degree = np.minimum(3.7 * rng.random(num_nodes) ** (-1 / (exponent - 1)), largest).astype(int)
    ends = rng.permutation(np.repeat(np.arange(num_nodes), degree))
    half = len(ends) // 2
    return _both_ways(ends[:half], ends[half : 2 * half], num_nodes)


def _both_ways(source: np.ndarray, target: np.ndarray, num_nodes: int) -> torch.Tensor:
    """Return each link once in both directions, without loops."""
    low, high = np.minimum(source, target), np.maximum(source, target)
    pairs = np.unique(low[low != high] * num_nodes + high[low != high])
    ends = np.stack([pairs // num_nodes, pairs % num_nodes])
    return torch.from_numpy(np.concatenate([ends, ends[::-1]], axis=1))


def _node_network(graph: Data, conv: str, hidden: int, layers: int, steps: int) -> nn.Module:
    network = NodeNetwork(CONVS[conv], graph.x.shape[1], hidden, int(graph.y.max()) + 1, layers)
    train(network, (graph.x, graph.edge_index), torch.as_tensor(graph.y), steps)
    return network


def _graph_task(bunch: dict, conv: str, hidden: int, steps: int, count: int | None = None) -> Task:
    store, labels = bunch["data"].store, torch.as_tensor(bunch["target"])
    graphs = [_bare(store.graph(g)) for g in range(len(labels))]
    union = Batch.from_data_list(graphs)
    network = GraphNetwork(CONVS[conv], union.x.shape[1], hidden, 2, 3)
    train(network, (union.x, union.edge_index, union.batch), labels, steps)
    return Task(network, graphs).take(middle_of_parts(len(graphs), count or len(graphs)))


def _bare(graph: Data) -> Data:
    """Return what the networks read; PyG's explainers must be handed nothing else."""
    return Data(x=graph.x, edge_index=graph.edge_index)
