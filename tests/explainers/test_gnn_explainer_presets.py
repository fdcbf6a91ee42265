"""GNNExplainer's presets and its way to a decision, against formulas written out slowly."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GraphConv, global_add_pool

from skgnnx import GNNExplainer, Instances

KEPT = {"n_init": 1, "init_range": 0.0, "average_steps": False, "size_growth": 1.0, "size_unit": "loss"}
FREE = KEPT | {"edge_size": 0.0, "edge_entropy": 0.0}


class Net(nn.Module):
    """Two layers that add up messages, and a linear head for nodes or graphs."""

    def __init__(self, level="node", layer=GraphConv):
        super().__init__()
        self.convs = nn.ModuleList([layer(3, 6), layer(6, 4)])
        self.level = level

    def forward(self, x, edge_index, batch=None):
        x = self.convs[1](self.convs[0](x, edge_index).tanh(), edge_index)
        return global_add_pool(x, batch) if self.level == "graph" else x


def network(level="node", seed=0, layer=GraphConv):
    torch.manual_seed(seed)
    return Net(level, layer).double().eval().requires_grad_(False)


def graph(seed, n=9, undirected=True):
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(n, (2, 2 * n), generator=random)
    ends = torch.unique(ends[:, ends[0] < ends[1]], dim=1)
    ends = torch.cat([ends, ends.flip(0)], dim=1) if undirected else ends
    return Data(x=torch.randn(n, 3, generator=random, dtype=torch.float64), edge_index=ends)


def instances(data, level):
    return Instances.from_nodes(data) if level == "node" else Instances.from_graphs([data])


def reaching(data, node, hops=2):
    """Edges and nodes within so many messages of a node; everything for None."""
    if node is None:
        return torch.ones(data.num_edges, dtype=torch.bool), data.num_nodes
    nodes, edges = {node}, torch.zeros(data.num_edges, dtype=torch.bool)
    for _ in range(hops):
        new = torch.tensor([int(t) in nodes for t in data.edge_index[1]])
        edges |= new
        nodes |= set(data.edge_index[0][new].tolist())
    return edges, len(nodes)


def masked_output(model, data, gate):
    """GraphConv by hand, every message times its gate."""
    x, (source, target) = data.x, data.edge_index
    for number, conv in enumerate(model.convs):
        total = torch.zeros_like(x).index_add(0, target, x[source] * gate[:, None])
        x = conv.lin_rel(total) + conv.lin_root(x)
        x = x.tanh() if number == 0 else x
    return x.sum(0, keepdim=True) if model.level == "graph" else x


def authors_loss(model, data, node, target, gate):
    """The loss of the authors' code, with its whole mask matrix and its Laplacian."""
    reach, n = reaching(data, node)
    masks = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.float64)
    for e in reach.nonzero().flatten().tolist():
        u, v = data.edge_index[:, e].tolist()
        masks[u, v] = masks[v, u] = gate[e]
    entries = masks[masks > 0]
    entropy = (-entries * entries.log() - (1 - entries) * (1 - entries).log()).sum() / n**2
    loss = -masked_output(model, data, gate)[node or 0].log_softmax(0)[target]
    loss = loss + 0.005 * masks.sum() + entropy
    if node is not None:
        y = model(data.x, data.edge_index).argmax(1).double()
        loss = loss + y @ (torch.diag(masks.sum(0)) - masks) @ y / n**2
    return loss


@pytest.mark.parametrize("level", ["node", "graph"])
def test_paper_is_the_authors_loss_at_the_start(level):
    model, data = network(level), graph(4)
    X = instances(data, level)
    E = GNNExplainer(model, preset="paper", epochs=1, lr=1e-30).explain(X)
    for i in range(len(X)):
        node = i if level == "node" else None
        gate = torch.from_numpy(np.where(E[i] > 0, E[i], 1.0))
        expected = authors_loss(model, data, node, int(E.targets[i]), gate)
        assert E.loss[i] == pytest.approx(float(expected), rel=1e-5)


def test_paper_takes_the_steps_of_the_authors_loss():
    model, data = network(), graph(4)
    X = instances(data, "node")
    E, start = (
        GNNExplainer(model, preset="paper", **more).explain(X) for more in ({"epochs": 8}, {"epochs": 1, "lr": 1e-30})
    )
    pairs = [tuple(sorted(pair)) for pair in data.edge_index.T.tolist()]
    for node in range(data.num_nodes):
        reach, _ = reaching(data, node)
        used = [pairs[e] for e in reach.nonzero().flatten().tolist()]
        order = sorted(set(used))
        unit = torch.tensor([order.index(pair) if pair in order else 0 for pair in pairs])
        initial = {pairs[e]: float(start[node][e]) for e in reach.nonzero().flatten().tolist()}
        theta = torch.tensor([initial[pair] for pair in order], dtype=torch.float64).logit().requires_grad_()
        adam = torch.optim.Adam([theta], lr=0.1)
        for _ in range(8 if order else 0):
            gate = torch.where(reach, theta.sigmoid()[unit], 1.0)
            adam.zero_grad()
            authors_loss(model, data, node, int(E.targets[node]), gate).backward()
            adam.step()
        expected = torch.where(reach, theta.detach().sigmoid()[unit], 0.0) if order else torch.zeros(len(pairs))
        np.testing.assert_allclose(E[node], expected.numpy(), atol=2e-6)


def test_the_laplacian_holds_together_nodes_of_one_class_and_is_a_number():
    model, X = network(), instances(graph(4), "node")
    sums = [
        sum(E.entries(i)[1].sum() for i in range(len(X)))
        for E in (GNNExplainer(model, preset="paper", laplacian=a, epochs=20).explain(X) for a in (0.0, 1.0, 50.0))
    ]
    assert sums[0] > sums[1] > sums[2]


@given(st.integers(0, 30), st.sampled_from(["node", "graph"]), st.booleans())
def test_the_first_loss_is_the_formula_of_the_defaults(seed, level, undirected):
    """-log p plus, in units of the mean absolute gradient by the masks, the size term."""
    model, data = network(level, seed), graph(seed, undirected=undirected)
    X = instances(data, level)
    E = GNNExplainer(model, epochs=1, n_init=1, init_mean=1.5).explain(X)
    gate = torch.full((data.num_edges,), 1.5, dtype=torch.float64).sigmoid()
    pairs = [tuple(sorted(pair)) if undirected else tuple(pair) for pair in data.edge_index.T.tolist()]
    for i in range(len(X)):
        node = i if level == "node" else None
        reach, _ = reaching(data, node)
        mask = gate.clone().requires_grad_()
        loss = -masked_output(model, data, mask)[node or 0].log_softmax(0)[int(E.targets[i])]
        (gradient,) = torch.autograd.grad(loss, mask)
        units = {}
        for e in reach.nonzero().flatten().tolist():
            units[pairs[e]] = units.get(pairs[e], 0.0) + float(gradient[e])
        unit = np.mean(np.abs(list(units.values()))) if units else 0.0
        expected = loss.item() + 0.1 * unit * len(units) * float(gate[0])
        assert E.loss[i] == pytest.approx(expected, rel=1e-5, abs=1e-9)


@given(st.integers(0, 30), st.sampled_from([GraphConv, GCNConv]))
def test_without_penalties_no_run_ends_above_its_start(seed, layer):
    model, X = network(seed=seed, layer=layer), instances(graph(seed), "node")
    first, last = (GNNExplainer(model, epochs=epochs, **FREE).explain(X) for epochs in (1, 60))
    assert all(after <= before + 1e-9 for before, after in zip(first.loss, last.loss, strict=True))


@given(st.integers(0, 30), st.sampled_from(["default", "paper"]))
def test_a_larger_size_penalty_leaves_less(seed, preset):
    """Over all instances: of a single one, closing an edge may make another more useful."""
    model, X = network(seed=seed), instances(graph(seed), "node")
    given = {"epochs": 40, "preset": preset, "edge_entropy": 0.0}
    small, large = (GNNExplainer(model, edge_size=size, **given).explain(X) for size in (0.01, 3.0))
    assert sum(large[i].sum() for i in range(len(X))) <= sum(small[i].sum() for i in range(len(X))) + 1e-6


def test_the_default_is_the_mean_over_steps_and_starts():
    model, X = network("graph"), instances(graph(4), "graph")
    starts = [1.0, 2.0, 3.0, 4.0]
    runs = [[GNNExplainer(model, epochs=100, n_init=1, init_mean=start).explain(X)[0] for start in starts]]
    E = GNNExplainer(model).explain(X)
    np.testing.assert_allclose(E[0], np.mean(runs[0], axis=0), atol=1e-6)
    np.testing.assert_allclose(E.spread[0], np.std(runs[0], axis=0), atol=1e-6)
    one = {"size_growth": 1.0, "n_init": 1}
    steps = [GNNExplainer(model, epochs=k, average_steps=False, **one).explain(X)[0] for k in range(1, 7)]
    mean = GNNExplainer(model, epochs=6, **one).explain(X)[0]
    np.testing.assert_allclose(mean, np.mean(steps, axis=0), atol=1e-6)


def test_no_seed_changes_the_default():
    model, X = network(), instances(graph(4), "node")
    a, b = (GNNExplainer(model, random_state=seed, feature_mask="feature").explain(X) for seed in (0, 1))
    assert all(np.array_equal(a[i], b[i]) and np.array_equal(a.feature_mask[i], b.feature_mask[i]) for i in range(9))


def test_a_very_sure_prediction_is_still_explained():
    """In single precision, 1 - p is 0 exactly, and so is every gradient of a logarithm of a softmax."""
    model, data = network("graph"), graph(4)
    with torch.no_grad():
        margin = model(data.x, data.edge_index).topk(2).values.diff().abs()
        for weight in model.convs[1].parameters():
            weight *= 30 / float(margin)
    exact = GNNExplainer(model).explain(instances(data, "graph"))
    model.float()
    data.x = data.x.float()
    assert float(model(data.x, data.edge_index).softmax(1).max()) == 1
    E = GNNExplainer(model).explain(instances(data, "graph"))
    assert not E.undecided[0]
    assert np.ptp(E[0]) > 0.05
    np.testing.assert_allclose(E[0], exact[0], atol=1e-3)


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("more", [{}, {"feature_mask": "feature"}, {"preset": "paper"}])
def test_ordinary_runs_are_decided(level, more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            E = GNNExplainer(network(level, seed), **more).explain(instances(graph(seed), level))
            assert np.mean(E.undecided) <= 0.5


@pytest.mark.parametrize(
    "more", [{"lr": 1e-6, "preset": "paper"}, {"lr": 0.01, "init_mean": 0.0, **KEPT}, {"preset": "pyg"}]
)
def test_runs_that_end_undecided_are_told(more):
    """Masks that never moved, and masks that move by a hundredth a step."""
    model, X = network(), instances(graph(4), "node")
    with pytest.warns(UserWarning, match=r"Masks must settle to rank .* preset='default'") as told:
        E = GNNExplainer(model, **more).explain(X)
    assert len(told) == 1
    with_edges = [len(E.entries(i)[1]) > 0 for i in range(len(X))]
    assert sum(E.undecided) > sum(with_edges) / 2
    assert not any(flag and not has for flag, has in zip(E.undecided, with_edges, strict=True))


def test_few_steps_are_not_expected_to_decide():
    model, X = network(), instances(graph(4), "node")
    assert any(GNNExplainer(model, epochs=2, preset="pyg").explain(X).undecided)
