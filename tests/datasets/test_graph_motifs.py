"""BA-2Motifs: published counts, truth by structure, options, bad parameters."""

import networkx as nx
import numpy as np
import pytest

from skgnnx.datasets import make_ba_2motifs

MOTIFS = [nx.cycle_graph(5), nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4)])]


@pytest.fixture(scope="module")
def motifs():
    return make_ba_2motifs(random_state=0)


def test_published_counts(motifs):
    assert motifs.data.shape == (1000,)
    assert np.bincount(motifs.target).tolist() == [500, 500]
    assert [graph.num_nodes for graph in motifs.graphs] == [25] * 1000
    assert sum(graph.num_edges for graph in motifs.graphs) == 2 * 25_500
    assert sum(mask.sum() for mask in motifs.edge_truth) == 2 * 5500
    assert all(graph.x.shape == (25, 10) for graph in motifs.graphs)
    assert all((graph.x == 0.1).all() for graph in motifs.graphs)
    assert [int(graph.y) for graph in motifs.graphs] == motifs.target.tolist()


def test_motif_is_attached_and_makes_the_label(motifs):
    for graph, label, edges, nodes in zip(motifs.graphs, motifs.target, motifs.edge_truth, motifs.node_truth):
        assert graph.is_undirected()
        assert graph.is_coalesced()
        assert not graph.has_self_loops()
        assert nx.is_connected(nx.Graph(graph.edge_index.T.tolist()))
        assert nx.is_isomorphic(nx.Graph(graph.edge_index[:, edges].T.tolist()), MOTIFS[label])
        assert np.flatnonzero(nodes).tolist() == [20, 21, 22, 23, 24]


def test_truth_of_instances_is_the_motif(motifs):
    for i in (0, 999):
        assert np.array_equal(motifs.data.truth["edge"][i][0], motifs.edge_truth[i])
        assert np.array_equal(motifs.data.truth["node"][i][0], motifs.node_truth[i])
        assert np.array_equal(motifs.edge_motif_id[i] == 0, motifs.edge_truth[i])
        assert motifs.motif_id[i].tolist() == [-1] * 20 + [0] * 5


def test_base_is_a_tree(motifs):
    for graph in motifs.graphs[:50]:
        base = nx.Graph(graph.edge_index.T.tolist()).subgraph(range(20))
        assert nx.is_tree(base)


def links(graphs):
    found = []
    for graph in graphs:
        source, target = graph.edge_index.numpy()
        hit = (source < 20) & (target >= 20)
        assert hit.sum() == 1
        found.append((int(source[hit][0]), int(target[hit][0])))
    return found


def test_link(motifs):
    assert len(set(links(motifs.graphs))) == 100
    assert set(links(make_ba_2motifs(n_graphs=20, link="published", random_state=0).graphs)) == {(0, 20)}


def test_evaluation_index(motifs):
    index = motifs.evaluation_index
    assert index["pgexplainer"].tolist() == list(range(100))
    assert index["re_pgexplainer"].tolist() == [*range(100), *range(500, 600)]
    assert len(index["all_motif"]) == 1000


def test_random_state():
    def edges(random_state):
        return [graph.edge_index.tolist() for graph in make_ba_2motifs(n_graphs=6, random_state=random_state).graphs]

    assert edges(1) == edges(1)
    assert edges(1) != edges(2)
    assert edges(1)[0] != edges(1)[1]


def test_odd_number_and_return_X_y():
    X, y = make_ba_2motifs(n_graphs=5, random_state=0, return_X_y=True)
    assert y.tolist() == [0, 0, 0, 1, 1]
    assert X.level == "graph"
    assert X.shape == (5,)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"n_graphs": 1}, r"The 'n_graphs' parameter of make_ba_2motifs must be an int in the range \[2, inf\). Got 1"),
        ({"n_base": 1}, "The 'n_base' parameter"),
        ({"m": 0}, "The 'm' parameter"),
        ({"link": "spaced"}, "The 'link' parameter of make_ba_2motifs must be 'random' or 'published'"),
    ],
)
def test_bad_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_ba_2motifs(**parameters)
