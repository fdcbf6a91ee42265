"""From explanations to two-dimensional tables, for any scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np

from skgnnx.graphs import Explanations, Units, units
from skgnnx.graphs.naming import feature_names_out
from skgnnx.preprocessing.steps import ExplanationStep, step
from skgnnx.validation import check_parameters


@step
class MaskStats(ExplanationStep):
    r"""Describes every explanation by a few numbers, as a table of shape (n, number of statistics).

    Statistics are over the units of the computation graph (an undirected edge is one unit), with scores v of n units
    and shares p = \|v\| / sum \|v\|:

    - "n_units": n; "mean", "std", "min", "max": of v; "positive": share of the units with v > 0;
    - "effective": exp(-sum p log p), the number of equally important units that would be as spread out;
    - "concentration": 1 - effective / n, which is 0 where all units are alike and near 1 where one stands out.

    An instance without units has zeros; one that failed has NaN.

    Parameters
    ----------
    statistics : sequence of str, optional
        Which of them, in the order of the columns; None means all.

    Raises
    ------
    ValueError
        If a statistic is unknown.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgnnx import RandomExplainer
    >>> from skgnnx.preprocessing import MaskStats
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> stats = make_pipeline(RandomExplainer(model), MaskStats(["n_units", "positive"]))
    >>> stats.transform(X)[:2].tolist()
    [[6.0, 1.0], [7.0, 1.0]]
    """

    statistics: list | tuple | None = None

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the type of X; nothing is learned."""
        super().fit(X, y)
        self._names()
        return self

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the statistics."""
        return np.asarray(self._names(), dtype=object)

    def _names(self) -> list[str]:
        names = list(STATISTICS) if self.statistics is None else list(self.statistics)
        unknown = [name for name in names if name not in STATISTICS]
        if unknown or not names:
            got = repr(unknown[0]) if unknown else "none"
            raise ValueError(
                f"The 'statistics' parameter of MaskStats must be among {list(STATISTICS)}. Got {got} instead."
            )
        return names

    def _transform(self, E: Explanations) -> np.ndarray:
        unit = units(E)
        table = np.stack([STATISTICS[name](unit) for name in self._names()], axis=1)
        table[~E.ok] = np.nan
        return table


def _sum(unit: Units, values: np.ndarray) -> np.ndarray:
    return np.bincount(unit.instance, weights=values, minlength=len(unit.counts))


def _mean(unit: Units, values: np.ndarray | None = None) -> np.ndarray:
    return _sum(unit, unit.score if values is None else values) / np.maximum(unit.counts, 1)


def _std(unit: Units) -> np.ndarray:
    return np.sqrt(_mean(unit, np.square(unit.score - _mean(unit)[unit.instance])))


def _extreme(unit: Units, ufunc: np.ufunc) -> np.ndarray:
    found = np.zeros(len(unit.counts))
    some = unit.counts > 0
    if some.any():
        found[some] = ufunc.reduceat(unit.score, unit.ptr[:-1][some])
    return found


def _effective(unit: Units) -> np.ndarray:
    size = np.abs(unit.score)
    share = size / np.where(_sum(unit, size) > 0, _sum(unit, size), 1.0)[unit.instance]
    entropy = -_sum(unit, share * np.log(np.where(share > 0, share, 1.0)))
    # scores that are all 0 single out nothing
    return np.where(_sum(unit, size) > 0, np.exp(entropy), unit.counts)


STATISTICS: dict[str, Callable[[Units], np.ndarray]] = {
    "n_units": lambda unit: unit.counts.astype(np.float64),
    "mean": _mean,
    "std": _std,
    "min": lambda unit: _extreme(unit, np.minimum),
    "max": lambda unit: _extreme(unit, np.maximum),
    "positive": lambda unit: _mean(unit, unit.score > 0),
    "effective": _effective,
    "concentration": lambda unit: np.where(unit.counts > 0, 1 - _effective(unit) / np.maximum(unit.counts, 1), 0.0),
}


@step
class FeatureMask(ExplanationStep):
    """Gives the importance of every node feature, as a table of shape (n, n_features).

    Scores of features are taken as they are; scores of nodes and features are brought together over the nodes of the
    computation graph. An instance that failed has NaN. A frame, which is what an explainer of features gives after
    ``set_output(transform="pandas")``, is such a table already.

    Parameters
    ----------
    how : {"sum", "mean", "max"}, default="sum"
        How the scores of several nodes become one.

    Raises
    ------
    ValueError
        If the explanations hold neither kind of scores.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.preprocessing import FeatureMask
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> make_pipeline(SensitivityAnalysis(model, mask="node_feature"), FeatureMask()).fit_transform(X).shape
    (5, 4)
    """

    how: Literal["sum", "mean", "max"] = "sum"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the type of X, and count the features; nothing is learned."""
        if _is_frame(X):
            check_parameters(self)
            self.n_features_in_ = X.shape[1]
            return self
        super().fit(X, y)
        self.n_features_in_ = X.instances.num_units("feature", 0)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the table.

        Parameters
        ----------
        X : Explanations
            With scores of features, or of nodes and features.

        Returns
        -------
        ndarray of shape (n, n_features)
        """
        return X.to_numpy() if _is_frame(X) else super().transform(X)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> np.ndarray:
        """Return the given names of the node features, or ``x0``, ``x1``, ..."""
        return feature_names_out(self, input_features)

    def _transform(self, E: Explanations) -> np.ndarray:
        if "feature" in E.masks:
            table = E.stored("feature").values.astype(np.float64)
        elif "node_feature" in E.masks:
            table = _over_nodes(E, self.how)
        else:
            raise ValueError(
                f"FeatureMask must get scores of features. Got {E.kind} scores; let the explainer use mask='feature' "
                "or mask='node_feature'."
            )
        table[~E.ok] = np.nan
        return table


def _is_frame(X: Any) -> bool:
    # asking deferred explanations for an attribute would compute them
    return not isinstance(X, Explanations) and hasattr(X, "columns") and hasattr(X, "to_numpy")


def _over_nodes(E: Explanations, how: str) -> np.ndarray:
    entries = E.stored("node_feature")
    some = np.diff(entries.ptr) > 0
    table = np.zeros((len(E), entries.width or 0))
    if not some.any():
        return table
    ufunc = np.maximum if how == "max" else np.add
    table[some] = ufunc.reduceat(entries.values.astype(np.float64), entries.ptr[:-1][some], axis=0)
    return table / np.maximum(np.diff(entries.ptr), 1)[:, None] if how == "mean" else table
