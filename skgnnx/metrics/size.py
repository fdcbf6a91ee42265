"""How small explanations are."""

from __future__ import annotations

from typing import Any

import numpy as np

from skgnnx.graphs import Explanations, Units, units
from skgnnx.metrics.reducing import Score, reduced


def sparsity(
    E: Explanations, y: Any = None, *, reduce: str | None = "mean", sample_weight: Any = None, model: Any = None
) -> Score | np.ndarray:
    r"""Return the share of units that explanations leave out, in [0, 1]; higher is sparser.

    .. math:: 1 - \frac{|S|}{n} \quad\text{(hard)}, \qquad 1 - \frac{\exp H(p)}{n},\; p = \frac{|m|}{\sum |m|}
              \quad\text{(soft)}

    with n units of the computation graph (an undirected edge is one, self loops are none) and the entropy H: exp H is
    the number of units over which the scores spread. It is not defined, and left out and counted, where there are no
    units or all soft scores are 0.

    Parameters
    ----------
    E : Explanations
        What is evaluated, by its primary mask.
    y, model : ignored
        For the sake of one signature.
    reduce : {"mean", None}, default="mean"
        None returns one value per instance.
    sample_weight : array-like of shape (n,), default=None
        Weights of the instances in the mean.

    Returns
    -------
    float, or ndarray of shape (n,)

    Notes
    -----
    The hard version is that of Pope et al., "Explainability Methods for Graph Convolutional Neural Networks", CVPR
    2019, over the units named above.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx.graphs import Entries, Explanations, Instances
    >>> from skgnnx.metrics import sparsity
    >>> X = Instances.from_graphs([Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]]))])
    >>> entries = Entries(np.array([0, 4]), np.arange(4), np.array([0.5, 0.5, 0.0, 0.0]))
    >>> E = Explanations(X, {"edge": entries}, "edge", targets=[1])
    >>> sparsity(E), sparsity(E.top_k(1))
    (0.5, 0.75)
    """
    unit = units(E)
    total = _sums(unit, np.abs(unit.score))
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
        values = 1 - (total if E.hard else _effective(unit, total)) / unit.counts
    return reduced(values, reduce, sample_weight, degenerate=unit.counts == 0)


def _effective(unit: Units, total: np.ndarray) -> np.ndarray:
    """Return exp of the entropy of the scores of every instance, NaN where all are 0."""
    share = np.abs(unit.score) / np.repeat(total, unit.counts)
    entropy = -_sums(unit, share * np.log(np.where(share > 0, share, 1)))
    return np.where(total > 0, np.exp(entropy), np.nan)


def _sums(unit: Units, values: np.ndarray) -> np.ndarray:
    return np.bincount(unit.instance, weights=values, minlength=len(unit.counts))
