"""Walks as results: batches, memory, ties, files, workers, pipelines; and models that have none."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    GCN,
    GIN,
    GATConv,
    GraphConv,
    GraphNorm,
    JumpingKnowledge,
    TransformerConv,
    global_add_pool,
)
from walk_networks import Chain, all_graphs, as_dict, chain, every_walk, graph

from skgnnx import GNNLRP, Explanations, Instances, config_context
from skgnnx.preprocessing import TopK

pytestmark = pytest.mark.filterwarnings("ignore:Self loops cannot be explained")
X = all_graphs()
SUBSETS = [range(min(instance.graph.num_nodes, 3)) for instance in X]


def same_walks(E, other, rows=None):
    for i, j in enumerate(range(len(E)) if rows is None else rows):
        np.testing.assert_array_equal(E.walks[i], other.walks[j])
        np.testing.assert_allclose(E.walk_scores[i], other.walk_scores[j], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("walks", ["all", 10])
def test_batches_change_nothing(walks):
    model = chain("gat", 2, wiring="norm first")
    together, alone = (GNNLRP(model, walks=walks, batch_size=size).explain(X) for size in (len(X), 1))
    same_walks(together, alone)
    turned = GNNLRP(model, walks=walks).explain(X[::-1])
    same_walks(turned, together, rows=range(len(X))[::-1])
    np.testing.assert_allclose(np.concatenate(together.subgraph_relevance(SUBSETS)),
                               np.concatenate(alone.subgraph_relevance(SUBSETS)), rtol=1e-9)  # fmt: skip


@pytest.mark.parametrize("rank_by", ["abs", "positive"])
def test_tied_walks_go_by_their_nodes_in_any_batch(rank_by):
    """On rings of equal nodes every walk has many others of the same relevance."""
    rings = []
    for n in (6, 9, 5):
        ring = torch.stack([torch.arange(n), torch.arange(1, n + 1) % n])
        rings.append(Data(x=torch.ones(n, 4), edge_index=torch.cat([ring, ring.flip(0)], dim=1)))
    model = chain("gin", 3).float()
    parts = Instances.from_graphs(rings, target=0)
    for k in (4, 30):
        E, everything = (
            GNNLRP(model, walks=k, rank_by=rank_by).explain(parts),
            every_walk(model, parts, rank_by=rank_by),
        )
        for size in (1, 2):
            other = GNNLRP(model, walks=k, rank_by=rank_by, batch_size=size).explain(parts)
            for i in range(3):
                np.testing.assert_array_equal(E.walks[i], other.walks[i])
                np.testing.assert_array_equal(E.walks[i], everything.walks[i][: len(E.walks[i])])


def test_every_target_from_one_forward_pass():
    model = chain("gin", 2)
    calls = []
    handle = model.register_forward_hook(lambda *given: calls.append(1))
    explainer = GNNLRP(model, walks=5)
    each = explainer.explain_targets(X, [0, 1, 2])
    shared = len(calls)
    calls.clear()
    explainer.explain(X.with_target(0))
    assert len(calls) == shared
    handle.remove()
    for target, E in enumerate(each):
        same_walks(E, GNNLRP(model, walks=5).explain(X.with_target(target)))


def test_memory_is_asked_for_before_it_is_taken():
    model = chain("gin", 2, width=20, classes=2)
    graphs = [graph(n=6, seed=seed) for seed in range(4)] + [graph(n=40, seed=9)]
    parts = Instances.from_graphs(graphs, target=1)
    expected = GNNLRP(model, walks=5).explain(parts)
    with config_context(memory_budget=400_000):
        same_walks(GNNLRP(model, walks=5).explain(parts[:4]), expected, rows=range(4))
        message = "memory budget must hold .* Got 0.4 MB, needed about .* MB at index 4; raise it with config_context"
        with pytest.raises(RuntimeError, match=message):
            GNNLRP(model, walks=5).explain(parts)
        E = GNNLRP(model, walks=5, on_error="nan").explain(parts)
        assert E.ok.tolist() == [True] * 4 + [False]
        same_walks(E[:4], expected, rows=range(4))
        assert GNNLRP(model).explain(parts).ok.all()
        assert E.walks[4] is None


def test_files_slices_workers_pipelines_and_pickles(tmp_path):
    model = chain("gcn", 2)
    explainer = GNNLRP(model, walks=6, gamma=[0.7, 0.1])
    E = explainer.explain(X)
    expected = E.subgraph_relevance(SUBSETS)
    assert max(np.abs(part).max() for part in expected) > 1e-3
    E.save(tmp_path / "walks")
    loaded = Explanations.load(tmp_path / "walks")
    same_walks(loaded, E)
    with pytest.raises(ValueError, match="needs the model that was explained.*with_model"):
        loaded.subgraph_relevance(SUBSETS)
    rows = [4, 0, 2]
    same_walks(E[rows], E, rows=rows)
    for other in (
        loaded.with_model(model),
        pickle.loads(pickle.dumps(E)).with_model(model),
        explainer.transform(X),
        make_pipeline(GNNLRP(model, gamma=[0.7, 0.1])).fit(X).transform(X),
        GNNLRP(model, gamma=np.array([0.7, 0.1])).fit_transform(X),
        make_pipeline(GNNLRP(model, gamma=[0.7, 0.1]), TopK(2)).fit_transform(X),
        GNNLRP(model, gamma=[0.7, 0.1], mask="node").explain(X),
    ):
        for found, wanted in zip(other.subgraph_relevance(SUBSETS), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-9)
    for found, row in zip(E[rows].subgraph_relevance([SUBSETS[i] for i in rows]), rows, strict=True):
        np.testing.assert_allclose(found, expected[row], rtol=1e-9)
    np.testing.assert_allclose(explainer.subgraph_relevance(X, SUBSETS), expected, rtol=1e-9)


def test_single_precision_is_near():
    double, single = chain("gin", 3, hidden=True), chain("gin", 3, hidden=True).float()
    graphs = [instance.graph.clone() for instance in X]
    for data in graphs:
        data.x = data.x.float()
    E, other = every_walk(double, X), every_walk(single, Instances.from_graphs(graphs, target=1))
    for i in range(len(X)):
        exact, near = as_dict(E, i), as_dict(other, i)
        size = max(map(abs, exact.values()))
        for walk in set(exact) | set(near):
            assert abs(exact.get(walk, 0) - near.get(walk, 0)) <= 1e-4 * size


class Branching(Chain):
    """A chain, but for what a subclass adds."""

    def __init__(self, **options):
        super().__init__("graph", 2, lift="linear", **options)
        self.graph_norm, self.virtual = GraphNorm(6), nn.Linear(6, 6)
        self.jump, self.wide = JumpingKnowledge("cat"), nn.Linear(12, 3)
        self.attention = TransformerConv(6, 6)

    def forward(self, x, edge_index, batch=None):
        batch = torch.zeros(len(x), dtype=torch.long) if batch is None else batch
        return self.run(self.lift(x), edge_index, batch)


class Residual(Branching):
    def run(self, h, edge_index, batch):
        h = self.convs[0](h, edge_index).relu()
        return self.head(global_add_pool(h + self.convs[1](h, edge_index).relu(), batch))


class FromTheStart(Branching):
    def forward(self, x, edge_index, batch=None):
        batch = torch.zeros(len(x), dtype=torch.long) if batch is None else batch
        h = self.start(x, edge_index).relu() + self.lift(x)
        return self.head(global_add_pool(self.convs[1](h, edge_index).relu(), batch))

    def __init__(self, **options):
        super().__init__(**options)
        self.start = GraphConv(self.lift.in_features, 6)


class Jumping(Branching):
    def run(self, h, edge_index, batch):
        first = self.convs[0](h, edge_index).relu()
        second = self.convs[1](first, edge_index).relu()
        return self.wide(global_add_pool(self.jump([first, second]), batch))


class Normalised(Branching):
    def run(self, h, edge_index, batch):
        h = self.graph_norm(self.convs[0](h, edge_index), batch).relu()
        return self.head(global_add_pool(self.convs[1](h, edge_index).relu(), batch))


class NormalisedFirst(Branching):
    def run(self, h, edge_index, batch):
        h = self.convs[0](self.graph_norm(h, batch), edge_index).relu()
        return self.head(global_add_pool(self.convs[1](h, edge_index).relu(), batch))


class VirtualNode(Branching):
    def run(self, h, edge_index, batch):
        h = self.convs[0](h, edge_index).relu()
        h = h + self.virtual(global_add_pool(h, batch))[batch]
        return self.head(global_add_pool(self.convs[1](h, edge_index).relu(), batch))


@pytest.mark.filterwarnings("ignore:Layers of Normalised")
@pytest.mark.parametrize("options", [{"walks": 3}, {"mask": "node"}])
@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (Residual, "bypasses the cut after 'convs.1' .residual or jumping knowledge.; use LRP, or mask='edge'"),
        (FromTheStart, "bypasses the cut after 'start' .residual or jumping knowledge.; use LRP, or mask='edge'"),
        (Jumping, "bypasses the cut after 'convs.1' .residual or jumping knowledge.; use LRP, or mask='edge'"),
        (Normalised, "by messages only. Got others between 'convs.0' and what follows, .* use LRP"),
        (NormalisedFirst, "by messages only. Got others before 'convs.0', .* use LRP"),
        (VirtualNode, "by messages only. Got others between 'convs.0' and what follows, .* use LRP"),
    ],
)
def test_models_without_walks_say_why_and_have_edges(net, reason, options):
    torch.manual_seed(0)
    model = net().double().eval()
    with pytest.raises(TypeError, match=reason):
        GNNLRP(model, **options).explain(X)
    with pytest.raises(TypeError, match=reason):
        GNNLRP(model).explain(X).subgraph_relevance(SUBSETS)
    E = GNNLRP(model).explain(X)
    np.testing.assert_allclose(E.gap, 0, atol=1e-9)
    assert max(np.abs(E[i]).max(initial=0) for i in range(len(X))) > 1e-6


def test_attention_inside_of_messages_is_refused():
    class Attending(Branching):
        def run(self, h, edge_index, batch):
            return self.head(global_add_pool(self.attention(h, edge_index).relu(), batch))

    with pytest.raises(TypeError, match="attention that is computed inside message of 'attention'.*IntegratedGrad"):
        GNNLRP(Attending().double().eval(), walks=2).explain(X)


def test_states_must_have_a_row_per_node():
    """Two states side by side for each node, as layers may be given them."""

    class Twofold(Branching):
        def run(self, h, edge_index, batch):
            h = self.convs[0](h, edge_index).relu()
            h = self.second(torch.stack([h, h]), edge_index).relu()
            return self.head(global_add_pool(h.sum(0), batch))

    model = Twofold()
    model.second = GraphConv(6, 6)
    message = r"states of shape .nodes, width.. Got .2, \d+, 6. for \d+ nodes at 'second'; use LRP"
    with pytest.raises(TypeError, match=message):
        GNNLRP(model.double().eval(), walks=2).explain(X)
    assert GNNLRP(model).explain(X).ok.all()


@pytest.mark.parametrize("net", [GCN, GIN])
def test_ready_made_networks(net):
    torch.manual_seed(2)
    data, model = graph(n=5), net(4, 6, 2, out_channels=3).double().eval()
    E = every_walk(model, Instances.from_nodes(data, nodes=[3, 0], target=1))
    for i, node in enumerate((3, 0)):
        assert set(E.walks[i][:, -1]) == {node}
        np.testing.assert_allclose(E.walk_scores[i].sum(), E.score[i] - E.bias_share[i], rtol=1e-9)


def test_layers_may_take_turns():
    """The same layer twice, and a different one last."""

    class Turns(Chain):
        def __init__(self):
            super().__init__("graph", 2, lift="linear")
            self.convs = nn.ModuleList([self.convs[0], self.convs[0], GATConv(6, 6)])

    torch.manual_seed(1)
    E = every_walk(Turns().double().eval(), X)
    for i in range(len(X)):
        assert E.walks[i].shape[1] == 4
        np.testing.assert_allclose(E.walk_scores[i].sum(), E.score[i] - E.bias_share[i], rtol=1e-9)
        assert len(as_dict(E, i)) == len(E.walks[i])
