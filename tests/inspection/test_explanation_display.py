"""The display: grids, axes, colour bars, bars of features, and its errors."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from picture_cases import both_ways, explain, texts, toluene
from torch_geometric.data import Data

from skgnnx import SensitivityAnalysis
from skgnnx.graphs import Entries, Explanations, Instances
from skgnnx.inspection import ExplanationDisplay
from skgnnx.testing import example

PATH = Data(x=torch.ones(3, 2), edge_index=both_ways([(0, 1), (1, 2)]))
TRIPLE = explain(
    Instances.from_graphs([PATH] * 3, ids=["a", "b", "c"]),
    "node",
    [0, 1, 2],
    [0.5, 0.2, 0.3],
    [0, 0, 0],
    explainer="Mine",
)


def ticks(ax):
    (bar,) = ax.child_axes
    return [label.get_text() for label in bar.get_xticklabels()]


def test_one_instance_is_one_axes():
    display = ExplanationDisplay.from_explanations(TRIPLE, 1)
    assert plt.get_fignums() == []  # nothing is drawn before plot
    assert display.plot() is display
    assert display.ax_.get_title() == "b, target 1"
    assert display.figure_ is display.ax_.figure
    assert display.figure_.get_suptitle() == "Mine"
    assert len(plt.get_fignums()) == 1


def test_attributes_draw_when_plot_was_not_called():
    display = ExplanationDisplay.from_explanations(TRIPLE, -1)
    assert display.figure_ is display.figure_
    assert display.ax_.get_title() == "c, target 1"


def test_sequence_is_a_grid():
    display = ExplanationDisplay.from_explanations(TRIPLE, [2, 0, 1], ncols=2).plot()
    assert [ax.get_title()[0] for ax in display.ax_] == ["c", "a", "b"]
    assert len(display.figure_.axes) == 3
    rows = {round(ax.get_subplotspec().rowspan.start) for ax in display.ax_}
    assert rows == {0, 1}
    assert ExplanationDisplay.from_explanations(TRIPLE, [1]).ax_.shape == (1,)
    assert len(ExplanationDisplay.from_explanations(TRIPLE, np.array([True, False, True])).ax_) == 2


def test_given_axes_are_used():
    _, axes = plt.subplots(1, 3)
    display = ExplanationDisplay.from_explanations(TRIPLE, range(3)).plot(axes)
    assert list(display.ax_) == list(axes)
    assert len(plt.get_fignums()) == 1
    alone = ExplanationDisplay.from_explanations(TRIPLE, 2).plot(axes[0])
    assert alone.ax_ is axes[0]
    with pytest.raises(ValueError, match=r"one axes per picture \(3\). Got 2"):
        ExplanationDisplay.from_explanations(TRIPLE, range(3)).plot(axes[:2])


def test_colour_bars_show_the_range_of_their_own_picture():
    axes = ExplanationDisplay.from_explanations(TRIPLE, range(3)).ax_
    assert [ticks(ax) for ax in axes] == [["0", "2"], ["0", "0.2", "0.5"], ["0"]]
    assert axes[1].child_axes[0].get_xlim() == (0, 0.5)
    assert axes[0].child_axes[0].get_xlabel() == "node score"


def test_scores_of_both_signs_are_symmetric_around_white():
    E = explain(Instances.from_graphs([PATH] * 2), "node", [-2, 0, 1], [0, 1, 2])
    axes = ExplanationDisplay.from_explanations(E, range(2)).ax_
    (bar,) = axes[0].child_axes
    assert (bar.get_xlim(), ticks(axes[0])) == ((-2, 2), ["-2", "0", "1"])
    nodes = next(child for child in axes[0].collections if child.get_gid() == "nodes")
    blue, white, red = nodes.get_facecolor()
    assert blue[2] > blue[0]
    assert (white == 1).all()
    assert red[0] > red[2]
    (bar,) = axes[1].child_axes
    assert bar.get_xlim() == (-2, 2)  # one map of colours for all pictures


def test_failed_instances_say_why():
    E = explain(Instances.from_graphs([PATH] * 2), "edge", [1] * 4, None, errors=[None, "no"])
    axes = ExplanationDisplay.from_explanations(E, range(2)).ax_
    assert "Not explained. no" in texts(axes[1])
    assert not any("Not explained" in text for text in texts(axes[0]))
    molecule = explain(Instances.from_graphs([toluene()]), "edge", None, errors=["ValueError: gave up"])
    ax = ExplanationDisplay.from_explanations(molecule).ax_
    assert texts(ax) == ["Not explained. ValueError: gave up"]
    assert len(ax.images) == 1


def test_features_are_bars():
    X = Instances.from_graphs([PATH] * 2)
    scores = np.zeros((2, 20))
    scores[0, [3, 5]] = [-2, 1]
    E = Explanations(X, {"feature": Entries(None, None, scores)}, "feature", targets=[0, 0], errors=[None, "broken"])
    axes = ExplanationDisplay.from_explanations(E, [0, 1]).ax_
    assert [bar.get_width() for bar in axes[0].patches][:3] == [-2, 1, 0]
    assert [label.get_text() for label in axes[0].get_yticklabels()][:2] == ["x3", "x5"]
    assert "15 of 20 features shown" in axes[0].get_title()
    assert texts(axes[1]) == ["Not explained. broken"]
    names = [f"f{k}" for k in range(20)]
    ax = ExplanationDisplay.from_explanations(E, 0, labels=names).ax_
    assert ax.get_yticklabels()[0].get_text() == "f3"


def test_node_features_are_summed_and_said_so():
    X = Instances.from_graphs([PATH])
    entries = Entries([0, 3], [0, 1, 2], [[1.0, 2.0], [0.0, 0.5], [0.0, 0.0]])
    ax = ExplanationDisplay.from_explanations(
        Explanations(X, {"node_feature": entries}, "node_feature", targets=[0])
    ).ax_
    assert ticks(ax) == ["0", "3"]
    assert ax.child_axes[0].get_xlabel() == "node score, summed over features"


def test_estimators_explain_only_what_is_drawn():
    model, X = example("node")
    explainer = SensitivityAnalysis(model)
    seen = []

    class Spy:
        def transform(self, part):
            seen.append(len(part))
            return explainer.explain(part)

    display = ExplanationDisplay.from_estimator(Spy(), X, index=[3, 1]).plot()
    whole = ExplanationDisplay.from_explanations(explainer.explain(X), [3, 1]).plot()
    assert seen == [2]
    assert [ax.get_title() for ax in display.ax_] == [ax.get_title() for ax in whole.ax_]
    assert ExplanationDisplay.from_estimator(explainer, X, index=-1).ax_.get_title() == f"node {X.ids[-1]}, target 0"


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (3, IndexError, r"must lie in \[-3, 3\). Got 3"),
        ([0, -4], IndexError, "Got -4"),
        ("a", TypeError, "must be an int or a sequence of at least one int. Got 'a'"),
        ([], TypeError, "at least one int"),
    ],
)
def test_bad_index(index, error, message):
    with pytest.raises(error, match=message):
        ExplanationDisplay.from_explanations(TRIPLE, index)


def test_bad_input():
    with pytest.raises(TypeError, match="must be Explanations, from an explainer's explain. Got list"):
        ExplanationDisplay.from_explanations([np.ones(3)])
    with pytest.raises(ValueError, match=r"one molecule per picture \(2\). Got 1"):
        ExplanationDisplay.from_explanations(TRIPLE, [0, 1], mol=["CCC"]).plot()
    with pytest.raises(
        ValueError, match=r"'ncols' parameter of ExplanationDisplay must be an int in .*\[1, inf\). Got 0"
    ):
        ExplanationDisplay.from_explanations(TRIPLE, [0, 1], ncols=0)
    with pytest.raises(ValueError, match="'max_nodes' parameter.*Got 2.5"):
        ExplanationDisplay.from_explanations(TRIPLE, [0, 1], max_nodes=2.5)


@pytest.mark.parametrize(
    ("module", "E", "message"),
    [
        ("matplotlib.pyplot", TRIPLE, r"Pictures need matplotlib, which is not installed: pip install 'skgnnx\[viz\]'"),
        (
            "rdkit.Chem",
            explain(Instances.from_graphs([toluene()]), "node", np.ones(7)),
            r"Pictures of molecules need rdkit, which is not installed: pip install 'skgnnx\[chem\]'",
        ),
    ],
)
def test_missing_packages_name_their_extra(monkeypatch, module, E, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        ExplanationDisplay.from_explanations(E).plot()
