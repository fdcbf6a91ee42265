"""What all steps share: they take explanations, learn nothing, and put off work that a pipeline may not need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, dataclass_transform

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from skgnnx.graphs import Explanations
from skgnnx.validation import check_parameters


@dataclass_transform()
def step(cls: type) -> type:
    """Make a class a step: its annotated fields are its parameters, in order, and are checked when it is used."""
    return dataclass(eq=False, repr=False)(cls)


@step
class ExplanationStep(TransformerMixin, BaseEstimator):
    """Base of the transformers that take `Explanations`; they need no fit.

    A subclass writes its fields and ``_transform(E)``.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the type of X; nothing is learned.

        Parameters
        ----------
        X : Explanations
            What an explainer returned.
        y : ignored
            For scikit-learn's sake.

        Returns
        -------
        self
        """
        check_parameters(self)
        self._check(X)
        return self

    def transform(self, X: Any) -> Any:
        """Transform explanations.

        Parameters
        ----------
        X : Explanations
            What an explainer returned.

        Returns
        -------
        object
            As the class says.

        Raises
        ------
        TypeError
            If `X` is something else.
        """
        check_parameters(self)
        return self._transform(self._check(X))

    def _transform(self, E: Explanations) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define _transform(E).")

    def _check(self, X: Any) -> Explanations:
        if not isinstance(X, Explanations):
            raise TypeError(
                f"{type(self).__name__} must get Explanations, the result of an explainer. Got {type(X).__name__}; put "
                "an explainer before it."
            )
        return X

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags


@step
class RaggedStep(ExplanationStep):
    """Base of the steps that do not return a table, but graphs or explanations."""

    def set_output(self, *, transform: str | None = None) -> Self:
        """Do nothing: there is no table to put into another container, and other steps of a pipeline may have one."""
        return self


@step
class SelectionStep(RaggedStep):
    """Base of the steps that return explanations of the same instances."""

    def fit_transform(self, X: Any, y: Any = None) -> Explanations:
        """Return the transformed explanations, computed when they are first read.

        A pipeline calls this while fitting, where the next step often looks at nothing but the number of instances.
        """
        self.fit(X, y)
        fixed = type(self)(**self.get_params(deep=False))
        return Explanations.deferred(lambda: fixed.transform(X), None, X.instances)
