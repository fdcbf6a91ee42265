"""Tree-Cycles: published counts, truth by structure, options, bad parameters."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skgnnx.datasets import make_tree_cycles


def as_networkx(graph, edges=slice(None)):
    return nx.Graph(graph.edge_index[:, edges].T.tolist())


def second_links(cycles, n_base):
    """Pairs (tree node, node of a cycle) in order, without noise."""
    source, target = cycles.graph.edge_index.numpy()
    across = (source < n_base) & (target >= n_base)
    return np.stack([source, target])[:, across].T


@pytest.fixture(scope="module")
def cycles():
    return make_tree_cycles(random_state=0)


def test_published_counts(cycles):
    assert cycles.graph.num_nodes == 871
    assert cycles.edge_truth.sum() == 2 * 360
    assert np.bincount(cycles.target).tolist() == [511, 360]
    assert cycles.graph.x.shape == (871, 10)
    assert (cycles.graph.x == 1).all()
    assert cycles.data.shape == (871,)
    assert cycles.graph.y.tolist() == cycles.target.tolist()
    # 510 in the tree, 360 in cycles, 60 links, Binomial(60, 1/2) second links, 1 % more: the published draw has 971
    edges = [make_tree_cycles(random_state=seed).graph.num_edges // 2 for seed in range(5)]
    assert all(950 <= count <= 990 for count in edges)
    assert len(set(edges)) > 1


def test_graph_is_simple_sorted_and_undirected(cycles):
    assert cycles.graph.is_coalesced()
    assert cycles.graph.is_undirected()
    assert not cycles.graph.has_self_loops()


def test_base_is_a_balanced_binary_tree():
    cycles = make_tree_cycles(noise=0, random_state=1)
    tree = as_networkx(cycles.graph).subgraph(range(511))
    assert nx.utils.graphs_equal(nx.Graph(tree), nx.balanced_tree(2, 8))


def test_each_motif_is_a_six_cycle_and_labels_say_who_is_inside(cycles):
    for motif in range(60):
        cycle = as_networkx(cycles.graph, cycles.edge_motif_id == motif)
        assert nx.is_isomorphic(cycle, nx.cycle_graph(6))
        assert sorted(cycle) == np.flatnonzero(cycles.motif_id == motif).tolist()
    assert np.array_equal(cycles.target == 1, cycles.motif_id >= 0)


def test_links_are_those_of_the_published_code():
    cycles = make_tree_cycles(noise=0, random_state=2)
    links = second_links(cycles, 511)
    by_cycle = [links[(links[:, 1] - 511) // 6 == cycle] for cycle in range(60)]
    twice = 0
    for cycle, pairs in enumerate(by_cycle):
        first = 511 + 6 * cycle
        assert [8 * cycle, first] in pairs.tolist()
        others = [(tree - 8 * cycle, node - first) for tree, node in pairs.tolist() if node != first]
        assert len(others) <= 1
        assert all(step in (1, 2, 3) and node in (1, 2, 3) for step, node in others)
        twice += len(others)
    assert 15 <= twice <= 45
    assert cycles.graph.num_edges == 2 * (510 + 360 + 60 + twice)


@pytest.mark.parametrize("attach", ["spaced", "random"])
@pytest.mark.parametrize("share", [0, 1])
def test_second_links_by_probability(attach, share):
    cycles = make_tree_cycles(height=5, n_motifs=21, second_link=share, noise=0, attach=attach, random_state=3)
    links = second_links(cycles, 63)
    assert len(links) == 21 * (1 + share)
    assert len(np.unique(links, axis=0)) == len(links)
    # a second link never starts where the first does
    assert len(np.unique(links[:, 1])) == len(links)


def test_own_truth_is_the_cycle_of_the_node(cycles):
    for node, (edges, nodes) in enumerate(zip(cycles.data.truth["edge"], cycles.data.truth["node"])):
        if cycles.motif_id[node] < 0:
            assert edges is None
            assert nodes is None
        else:
            assert np.array_equal(edges[0], cycles.edge_motif_id == cycles.motif_id[node])
            assert np.array_equal(nodes[0], cycles.motif_id == cycles.motif_id[node])
            assert edges[0].sum() == 12


def test_any_truth_is_every_cycle(cycles):
    anyhow = make_tree_cycles(random_state=0, truth="any")
    assert anyhow.graph.edge_index.tolist() == cycles.graph.edge_index.tolist()
    assert np.array_equal(anyhow.data.truth["edge"][511][0], cycles.edge_truth)
    assert np.array_equal(anyhow.data.truth["node"][870][0], cycles.node_truth)
    assert anyhow.data.truth["edge"][0] is None


def test_evaluation_index(cycles):
    assert cycles.evaluation_index["gnnexplainer"].tolist() == list(range(511, 871, 6))
    assert cycles.evaluation_index["pgexplainer"].tolist() == list(range(511, 871, 6))
    assert cycles.evaluation_index["all_motif"].tolist() == list(range(511, 871))


def test_random_state():
    def edges(random_state):
        return make_tree_cycles(random_state=random_state).graph.edge_index.tolist()

    assert edges(3) == edges(3)
    assert edges(3) == edges(np.random.RandomState(3))
    assert edges(3) != edges(4)


@given(
    height=st.integers(1, 4),
    n_motifs=st.integers(1, 3),
    noise=st.sampled_from([0, 0.1]),
    attach=st.sampled_from(["spaced", "random"]),
    seed=st.integers(0, 9),
)
def test_counts_follow_the_parameters(height, n_motifs, noise, attach, seed):
    cycles = make_tree_cycles(
        height=height, n_motifs=n_motifs, noise=noise, attach=attach, second_link=1, random_state=seed
    )
    n_base = 2 ** (height + 1) - 1
    before = n_base - 1 + 8 * n_motifs
    assert cycles.graph.num_nodes == n_base + 6 * n_motifs
    assert cycles.graph.num_edges == 2 * (before + round(noise * 10) * before // 10)
    assert cycles.graph.is_coalesced()
    assert nx.is_connected(as_networkx(cycles.graph))


def test_return_X_y(cycles):
    X, y = make_tree_cycles(random_state=0, return_X_y=True)
    assert np.array_equal(y, cycles.target)
    assert X.level == "node"


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"height": 0}, r"The 'height' parameter of make_tree_cycles must be an int in the range \[1, inf\). Got 0"),
        ({"second_link": 1.5}, "The 'second_link' parameter of make_tree_cycles"),
        ({"n_motifs": 0}, "The 'n_motifs' parameter of make_tree_cycles"),
        ({"noise": -0.1}, "The 'noise' parameter of make_tree_cycles"),
        ({"height": 1, "n_motifs": 4}, r"must be at most the number of nodes of the base graph \(3\)"),
        ({"attach": "top"}, "The 'attach' parameter of make_tree_cycles"),
        ({"truth": "none"}, "The 'truth' parameter of make_tree_cycles"),
    ],
)
def test_bad_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_tree_cycles(**parameters)
