"""Fidelity: how a prediction changes when the explanation is taken out of the graph, or is all that is left of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from skgnnx.graphs import Explanations
from skgnnx.metrics.changes import Changes
from skgnnx.metrics.reducing import Score, mean_of, weights_of


def fidelity_plus(
    E: Explanations,
    y: Any = None,
    *,
    reduce: str | None = "mean",
    sample_weight: Any = None,
    model: Any = None,
    sparsity: float | None = None,
    selection: str = "cut",
    removal: str | None = None,
    of: str = "probability",
    absolute: bool | None = None,
) -> Score | np.ndarray:
    r"""Return how much the prediction loses without the explanation; higher is better.

    .. math:: \mathrm{Fid}_+ = \frac{1}{n} \sum_i f(G_i)_{c_i} - f(G_i \setminus S_i)_{c_i}

    with the selected units :math:`S`, the explained class :math:`c` (``E.targets``) and the probability :math:`f`, so
    in [-1, 1]. Hard masks are taken as they are, any other is cut first. Self loops and what lies outside of the
    computation graph are no units: they always stay. Neighbours that sampling (``max_edges``) left out are none either:
    they belong to the rest of the graph. Without any unit (an isolated node, a graph without edges) it is 0, exactly,
    and counted in ``n_degenerate`` of the result; instances that failed are left out and counted. With true labels as
    targets of the instances, it is about the phenomenon instead of the model.

    Parameters
    ----------
    E : Explanations
        What is evaluated, by its primary mask.
    y : ignored
        Labels or truth, for the sake of one signature.
    reduce : {"mean", None}, default="mean"
        None returns one value per instance, NaN where it failed.
    sample_weight : array-like of shape (n,), default=None
        Weights of the instances in the mean.
    model : Module, default=None
        None means the model that was explained; another one warns.
    sparsity : float in [0, 1], default=None
        Share of the units left out by the cut; None means the one recorded in `E`.
    selection : {"cut", "soft"}, default="cut"
        "soft" weighs messages (or features) by the scores m, and by 1 - m in the complement, instead of cutting. Scores
        must be in [0, 1]. 1 - m of a nearly constant mask is no removal: a mask of 0.5 gives Fid+ = Fid-.
    removal : {"drop", "weight", "zero", "induced"}, default=None
        How units are taken out. None means "drop" for edges (the edge list gets shorter, degrees are computed afresh)
        and "zero" for nodes and features. Edges can also be weighed ("weight": messages times 0, degrees of the whole
        graph; the way of PyG and of ``selection="soft"``), nodes taken out with their edges ("induced").
    of : {"probability", "accuracy"}, default="probability"
        "accuracy" uses 1 where the explained class is the predicted one, else 0; a multi-label output predicts a label
        from ``threshold`` on. For regression, f is the output itself and must be "probability".
    absolute : bool, default=None
        Whether changes count without their sign. None means False, and True for regression.

    Returns
    -------
    float, or ndarray of shape (n,)
        NaN if no instance is defined.

    Raises
    ------
    ValueError
        If there is no model, or a parameter does not fit the scores.

    Notes
    -----
    Yuan, Yu, Gui & Ji, "Explainability in Graph Neural Networks: A Taxonomic Survey", 2022; accuracy and probability
    version.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.metrics import fidelity_plus
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = SensitivityAnalysis(model, mask="edge").explain(X)
    >>> fidelity_plus(E, reduce=None).shape == X.shape, fidelity_plus(E, sparsity=1.0)
    (True, 0.0)
    """
    changes = Changes.of_explanations(E, (False, True), model, sparsity, selection, removal, of, absolute)
    return changes.reduced(changes.plus, reduce, sample_weight)


def fidelity_minus(
    E: Explanations,
    y: Any = None,
    *,
    reduce: str | None = "mean",
    sample_weight: Any = None,
    model: Any = None,
    sparsity: float | None = None,
    selection: str = "cut",
    removal: str | None = None,
    of: str = "probability",
    absolute: bool | None = None,
) -> Score | np.ndarray:
    r"""Return how much the prediction loses when only the explanation is left; lower is better, 0 keeps it all.

    .. math:: \mathrm{Fid}_- = \frac{1}{n} \sum_i f(G_i)_{c_i} - f(S_i)_{c_i}

    Exactly 0 where every unit is selected and no neighbours were left out by sampling; negative where the explained
    class becomes more likely.

    Parameters
    ----------
    E, y, reduce, sample_weight, model, sparsity, selection, removal, of, absolute
        As in `fidelity_plus`.

    Returns
    -------
    float, or ndarray of shape (n,)

    Notes
    -----
    Source as in `fidelity_plus`.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.metrics import fidelity_minus
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> fidelity_minus(SensitivityAnalysis(model, mask="edge").explain(X), sparsity=0.0)
    0.0
    """
    changes = Changes.of_explanations(E, (True, False), model, sparsity, selection, removal, of, absolute)
    return changes.reduced(changes.minus, reduce, sample_weight)


def fidelity_delta(
    E: Explanations, y: Any = None, *, reduce: str | None = "mean", sample_weight: Any = None, **options: Any
) -> Score | np.ndarray:
    """Return Fid+ - Fid-, in [-2, 2]; higher is better.

    Parameters
    ----------
    E, y, reduce, sample_weight
        As in `fidelity_plus`.
    **options
        model, sparsity, selection, removal, of, absolute, as in `fidelity_plus`.

    Returns
    -------
    float, or ndarray of shape (n,)

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.metrics import fidelity_delta
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> bool(-2 <= fidelity_delta(SensitivityAnalysis(model, mask="edge").explain(X)) <= 2)
    True
    """
    changes = Changes.of_explanations(E, (True, True), **options)
    return changes.reduced(changes.plus - changes.minus, reduce, sample_weight)


def characterization(
    E: Explanations,
    y: Any = None,
    *,
    reduce: str | None = "mean",
    sample_weight: Any = None,
    weights: tuple[float, float] = (0.5, 0.5),
    average: str = "means",
    **options: Any,
) -> Score | np.ndarray:
    r"""Return the weighted harmonic mean of Fid+ and 1 - Fid-, in [0, 1]; higher is better.

    .. math:: \frac{w_+ + w_-}{w_+ / \mathrm{Fid}_+ + w_- / (1 - \mathrm{Fid}_-)}

    Both are clipped to [0, 1]; it is 0 where Fid+ <= 0 or Fid- >= 1. For regression, changes are relative to the
    size of the output, because absolute ones have no upper end: :math:`|f(G) - f(G \setminus S)| / |f(G)|`.

    Parameters
    ----------
    E, y, reduce, sample_weight
        As in `fidelity_plus`.
    weights : (float, float), default=(0.5, 0.5)
        w+ and w-, above 0; equal ones are GraphFramEx's.
    average : {"means", "instances"}, default="means"
        Whether the two means are combined (GraphFramEx), or the two values of every instance, which is what
        ``reduce=None`` returns, and the results averaged.
    **options
        model, sparsity, selection, removal, of, absolute, as in `fidelity_plus`.

    Returns
    -------
    float, or ndarray of shape (n,)

    Notes
    -----
    Amara et al., "GraphFramEx: Towards Systematic Evaluation of Explainability Methods for Graph Neural Networks", LoG
    2022.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.metrics import characterization
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> bool(0 <= characterization(SensitivityAnalysis(model, mask="edge").explain(X)) <= 1)
    True
    """
    if len(weights) != 2 or not all(np.isfinite(w) and w > 0 for w in weights):
        raise ValueError(f"The 'weights' parameter must be two numbers in the range (0, inf). Got {weights!r} instead.")
    if average not in ("means", "instances"):
        raise ValueError(f"The 'average' parameter must be 'means' or 'instances'. Got {average!r} instead.")
    changes = Changes.of_explanations(E, (True, True), **options).relative()
    weight = weights_of(sample_weight, len(E))
    score = changes.reduced(_combined(changes.plus, changes.minus, weights), reduce, weight)
    if reduce is None or average == "instances":
        return score
    plus, minus = (np.array([mean_of(values, weight)]) for values in (changes.plus, changes.minus))
    return Score(float(_combined(plus, minus, weights)[0]), **vars(score))


def _combined(plus: np.ndarray, minus: np.ndarray, weights: tuple[float, float]) -> np.ndarray:
    plus, kept = plus.clip(0, 1), 1 - minus.clip(0, 1)
    undefined = np.isnan(plus) | np.isnan(kept)
    with np.errstate(divide="ignore"):
        score = sum(weights) / (weights[0] / plus + weights[1] / kept)
    return np.where(undefined, np.nan, score)
