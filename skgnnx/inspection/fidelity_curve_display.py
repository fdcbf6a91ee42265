"""Fidelity over sparsity, for one or several explainers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from sklearn.utils import Bunch

from skgnnx.graphs import Explanations, check_instances
from skgnnx.inspection.optional import load
from skgnnx.metrics import fidelity_curve


class FidelityCurveDisplay:
    """Fidelity+ and fidelity- over sparsity, one colour per explainer on one axes.

    Solid lines are fidelity+, the drop of the prediction without the selected part: higher is better. Dashed lines are
    fidelity-, its drop with nothing but that part: lower is better. Bands are bootstrap intervals over instances.

    Parameters
    ----------
    curves : dict of str to Bunch
        Name and curve of every explainer, from `skgnnx.metrics.fidelity_curve`.

    Attributes
    ----------
    ax_ : Axes
        Where it was drawn.
    figure_ : Figure
        The figure that holds it.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.inspection import FidelityCurveDisplay
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> display = FidelityCurveDisplay.from_estimator(SensitivityAnalysis(model), X).plot()
    >>> display.ax_.get_xlabel()
    'sparsity: share left out'
    """

    def __init__(self, curves: dict[str, Bunch]) -> None:
        self.curves = curves

    @classmethod
    def from_explanations(
        cls, E: Explanations | dict[str, Explanations], *, sparsities: Sequence[float] | None = None, **options: Any
    ) -> FidelityCurveDisplay:
        """Compute the curves of explanations, to be drawn by `plot`.

        Parameters
        ----------
        E : Explanations, or dict of str to Explanations
            Soft scores, by the name that the legend shows.
        sparsities : sequence of float in [0, 1], default=None
            Shares of the units left out; None means 0.5, 0.55, ..., 0.9, the range of the survey.
        **options
            Further parameters of `skgnnx.metrics.fidelity_curve`, such as ``confidence``.

        Returns
        -------
        FidelityCurveDisplay

        Raises
        ------
        TypeError
            If `E` is something else; the message says what.
        """
        named = E if isinstance(E, dict) else {getattr(E, "explainer", "") or "explanations": E}
        for name, explanations in named.items():
            if not isinstance(explanations, Explanations):
                raise TypeError(
                    "What is drawn must be Explanations, from an explainer's explain. Got "
                    f"{type(explanations).__name__} for {name!r}."
                )
        return cls({name: fidelity_curve(one, sparsities, **options) for name, one in named.items()})

    @classmethod
    def from_estimator(
        cls, explainer: Any, X: Any, *, sparsities: Sequence[float] | None = None, **options: Any
    ) -> FidelityCurveDisplay:
        """Explain instances and compute the curves, to be drawn by `plot`.

        Parameters
        ----------
        explainer : explainer, or dict of str to explainer
            A fitted pipeline that ends in an explainer will do.
        X : Instances, or anything `check_instances` accepts
            What to explain.
        sparsities, **options
            As in `from_explanations`.

        Returns
        -------
        FidelityCurveDisplay
        """
        X = check_instances(X)
        named = explainer if isinstance(explainer, dict) else {type(explainer).__name__: explainer}
        explained = {name: (getattr(one, "explain", None) or one.transform)(X) for name, one in named.items()}
        return cls.from_explanations(explained, sparsities=sparsities, **options)

    @property
    def ax_(self) -> Any:
        """Where it was drawn; draws it if it was not."""
        return self._ax if hasattr(self, "_ax") else self.plot()._ax

    @property
    def figure_(self) -> Any:
        """The figure that holds it; draws it if it was not."""
        return self.ax_.figure

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, default=None
            Where; None makes a figure.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        pyplot = load("matplotlib.pyplot", "viz", "Pictures")
        if ax is None:
            _, ax = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
        ax.axhline(0, color="#999999", linewidth=0.8, zorder=1)
        for k, (name, curve) in enumerate(self.curves.items()):
            _draw_curve(ax, name, curve, f"C{k % 10}")
        ax.set(xlabel="sparsity: share left out", ylabel="change of the predicted probability")
        ax.spines[["top", "right"]].set_visible(False)
        _draw_legend(ax)
        self._ax = ax
        return self


def _draw_curve(ax: Any, name: str, curve: Bunch, colour: str) -> None:
    label = f"{name} ({curve.n_skipped} of {curve.n + curve.n_skipped} left out)" if curve.n_skipped else name
    for row, (values, style) in enumerate(((curve.plus, "-"), (curve.minus, "--"))):
        ax.fill_between(curve.sparsity, curve.low[row], curve.high[row], color=colour, alpha=0.15, linewidth=0)
        line = {"linestyle": style, "marker": "o", "markersize": 3, "linewidth": 1.8, "color": colour}
        ax.plot(curve.sparsity, values, label=label if row == 0 else "_fidelity-", **line)


def _draw_legend(ax: Any) -> None:
    """Say which colour is which explainer, and which line is which fidelity."""
    lines = load("matplotlib.lines", "viz", "Pictures")
    kinds = [
        lines.Line2D([], [], color="#444444", label="fidelity+ (higher is better)"),
        lines.Line2D([], [], color="#444444", linestyle="--", label="fidelity- (lower is better)"),
    ]
    handles = [*ax.get_legend_handles_labels()[0], *kinds]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=8)
