"""IntegratedGradients against a loop over steps, the completeness of its sums, and cases solved by hand."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    GCNConv,
    GINConv,
    GraphConv,
    GraphNorm,
    MessagePassing,
    SAGEConv,
    SimpleConv,
    global_add_pool,
)

from skgnnx import Explanations, Instances, IntegratedGradients
from skgnnx.blackbox import open_box

CONVS = {
    "gcn": GCNConv,
    "graph": GraphConv,
    "sage": SAGEConv,
    "gin": lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.Tanh(), nn.Linear(o, o))),
}


class Net(nn.Module):
    """Two convolutions and a linear layer, for nodes, graphs or links."""

    def __init__(self, conv="graph", level="node", act=torch.tanh):
        super().__init__()
        torch.manual_seed(2)
        self.convs = nn.ModuleList([CONVS[conv](3, 8), CONVS[conv](8, 8)])
        self.out = nn.Linear(8, 3)
        self.level, self.act = level, act

    def forward(self, x, edge_index, batch=None, edge_label_index=None):
        for conv in self.convs:
            x = self.act(conv(x, edge_index))
        if self.level == "edge":
            x = x[edge_label_index[0]] * x[edge_label_index[1]]
        return self.out(global_add_pool(x, batch) if self.level == "graph" else x)


def graph(seed, n=7, e=16):
    random = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, e), generator=random)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    return Data(x=torch.randn(n, 3, generator=random, dtype=torch.float64), edge_index=edge_index)


def instances(level):
    if level == "graph":
        return Instances.from_graphs([graph(seed, n=5 + seed) for seed in range(4)], target=1)
    if level == "node":
        return Instances.from_nodes(graph(0), [0, 2, 3, 6], target=1)
    return Instances.from_edges(graph(0), [[0, 2, 3], [1, 4, 6]], target=1)


def change(E):
    return np.array(E.score) - np.array(E.baseline_score)


def total(E, i, *masks):
    return sum(float(E.entries(i, mask=mask)[1].astype(np.float64).sum()) for mask in masks)


def by_loop(score, x, baseline, num_steps=60):
    """One step after the other, by the rule of the midpoint; extrapolated from this and from half of the steps."""

    def midpoints(steps):
        gradient = torch.zeros_like(x)
        for k in range(steps):
            at = (baseline + (k + 0.5) / steps * (x - baseline)).requires_grad_()
            gradient += torch.autograd.grad(score(at), at)[0] / steps
        return ((x - baseline) * gradient).numpy()

    fine, coarse = midpoints(num_steps), midpoints(num_steps // 2)
    return fine + (fine - coarse) / 3


@pytest.mark.parametrize("level", ["node", "graph", "edge"])
@pytest.mark.parametrize(
    ("conv", "baseline"),
    [*((conv, "zero") for conv in CONVS), ("gcn", "mean"), ("gin", "mean"), ("sage", [0.5, -1.0, 0.0])],
)
def test_equals_a_loop_over_steps(conv, level, baseline):
    model, X = Net(conv, level).double().eval(), instances(level)
    E = IntegratedGradients(model, mask="node_feature", baseline=baseline, tol=1e-6).explain(X)
    for i in range(len(X)):
        data, element = X[i].graph, X[i].element
        reaching = E.entries(i, mask="node_feature")[0]
        start = torch.tensor(baseline) if isinstance(baseline, list) else torch.zeros(3)
        start = (data.x[reaching].mean(0) if baseline == "mean" else start).double().expand_as(data.x)

        def score(x, data=data, element=element):
            ends = torch.as_tensor(element).view(2, 1) if level == "edge" else None
            return model(x, data.edge_index, None, ends)[int(element) if level == "node" else 0, 1]

        np.testing.assert_allclose(E[i], by_loop(score, data.x, start), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(E.score[i], float(score(data.x).detach()), rtol=1e-9)
        np.testing.assert_allclose(E.baseline_score[i], float(score(start).detach()), rtol=1e-9)


@pytest.mark.parametrize("level", ["node", "graph"])
def test_edges_equal_a_loop_over_weights_from_zero_to_one(level):
    """Where nothing is normalised, a gate on the messages is an edge weight."""
    model, X = Net("graph", level).double().eval(), instances(level)
    E = IntegratedGradients(model, tol=1e-6).explain(X)
    for i in range(len(X)):
        data, row = X[i].graph, int(X[i].element) if level == "node" else 0

        def score(weight, data=data, row=row):
            x = data.x
            for conv in model.convs:
                x = conv(x, data.edge_index, weight).tanh()
            return model.out(x.sum(0, keepdim=True) if level == "graph" else x)[row, 1]

        ones = torch.ones(data.num_edges, dtype=torch.float64)
        np.testing.assert_allclose(E[i], by_loop(score, ones, 0 * ones), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(E.baseline_score[i], float(score(0 * ones).detach()), rtol=1e-9)


@pytest.mark.parametrize("level", ["node", "graph", "edge"])
@pytest.mark.parametrize(
    ("conv", "mask", "joint"),
    [
        *((conv, *what) for conv in ("gcn", "gin") for what in (("edge", False), ("edge", True), ("node", True))),
        *((conv, "feature", False) for conv in CONVS),
    ],
)
def test_scores_sum_to_the_change(conv, level, mask, joint):
    model, X = Net(conv, level, torch.relu).double().eval(), instances(level)
    E = IntegratedGradients(model, mask=mask, joint=joint, n_steps=8, max_steps=4096).explain(X)
    other = "node" if mask == "edge" else "edge"
    for i in range(len(X)):
        moved = change(E)[i]
        allowed = 0.01 * max(abs(moved), 0.01 * (abs(E.score[i]) + abs(E.baseline_score[i])))
        assert E.completeness_gap[i] <= allowed
        summed = np.asarray(E[i], dtype=np.float64).sum() + (total(E, i, other) if joint else 0)
        assert abs(summed - moved) <= allowed + 1e-6
        assert abs(abs(summed - moved) - E.completeness_gap[i]) <= 1e-6  # the gap is what it says it is


class Linear(nn.Module):
    """Sums over neighbours of neighbours, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = SimpleConv(aggr="sum"), nn.Linear(3, 2)

    def forward(self, x, edge_index):
        return self.out(self.conv(self.conv(x, edge_index), edge_index))


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_a_linear_model_is_exact_for_any_number_of_steps(n_steps):
    model, data = Linear().double(), graph(4)
    start = np.array([1.0, 0.0, -2.0])
    explainer = IntegratedGradients(model, mask="node_feature", baseline=start, n_steps=n_steps, tol=1e-9)
    E = explainer.explain(Instances.from_nodes(data, [1, 5], target=0))
    adjacency = np.zeros((7, 7))
    np.add.at(adjacency, (data.edge_index[1].numpy(), data.edge_index[0].numpy()), 1)
    paths, weight = adjacency @ adjacency, model.out.weight[0].detach().numpy()
    for i, node in enumerate((1, 5)):
        np.testing.assert_allclose(E[i], paths[node][:, None] * (data.x.numpy() - start) * weight, rtol=1e-6, atol=1e-7)
    assert E.steps_used == [n_steps] * 2


class Scaled(MessagePassing):
    """Neighbours divided by how many edges reach them: what is one step farther than messages come from."""

    def __init__(self, width, out):
        super().__init__(aggr="sum")
        self.lin = nn.Linear(width, out)

    def forward(self, x, edge_index):
        degree = x.new_ones(len(x)).index_add(0, edge_index[1], x.new_ones(edge_index.shape[1]))
        return self.propagate(edge_index, x=self.lin(x) / degree[:, None])


def test_the_mean_is_that_of_nodes_that_reach_the_prediction():
    """A ring around them is there for degrees only."""
    x = torch.eye(6, 3).double() + torch.arange(18).view(6, 3) / 9
    path = Data(x=x, edge_index=torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 5, 3]]))
    model = Net().double()
    model.convs = nn.ModuleList([Scaled(3, 8), Scaled(8, 8)]).double()
    E = IntegratedGradients(model.eval(), mask="node_feature", baseline="mean", tol=1e-6).explain(
        Instances.from_nodes(path, [5], target=0)
    )
    reaching = E.entries(0, mask="node_feature")[0]
    assert reaching.tolist() == [3, 4, 5]
    start = path.x[reaching].mean(0).expand_as(path.x)
    expected = by_loop(lambda x: model(x, path.edge_index)[5, 0], path.x, start)
    np.testing.assert_allclose(E[0], expected, rtol=1e-3, atol=1e-4)


def test_what_does_not_move_has_no_share():
    data = graph(0)
    data.x[:, 1] = 0.25
    data.x[3] = torch.tensor([0.25, 0.25, 0.25])
    model = Net().double().eval()
    E = IntegratedGradients(model, mask="node_feature", baseline=[0.25, 0.25, 0.25]).explain(Instances.from_nodes(data))
    for i in range(len(E)):
        assert (E[i][:, 1] == 0).all()
        assert (E[i][3] == 0).all()
        assert np.abs(E[i]).max() > 0


def test_steps_are_doubled_for_whom_it_is_needed():
    model = Net("gin", "graph", torch.relu).double().eval()
    X = Instances.from_graphs([graph(seed, n=8) for seed in range(12)], target=0)
    fine = IntegratedGradients(model, mask="node", n_steps=4, max_steps=4096, tol=0.02).explain(X)
    assert len(set(fine.steps_used)) > 2
    assert all(steps in (4 * 2**k for k in range(11)) for steps in fine.steps_used)
    for i, steps in enumerate(fine.steps_used):
        alone = IntegratedGradients(model, mask="node", n_steps=steps, max_steps=steps, tol=0.02).explain(X[i : i + 1])
        np.testing.assert_allclose(fine[i], alone[0], rtol=1e-6, atol=1e-7)
        if steps > 4:  # half of the steps would not have done
            with pytest.warns(UserWarning, match=f"1 of 1 instances.*tol=0.02.*index 0.*max_steps={steps // 2};"):
                IntegratedGradients(model, mask="node", n_steps=steps // 2, max_steps=steps // 2, tol=0.02).explain(
                    X[i : i + 1]
                )


def test_sums_that_are_off_are_told():
    model, X = Net("gin", "graph", torch.relu).double().eval(), instances("graph")
    explainer = IntegratedGradients(model, mask="node", n_steps=2, max_steps=7, tol=1e-9)
    with pytest.warns(UserWarning, match="4 of 4 instances do not sum.*tol=1e-09, the first at index 0.*max_steps=7;"):
        E = explainer.explain(X)
    assert E.steps_used == [4] * 4
    assert min(E.completeness_gap) > 0
    with pytest.warns(UserWarning, match="do not sum") as caught:
        explainer.explain_targets(X)
    assert len([w for w in caught if "do not sum" in str(w.message)]) == 3


@pytest.mark.filterwarnings("ignore:The scores of")  # more steps would be no other test
@pytest.mark.parametrize("mask", ["edge", "node"])
@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("conv", ["gcn", "graph", "gin"])
def test_copies_of_steps_give_what_single_steps_give(monkeypatch, conv, mask, level):
    """Also for one instance alone, for parts of a batch, and for a number that copies do not divide."""
    model, X, found = Net(conv, level, torch.relu).double().eval(), instances(level), []
    for rows in (1, 100, 10**6):
        monkeypatch.setattr(open_box, "ROWS_AT_ONCE", rows)
        explainer = IntegratedGradients(model, mask=mask, joint=True, n_steps=7, max_steps=14, tol=0.02)
        found += [explainer.explain(X), Explanations.concat([explainer.explain(X[i : i + 1]) for i in range(len(X))])]
    for E in found[1:]:
        assert E.steps_used == found[0].steps_used
        for i in range(len(X)):
            np.testing.assert_allclose(E[i], found[0][i], rtol=1e-6, atol=1e-8)


class Mixing(nn.Module):
    """Normalises over all nodes that there are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.out = GraphConv(3, 6), GraphNorm(6), nn.Linear(6, 2)

    def forward(self, x, edge_index):
        return self.out(self.norm(self.conv(x, edge_index)).tanh())


class OneGraph(Mixing):
    """Reads one graph at a time."""

    def forward(self, x, edge_index):
        return self.out(self.conv(x, edge_index).tanh().mean(0, keepdim=True))


@pytest.mark.parametrize("alone", [True, False])
def test_a_model_that_mixes_copies_gets_none(alone):
    X = Instances.from_nodes(graph(0), [2] if alone else [2, 3], target=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it runs on the whole graph, one instance at a time
        E = IntegratedGradients(Mixing().double().eval(), mask="node_feature", tol=1e-4).explain(X)
    model, data = Mixing().double().eval(), graph(0)
    expected = by_loop(lambda x: model(x, data.edge_index)[2, 0], data.x, torch.zeros_like(data.x), 1000)
    np.testing.assert_allclose(E[0], expected, rtol=1e-3, atol=1e-4)


def test_a_model_of_one_graph_gets_no_copies():
    model, data = OneGraph().double().eval(), graph(0)
    E = IntegratedGradients(model, mask="node_feature", tol=1e-4).explain(Instances.from_graphs([data], target=0))
    expected = by_loop(lambda x: model(x, data.edge_index)[0, 0], data.x, torch.zeros_like(data.x))
    np.testing.assert_allclose(E[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask", ["edge", "node_feature"])
def test_all_targets_need_no_more_runs_than_one(mask):
    """Where every target is content with the first steps."""
    calls = []

    class Counted(Net):
        def forward(self, x, edge_index, batch=None):
            calls.append(1)
            return super().forward(x, edge_index, batch)

    model, needed = Counted(level="graph").double().eval(), []
    for targets in ([0], [0, 1, 2]):
        calls.clear()
        E = IntegratedGradients(model, mask=mask, tol=0.5).explain_targets(instances("graph"), targets)
        assert all(steps == 50 for one in E for steps in one.steps_used)
        needed.append(len(calls))
    assert needed[0] == needed[1]


def test_targets_that_need_different_steps():
    model, X = Net("gin", "graph", torch.relu).double().eval(), instances("graph")
    explainer = IntegratedGradients(model, mask="node", joint=True, n_steps=3, max_steps=3000, tol=0.02)
    together = explainer.explain_targets(X)
    assert len({tuple(E.steps_used) for E in together}) > 1
    for target, E in enumerate(together):
        alone = explainer.explain(X.with_target(target))
        assert E.steps_used == alone.steps_used
        for i in range(len(X)):
            np.testing.assert_allclose(E[i], alone[i], rtol=1e-6, atol=1e-8)


def test_nothing_outside_of_the_receptive_field():
    path = Data(x=torch.ones(6, 3).double(), edge_index=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]))
    E = IntegratedGradients(Net().double().eval(), joint=True).explain(Instances.from_nodes(path, [5]))
    assert E.entries(0, mask="edge")[0].tolist() == [3, 4]
    assert E.entries(0, mask="node")[0].tolist() == [3, 4, 5]
    assert (E.node_mask[0][:3] == 0).all()
    assert (E.edge_mask[0][:3] == 0).all()


@pytest.mark.parametrize(
    ("baseline", "got"), [([0.0, 1.0], r"\(2,\)"), (np.zeros((7, 3)), r"\(7, 3\)"), ([], r"\(0,\)")]
)
def test_a_baseline_fits_the_features(baseline, got):
    with pytest.raises(ValueError, match=rf"'baseline'.*shape \(3,\), one per node feature. Got shape {got}"):
        IntegratedGradients(Net().double(), mask="node", baseline=baseline).explain(instances("node"))


@pytest.mark.parametrize("baseline", [["a"] * 3, [np.nan, 0, 0], [0, np.inf, 0], [None] * 3, [[1, 2], [3]], [1j, 0, 0]])
def test_a_baseline_is_made_of_finite_numbers(baseline):
    with pytest.raises(ValueError, match="'baseline'.*must be 'zero', 'mean' or finite numbers of shape"):
        IntegratedGradients(Net().double(), mask="node", baseline=baseline).explain(instances("node"))


def test_more_steps_to_begin_with_than_at_most_are_refused():
    with pytest.raises(ValueError, match="'n_steps' must be at most 'max_steps'.*Got 50 and 10; "):
        IntegratedGradients(Net().double(), mask="node", max_steps=10).explain(instances("node"))


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="'baseline' parameter of IntegratedGradients must be 'zero' or 'mean'.*'one'"):
        IntegratedGradients(Net().double(), baseline="one").explain(instances("node"))


def test_a_baseline_is_saved_and_told_apart(tmp_path):
    start = np.linspace(0, 1, 3)
    explainer = IntegratedGradients(Net().double(), mask="node", baseline=start)
    E = explainer.explain(instances("node"))
    E.save(tmp_path / "E")
    assert Explanations.load(tmp_path / "E").steps_used == E.steps_used
    many = np.zeros(5000)
    other = many.copy()
    other[2500] = 1e-3
    prints = {IntegratedGradients(baseline=values).fingerprint() for values in (many, other)}
    assert len(prints) == 2
