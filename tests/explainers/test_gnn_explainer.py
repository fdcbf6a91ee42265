"""GNNExplainer against a plain loop over instances, against PyG, and against its own formula."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.explain import Explainer
from torch_geometric.explain import GNNExplainer as PyGGNNExplainer
from torch_geometric.nn import GCNConv, GINConv, GraphConv, global_mean_pool

from skgnnx import GNNExplainer, Instances
from skgnnx.metrics import sparsity


class Net(nn.Module):
    """Two layers of GIN or GCN and a linear head."""

    def __init__(self, kind="gin", level="node", outputs=3):
        super().__init__()
        make = {
            "gin": lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.Tanh(), nn.Linear(o, o))),
            "gcn": GCNConv,
            "graph": GraphConv,
        }[kind]
        self.convs = nn.ModuleList([make(4, 8), make(8, 8)])
        self.out = nn.Linear(8, outputs)
        self.level = level

    def forward(self, x, edge_index, batch=None):
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return self.out(global_mean_pool(x, batch) if self.level == "graph" else x)


def graph(seed, n=8, undirected=True, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    edges = torch.randint(n, (2, 2 * n), generator=random)
    edges = torch.unique(edges[:, edges[0] < edges[1]], dim=1)
    edges = torch.cat([edges, edges.flip(0)], dim=1) if undirected else edges
    return Data(x=torch.randn(n, 4, generator=random, dtype=dtype), edge_index=edges)


def network(kind="gin", level="node", outputs=3):
    torch.manual_seed(0)
    return Net(kind, level, outputs).double().eval()


def entropy(p):
    return -p * torch.log(p + 1e-15) - (1 - p) * torch.log(1 - p + 1e-15)


def slow_edge_masks(model, data, node, target, logits, settings, tied):
    """One instance by the formula: edge weights in GIN are message gates, torch's own Adam, no batching."""
    source, reach = data.edge_index[0], torch.zeros(data.num_edges, dtype=torch.bool)
    frontier = {node}
    for _ in range(2):
        new = torch.tensor([int(t) in frontier for t in data.edge_index[1]])
        reach |= new
        frontier |= set(source[new].tolist())
    pair = {}
    unit = torch.tensor([pair.setdefault(tuple(sorted(e)) if tied else k, len(pair)) for k, e in
                         enumerate(data.edge_index.t().tolist())])  # fmt: skip
    first = torch.stack([max((unit == u).nonzero().flatten(), key=lambda k: bool(reach[k])) for u in range(len(pair))])
    theta = logits[first].clone().requires_grad_()
    penalised = torch.stack([reach[unit == u].any() for u in range(len(pair))])
    optimiser = torch.optim.Adam([theta], lr=settings["lr"])
    for _ in range(settings["epochs"]):
        gate = theta.sigmoid()
        x = data.x
        for conv in model.convs:
            total = torch.zeros_like(x).index_add(0, data.edge_index[1], x[source] * gate[unit][:, None])
            x = conv.nn(x + total).relu()
        loss = -model.out(x)[node].log_softmax(0)[target]
        loss = loss + settings["edge_size"] * gate[penalised].sum()
        loss = loss + settings["edge_entropy"] * entropy(gate[penalised]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (theta.detach().sigmoid()[unit] * reach).numpy()


# One run from logits around 4, whose last masks count, with a penalty that stays.
PLAIN = {"n_init": 1, "init_mean": 4.0, "edge_size": 0.02, "size_growth": 1.0, "size_unit": "loss",
         "average_steps": False}  # fmt: skip


class Given(GNNExplainer):
    """Starts from fixed logits, looked up by edge id."""

    def _initial_edge_logits(self, batch, seed):
        return start(batch.X.store.num_edges(0))[torch.from_numpy(batch.edge_id)]


def start(num_edges):
    return torch.randn(num_edges, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("undirected", [True, False])
def test_equals_a_slow_loop_over_instances(tied, undirected):
    model, data = network(), graph(3, undirected=undirected)
    settings = {"lr": 0.05, "epochs": 15, "edge_size": 0.03, "edge_entropy": 0.4}
    X = Instances.from_nodes(data)
    E = Given(model, tie_directions=tied, **PLAIN | settings).explain(X)
    logits = start(data.num_edges)
    for node in range(data.num_nodes):
        slow = slow_edge_masks(model, data, node, int(E.targets[node]), logits, settings, tied and undirected)
        ids, values = E.entries(node)
        np.testing.assert_allclose(values, slow[ids], atol=1e-6)
        assert set(np.flatnonzero(slow)) == set(ids)


@pytest.mark.parametrize("kind", ["gin", "gcn", "graph"])
@pytest.mark.parametrize("level", ["node", "graph"])
def test_pyg_preset_equals_pyg(kind, level):
    """Equal initial masks give PyG's own masks, one instance at a time, including its hard zeros."""

    class PyGGiven(PyGGNNExplainer):
        def _initialize_masks(self, x, edge_index):
            super()._initialize_masks(x, edge_index)
            self.edge_mask = nn.Parameter(start(edge_index.shape[1]).to(x.dtype))

    model, data = network(kind, level), graph(7)
    X = Instances.from_nodes(data) if level == "node" else Instances.from_graphs([data])
    E = Given(model, preset="pyg", epochs=30).explain(X)
    config = {"mode": "multiclass_classification", "task_level": level, "return_type": "raw"}
    for i in range(len(X)):
        algorithm = PyGGiven(epochs=30, lr=0.01)
        theirs = Explainer(model, algorithm, explanation_type="model", edge_mask_type="object", model_config=config)
        expected = theirs(data.x, data.edge_index, index=i if level == "node" else None).edge_mask.numpy()
        np.testing.assert_allclose(E[i], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["node", "feature", "node_feature"])
def test_feature_masks_lower_their_own_loss(kind):
    """More steps give a lower objective, and masks of the right shape inside (0, 1)."""
    model, X = network(), Instances.from_nodes(graph(2))
    short, long = (GNNExplainer(model, mask=kind, epochs=epochs).explain(X) for epochs in (1, 60))
    assert np.mean(long.loss) < np.mean(short.loss)
    shape = {"node": (8,), "feature": (4,), "node_feature": (8, 4)}[kind]
    assert all(long[i].shape == shape for i in range(len(X)))
    assert all((long[i] >= 0).all() and (long[i] <= 1).all() for i in range(len(X)))


def with_zeros(seed, features=4):
    """A graph whose features are mostly zero; one node has none, one feature is zero everywhere."""
    data = graph(seed)
    data.x = torch.randn(8, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    data.x[torch.rand(data.x.shape, generator=torch.Generator().manual_seed(seed)) < 0.6] = 0
    data.x[2], data.x[:, 1] = 0, 0
    return data


@pytest.mark.parametrize("kind", ["feature", "node_feature"])
def test_feature_masks_equal_a_slow_loop_in_which_zeros_have_no_mask(kind):
    model, data = network(), with_zeros(6)
    settings = {"lr": 0.05, "epochs": 15, "feature_size": 0.7, "feature_entropy": 0.3}
    X = Instances.from_nodes(data)
    settings |= {"feature_init_scale": 0.1}
    E, start_at = (GNNExplainer(model, mask=kind, **settings | more).explain(X) for more in ({}, {"lr": 1e-30}))
    for node in range(data.num_nodes):
        reach = torch.zeros(8, dtype=torch.bool)
        reach[node] = True
        for _ in range(2):
            source, target = data.edge_index
            reach[source[reach[target]]] = True
        used = (data.x != 0) & reach[:, None]
        used = used.any(0) if kind == "feature" else used
        initial = torch.as_tensor(start_at[node]).double()
        assert torch.equal(initial != 0, used)
        theta = initial[used].logit().requires_grad_()
        optimiser = torch.optim.Adam([theta], lr=settings["lr"])
        for _ in range(settings["epochs"]):
            mask = torch.ones(used.shape, dtype=torch.float64).masked_scatter(used, theta.sigmoid())
            loss = -model(data.x * mask, data.edge_index)[node].log_softmax(0)[int(E.targets[node])]
            if len(theta):
                sigma = theta.sigmoid()
                loss = (
                    loss + settings["feature_size"] * sigma.mean() + settings["feature_entropy"] * entropy(sigma).mean()
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        expected = torch.zeros(used.shape, dtype=torch.float64).masked_scatter(used, theta.detach().sigmoid())
        np.testing.assert_allclose(E[node], expected.numpy(), atol=2e-6)


@pytest.mark.parametrize("kind", ["feature", "node_feature"])
@pytest.mark.parametrize("width", [4, 80])
def test_pyg_preset_equals_pyg_on_features(kind, width):
    """Equal initial masks give PyG's masks, where a feature that is zero has no gradient and ends at 0."""
    torch.manual_seed(0)
    model, data = Net("gcn").double().eval(), with_zeros(7, width)
    model.convs[0] = GCNConv(width, 8).double()
    X = Instances.from_nodes(data)
    settings = {"mask": kind, "epochs": 30, "lr": 0.01}
    E = GNNExplainer(model, preset="pyg", **settings).explain(X)
    still = {"epochs": 1, "lr": 1e-30, "feature_init_scale": 0.1}
    initial = GNNExplainer(model, preset="paper", **settings | still).explain(X)

    class PyGGiven(PyGGNNExplainer):
        def _initialize_masks(self, x, edge_index):
            super()._initialize_masks(x, edge_index)
            given = torch.as_tensor(initial[i]).double()
            self.node_mask = nn.Parameter(given.where(given > 0, torch.tensor(0.5)).logit().view_as(self.node_mask))

    config = {"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"}
    for i in range(len(X)):
        theirs = Explainer(
            model,
            PyGGiven(epochs=30, lr=0.01),
            explanation_type="model",
            node_mask_type="common_attributes" if kind == "feature" else "attributes",
            model_config=config,
        )(data.x, data.edge_index, index=i).node_mask
        np.testing.assert_allclose(E[i], theirs.numpy().reshape(E[i].shape), atol=1e-6)


@pytest.mark.parametrize("kind", ["feature", "node_feature"])
def test_features_that_are_all_zero_have_no_masks(kind):
    model, data = network(), graph(2)
    data.x[:] = 0
    E = GNNExplainer(model, mask=kind, epochs=5).explain(Instances.from_nodes(data))
    assert not any(E[i].any() for i in range(len(E)))
    both = GNNExplainer(model, feature_mask=kind, epochs=5).explain(Instances.from_nodes(data))
    assert any(both[i].any() for i in range(len(both)))


def test_edges_and_features_together():
    model, X = network(), Instances.from_nodes(graph(2))
    E = GNNExplainer(model, feature_mask="feature", epochs=10).explain(X)
    assert E.kind == "edge"
    assert E.feature_mask[0].shape == (4,)
    alone = GNNExplainer(model, epochs=10).explain(X)
    assert max(np.abs(E[i] - alone[i]).max() for i in range(len(X))) > 1e-4


def test_size_penalty_shrinks_masks_and_moves_sparsity():
    model, X = network(), Instances.from_nodes(graph(2))
    runs = [GNNExplainer(model, edge_size=size).explain(X) for size in (0.0, 0.1, 1.0)]
    sums = [sum(float(E[i].sum()) for i in range(len(X))) for E in runs]
    assert sums[0] > sums[1] > sums[2]
    assert len({round(sparsity(E), 6) for E in runs}) == 3


def test_explicit_values_win_over_presets():
    model, X = network(), Instances.from_nodes(graph(2), [0])
    same = PLAIN | {"init_mean": 1.0, "init_scale": 1.0, "edge_size": 0.005, "edge_entropy": 1.0, "laplacian": 1.0,
                    "penalty_over": "matrix"}  # fmt: skip
    paper = GNNExplainer(model, preset="paper", epochs=5).explain(X)
    spelt = GNNExplainer(model, epochs=5, **same).explain(X)
    np.testing.assert_array_equal(paper[0], spelt[0])
    other = GNNExplainer(model, preset="paper", epochs=5, lr=0.2).explain(X)
    assert np.abs(other[0] - paper[0]).max() > 1e-3


def test_n_init_gives_mean_and_spread():
    model, X = network(), Instances.from_nodes(graph(2), [0, 3])
    given = PLAIN | {"epochs": 5, "init_scale": 1.0}
    runs = [
        GNNExplainer(model, **given | {"init_mean": mean}, random_state=seed).explain(X)
        for seed, mean in ((4, 1.0), (5, 3.0), (6, 5.0))
    ]
    more = {"n_init": 3, "init_mean": 3.0, "init_range": 2.0}
    E = GNNExplainer(model, random_state=4, **given | more).explain(X)
    for i in range(2):
        values = np.stack([run.entries(i)[1] for run in runs])
        np.testing.assert_allclose(E.entries(i)[1], values.mean(0), atol=1e-6)
        np.testing.assert_allclose(E.spread[i], values.std(0), atol=1e-6)
        assert E.spread[i].max() > 0


def test_directions_of_a_pair_share_a_mask_only_when_tied():
    model, data = network(), graph(2)
    X = Instances.from_graphs([data])
    partner = X.store.partner(0)
    model = network(level="graph")
    tied, free = (GNNExplainer(model, epochs=5, tie_directions=tie).explain(X)[0] for tie in (True, False))
    np.testing.assert_array_equal(tied, tied[partner])
    assert np.abs(free - free[partner]).max() > 1e-3


def test_instances_stop_on_their_own():
    model, X = network(), Instances.from_nodes(graph(2))
    settings = {"epochs": 300, "tol": 1e-3, "preset": "paper"}
    E = GNNExplainer(model, **settings).explain(X)
    steps = np.array(E.n_iter)
    assert 10 < steps.min() < steps.max() < 300
    alone = GNNExplainer(model, batch_size=1, **settings).explain(X)
    assert alone.n_iter == E.n_iter
    for i in range(len(X)):
        np.testing.assert_allclose(alone[i], E[i], atol=1e-6)


def test_regression_keeps_the_output():
    model, X = network(outputs=1), Instances.from_nodes(graph(2))
    E = GNNExplainer(model, output="regression", edge_size=0, edge_entropy=0).explain(X)
    assert max(E.loss) < 1e-2
    assert E.targets.tolist() == [0] * len(X)


def test_constant_model_follows_the_penalties_only():
    model, X = network(), Instances.from_nodes(graph(2))
    with torch.no_grad():
        model.out.weight.zero_()
    with pytest.warns(UserWarning, match="Masks must settle"):
        E = GNNExplainer(model, **PLAIN | {"init_mean": 1.0, "edge_size": 1.0}, epochs=60).explain(X)
    for i in range(len(X)):
        values = E.entries(i)[1]
        assert E.undecided[i] == (len(values) > 0)
        assert (values < 0.5).all()
        assert len(values) == 0 or np.ptp(values) < 0.1


def test_finds_the_edge_that_matters():
    """One neighbour carries the signal; after training-free optimisation its edge ranks first."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(1, 2, bias=False)
            with torch.no_grad():
                self.conv.lin_rel.weight.copy_(torch.tensor([[3.0], [-3.0]]))
                self.conv.lin_root.weight.zero_()

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    data = Data(x=torch.tensor([[0.0], [0.0], [1.0], [0.0]]), edge_index=torch.tensor([[1, 2, 3], [0, 0, 0]]))
    E = GNNExplainer(Sum()).explain(Instances.from_nodes(data, [0]))
    assert E[0].argmax() == 1
    assert E[0][1] > E[0][[0, 2]].max() + 0.3
