"""Fidelity curves: one axes for several explainers, with their bands."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skgnnx import RandomExplainer, SensitivityAnalysis
from skgnnx.inspection import FidelityCurveDisplay
from skgnnx.metrics import fidelity_curve
from skgnnx.testing import example

MODEL, X = example("graph")
EXPLAINERS = {"ours": SensitivityAnalysis(MODEL), "chance": RandomExplainer(MODEL)}


def labels(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_lines_and_bands_are_the_curves():
    E = {name: explainer.explain(X) for name, explainer in EXPLAINERS.items()}
    display = FidelityCurveDisplay.from_explanations(E, sparsities=[0.5, 0.7, 0.9])
    assert plt.get_fignums() == []
    assert display.plot() is display
    lines = [line for line in display.ax_.get_lines() if line.get_linestyle() != "-" or len(line.get_xdata()) == 3]
    lines = [line for line in lines if len(line.get_xdata()) == 3]
    bands = display.ax_.collections
    assert len(lines) == len(bands) == 4
    for k, one in enumerate(E.values()):
        curve = fidelity_curve(one, [0.5, 0.7, 0.9])
        for row, values in enumerate((curve.plus, curve.minus)):
            line, band = lines[2 * k + row], bands[2 * k + row]
            np.testing.assert_allclose(line.get_xydata().T, [curve.sparsity, values])
            corners = band.get_paths()[0].vertices
            for bound in (curve.low[row], curve.high[row]):
                assert np.isin(np.stack([curve.sparsity, bound], 1).round(9), corners.round(9)).all()
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert labels(display)[:2] == ["ours", "chance"]


def test_estimators_alone_and_by_name():
    display = FidelityCurveDisplay.from_estimator(EXPLAINERS["ours"], X, confidence=0.5)
    assert list(display.curves) == ["SensitivityAnalysis"]
    np.testing.assert_array_equal(
        display.curves["SensitivityAnalysis"].low, fidelity_curve(EXPLAINERS["ours"].explain(X), confidence=0.5).low
    )
    assert list(FidelityCurveDisplay.from_estimator(EXPLAINERS, X).curves) == ["ours", "chance"]


def test_given_axes_are_used():
    figure, ax = plt.subplots()
    display = FidelityCurveDisplay.from_estimator(EXPLAINERS["ours"], X).plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert len(plt.get_fignums()) == 1


def test_what_is_left_out_is_counted():
    E = EXPLAINERS["ours"].explain(X)
    E = E._with(errors=["failed", *E.errors[1:]])
    display = FidelityCurveDisplay.from_explanations(E)
    assert labels(display)[0] == f"SensitivityAnalysis (1 of {len(X)} left out)"


def test_only_explanations_are_drawn():
    with pytest.raises(TypeError, match="must be Explanations.*Got list for 'mine'"):
        FidelityCurveDisplay.from_explanations({"mine": [1, 2]})
