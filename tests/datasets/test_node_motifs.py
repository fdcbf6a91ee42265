"""BA-Shapes: published counts, truth by structure, options, bad parameters."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skgnnx.datasets import make_ba_shapes

HOUSE = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4)])


def as_networkx(graph, edges=slice(None)):
    return nx.Graph(graph.edge_index[:, edges].T.tolist())


@pytest.fixture(scope="module")
def shapes():
    return make_ba_shapes(random_state=0)


def test_published_counts(shapes):
    assert shapes.graph.num_nodes == 700
    assert shapes.graph.num_edges == 2 * 2055
    assert shapes.edge_truth.sum() == 2 * 480
    assert np.bincount(shapes.target).tolist() == [300, 160, 160, 80]
    assert shapes.graph.x.shape == (700, 10)
    assert (shapes.graph.x == 1).all()
    assert shapes.data.shape == (700,)
    assert shapes.graph.y.tolist() == shapes.target.tolist()


def test_graph_is_simple_sorted_and_undirected(shapes):
    graph = shapes.graph
    assert graph.is_coalesced()
    assert graph.is_undirected()
    assert not graph.has_self_loops()


def test_each_motif_is_a_house_and_labels_are_its_roles(shapes):
    graph = as_networkx(shapes.graph)
    for motif in range(80):
        house = as_networkx(shapes.graph, shapes.edge_motif_id == motif)
        assert nx.is_isomorphic(house, HOUSE)
        assert sorted(house) == np.flatnonzero(shapes.motif_id == motif).tolist()
        top = [v for v in house if shapes.target[v] == 3]
        assert len(top) == 1
        assert {int(shapes.target[v]) for v in house[top[0]]} == {1}
        assert all(graph.has_edge(u, v) for u, v in house.edges)


def test_houses_hang_at_regular_spacing(shapes):
    graph = as_networkx(shapes.graph)
    for motif, first in enumerate(range(300, 700, 5)):
        assert graph.has_edge(first, 3 * motif)
        assert shapes.target[first] == 1


def test_edges_outside_houses_are_base_links_and_noise(shapes):
    source, target = shapes.graph.edge_index.numpy()
    in_house = shapes.motif_id >= 0
    outside = shapes.edge_motif_id < 0
    across = outside & (in_house[source] != in_house[target])
    assert (outside & ~in_house[source] & ~in_house[target]).sum() >= 2 * 1475
    assert across.sum() >= 2 * 80
    assert outside.sum() == 2 * (1475 + 80 + 20)


def test_own_truth_is_the_house_of_the_node(shapes):
    for node, (edges, nodes) in enumerate(zip(shapes.data.truth["edge"], shapes.data.truth["node"])):
        if shapes.motif_id[node] < 0:
            assert edges is None
            assert nodes is None
        else:
            assert np.array_equal(edges[0], shapes.edge_motif_id == shapes.motif_id[node])
            assert (
                np.flatnonzero(nodes[0]).tolist() == np.flatnonzero(shapes.motif_id == shapes.motif_id[node]).tolist()
            )
            assert edges[0].sum() == 12


def test_any_truth_is_every_house(shapes):
    anyhow = make_ba_shapes(random_state=0, truth="any")
    assert anyhow.graph.edge_index.tolist() == shapes.graph.edge_index.tolist()
    assert np.array_equal(anyhow.data.truth["edge"][300][0], shapes.edge_truth)
    assert np.array_equal(anyhow.data.truth["node"][699][0], shapes.node_truth)
    assert anyhow.data.truth["edge"][0] is None


def test_evaluation_index(shapes):
    assert shapes.evaluation_index["gnnexplainer"].tolist() == list(range(400, 700, 5))
    assert shapes.evaluation_index["pgexplainer"].tolist() == list(range(400, 700, 5))
    assert shapes.evaluation_index["all_motif"].tolist() == list(range(300, 700))


def test_random_attachment_uses_other_nodes():
    shapes = make_ba_shapes(attach="random", noise=0, random_state=0)
    source, target = shapes.graph.edge_index.numpy()
    links = (source < 300) & (target >= 300)
    assert links.sum() == 80
    assert len(np.unique((target[links] - 300) % 5)) == 5
    assert len(np.unique(source[links])) > 40


def test_random_state():
    def edges(random_state):
        return make_ba_shapes(random_state=random_state).graph.edge_index.tolist()

    assert edges(3) == edges(3)
    assert edges(3) == edges(np.random.RandomState(3))
    assert edges(3) != edges(4)


@given(
    n_base=st.integers(4, 12), n_motifs=st.integers(1, 4), m=st.integers(1, 3), noise=st.sampled_from([0, 0.1, 0.29])
)
def test_counts_follow_the_parameters(n_base, n_motifs, m, noise):
    shapes = make_ba_shapes(n_base=n_base, n_motifs=n_motifs, m=m, noise=noise, random_state=0)
    before = (n_base - m) * m + 7 * n_motifs
    assert shapes.graph.num_nodes == n_base + 5 * n_motifs
    assert shapes.graph.num_edges == 2 * (before + round(noise * 100) * before // 100)
    assert nx.is_connected(as_networkx(shapes.graph))


def test_return_X_y(shapes):
    X, y = make_ba_shapes(random_state=0, return_X_y=True)
    assert np.array_equal(y, shapes.target)
    assert X.level == "node"
    assert X.element[:, 0].tolist() == list(range(700))


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"n_motifs": 0}, "The 'n_motifs' parameter of make_ba_shapes must be an int in the range"),
        ({"n_motifs": 2.5}, "Got 2.5 instead"),
        ({"n_base": 5}, r"'n_base' parameter of make_ba_shapes must be an int in the range \[6, inf\). Got 5"),
        ({"m": True}, "Got True instead"),
        ({"noise": -0.1}, "The 'noise' parameter"),
        ({"noise": float("nan")}, "Got nan instead"),
        ({"noise": float("inf")}, "Got inf instead"),
        ({"noise": 1000.0}, "must leave a simple graph"),
        ({"attach": "middle"}, "The 'attach' parameter of make_ba_shapes must be ('spaced'|'own') or"),
        ({"truth": "none"}, "The 'truth' parameter of make_ba_shapes must be ('spaced'|'own') or"),
        ({"n_motifs": 301}, "must be at most the number of nodes of the base graph"),
    ],
)
def test_bad_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_ba_shapes(**parameters)


def test_noise_is_a_share_in_decimal_not_in_binary():
    shapes = make_ba_shapes(n_base=94, n_motifs=1, m=1, noise=0.29, random_state=0)
    assert shapes.graph.num_edges == 2 * (100 + 29)
