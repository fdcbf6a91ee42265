"""Coalitions are asked about once and say what the model says of changed graphs; Shapley weights, draws, efficiency."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from skgnnx.blackbox import BlackBox
from skgnnx.blackbox import coalitions as coalitions_module
from skgnnx.blackbox.coalitions import Coalitions, CoalitionValues
from skgnnx.blackbox.shapley import Arrivals, SetValues, shapley_weights
from skgnnx.graphs.connected_sets import Connections
from skgnnx.testing import example


def by_hand(model, instance, there, removal):
    """Return the probabilities of an instance whose other nodes have no features or no edges."""
    data = instance.graph
    x, edges = data.x, data.edge_index
    if removal == "zero":
        x = x * torch.from_numpy(there).float()[:, None]
    else:
        edges = edges[:, torch.from_numpy(there)[edges].all(0)]
    given = {"batch": torch.zeros(len(x), dtype=torch.long)} if instance.level == "graph" else {}
    if instance.level == "edge":
        given["edge_label_index"] = torch.tensor(instance.element).reshape(2, 1)
    with torch.no_grad():
        output = model(x, edges, **given).softmax(1)
    return output[instance.element if instance.level == "node" else 0].numpy()


@pytest.mark.parametrize("bytes_at_once", [1 << 25, 100])
@pytest.mark.parametrize("removal", ["zero", "split"])
@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_values_are_those_of_changed_graphs(level, removal, bytes_at_once, monkeypatch):
    monkeypatch.setattr(coalitions_module, "BYTES_AT_ONCE", bytes_at_once)
    rng = np.random.default_rng(0)
    model, X = example(level)
    with BlackBox(model).open(X) as gnn:
        for batch in gnn.batches(removal=removal == "split"):
            values = CoalitionValues(gnn, batch, removal)
            asked = [rng.random((9, own.num_nodes)) < 0.5 for own in values.of]
            numbers = [own.numbers(there) for own, there in zip(values.of, asked, strict=True)]
            values.ask(list(enumerate(numbers)))
            for i, (own, there) in enumerate(zip(values.of, asked, strict=True)):
                ids = np.split(batch.node_id, batch.graphs.node_ptr[1:-1])[i]
                for number, inside in zip(numbers[i], there, strict=True):
                    instance = X[int(batch.positions[i])]
                    whole = np.ones(instance.graph.num_nodes, dtype=bool)
                    whole[ids] = inside
                    expected = by_hand(model, instance, whole, removal)
                    found = [own.values(np.array([number]), target)[0] for target in (0, 1)]
                    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_each_coalition_is_asked_about_once():
    own = Coalitions(11)
    there = np.random.default_rng(0).random((40, 11)) < 0.2
    numbers = own.numbers(np.concatenate([there, there[::-1]]))
    assert np.array_equal(numbers[:40], numbers[:39:-1])
    assert len(own) == len(np.unique(there, axis=0))
    assert np.array_equal(own.members(numbers), np.concatenate([there, there[::-1]]))
    own.learn(numbers[:3], np.zeros((3, 2)))
    assert set(own.unknown(numbers)) == set(numbers) - set(numbers[:3])  # a value of zero is a value


def test_values_that_are_no_numbers_name_the_instance():
    _, X = example("graph")

    def broken(graphs):
        rows = np.array([[graph.x[0].abs().sum().item(), 1.0] for graph in graphs])
        return np.where(rows[:, :1] == 0, np.nan, rows)

    with BlackBox(broken, outputs_only=True, output="probs").open(X) as gnn:
        (batch,) = gnn.batches()
        values = CoalitionValues(gnn, batch, "zero")
        numbers = values.of[3].numbers(np.zeros((1, 9), dtype=bool))
        with pytest.raises(FloatingPointError, match="changed version of an instance. Got NaN or infinity at index 3"):
            values.ask([(3, numbers)])


@pytest.mark.parametrize("players", range(7))
def test_weights_are_shares_of_permutations(players):
    """The player 0 among others: how many orders begin with a coalition, then it."""
    orders = list(permutations(range(players + 1)))
    for size in range(players + 1):
        ahead = [order for order in orders if set(order[: order.index(0)]) == set(range(1, size + 1))]
        assert shapley_weights(players)[size] == pytest.approx(len(ahead) / len(orders), rel=1e-12)


def test_all_coalitions_are_taken_where_they_are_few():
    others = np.array([True, False, True, True])
    uniform = np.full((4, 4), 0.5)
    coalitions, weights = Arrivals(uniform, uniform[0], 8).coalitions(others)
    expected = {tuple(c) for size in range(4) for c in combinations([0, 2, 3], size)}
    assert {tuple(np.flatnonzero(c).tolist()) for c in coalitions} == expected
    assert len(coalitions) == 8
    assert weights.sum() == pytest.approx(1)
    assert len(Arrivals(uniform, uniform[0], 7).coalitions(others)[0]) == 7


@pytest.mark.parametrize("draws", [1, 2, 7, 16])
def test_draws_estimate_the_shapley_value(draws):
    rng = np.random.default_rng(draws)
    table = rng.normal(size=2**6)
    others = np.array([True, True, False, True, True, True, True])

    def gain(coalitions):
        return table[coalitions[:, others] @ (1 << np.arange(6))]

    half, runs = (draws + 1) // 2, 1500
    every, weights = Arrivals(rng.random((7, 32)), rng.random(32), 64).coalitions(others)
    exact = weights @ gain(every)
    found = []
    for _ in range(runs):
        coalitions, weights = Arrivals(rng.random((7, half)), rng.random(half), draws).coalitions(others)
        assert len(coalitions) == draws
        assert not coalitions[:, ~others].any()
        found.append(weights @ gain(coalitions))
    assert abs(np.mean(found) - exact) < 3 * np.std(found) / np.sqrt(runs)
    if draws > 1:
        independent = table.std() / np.sqrt(draws)
        assert np.std(found) < 1.05 * independent


def test_values_of_single_nodes_sum_to_the_change():
    model, X = example("graph")
    with BlackBox(model).open(X) as gnn:
        (batch,) = gnn.batches()
        values = CoalitionValues(gnn, batch, "zero")

        def search(i, own):
            ends = X[i].graph.edge_index.numpy()
            reached = np.ones(own.num_nodes, dtype=bool)
            unused = np.zeros((own.num_nodes, 512))
            arrivals = Arrivals(unused, unused[0], 1024)
            singles = SetValues(own, 0, Connections(ends, own.num_nodes), reached, arrivals, hops=9)
            made_of = singles.comparisons(np.eye(own.num_nodes, dtype=bool))
            both = own.numbers(np.array([reached, ~reached]))
            yield np.concatenate([both, *(np.concatenate(one[:2]) for one in made_of)])
            whole, nothing = own.values(both, 0)
            return sum(map(singles.of, made_of)) - (whole - nothing)

        gaps = values.side_by_side([search(i, own) for i, own in enumerate(values.of)])
    np.testing.assert_allclose(gaps, 0, atol=1e-12)
