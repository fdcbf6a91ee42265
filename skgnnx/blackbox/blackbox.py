"""The one door to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from skgnnx.blackbox.frozen import frozen
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.resolving import is_regression, resolve_model
from skgnnx.graphs.instances import Instances


class BlackBox:
    """A user's trained model, as it is.

    Parameters
    ----------
    model : nn.Module, fitted estimator with ``module_``, or callable
        The model; never changed.
    output : str, default="auto"
        What its columns mean, see `skgnnx.BaseExplainer`.
    threshold : float, default=0.5
        Probability from which a binary head predicts class 1.
    forward : callable, optional
        ``forward(model, batch)`` for models that cannot be filled by name.
    outputs_only : bool, default=False
        True where a plain callable ``predict(graphs) -> array`` is enough.
    """

    def __init__(
        self,
        model: Any,
        *,
        output: str = "auto",
        threshold: float = 0.5,
        forward: Callable[[Any, Any], Any] | None = None,
        outputs_only: bool = False,
    ) -> None:
        self.model = resolve_model(model, outputs_only=outputs_only)
        self.regression = is_regression(model)
        self.output = output
        self.threshold = threshold
        self.forward = forward

    @contextmanager
    def open(self, X: Instances) -> Iterator[OpenBox]:
        """Borrow the model to explain `X`; everything is as before on exit."""
        module = self.model if isinstance(self.model, nn.Module) else None
        with frozen(module):
            yield OpenBox(self, X)
