"""Graphs that are no molecules: what is drawn, and where."""

import numpy as np
import pytest
import torch
from picture_cases import artist, artists, both_ways, explain, texts, warmth
from torch_geometric.data import Data

from skgnnx.datasets import make_ba_shapes
from skgnnx.graphs import Instances
from skgnnx.graphs.entries import Entries
from skgnnx.inspection import ExplanationDisplay
from skgnnx.inspection.networks import layout
from skgnnx.inspection.scene import make_scene

PATH = Data(x=torch.ones(5, 2), edge_index=both_ways([(0, 1), (1, 2), (2, 3), (3, 4)]))
LOOPS = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1, 1, 1, 2, 2], [1, 0, 1, 2, 1, 2]]))


def draw(E, *args, **options):
    return ExplanationDisplay.from_explanations(E, *args, **options).plot().ax_


def edges(ax):
    return {child.get_gid(): child for child in ax.patches if str(child.get_gid()).startswith("edge ")}


def test_pairs_are_one_line_with_the_mean_of_both_directions():
    X = Instances.from_nodes(PATH, [2], truth={"edge": [np.array([0, 1, 0, 0, 0, 1, 0, 0], bool)]})
    drawn = edges(draw(explain(X, "edge", [0.1, 0.4, 0.6, 0.9, 0.1, 0.6, 0.6, 0.9])))
    assert list(drawn) == ["edge 0", "edge 1", "edge 2", "edge 3"]  # weak ones first
    widths = [line.get_linewidth() for line in drawn.values()]
    np.testing.assert_allclose(np.array(widths) / widths[-1], np.array([0.1, 0.5, 0.6, 0.9]) / 0.9, rtol=1e-5)
    assert (np.diff(warmth([line.get_edgecolor() for line in drawn.values()])) > 0).all()


def test_true_edges_and_the_explained_node_stand_out():
    X = Instances.from_nodes(PATH, [2], truth={"edge": [np.array([0, 1, 0, 0, 0, 1, 0, 0], bool)]})
    ax = draw(explain(X, "edge", np.linspace(0, 1, 8)))
    assert [gid for gid in (child.get_gid() for child in ax.patches) if str(gid).startswith("true")] == ["true edge 1"]
    star, nodes = artist(ax, "explained"), artist(ax, "nodes")
    assert (len(star.get_offsets()), len(nodes.get_offsets())) == (1, 4)
    assert star.get_sizes()[0] > nodes.get_sizes()[0]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["known reason", "explained node"]


def test_nodes_are_coloured_by_score_and_true_ones_ringed():
    X = Instances.from_graphs(
        [PATH], truth={"node": [[np.array([1, 1, 0, 0, 0], bool), np.array([0, 0, 0, 1, 1], bool)]]}
    )
    ax = draw(explain(X, "node", [0, 0.1, 0.2, 0.3, 0.4]))
    nodes = artist(ax, "nodes")
    assert (np.diff(warmth(nodes.get_facecolor())) > 0).all()
    # of the two alternatives the one that the scores agree with
    np.testing.assert_allclose(artist(ax, "true nodes").get_offsets(), nodes.get_offsets()[3:])
    assert not artists(ax, "explained")[0].get_offsets().size


def test_a_failed_instance_takes_the_first_alternative_and_shows_its_error():
    X = Instances.from_graphs(
        [PATH], truth={"node": [[np.array([1, 1, 0, 0, 0], bool), np.array([0, 0, 0, 1, 1], bool)]]}
    )
    ax = draw(explain(X, "node", None, errors=["ValueError: too large"]))
    assert "Not explained. ValueError: too large" in texts(ax)
    assert warmth(artist(ax, "nodes").get_facecolor()).max() == 0
    np.testing.assert_allclose(artist(ax, "true nodes").get_offsets(), artist(ax, "nodes").get_offsets()[:2])
    assert not ax.child_axes  # no colour bar: there are no scores


def test_only_the_computation_graph_is_drawn():
    data = make_ba_shapes(random_state=0).data
    X = data[[350]]
    ids = np.flatnonzero(X.truth["edge"][0][0])
    E = explain(X, "edge", np.ones(len(ids)))
    E = E._with(masks={"edge": Entries([0, len(ids)], ids, np.linspace(0.1, 1, len(ids)))})
    ax = draw(E)
    assert len(edges(ax)) == len(ids) // 2 == 6
    assert sum(len(artist(ax, gid).get_offsets()) for gid in ("nodes", "explained")) == 5
    assert "shown" not in ax.get_title()


def test_hidden_nodes_are_counted_in_the_title_and_the_strongest_stay():
    star = both_ways([(0, k) for k in range(1, 30)])
    X = Instances.from_nodes(Data(x=torch.ones(30, 1), edge_index=star), [7])
    scores = np.tile(np.linspace(0, 1, 29), 2)
    ax = draw(explain(X, "edge", scores), max_nodes=10)
    assert ax.get_title() == "node 7, target 1\n10 of 30 nodes shown, the strongest scores"
    assert sorted(int(gid.split()[1]) for gid in edges(ax)) == [6, *range(21, 29)]
    whole = draw(explain(X, "edge", scores))
    assert len(edges(whole)) == 29


def test_directed_edges_loops_and_repeated_edges_all_show():
    X = Instances.from_graphs([LOOPS])
    ax = draw(explain(X, "edge", [0.1, 0.3, 0.9, 0.4, 0.4, 0.5]))
    assert set(edges(ax)) == {"edge 0", "edge 2", "edge 3", "edge 5"}
    twice = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]]))
    ax = draw(explain(Instances.from_graphs([twice]), "edge", [0.1, 0.2, 0.3, 0.4]))
    (first, second) = (line.get_path().vertices for line in edges(ax).values())
    assert np.abs(first[1] - second[1]).max() > 0.2  # bent to different sides
    one_way = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1, 2], [1, 2, 1]]))
    ax = draw(explain(Instances.from_graphs([one_way]), "edge", [0.1, 0.2, 0.3]))
    assert len(edges(ax)) == 3
    assert all(type(line.get_arrowstyle()).__name__ == "CurveFilledB" for line in edges(ax).values())


def test_excluded_link_is_not_drawn():
    X = Instances.from_edges(PATH, [[1], [2]], exclude_link=True)
    E = explain(X, "node", np.ones(5))
    assert set(edges(draw(E))) == {"edge 0", "edge 2", "edge 3"}
    assert len(artist(draw(E), "explained").get_offsets()) == 2


def test_names_of_the_user():
    X = Instances.from_nodes(PATH, [2], node_ids=["ann", "bob", "cem", "dan", "eve"])
    assert texts(draw(explain(X, "node", np.ones(5)))) == ["ann", "bob", "cem", "dan", "eve"]
    assert texts(draw(explain(X, "node", np.ones(5)), labels=list("abcde"))) == list("abcde")
    assert texts(draw(explain(Instances.from_graphs([PATH]), "node", np.ones(5)))) == list("01234")
    several = explain(Instances.from_graphs([PATH, LOOPS]), "node", np.ones(5), np.ones(3))
    axes = draw(several, [0, 1], labels=[list("abcde"), list("xyz")])
    assert texts(axes[1]) == list("xyz")
    with pytest.raises(ValueError, match=r"one name per node of instance 1 \(3\). Got 2"):
        draw(several, [0, 1], labels=[list("abcde"), list("xy")])


def test_layout_repeats_and_keeps_parts_apart():
    parts = Data(x=torch.ones(9, 1), edge_index=both_ways([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5)]))
    scene = make_scene(explain(Instances.from_graphs([parts]), "node", np.ones(9)), 0)
    place = layout(scene)
    np.testing.assert_array_equal(place, layout(scene))
    distance = np.hypot(*(place[:, None] - place).T)
    assert distance[np.triu_indices(9, 1)].min() > 0.5
    boxes = [(place[part].min(axis=0), place[part].max(axis=0)) for part in ([0, 1, 2], [3, 4, 5])]
    apart = (boxes[0][1] < boxes[1][0]) | (boxes[1][1] < boxes[0][0])
    assert apart.any()


def test_nothing_but_a_node():
    alone = Data(x=torch.ones(1, 1), edge_index=torch.zeros(2, 0, dtype=torch.long))
    ax = draw(explain(Instances.from_graphs([alone]), "edge", np.zeros(0)))
    assert len(artist(ax, "nodes").get_offsets()) == 1
