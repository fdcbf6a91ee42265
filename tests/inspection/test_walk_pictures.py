"""Walks over graphs and molecules: which are drawn, where, in which colour and how wide."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from picture_cases import artist, artists, both_ways, explain, texts, toluene
from torch_geometric.data import Data

from skgnnx import GNNLRP
from skgnnx.graphs import Instances
from skgnnx.inspection import ExplanationDisplay
from skgnnx.inspection.walks import COLOURS, WIDEST
from skgnnx.testing import example

WALKS = np.array([[0, 1, 2], [6, 0, 6], [3, 3, 3], [5, 4, 3]])
SCORES = np.array([2.0, -1.0, 0.5, 0.25])


def listed(data, walks=WALKS, scores=SCORES, kind="edge", **options):
    number = data.edge_index.shape[1] if kind == "edge" else data.num_nodes
    return explain(
        Instances.from_graphs([data]), kind, np.zeros(number), extras={"walks": [walks], "walk_scores": [scores]},
        explainer="GNNLRP", **options,
    )  # fmt: skip


def network():
    return Data(x=torch.eye(7), edge_index=toluene().edge_index)


@pytest.mark.parametrize("kind", ["edge", "node"])
@pytest.mark.parametrize("data", [network(), toluene()])
def test_the_largest_walks_are_drawn(data, kind):
    ax = ExplanationDisplay.from_explanations(listed(data, kind=kind), walks=3).plot().ax_
    lines = [artist(ax, f"walk {k}") for k in range(3)]
    assert not artists(ax, "walk 3")
    assert [to_hex(line.get_edgecolor()) for line in lines] == [COLOURS[True], COLOURS[False], COLOURS[True]]
    widths = [line.get_linewidth() for line in lines]
    assert widths[0] == WIDEST
    assert widths == sorted(widths, reverse=True)
    assert lines[0].get_zorder() > 4
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["walk for the target", "walk against it"]
    assert not artists(ax, "scored other bonds")
    assert not ax.child_axes  # no bar of colours: no scores are drawn
    plt.close("all")


@pytest.mark.parametrize("data", [network(), toluene()])
def test_walks_pass_their_nodes(data):
    ax = ExplanationDisplay.from_explanations(listed(data), walks=4).plot().ax_
    corners = {k: artist(ax, f"walk {k}").get_path().vertices for k in range(4)}
    starts = {k: np.array(artist(ax, f"start {k}").center) for k in range(4)}
    bond = np.hypot(*(corners[0][-1] - corners[0][2])) * 0.999
    for k in range(4):
        np.testing.assert_allclose(starts[k], corners[k][0])
    near = {"from 0 and back to 6": (corners[1][-1], starts[1]), "stays at 3": (corners[2][-1], starts[2])}
    for name, (one, other) in near.items():
        assert 0 < np.hypot(*(one - other)) < 0.3 * bond, name
    for one, other in ((corners[3][-1], starts[2]), (corners[1][2], starts[0])):
        assert np.hypot(*(one - other)) < 0.45 * bond
    for one, other in ((starts[0], starts[1]), (starts[0], corners[0][-1]), (starts[3], corners[3][-1])):
        assert np.hypot(*(one - other)) > 0.6 * bond
    plt.close("all")


def test_walks_of_one_layer_and_none():
    E = listed(network(), np.array([[0, 1]]), np.array([1.0]))
    ax = ExplanationDisplay.from_explanations(E, walks=2).plot().ax_
    assert len(artist(ax, "walk 0").get_path().vertices) == 3
    E = listed(network(), np.zeros((0, 3), dtype=int), np.zeros(0))
    ax = ExplanationDisplay.from_explanations(E, walks=2).plot().ax_
    assert ax.get_legend() is None
    failed = listed(network(), None, None, errors=["ValueError: no"])
    assert "Not explained" in texts(ExplanationDisplay.from_explanations(failed, walks=2).plot().ax_)[-1]
    plt.close("all")


def test_walks_over_nodes_that_are_not_drawn_are_counted_in_the_title():
    pairs = [(k, k + 1) for k in range(11)]
    data = Data(x=torch.eye(12), edge_index=both_ways(pairs))
    scores = np.arange(12.0)
    E = explain(Instances.from_graphs([data]), "node", scores, explainer="GNNLRP",
                extras={"walks": [np.array([[11, 10], [0, 1], [9, 10]])], "walk_scores": [np.ones(3)]})  # fmt: skip
    ax = ExplanationDisplay.from_explanations(E, walks=3, max_nodes=5).plot().ax_
    assert [bool(artists(ax, f"walk {k}")) for k in range(3)] == [True, False, True]
    assert "5 of 12 nodes shown, the strongest scores" in ax.get_title()
    assert "2 of 3 walks" in ax.get_title()
    plt.close("all")


def test_walks_must_be_listed():
    model, X = example("node")
    with pytest.raises(ValueError, match="'walks' needs explanations that list walks. Got those of GNNLRP without"):
        ExplanationDisplay.from_explanations(GNNLRP(model).explain(X), walks=3)
    with pytest.raises(ValueError, match="The 'walks' parameter of ExplanationDisplay must be"):
        ExplanationDisplay.from_explanations(GNNLRP(model, walks=2).explain(X), walks=0)
    axes = ExplanationDisplay.from_estimator(GNNLRP(model, walks=2), X, [0, 3], walks=2).plot().ax_
    for ax in axes:
        assert len(artists(ax, "walk 0")) == len(artists(ax, "walk 1")) == 1
    plt.close("all")
