"""Learning many masks at once equals torch's Adam on each alone."""

import numpy as np
import pytest
import torch
from blackbox_cases import opened, random_graph, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.nn import GraphConv

from skgnnx import Instances
from skgnnx.blackbox.mask_learning import EPS, PATIENCE, MaskParameters, Penalty, edge_pairs, learn_masks

SIZES = [3, 5, 1]


def problem(seed=0, dtype=torch.float64):
    """Three instances; the loss of each is a quadratic form of its own masks."""
    random = torch.Generator().manual_seed(seed)
    instance = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    logits = torch.randn(9, generator=random, dtype=dtype)
    features = torch.randn(3, 4, generator=random, dtype=dtype)
    wanted = torch.rand(9, generator=random, dtype=dtype)
    strength = torch.rand(3, 4, generator=random, dtype=dtype)
    return instance, logits, features, wanted, strength


def slow(seed, epochs, lr, edge, feature, weight):
    """One instance at a time, with torch's own optimiser."""
    instance, logits, features, wanted, strength = problem(seed)
    found_edges, found_features, losses = [], [], []
    for i in range(3):
        mine = instance == i
        m = logits[mine].clone().requires_grad_()
        f = features[i].clone().requires_grad_()
        adam = torch.optim.Adam([m, f], lr=lr)
        for _ in range(epochs):
            adam.zero_grad()
            loss = ((m.sigmoid() - wanted[mine]) ** 2).sum() * (1 + (f.sigmoid() * strength[i]).sum())
            for value, (size, entropy, mean), used in ((m, edge, weight[mine]), (f, feature, torch.ones(4))):
                s = value.sigmoid()
                h = -s * torch.log(s + EPS) - (1 - s) * torch.log(1 - s + EPS)
                count = max(float(used.sum()), 1)
                loss = loss + size * (s * used).sum() / (count if mean else 1) + entropy * (h * used).sum() / count
            loss.backward()
            adam.step()
        found_edges.append(m.detach().sigmoid())
        found_features.append(f.detach().sigmoid())
        losses.append(loss.detach())
    return torch.cat(found_edges), torch.stack(found_features), torch.stack(losses)


def fast(seed, epochs, lr, edge, feature, weight, **options):
    instance, logits, features, wanted, strength = problem(seed)

    def objective(masks):
        error = (masks["edge"] - wanted) ** 2
        per_instance = error.new_zeros(3).index_add(0, instance, error)
        return per_instance * (1 + (masks["feature"] * strength).sum(1))

    parameters = {
        "edge": MaskParameters(logits, instance, weight),
        "feature": MaskParameters(features, torch.arange(3), torch.ones(3, 1).expand(3, 4)),
    }
    penalties = {"edge": Penalty(*edge), "feature": Penalty(*feature)}
    return learn_masks(objective, parameters, penalties, num_instances=3, epochs=epochs, lr=lr, **options)


@given(
    st.integers(0, 99),
    st.sampled_from([1, 2, 30]),
    st.sampled_from([0.01, 0.3]),
    st.sampled_from([(0.0, 0.0, False), (0.05, 1.0, False), (0.3, 0.1, True)]),
)
def test_equals_adam_on_each_instance_alone(seed, epochs, lr, edge):
    weight = torch.tensor([1.0, 0, 1, 1, 1, 0, 1, 1, 0], dtype=torch.float64)
    masks, features, losses = slow(seed, epochs, lr, edge, (1.0, 0.1, True), weight)
    learned = fast(seed, epochs, lr, edge, (1.0, 0.1, True), weight)
    torch.testing.assert_close(learned.masks["edge"], masks, atol=1e-12, rtol=0)
    torch.testing.assert_close(learned.masks["feature"], features, atol=1e-12, rtol=0)
    torch.testing.assert_close(learned.loss, losses, atol=1e-12, rtol=1e-12)
    assert learned.num_steps.tolist() == [epochs] * 3


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=6), st.floats(0, 2), st.floats(0, 2), st.booleans())
def test_the_penalty_is_its_formula(values, size, entropy, mean):
    sigma = torch.tensor(values, dtype=torch.float64).sigmoid()
    support = torch.tensor([float(i % 3 != 1) for i in range(len(values))], dtype=torch.float64)
    mask = MaskParameters(sigma, torch.zeros(len(values), dtype=torch.long), support)
    (got,) = Penalty(size, entropy, mean)(mask, sigma, support, 1)
    used = [s.item() for s, kept in zip(sigma, support) if kept]
    h = [-s * np.log(s + EPS) - (1 - s) * np.log(1 - s + EPS) for s in used]
    expected = size * (np.mean(used) if mean else np.sum(used)) + entropy * np.mean(h)
    assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_an_instance_without_anything_to_penalise_has_no_penalty():
    mask = MaskParameters(torch.zeros(2), torch.tensor([0, 0]), torch.zeros(2))
    penalty = Penalty(1.0, 1.0, True)(mask, torch.full((2,), 0.5), torch.zeros(2), 2)
    assert penalty.tolist() == [0.0, 0.0]


def run_one(start, tol, epochs=400, others=()):
    """Pull each logit of an instance towards zero; an instance that starts there has nothing to do."""
    logits = torch.tensor([start, *others], dtype=torch.float64)
    mask = MaskParameters(logits, torch.arange(len(logits)), torch.ones_like(logits))

    def objective(masks):
        return 1 + (masks["edge"] - 0.5) ** 2

    return learn_masks(objective, {"edge": mask}, {}, num_instances=len(logits), epochs=epochs, lr=0.05, tol=tol)


def test_still_instances_stop_and_do_not_move_any_more():
    alone = run_one(2.0, 1e-4)
    together = run_one(2.0, 1e-4, others=(0.0, -3.0, 0.5))
    assert alone.num_steps[0] == together.num_steps[0] < 400
    assert alone.masks["edge"][0] == together.masks["edge"][0]
    assert alone.loss[0] == together.loss[0]
    assert together.num_steps[1] == PATIENCE + 1  # the first loss has none before it
    assert together.masks["edge"][1] == 0.5
    assert len(set(together.num_steps.tolist())) > 2
    assert run_one(2.0, None).num_steps[0] == 400


def test_a_stopped_instance_has_the_masks_of_its_last_step():
    steps = int(run_one(2.0, 1e-4).num_steps[0])
    assert run_one(2.0, None, epochs=steps - 1).masks["edge"][0] == run_one(2.0, 1e-4, others=(-3.0,)).masks["edge"][0]


def test_with_gradient_support_the_first_step_is_free_and_dead_logits_end_at_zero():
    logits = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    mask = MaskParameters(logits, torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.float64))

    def objective(masks):
        live = masks["edge"] * torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
        return live.new_zeros(2).index_add(0, mask.instance, live)

    def learn(epochs, size):
        return learn_masks(
            objective,
            {"edge": mask},
            {"edge": Penalty(size, 0.0, False)},
            num_instances=2,
            epochs=epochs,
            lr=0.1,
            gradient_support=True,
        )

    assert learn(1, 100.0).loss.tolist() == pytest.approx(learn(1, 0.0).loss.tolist())
    learned = learn(5, 1.0)
    assert learned.masks["edge"][1] == 0
    assert (learned.masks["edge"][[0, 2]] > 0).all()
    assert (learn(5, 0.0).loss < learned.loss).all()


@pytest.mark.parametrize("gradient_support", [False, True])
def test_an_objective_that_ignores_the_masks_leaves_them_to_the_penalties(gradient_support):
    mask = MaskParameters(torch.tensor([0.5, -0.5]), torch.tensor([0, 1]), torch.ones(2))
    learned = learn_masks(
        lambda masks: torch.ones(2),
        {"edge": mask},
        {"edge": Penalty(0.0, 0.0, False)},
        num_instances=2,
        epochs=3,
        lr=0.1,
        gradient_support=gradient_support,
    )
    expected = [0.0, 0.0] if gradient_support else mask.logits.sigmoid().tolist()
    assert learned.masks["edge"].tolist() == pytest.approx(expected)


def test_tied_logits_are_one_parameter():
    """Two edges of one unit: the gradient is the sum of both, the penalty counts once."""
    expand = torch.tensor([0, 1, 0])
    mask = MaskParameters(torch.tensor([0.3, -0.2]), torch.tensor([0, 0]), torch.ones(2), expand)
    seen = []

    def objective(masks):
        seen.append(masks["edge"].detach().clone())
        return (masks["edge"] * torch.tensor([1.0, 2.0, 4.0])).sum().view(1)

    learned = learn_masks(
        objective, {"edge": mask}, {"edge": Penalty(1.0, 0.0, False)}, num_instances=1, epochs=1, lr=0.1
    )
    assert seen[0][0] == seen[0][2]
    assert learned.masks["edge"][0] == learned.masks["edge"][2]
    sigma = mask.logits.sigmoid()
    assert learned.loss.item() == pytest.approx((5 * sigma[0] + 2 * sigma[1] + sigma.sum()).item())


@given(st.integers(0, 200), st.booleans(), st.integers(0, 2))
def test_pairs_are_both_directions_of_an_undirected_edge(seed, undirected, loops):
    data = random_graph(seed, nodes=7, edges=9, undirected=undirected, loops=loops)
    if undirected:  # a repeated pair
        data = Data(x=data.x, edge_index=torch.cat([data.edge_index, data.edge_index], dim=1))
    X = Instances.from_nodes(data)
    with opened(seeded(lambda: GraphConv(3, 2)), X) as gnn:
        batch = next(gnn.batches())
        unit, first = edge_pairs(batch)
    ends = [tuple(pair) for pair in data.edge_index.T.tolist()]
    instance = batch.edge_instance.tolist()
    assert unit[first].tolist() == list(range(len(first)))
    for a in range(batch.num_edges):
        for b in range(a):
            if unit[a] == unit[b]:
                assert undirected
                assert instance[a] == instance[b]
                assert ends[batch.edge_id[a]] == ends[batch.edge_id[b]][::-1]
                assert ends[batch.edge_id[a]] != ends[batch.edge_id[b]]
    assert torch.bincount(unit, minlength=1).max() <= 2
    if undirected and batch.num_edges:
        complete = sum(
            1
            for a in range(batch.num_edges)
            for b in range(a)
            if instance[a] == instance[b] and X.store.partner(0)[batch.edge_id[a]] == batch.edge_id[b]
        )
        assert len(first) == batch.num_edges - complete
