"""ErasureSearch against all sets of gates tried one by one, and what it does beyond its budget."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GraphConv, RGCNConv, global_add_pool

from skgnnx import ErasureSearch, Instances
from skgnnx.blackbox.gate_search import first_best, num_sets


class Net(nn.Module):
    """Two layers whose messages can be multiplied by factors of the test's own, without any hook."""

    def __init__(self, level="graph", columns=3, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.convs = nn.ModuleList([GraphConv(3, 8), GraphConv(8, 8)])
        self.out = nn.Linear(8, columns)
        self.level = level

    def forward(self, x, edge_index, batch=None, factors=(None, None)):
        for conv, factor in zip(self.convs, factors):
            x = torch.tanh(conv(x, edge_index, factor))
        return self.out(global_add_pool(x, batch) if self.level == "graph" else x)


def graph(seed, n=4, e=4):
    random = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, e), generator=random)
    edge_index[1] = torch.where(edge_index[0] == edge_index[1], (edge_index[1] + 1) % n, edge_index[1])
    return Data(x=torch.randn(n, 3, generator=random), edge_index=edge_index)


def in_order(edge_index):
    """Edges by source, target and occurrence."""
    return sorted(range(edge_index.shape[1]), key=lambda e: (*edge_index[:, e].tolist(), e))


def smallest(evaluate, gates):
    """Try all sets, the smallest first; `evaluate` returns what is predicted and how probable the target is."""
    label, _ = evaluate(frozenset(gates))
    for size in range(len(gates) + 1):
        kept = []
        for chosen in itertools.combinations(gates, size):
            predicted, probability = evaluate(frozenset(chosen))
            if predicted == label:
                kept.append((probability, chosen))
        if kept:
            best = max(probability for probability, _ in kept)
            return set(next(chosen for probability, chosen in kept if probability >= best * (1 - 1e-5))), size
    raise AssertionError


def by_hand(model, data, row, target=None, per_layer=True):
    """Return the smallest set as gates (2, E)."""
    edges = in_order(data.edge_index)
    gates = [(k, e) for e in edges for k in (0, 1)] if per_layer else [(None, e) for e in edges]

    def factors(chosen):
        return [
            torch.tensor([float((k, e) in chosen or (None, e) in chosen) for e in range(data.num_edges)])
            for k in (0, 1)
        ]

    def evaluate(chosen):
        with torch.no_grad():
            p = model(data.x, data.edge_index, factors=factors(chosen))[row].double().softmax(0)
        label = int(p.argmax())
        return label, float(p[label if target is None else target])

    chosen, size = smallest(evaluate, gates)
    return torch.stack(factors(chosen)).numpy(), size


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), per_layer=st.booleans())
def test_sets_are_the_smallest_by_brute_force(seed, per_layer):
    model = Net(seed=seed).eval()
    graphs = [graph(seed + i, e=4 if per_layer else 7) for i in range(3)]
    E = ErasureSearch(model, per_layer=per_layer).explain(Instances.from_graphs(graphs))
    for i, data in enumerate(graphs):
        expected, size = by_hand(model, data, 0, per_layer=per_layer)
        found = E.layer_masks[i] if per_layer else np.repeat(E[i][None], 2, axis=0)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(E[i], expected.max(0))
        assert (E.layer_masks[i].sum() if per_layer else E[i].sum()) == size
        assert E.found[i]
        assert E.exact[i]


def test_nodes_search_only_gates_that_reach_them():
    data = Data(x=torch.randn(4, 3, generator=torch.Generator().manual_seed(1)),
                edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 2]]))  # fmt: skip
    for seed in range(8):
        model = Net("node", seed=seed).eval()
        E = ErasureSearch(model).explain(Instances.from_nodes(data))
        for node in range(4):
            expected, _ = by_hand(model, data, node)
            kept = E.entries(node)[0]
            np.testing.assert_array_equal(E.layer_masks[node], expected[:, kept])
    # edges that end at the node count in both layers, edges that end at its neighbours only in the first
    for node, count in ((1, 2), (2, 6), (3, 4)):
        with pytest.raises(ValueError, match=f"Got {count} gates"):
            ErasureSearch(model, max_evals=1).explain(Instances.from_nodes(data, [node]))


def test_the_target_decides_among_sets_of_one_size_but_not_which_class_is_kept():
    differ = 0
    for seed in range(12):
        model, data = Net(seed=seed).eval(), graph(seed)
        for target in (0, 1, 2):
            E = ErasureSearch(model).explain(Instances.from_graphs([data], target=target))
            expected, size = by_hand(model, data, 0, target=target)
            np.testing.assert_array_equal(E.layer_masks[0], expected)
            differ += 0 < size < 8
    assert differ > 0


class Counting(nn.Module):
    """Class 1 where a node gets at least `enough` messages, all alike; counts its runs and their graphs."""

    def __init__(self, enough, columns=2):
        super().__init__()
        self.conv = GraphConv(1, 1, bias=False)
        nn.init.ones_(self.conv.lin_rel.weight)
        nn.init.zeros_(self.conv.lin_root.weight)
        self.enough, self.columns = enough, columns

    def forward(self, x, edge_index, batch=None):
        excess = global_add_pool(self.conv(x, edge_index), batch) - self.enough + 0.5
        return torch.cat([-excess, excess][-self.columns :], dim=1)


def star(leaves):
    return Data(
        x=torch.ones(leaves + 1, 1), edge_index=torch.stack([torch.arange(leaves) + 1, torch.zeros(leaves).long()])
    )


def test_equal_edges_are_taken_by_source():
    data = star(5)
    data.edge_index = data.edge_index[:, [4, 0, 3, 1, 2]]
    E = ErasureSearch(Counting(2)).explain(Instances.from_graphs([data]))
    assert E[0].tolist() == [0, 1, 0, 1, 0]


def test_hindsight_bias_on_a_star():
    """A counter counts all edges; the search needs no more of them than make the answer the same."""
    E = ErasureSearch(Counting(3)).explain(Instances.from_graphs([star(2), star(8)]))
    assert [mask.sum() for mask in E] == [0, 3]
    assert E.num_evaluations == [1, 1 + 8 + 28 + 56]


def test_binary_and_multilabel_heads_keep_their_decisions():
    X = Instances.from_graphs([star(2), star(8)])
    E = ErasureSearch(Counting(3, columns=1), output="binary_logit").explain(X)
    assert [mask.sum() for mask in E] == [0, 3]
    later = ErasureSearch(Counting(3, columns=1), output="binary_logit", threshold=0.99).explain(X)
    assert later[1].sum() == 8  # sigmoid(8 - 2.5) = 0.996, sigmoid(7 - 2.5) = 0.989
    many = Instances.from_graphs([star(2), star(8)], target=1)
    assert [mask.sum() for mask in ErasureSearch(Counting(3), output="multilabel").explain(many)] == [0, 3]


@pytest.mark.parametrize(("tol", "kept"), [(0.0, 6), (0.2, 5), (0.5, 3), (2.0, 0)])
def test_a_regression_keeps_its_value_up_to_tol(tol, kept):
    X = Instances.from_graphs([star(6)])
    E = ErasureSearch(Counting(0.5, columns=1), output="regression", tol=tol).explain(X)
    assert E[0].sum() == kept


def test_a_regression_keeps_the_set_whose_value_moves_least():
    data = star(3)
    data.x = torch.tensor([[0.0], [1.0], [2.0], [7.0]])
    E = ErasureSearch(Counting(0.5, columns=1), output="regression", tol=0.35).explain(Instances.from_graphs([data]))
    assert E[0].tolist() == [0, 0, 1]  # 7 of 10; then 9 of 10 would be nearer, but is larger
    E = ErasureSearch(Counting(0.5, columns=1), output="regression", tol=0.25).explain(Instances.from_graphs([data]))
    assert E[0].tolist() == [0, 1, 1]


def test_directions_that_are_tied_are_one():
    pairs = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    data = Data(x=torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), edge_index=pairs)
    sizes = set()
    for seed in range(8):
        model = Net(seed=seed).eval()
        E = ErasureSearch(model, tie_directions=True).explain(Instances.from_graphs([data]))
        layers = E.layer_masks[0]
        np.testing.assert_array_equal(layers[:, 0::2], layers[:, 1::2])
        sizes.add(int(layers.sum()) // 2)
        assert E.num_evaluations[0] <= 2**6
    assert len(sizes) > 1


def test_gates_of_other_relations_are_not_searched():
    class Relations(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = RGCNConv(3, 4, num_relations=3, aggr="add")

        def forward(self, x, edge_index, edge_type, batch=None):
            return global_add_pool(self.conv(x, edge_index, edge_type).tanh(), batch)

    torch.manual_seed(0)
    data = graph(3, e=6)
    data.edge_type = torch.tensor([0, 1, 2, 0, 1, 2])
    E = ErasureSearch(Relations().eval(), max_evals=2**6).explain(Instances.from_graphs([data]))
    for number in range(3):
        assert (E.layer_masks[0][number, data.edge_type.numpy() != number] == 0).all()


def test_too_many_sets_are_told_before_the_first_is_tried(monkeypatch):
    tried = []
    monkeypatch.setattr("skgnnx.blackbox.gate_search.Variants.under_masks", lambda *args: tried.append(args))
    X = Instances.from_graphs([star(2), star(30)])
    with pytest.raises(ValueError, match=r"Got 30 gates at index 1, up to 1,073,741,824 evaluations; use on_budget="):
        ErasureSearch(Counting(3)).explain(X)
    with pytest.raises(ValueError, match=r"Got 30 gates at index 1, up to 4,526 evaluations"):
        ErasureSearch(Counting(3), max_size=3, max_evals=4525).explain(X)
    with pytest.raises(ValueError, match=r"Got 100 gates at index 0, up to more than 1e\+18 evaluations"):
        ErasureSearch(Counting(3)).explain(Instances.from_graphs([star(100)]))
    with pytest.raises(ValueError, match=r"up to 465 evaluations; use per_layer=False or another method"):
        ErasureSearch(Counting(3), on_budget="greedy", max_evals=464).explain(X)
    assert not tried


def test_one_instance_beyond_the_budget_does_not_lose_the_others():
    X = Instances.from_graphs([star(2), star(30), star(8)])
    E = ErasureSearch(Counting(3), on_error="nan").explain(X)
    assert E.ok.tolist() == [True, False, True]
    assert "30 gates at index 1" in E.errors[1]
    assert E[2].sum() == 3


def test_greedy_closing_leaves_no_gate_that_could_be_closed():
    greedy_is_larger = 0
    for seed in range(30):
        model, data = Net(seed=seed).eval(), graph(seed, n=5, e=5)
        X = Instances.from_graphs([data, star_like(data)])
        E = ErasureSearch(model, max_evals=2**9, on_budget="greedy").explain(X)
        assert E.exact == [False, True]
        exact = ErasureSearch(model).explain(X)
        assert exact.exact == [True, True]
        np.testing.assert_array_equal(E.layer_masks[1], exact.layer_masks[1])
        label, gates = predicted(model, data, np.ones((2, 5))), E.layer_masks[0]
        assert predicted(model, data, gates) == label
        for k, e in zip(*np.nonzero(gates)):
            closed = gates.copy()
            closed[k, e] = 0
            assert predicted(model, data, closed) != label
        assert gates.sum() >= exact.layer_masks[0].sum()
        greedy_is_larger += gates.sum() > exact.layer_masks[0].sum()
    assert greedy_is_larger < 30


def star_like(data):
    return Data(x=data.x, edge_index=data.edge_index[:, :3])


def predicted(model, data, gates):
    with torch.no_grad():
        return int(model(data.x, data.edge_index, factors=torch.from_numpy(gates).float()).argmax())


@pytest.mark.parametrize("given", [{}, {"max_evals": 40, "on_budget": "greedy"}])
def test_a_set_that_would_be_too_large_is_told(given):
    X = Instances.from_graphs([star(2), star(8)])
    with pytest.warns(
        UserWarning, match=r"No set of at most max_size=2 gates keeps .* of 1 of 2 .* at index 1"
    ) as told:
        E = ErasureSearch(Counting(3), max_size=2, **given).explain(X)
    assert [warning.filename for warning in told] == [__file__]
    assert E.found == [True, False]
    assert E[1].tolist() == [1] * 8


@pytest.mark.parametrize("given", [{}, {"max_evals": 40, "on_budget": "greedy"}])
@pytest.mark.parametrize("label", [0, 1])
def test_what_is_not_a_number_keeps_no_prediction(label, given):
    class Divided(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(1, 1, bias=False)
            nn.init.ones_(self.conv.lin_rel.weight)
            nn.init.zeros_(self.conv.lin_root.weight)

        def forward(self, x, edge_index, batch):
            count = global_add_pool(self.conv(x, edge_index), batch)
            return torch.cat([count / count, count / count], dim=1) * torch.tensor([1 - label, label])

    X = Instances.from_graphs([star(2), star(3)])
    with pytest.raises(
        FloatingPointError, match=r"finite for every changed version .* at index [01]; .*on_error='nan'"
    ):
        ErasureSearch(Divided(), **given).explain(X)


def test_parts_of_sizes_give_what_one_gives(monkeypatch):
    graphs = [graph(seed, e=4) for seed in range(4)]
    model, X = Net(seed=5).eval(), Instances.from_graphs(graphs)
    whole = ErasureSearch(model).explain(X)
    monkeypatch.setattr("skgnnx.blackbox.gate_search.ENTRIES_AT_ONCE", 50)
    parts = ErasureSearch(model).explain(X)
    for one, other in zip(whole.layer_masks, parts.layer_masks):
        np.testing.assert_array_equal(one, other)
    assert whole.num_evaluations == parts.num_evaluations


def test_degrees_stay_behind_closed_gates():
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(1, 1, bias=False)
            nn.init.ones_(self.conv.lin.weight)

        def forward(self, x, edge_index, batch=None):
            return global_add_pool(self.conv(x, edge_index), batch)

    X = Instances.from_graphs([star(3)])
    E = ErasureSearch(Normalised(), output="regression", tol=0.0).explain(X)
    assert E[0].sum() == 3  # each message is worth 1 / 2; without the others it would be worth more


def test_without_messages_another_method_is_named():
    class Flat(nn.Module):
        def forward(self, x, edge_index, batch=None):
            return global_add_pool(x, batch)

    with pytest.raises(TypeError, match="MessagePassing"):
        ErasureSearch(Flat()).explain(Instances.from_graphs([graph(0)]))


def test_the_first_of_the_best_up_to_rounding():
    assert first_best(np.array([0.5, 0.9, 0.9 + 1e-7, 0.9])) == 1
    assert first_best(np.array([-np.inf, -np.inf])) is None
    assert first_best(np.zeros(0)) is None


@given(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 12)))
def test_number_of_sets(n, most):
    sizes = range((n if most is None else min(n, most)) + 1)
    assert num_sets(n, most) == sum(len(list(itertools.combinations(range(n), size))) for size in sizes)
