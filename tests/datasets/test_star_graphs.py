"""Star graphs: the generator's own figures, truth by counting, parameters."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgnnx.datasets import make_star_graphs


@pytest.fixture(scope="module")
def stars():
    return make_star_graphs(n_graphs=3000, random_state=0)


def test_figures_of_the_generator(stars):
    leaves = np.array([graph.num_edges for graph in stars.graphs])
    assert set(leaves.tolist()) == set(range(6, 13))
    assert abs(leaves.mean() - 9) < 0.15
    colours = np.concatenate([graph.edge_type.numpy() for graph in stars.graphs])
    assert np.abs(np.bincount(colours, minlength=6) / len(colours) - 1 / 6).max() < 0.01
    # measured on the published generator: 0.38 positive, 0.23 level, a third of the edges true, 3.4 % without any
    level = [np.sum(graph.edge_type.numpy() == x) == np.sum(graph.edge_type.numpy() == y)
             for graph, (x, y) in zip(stars.graphs, stars.query)]  # fmt: skip
    assert abs(stars.target.mean() - 0.38) < 0.03
    assert abs(np.mean(level) - 0.23) < 0.03
    assert abs(np.concatenate(stars.edge_truth).mean() - 1 / 3) < 0.01
    assert abs(1 - len(stars.evaluation_index["all_motif"]) / 3000 - 0.034) < 0.012


def test_every_star_asks_its_leaves_and_counts(stars):
    for graph, (x, y), label, truth in zip(stars.graphs, stars.query, stars.target, stars.edge_truth):
        assert x != y
        assert graph.edge_index.tolist() == [list(range(1, graph.num_nodes)), [0] * (graph.num_nodes - 1)]
        assert (graph.x[0] == -1).all()
        asked = torch.zeros(12)
        asked[x], asked[6 + y] = 1, 1
        assert (graph.x[1:] == asked).all()
        count = Counter(graph.edge_type.tolist())
        assert label == int(graph.y) == int(count[x] > count[y])
        assert truth.tolist() == [colour in (x, y) for colour in graph.edge_type.tolist()]


def test_truth_of_instances_is_none_where_no_edge_is_asked_about(stars):
    given_truth = stars.data.truth["edge"]
    asked = set(stars.evaluation_index["all_motif"].tolist())
    for i, mask in enumerate(stars.edge_truth):
        assert (given_truth[i] is None) == (i not in asked) == (not mask.any())
        if i in asked:
            assert np.array_equal(given_truth[i][0], mask)
    assert stars.evaluation_index["graphmask"].tolist() == list(range(3000))


def test_random_state():
    def colours(random_state):
        return [g.edge_type.tolist() for g in make_star_graphs(n_graphs=5, random_state=random_state).graphs]

    assert colours(1) == colours(1) == colours(np.random.RandomState(1))
    assert colours(1) != colours(2)


@given(n_graphs=st.integers(1, 4), n_colours=st.integers(2, 4), leaves=st.tuples(st.integers(1, 3), st.integers(0, 2)))
def test_sizes_follow_the_parameters(n_graphs, n_colours, leaves):
    low, high = leaves[0], sum(leaves)
    X, y = make_star_graphs(
        n_graphs=n_graphs, n_colours=n_colours, min_leaves=low, max_leaves=high, random_state=0, return_X_y=True
    )
    assert X.shape == y.shape == (n_graphs,)
    for i in range(n_graphs):
        graph = X[i].graph
        assert low <= graph.num_edges <= high
        assert graph.x.shape == (graph.num_edges + 1, 2 * n_colours)
        assert int(graph.edge_type.max()) < n_colours


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"n_graphs": 0}, "The 'n_graphs' parameter of make_star_graphs must be an int"),
        ({"n_colours": 1}, "The 'n_colours' parameter of make_star_graphs"),
        ({"min_leaves": 0}, "The 'min_leaves' parameter of make_star_graphs"),
        ({"max_leaves": 5}, r"The 'max_leaves' parameter of make_star_graphs must be an int in the range \[6, inf\)"),
    ],
)
def test_bad_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_star_graphs(**parameters)
