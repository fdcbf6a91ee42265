"""Embeddings are those of whole graphs, from the layer that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, GraphConv, global_mean_pool

from skgnnx import Instances, config_context
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.node_states import NodeEmbedder


class Layers(nn.Module):
    """GCN layers, with a linear head or without one."""

    def __init__(self, *, head: bool, pool: bool = False, layers: int = 2) -> None:
        super().__init__()
        last = 6 if head else 3
        self.convs = nn.ModuleList(GCNConv(a, b) for a, b in [(4, 5)] * (layers > 1) + [(5 if layers > 1 else 4, last)])
        self.head = nn.Linear(6, 3) if head else nn.Identity()
        self.pool = pool

    def states(self, x, edge_index):
        """Return what each layer gives."""
        found = []
        for conv in self.convs:
            found.append(conv(x, edge_index))
            x = found[-1].relu()
        return found

    def forward(self, x, edge_index, batch=None):
        last = self.states(x, edge_index)[-1]
        last = last.relu() if isinstance(self.head, nn.Linear) else last
        return self.head(global_mean_pool(last, batch) if self.pool else last)


class TwoHeads(nn.Module):
    """A layer that returns attention besides what it makes of the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = GATConv(4, 3, heads=2), nn.Linear(6, 2)

    def forward(self, x, edge_index):
        return self.head(self.conv(x, edge_index, return_attention_weights=True)[0])


def made(model):
    torch.manual_seed(0)
    return model().double().eval()


def graph(num_nodes=30, seed=0):
    random = np.random.default_rng(seed)
    pairs = random.integers(num_nodes, size=(2, 2 * num_nodes))
    pairs = np.unique(np.sort(pairs[:, pairs[0] != pairs[1]], axis=0), axis=1)
    return Data(
        x=torch.from_numpy(random.standard_normal((num_nodes, 4))),
        edge_index=torch.from_numpy(np.concatenate([pairs, pairs[::-1]], axis=1)),
    )


def embedded(model, X, embedding="last", **given):
    """Return the embeddings of the nodes of all batches, their ids and their instances."""
    with BlackBox(model).open(X) as gnn:
        embedder = NodeEmbedder(gnn, embedding)
        found = []
        for batch in gnn.batches(**given):
            states, place = embedder.of(batch)
            found.append((states[place], batch.node_id, batch.positions[batch.node_instance]))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def long_graph(num_nodes=400):
    """Return a ring whose nodes are linked to the two that follow: what is near to one is a small part of it."""
    node = torch.arange(num_nodes)
    pairs = torch.cat([torch.stack([node, (node + step) % num_nodes]) for step in (1, 2)], 1)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((num_nodes, 4)))
    return Data(x=x, edge_index=torch.cat([pairs, pairs.flip(0)], 1))


@pytest.mark.parametrize("budget", [10**9, 60_000, 12_000])
def test_nodes_of_a_part_are_embedded_as_on_the_whole_graph(budget):
    model, data = made(lambda: Layers(head=True)), long_graph()
    with config_context(memory_budget=budget):
        states, node, _ = embedded(model, Instances.from_nodes(data, [0, 5, 17, 200]))
    expected = model.states(data.x, data.edge_index)[-1].detach().numpy()
    assert len(node) == 4 * 9
    np.testing.assert_allclose(states, expected[node], rtol=0, atol=1e-12)


def test_the_classifier_itself_gives_what_goes_into_it():
    data = graph()
    X = Instances.from_nodes(data, [0, 1])
    model = made(lambda: Layers(head=False))
    first, _ = (one.detach().numpy() for one in model.states(data.x, data.edge_index))
    last, node, _ = embedded(model, X)
    np.testing.assert_allclose(last, first.clip(0)[node], atol=1e-12)
    np.testing.assert_allclose(embedded(model, X, "concat")[0], first[node], atol=1e-12)
    alone = made(lambda: Layers(head=False, layers=1))
    np.testing.assert_array_equal(*(embedded(alone, X, option)[0] for option in ("last", "concat")))
    np.testing.assert_array_equal(embedded(alone, X)[0], data.x.numpy()[embedded(alone, X)[1]])


@pytest.mark.parametrize("head", [True, False])
def test_graphs_pooled_or_classified_by_the_pool(head):
    graphs = [graph(n, n) for n in (6, 9, 12)]
    model = made(lambda: Layers(head=head, pool=True))
    states, node, instance = embedded(model, Instances.from_graphs(graphs), batch_size=2)
    for i, data in enumerate(graphs):
        first, last = (one.detach().numpy() for one in model.states(data.x, data.edge_index))
        np.testing.assert_allclose(states[instance == i], (last if head else first.clip(0))[node[instance == i]])


@pytest.mark.parametrize(("level", "batch_size"), [("graph", 1), ("graph", 4), ("node", 1)])
def test_what_is_the_classifier_does_not_depend_on_the_instances(level, batch_size):
    """A ReLU leaves states as they are where none is negative."""

    class Rectified(Layers):
        def forward(self, x, edge_index, batch=None):
            last = self.states(x, edge_index)[-1].relu()
            return global_mean_pool(last, batch) if self.pool else last

    model = made(lambda: Rectified(head=False, pool=level == "graph"))
    data = graph()
    everywhere = Data(x=data.x[:1].repeat(6, 1), edge_index=graph(6, 6).edge_index)
    with torch.no_grad():
        model.convs[-1].bias.sub_(model.states(everywhere.x, everywhere.edge_index)[-1].min(0).values - 0.1)
    assert (
        model.states(everywhere.x, everywhere.edge_index)[-1].min()
        > 0
        > model.states(data.x, data.edge_index)[-1].min()
    )
    for one in (everywhere, data):
        X = Instances.from_graphs([one]) if level == "graph" else Instances.from_nodes(one, [0, 1])
        states, node, _ = embedded(model, X, batch_size=batch_size)
        expected = model.states(one.x, one.edge_index)[-1].detach().numpy()
        np.testing.assert_allclose(states, expected[node], atol=1e-12)


def test_all_layers_a_module_and_a_function():
    data = graph()
    model, X = made(lambda: Layers(head=True)), Instances.from_nodes(data, [3, 4])
    both = torch.cat(model.states(data.x, data.edge_index), 1).detach().numpy()
    states, node, _ = embedded(model, X, "concat")
    np.testing.assert_allclose(states, both[node])
    np.testing.assert_allclose(embedded(model, X, "convs.0")[0], both[node, :5])
    np.testing.assert_allclose(embedded(model, X, lambda network, batch: 2 * batch.x)[0], 2 * data.x.numpy()[node])


def test_the_first_part_of_a_tuple_counts():
    data = graph()
    model = made(TwoHeads)
    states, node, _ = embedded(model, Instances.from_nodes(data, [3]))
    np.testing.assert_allclose(states, model.conv(data.x, data.edge_index).detach().numpy()[node])


def test_a_link_that_is_left_out_is_left_out_of_its_own_graph_only():
    class Links(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(4, 5)

        def forward(self, x, edge_index, edge_label_index):
            z = self.conv(x, edge_index)
            return (z[edge_label_index[0]] * z[edge_label_index[1]])[:, :3]

    data = graph()
    model, links = made(Links), data.edge_index[:, [0, 4]]
    X = Instances.from_edges(data, links, exclude_link=True)
    states, node, instance = embedded(model, X)
    for i, (a, b) in enumerate(links.T.tolist()):
        u, v = data.edge_index
        kept = ~(((u == a) & (v == b)) | ((u == b) & (v == a)))
        expected = model.conv(data.x, data.edge_index[:, kept]).detach().numpy()
        np.testing.assert_allclose(states[instance == i], expected[node[instance == i]])


def test_what_gives_no_row_per_node_is_refused():
    model, X = made(lambda: Layers(head=True)), Instances.from_nodes(graph(), [3])
    with pytest.raises(ValueError, match="'embedding' must be 'last', .* Got 'nowhere'"):
        embedded(model, X, "nowhere")
    with pytest.raises(TypeError, match="one row of numbers per node .30 here.*name another module"):
        embedded(model, X, lambda network, batch: batch.x[:3])


def test_a_budget_that_holds_no_neighbourhood_is_told():
    model, X = made(lambda: Layers(head=True)), Instances.from_nodes(long_graph(), [3])
    with config_context(memory_budget=12_000), BlackBox(model).open(X) as gnn:
        batch = next(iter(gnn.batches()))
        with config_context(memory_budget=10), pytest.raises(MemoryError, match="raise it with"):
            NodeEmbedder(gnn, "last").of(batch)
