"""From soft to hard explanations: a size, a share, a threshold."""

from __future__ import annotations

from skgnnx.graphs import Explanations
from skgnnx.preprocessing.steps import SelectionStep, step
from skgnnx.validation import Fraction, NonNegativeInt


@step
class TopK(SelectionStep):
    """Keeps the `k` best units of every instance, as 0/1 explanations.

    An undirected edge is one unit, loops are none, ties go to the lower ids.

    Parameters
    ----------
    k : int >= 0, default=10
        Units that stay; an instance with fewer keeps them all.

    See Also
    --------
    skgnnx.Explanations.top_k : The same as a method.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.preprocessing import TopK
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = make_pipeline(SensitivityAnalysis(model), TopK(2)).transform(X)
    >>> [int(mask.sum()) for mask in E]  # both directions of two bonds
    [4, 4, 4, 4, 4]
    """

    k: NonNegativeInt = 10

    def _transform(self, E: Explanations) -> Explanations:
        return E.top_k(self.k)


@step
class AtSparsity(SelectionStep):
    """Leaves out a share of the units of every instance, as 0/1 explanations.

    Of n units, max(1, floor((1 - sparsity) n + 0.5)) stay, none where `sparsity` is 1.

    Parameters
    ----------
    sparsity : float in [0, 1], default=0.7
        Share that is left out; the default of the explainers.

    See Also
    --------
    skgnnx.Explanations.at_sparsity : The same as a method.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.preprocessing import AtSparsity
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = make_pipeline(SensitivityAnalysis(model), AtSparsity(0.5)).transform(X)
    >>> E.hard, E.sparsity
    (True, 0.5)
    """

    sparsity: Fraction = 0.7

    def _transform(self, E: Explanations) -> Explanations:
        return E.at_sparsity(self.sparsity)


@step
class Threshold(SelectionStep):
    """Keeps the units that score above a threshold, as 0/1 explanations.

    Parameters
    ----------
    threshold : float, default=0.5
        A unit whose score equals it is left out; the default suits scores in [0, 1].

    See Also
    --------
    skgnnx.Explanations.threshold : The same as a method.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgnnx import RandomExplainer
    >>> from skgnnx.preprocessing import Threshold
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = make_pipeline(RandomExplainer(model), Threshold(1.0)).transform(X)
    >>> sum(int(mask.sum()) for mask in E)
    0
    """

    threshold: float = 0.5

    def _transform(self, E: Explanations) -> Explanations:
        return E.threshold(self.threshold)
