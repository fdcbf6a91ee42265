"""Learning many masks at once equals torch's Adam on each alone."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, opened, random_graph, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GraphConv

from skgnnx import Instances
from skgnnx.blackbox.mask_learning import edge_pairs, learn_masks
from skgnnx.blackbox.mask_logits import MaskParameters, Penalty
from skgnnx.blackbox.mask_progress import PATIENCE

SIZES = [3, 5, 1]
EPS = 1e-15
FREE = Penalty(0.0, 0.0, mean=False)


@dataclass
class Numbers:
    """A batch of instances that are nothing but numbers with so many edges each."""

    ids: np.ndarray
    sizes: np.ndarray
    device = torch.device("cpu")

    @property
    def graphs(self):
        return self

    @property
    def edge_ptr(self):
        return np.append(0, np.cumsum(self.sizes))

    @property
    def node_ptr(self):
        return np.zeros(len(self) + 1, dtype=int)

    def __len__(self):
        return len(self.ids)

    def take(self, instances):
        return Numbers(self.ids[instances], self.sizes[instances])


def numbers(sizes):
    return Numbers(np.arange(len(sizes)), np.array(sizes))


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

    def objective(batch, masks):
        error = (masks["edge"] - wanted) ** 2
        per_instance = error.new_zeros(3).index_add(0, instance, error)
        return per_instance * (1 + (masks["feature"] * strength).sum(1))

    parameters = {
        "edge": MaskParameters(logits, instance, weight),
        "feature": MaskParameters(features, torch.arange(3), torch.ones(3, 1).expand(3, 4)),
    }
    penalties = {"edge": Penalty(*edge), "feature": Penalty(*feature)}
    return learn_masks(objective, numbers(SIZES), parameters, penalties, epochs=epochs, lr=lr, **options)


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


def run_one(start, tol, epochs=400, others=()):
    """Pull each logit of an instance towards zero; an instance that starts there has nothing to do."""
    logits = torch.tensor([start, *others], dtype=torch.float64)
    mask = MaskParameters(logits, torch.arange(len(logits)), torch.ones_like(logits))

    def objective(batch, masks):
        return 1 + (masks["edge"] - 0.5) ** 2

    batch = numbers([1] * len(logits))
    return learn_masks(objective, batch, {"edge": mask}, {"edge": FREE}, epochs=epochs, lr=0.05, tol=tol)


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


@pytest.mark.parametrize("big", [0, 3])
def test_the_rest_goes_on_alone_once_half_of_the_edges_have_stopped(big):
    """Instance 0 stops first; whether that matters depends on its share of the edges."""
    starts = [0.0, 1.0, -3.0, 2.0]
    sizes = np.ones(4, dtype=int)
    sizes[big] = 9
    logits = torch.tensor(starts, dtype=torch.float64)
    mask = MaskParameters(logits, torch.arange(4), torch.ones_like(logits))
    seen = []

    def objective(batch, masks):
        seen.append(batch.ids.tolist())
        return 1 + (masks["edge"] - 0.5) ** 2

    batch = Numbers(np.arange(4), sizes)
    learned = learn_masks(objective, batch, {"edge": mask}, {"edge": FREE}, epochs=400, lr=0.05, tol=1e-4, taped=False)
    steps = learned.num_steps.tolist()
    assert seen[0] == [0, 1, 2, 3]
    for step, ids in enumerate(seen):
        going = [i for i in range(4) if steps[i] > step]
        assert set(going) <= set(ids)
        assert sizes[going].sum() * 2 > sizes[ids].sum()
    assert (seen[PATIENCE + 1] == [1, 2, 3]) == (big == 0)


def learned_from(gnn, batch, work, taped=True):
    """Learn edges tied over directions, and features of each instance; note how much passes the model in each step."""
    unit, first = edge_pairs(batch)
    edges, features = batch.noise(0, "edge")[first].to(gnn.dtype), batch.noise(0, "instance", 3).to(gnn.dtype)
    parameters = {
        "edge": MaskParameters(edges, batch.edge_instance[first], torch.ones_like(edges), unit),
        "feature": MaskParameters(features, torch.arange(len(batch)), torch.ones_like(features[:, :1])),
    }
    penalties = {"edge": Penalty(0.02, 0.1, mean=False), "feature": Penalty(1.0, 0.1, mean=True)}

    def objective(part, masks):
        work.append(part.num_nodes + part.num_edges)
        x = part.x * masks["feature"].index_select(0, part.node_instance)
        return gnn.prediction_loss(part, x=x, edge_mask=masks["edge"])

    return learn_masks(objective, batch, parameters, penalties, epochs=150, lr=0.1, tol=1e-2, taped=taped)


@pytest.mark.parametrize("layer", [GCNConv, GraphConv])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compaction_changes_nothing_but_the_work(layer, dtype):
    X = Instances.from_nodes(random_graph(4, nodes=30, edges=50, undirected=True, dtype=dtype))
    atol, work = (1e-6 if dtype == torch.float32 else 1e-12), []
    with opened(seeded(lambda: Stack(layer(3, 8), layer(8, 3))).to(dtype), X) as gnn:
        (batch,) = gnn.batches()
        together = learned_from(gnn, batch, work, taped=False)
        again = learned_from(gnn, batch, [])
        assert torch.equal(again.masks["edge"], together.masks["edge"])
        assert torch.equal(again.num_steps, together.num_steps)
        for i, one in enumerate(gnn.batches(batch_size=1)):
            alone, mine = learned_from(gnn, one, []), batch.edge_instance == i
            assert alone.num_steps[0] == together.num_steps[i]
            torch.testing.assert_close(together.masks["edge"][mine], alone.masks["edge"], atol=atol, rtol=0)
            torch.testing.assert_close(together.masks["feature"][[i]], alone.masks["feature"], atol=atol, rtol=0)
            torch.testing.assert_close(together.loss[[i]], alone.loss, atol=10 * atol, rtol=0)
    steps, whole = together.num_steps, batch.num_nodes + batch.num_edges
    size = batch.sum_edges(torch.ones(batch.num_edges)) + batch.sum_nodes(torch.ones(batch.num_nodes))
    assert PATIENCE < steps.min() < steps.max() == len(work) < 150
    assert work[0] == whole
    assert min(work) <= whole // 4
    assert all(passed < 2 * size[steps > step].sum() for step, passed in enumerate(work))


def test_with_gradient_support_the_first_step_is_free_and_dead_logits_end_at_zero():
    logits = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    mask = MaskParameters(logits, torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.float64))

    def objective(batch, masks):
        live = masks["edge"] * torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
        return live.new_zeros(2).index_add(0, mask.instance, live)

    def learn(epochs, size):
        return learn_masks(
            objective,
            numbers([2, 1]),
            {"edge": mask},
            {"edge": Penalty(size, 0.0, False)},
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
        lambda batch, masks: torch.ones(2),
        numbers([1, 1]),
        {"edge": mask},
        {"edge": FREE},
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

    def objective(batch, masks):
        seen.append(masks["edge"].detach().clone())
        return (masks["edge"] * torch.tensor([1.0, 2.0, 4.0])).sum().view(1)

    learned = learn_masks(objective, numbers([3]), {"edge": mask}, {"edge": Penalty(1.0, 0.0, False)}, epochs=1, lr=0.1)
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
