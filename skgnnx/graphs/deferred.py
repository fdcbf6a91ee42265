"""Explanations that are computed when they are first read.

A scikit-learn pipeline explains the training fold only to hand it to steps that often never look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skgnnx.graphs.explanation_array import FIELDS
from skgnnx.graphs.explanations import Explanations
from skgnnx.graphs.instances import Instances


class DeferredExplanations(Explanations):
    """Explanations of known instances whose scores appear on first reading; see `Explanations.deferred`.

    Parameters
    ----------
    compute : callable
        Returns the `Explanations`.
    check : callable or None
        Raises if what `compute` needs has changed in the meantime.
    instances : Instances
        What will be explained.
    """

    def __init__(
        self, compute: Callable[[], Explanations], check: Callable[[], None] | None, instances: Instances
    ) -> None:
        self.instances = instances
        self._compute: Callable[[], Explanations] | None = compute
        self._check = check

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def ids(self) -> np.ndarray:
        """The user's own names of the instances."""
        return self.instances.ids

    def __getattr__(self, name: str) -> Any:
        # reached only for what is not there yet; names with an underscore are probes of other libraries
        if not name.startswith("_") and self.__dict__.get("_compute") is not None:
            self._read()
            return getattr(self, name)
        return super().__getattr__(name)

    def _read(self) -> None:
        compute, check = self._compute, self._check
        try:
            if check is not None:
                check()
            E = compute() if compute is not None else self
        except AttributeError as error:  # Python would take it for a missing attribute and ask again
            raise RuntimeError(f"The deferred explanations could not be computed: {error}") from error
        self._compute = self._check = None
        self.__dict__.update({field: getattr(E, field) for field in FIELDS})
