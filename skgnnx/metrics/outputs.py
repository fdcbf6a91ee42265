"""What a model said of whole graphs and of parts of them, and the numbers that metrics make of that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import heads


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model says of whole graphs and of parts of them.

    Parameters
    ----------
    full : Tensor of shape (n, C)
        Raw output for every instance, NaN where the explanation failed.
    parts : list of Tensor of shape (n, C)
        The same for every part that was kept.
    kind : str
        What the columns are, as in `skgnnx.blackbox.heads`.
    threshold : float
        Probability from which a binary or multi-label head says yes.
    targets : ndarray of shape (n,)
        Explained classes or columns.
    """

    full: Tensor
    parts: list[Tensor]
    kind: str
    threshold: float
    targets: np.ndarray

    @classmethod
    def undefined(cls, n: int, num_parts: int) -> Outputs:
        """Return what there is to say of `n` instances that all failed: no model was asked."""
        empty = torch.full((n, 2), float("nan"))
        return cls(empty, [empty] * num_parts, "probs", 0.5, np.zeros(n, dtype=np.int64))

    def spread(self, rows: np.ndarray, n: int) -> Outputs:
        """Return the same outputs as rows of `n` instances, NaN elsewhere."""
        if len(rows) == n:
            return self
        targets = np.zeros(n, dtype=np.int64)
        targets[rows] = self.targets
        full, *parts = (_spread(output, rows, n) for output in (self.full, *self.parts))
        return Outputs(full, parts, self.kind, self.threshold, targets)

    @property
    def is_regression(self) -> bool:
        """True if the columns are values, not classes."""
        return self.kind == "regression"

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the probabilities (n, T) behind a raw output; values of a regression as they are."""
        return heads.probabilities(self.kind, output.double())

    def values(self, output: Tensor, of: str = "probability") -> np.ndarray:
        """Return one number per instance about its target.

        Parameters
        ----------
        output : Tensor of shape (n, C)
            `full` or one of `parts`.
        of : {"probability", "accuracy"}, default="probability"
            The probability of the target (the value of a regression), or 1 if the target is what is predicted, else 0.

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        chosen = self._is_predicted(output) if of == "accuracy" else self._of_target(self.probabilities(output))
        values = chosen.double().numpy()
        values[output.isnan().any(dim=1).numpy()] = np.nan
        return values

    def _is_predicted(self, output: Tensor) -> Tensor:
        if self.is_regression:
            raise ValueError("of='accuracy' must be used with a classifier. Got a regression; use of='probability'.")
        if self.kind.startswith("multilabel"):
            return self._of_target(self.probabilities(output)) >= self.threshold
        return heads.predicted(self.kind, output, self.threshold) == torch.from_numpy(self.targets)

    def _of_target(self, values: Tensor) -> Tensor:
        return values.gather(1, torch.from_numpy(self.targets)[:, None]).squeeze(1)


def _spread(output: Tensor, rows: np.ndarray, n: int) -> Tensor:
    everywhere = output.new_full((n, output.shape[1]), float("nan"))
    everywhere[torch.from_numpy(rows)] = output
    return everywhere
