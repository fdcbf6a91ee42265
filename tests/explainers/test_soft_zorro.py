"""SoftZorro equals torch's own Adam on the loss of one instance, and keeps the laws of all explainers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from test_zorro import Embedded, Net, S, categories, draws_of, instances

from skgnnx import Instances, Zorro, config_context
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.feature_draws import FeatureDraws
from skgnnx.blackbox.soft_selection import SoftFidelity
from skgnnx.graphs.feature_columns import FeatureColumns
from skgnnx.testing import checks

EPOCHS = 25


def first_weights(model, X, i):
    """Return the initial weights of the nodes that can reach the prediction, in the user's order, and of features."""
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches(np.array([i]))
        order = np.argsort(batch.node_id)
        nodes = ndtr(batch.noise(0, "node").numpy())[order][batch.graphs.node_reach[order]]
        return nodes, ndtr(batch.noise(0, "instance", batch.x.shape[1]).numpy())[0]


def entropy(p):
    return -(p * (p + 1e-15).log() + (1 - p) * (1 - p + 1e-15).log()).mean()


def by_torch(model, X, i, target, size, entropy_weight):
    """Return nodes that have weights, the weights, and the loss, from torch's Adam and one forward pass per draw."""
    data = X[i].graph
    draws, reached = draws_of(model, X, i, range(S))
    v, f = (torch.from_numpy(each).clone().requires_grad_() for each in first_weights(model, X, i))
    adam = torch.optim.Adam([v, f], lr=0.05)

    def loss():
        mask = torch.zeros(data.num_nodes, dtype=torch.float64).index_copy(0, torch.tensor(reached), v)
        total = 0
        for drawn in draws:
            x = drawn + mask[:, None] * f * (data.x - drawn)
            output = model(x, data.edge_index)
            total = total + output[0 if X.level == "graph" else X[i].element].softmax(0)[target]
        return -total / S + size * (v.sum() + f.sum()) + entropy_weight * (entropy(v) + entropy(f))

    for _ in range(EPOCHS):
        adam.zero_grad()
        loss().backward()
        adam.step()
        with torch.no_grad():
            v.clamp_(0, 1)
            f.clamp_(0, 1)
    return reached, v.detach().numpy(), f.detach().numpy(), loss().item()


def doubled(X):
    graphs = [X.store.graph(g) for g in range(X.store.num_graphs)]
    for data in graphs:
        data.x = data.x.double()
    return Instances.from_graphs(graphs) if X.level == "graph" else Instances.from_nodes(graphs[0], X.element[:, 0])


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("budget", [2_000_000_000, 20_000])
def test_equals_adam_of_torch(level, budget):
    # The published code never sets its gradients to zero; this loop does.
    model, X = Net(level).double(), doubled(instances(level))
    given = {"n_samples": S, "epochs": EPOCHS, "lr": 0.05, "size": 0.02, "entropy": 0.2}
    with config_context(memory_budget=budget):
        E = Zorro(model, soft=True, **given).explain(X)
    for i in range(len(X)):
        reached, v, f, loss = by_torch(model, X, i, E.targets[i], 0.02, 0.2)
        np.testing.assert_allclose(E.node_mask[i][reached], v, atol=1e-6)
        np.testing.assert_allclose(E.feature_mask[i], f, atol=1e-6)
        assert E.loss[i] == pytest.approx(loss, abs=1e-6)
        assert 0 < E.fidelity[i] <= 1
        assert E.fidelity[i] != E.search_fidelity[i]


def test_weights_are_at_both_ends_and_a_larger_penalty_leaves_fewer():
    X = instances("graph")
    E, F = (Zorro(Net("graph"), soft=True, n_samples=S, size=size).explain(X) for size in (0.01, 0.1))
    for i in range(len(X)):
        assert set(np.unique(E[i])) >= {0, 1}
        assert F.node_mask[i].sum() + F.feature_mask[i].sum() < E.node_mask[i].sum() + E.feature_mask[i].sum()


def test_gradients_are_made_anew():
    model, X = Net("graph"), instances("graph")
    with BlackBox(model).open(X) as gnn, torch.enable_grad():
        (batch,) = gnn.batches()
        draws = FeatureDraws(batch, FeatureColumns(X.store.columns["x"].values), 0, range(S))
        fidelity = SoftFidelity(gnn, batch, draws)
        weights = torch.full((batch.num_nodes,), 0.5).double(), torch.full((len(batch), 4), 0.5).double()
        first, again = fidelity.gradients(*weights), fidelity.gradients(*weights)
        assert first[0].any()
        assert all(torch.equal(one, other) for one, other in zip(first, again))
        ahead = fidelity(weights[0] + 1e-3 * first[0], weights[1] + 1e-3 * first[1])
        assert ahead.sum() > fidelity(*weights).sum()


def test_constant_columns_have_no_weight():
    X = instances("graph")
    X.store.columns["x"].values[:, 2] = 1.0
    E = Zorro(Net("graph"), soft=True, n_samples=S, epochs=3, mask="feature").explain(X)
    assert np.asarray(E).any(axis=0).tolist() == [True, True, False, True]


def test_masks_belong_together():
    X = instances("node")
    E = Zorro(Net("node"), soft=True, n_samples=S, epochs=3, mask="node_feature").explain(X)
    np.testing.assert_allclose(E[1], np.outer(E.node_mask[1], E.feature_mask[1]), atol=1e-6)


@pytest.mark.parametrize("law", ["nothing_touched", "batch_size", "callers"])
def test_laws_of_all_explainers(law):
    checks()[f"check_{law}"](lambda model: Zorro(model, soft=True, n_samples=3, epochs=3, lr=0.1))


def test_refusals():
    with pytest.raises(TypeError, match=r"soft=True\) needs a network.*use soft=False"):
        Zorro(lambda graphs: np.zeros((len(graphs), 2)), soft=True).explain(instances("graph"))
    with pytest.raises(TypeError, match="floating-point node features.*use soft=False"):
        Zorro(Embedded("node"), soft=True).explain(instances("node", categories))
    with pytest.raises(ValueError, match="'n_explanations' must be 1"):
        Zorro(Net("node"), soft=True, n_explanations=2).explain(instances("node"))
