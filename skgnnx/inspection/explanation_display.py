"""Pictures of single explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from skgnnx.graphs import Explanations, check_instances
from skgnnx.inspection.molecules import find_molecule
from skgnnx.inspection.optional import load
from skgnnx.inspection.panels import draw_panels
from skgnnx.inspection.walks import check_walks
from skgnnx.validation import Interval


class ExplanationDisplay:
    """Pictures of explained predictions: what counted is coloured, what should have counted is outlined.

    Use `from_explanations` or `from_estimator`, then `plot`. Molecules are drawn by RDKit, other graphs are laid out by
    networkx and show the computation graph only; feature scores are bars. White is 0; each picture has its own colour
    bar whose ticks are its smallest and largest score. True nodes and edges (``X.truth``; of several alternatives the
    one that fits the scores best) lie inside a green outline, the explained node or link is starred, and an instance
    that failed shows its error. Edges that are two directions of one are drawn once, with their mean.

    Parameters
    ----------
    explanations : Explanations
        What to draw, all of it.
    ncols, labels, mol, max_nodes, walks
        As in `from_explanations`.

    Attributes
    ----------
    ax_ : Axes or ndarray of Axes
        Where it was drawn: an array if a sequence of instances was asked for.
    figure_ : Figure
        The figure that holds it.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.inspection import ExplanationDisplay
    >>> from skgnnx.testing import example
    >>> model, X = example("node")
    >>> display = ExplanationDisplay.from_estimator(SensitivityAnalysis(model), X, index=2).plot()
    >>> display.ax_.get_title()
    'node 4, target 0'
    """

    def __init__(
        self,
        explanations: Explanations,
        *,
        ncols: int = 5,
        labels: Any = None,
        mol: Any = None,
        max_nodes: int = 60,
        walks: int | None = None,
    ) -> None:
        for name, value in (("ncols", ncols), ("max_nodes", max_nodes), ("walks", 1 if walks is None else walks)):
            if value not in Interval(int, 1):
                raise ValueError(
                    f"The {name!r} parameter of ExplanationDisplay must be {Interval(int, 1)}. Got {value!r} instead."
                )
        if walks is not None:
            check_walks(explanations)
        self.explanations = explanations
        self.walks = walks
        self.ncols = ncols
        self.labels = labels
        self.mol = mol
        self.max_nodes = max_nodes
        self._positions = list(range(len(explanations)))
        self._single = False

    @classmethod
    def from_estimator(
        cls, explainer: Any, X: Any, index: int | Sequence[int] = 0, **options: Any
    ) -> ExplanationDisplay:
        """Explain some instances, to be drawn by `plot`.

        Parameters
        ----------
        explainer : explainer, or fitted pipeline that ends in one
            Explains the chosen instances only.
        X : Instances, or anything `check_instances` accepts
            What can be explained.
        index : int or sequence of int, default=0
            Which of `X`.
        **options
            As in `from_explanations`.

        Returns
        -------
        ExplanationDisplay
        """
        X = check_instances(X)
        rows = _rows(index, len(X))
        explain = getattr(explainer, "explain", None) or explainer.transform
        display = cls(_checked(explain(X[rows])), **options)
        display._positions, display._single = rows, np.ndim(index) == 0
        return display

    @classmethod
    def from_explanations(
        cls,
        E: Explanations,
        index: int | Sequence[int] = 0,
        *,
        ncols: int = 5,
        labels: Any = None,
        mol: Any = None,
        max_nodes: int = 60,
        walks: int | None = None,
    ) -> ExplanationDisplay:
        """Choose explanations, to be drawn by `plot`.

        Parameters
        ----------
        E : Explanations
            From an explainer, or loaded from a file.
        index : int or sequence of int, default=0
            Which of `E`; a sequence is drawn as a grid.
        ncols : int, default=5
            Most pictures per row.
        labels : sequence of str, or sequence of such sequences, default=None
            Names of the nodes of the graph, in its order; one sequence per picture where several graphs are drawn. None
            takes the instances' ``node_ids``, else ids (elements of atoms). For feature scores, names of the features.
        mol : RDKit molecule, SMILES, sequence of these, or False, default=None
            The molecule of each picture, with atoms in the order of the nodes. None takes ``data.mol``, ``data.smiles``
            or atomic numbers ``data.z`` with ``data.bond_order``; False draws plain graphs.
        max_nodes : int, default=60
            Most nodes of a plain graph; of a larger one the strongest scores are drawn, and the title says so.
        walks : int, default=None
            Draws so many of the listed walks of `GNNLRP` instead of scores, the largest ones: lines that start at a
            dot, red for the target and blue against it, wider where they are more relevant.

        Returns
        -------
        ExplanationDisplay

        Raises
        ------
        IndexError
            If an index is out of range.
        ValueError
            If walks are asked for that are not listed.
        """
        rows = _rows(index, len(_checked(E)))
        display = cls(E[rows], ncols=ncols, labels=labels, mol=mol, max_nodes=max_nodes, walks=walks)
        display._positions, display._single = rows, np.ndim(index) == 0
        return display

    @property
    def ax_(self) -> Any:
        """Where it was drawn; draws it if it was not."""
        return self.plot()._ax if not hasattr(self, "_ax") else self._ax

    @property
    def figure_(self) -> Any:
        """The figure that holds it; draws it if it was not."""
        return np.ravel(self.ax_)[0].figure

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            Where: one for each picture. None makes a figure.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib, or rdkit for a molecule, is missing.
        ValueError
            If `ax` holds another number of axes, or a molecule does not match its graph.
        """
        pyplot = load("matplotlib.pyplot", "viz", "Pictures")
        E = self.explanations
        # before a figure is made: what does not match leaves none behind
        inputs = [(self._molecule(i), self._names(i)) for i in range(len(E))]
        axes = self._axes(pyplot, ax)
        draw_panels(axes, E, inputs, self.max_nodes, self.walks)
        self._ax = axes[0] if self._single else axes
        return self

    def _molecule(self, i: int) -> Any:
        if self.explanations.kind == "feature":
            return None
        several = isinstance(self.mol, (list, tuple, np.ndarray))
        if several and len(self.mol) != len(self.explanations):
            raise ValueError(
                f"'mol' must hold one molecule per picture ({len(self.explanations)}). Got {len(self.mol)}."
            )
        mol = self.mol[i] if several else self.mol
        return find_molecule(self.explanations.instances, i, mol, name=self._positions[i])

    def _names(self, i: int) -> Any:
        """Return the names of the nodes (or features) of one picture, None if there are none."""
        E, labels = self.explanations, self.labels
        if labels is None:
            node_ids = None if E.kind == "feature" else E.instances.node_ids
            return None if node_ids is None else node_ids[E.instances.graph_index[i]]
        if not isinstance(labels[0], str) and np.ndim(labels[0]) == 1:
            labels = labels[i]
        length = E.lengths()[i] if E.kind == "feature" else E.instances.num_units("node", i)
        if len(labels) != length:
            what = "feature" if E.kind == "feature" else "node"
            raise ValueError(
                f"'labels' must hold one name per {what} of instance {self._positions[i]} ({length}). "
                f"Got {len(labels)}."
            )
        return labels

    def _axes(self, pyplot: Any, ax: Any) -> np.ndarray:
        n = len(self.explanations)
        if ax is not None:
            axes = np.ravel(ax)
            if len(axes) != n:
                raise ValueError(
                    f"'ax' must hold one axes per picture ({n}). Got {len(axes)}; leave it out for a new figure."
                )
            return axes
        columns = min(self.ncols, n)
        rows = -(-n // columns)
        size = (5.5, 4.6) if n == 1 else (3.3 * columns, 2.7 * rows + 0.6)
        figure, axes = pyplot.subplots(rows, columns, squeeze=False, figsize=size, layout="constrained")
        if self.explanations.explainer:
            figure.suptitle(self.explanations.explainer, fontsize=11)
        for empty in axes.ravel()[n:]:
            empty.remove()
        return axes.ravel()[:n]


def _rows(index: Any, n: int) -> list[int]:
    """Return the chosen positions, counted from the start."""
    rows = np.atleast_1d(np.asarray(index))
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.dtype.kind not in "iu" or rows.ndim != 1 or not len(rows):
        raise TypeError(f"'index' must be an int or a sequence of at least one int. Got {index!r}.")
    bad = rows[(rows < -n) | (rows >= n)]
    if len(bad):
        raise IndexError(f"'index' must lie in [{-n}, {n}). Got {bad[0]}.")
    return np.arange(n)[rows].tolist()


def _checked(E: Any) -> Explanations:
    if not isinstance(E, Explanations):
        raise TypeError(f"What is drawn must be Explanations, from an explainer's explain. Got {type(E).__name__}.")
    return E
