"""Our own explainers as peers of themselves: what explaining all instances together saves over one after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from side_by_side.masks import Scored, Whole, scored_entries, spread_out
from side_by_side.measuring import Cost, measured
from side_by_side.tasks import Task
from skgnnx.explainers.base import BaseExplainer


@dataclass
class OneCallEach:
    """A loop over `explain([instance])`: every call opens the model again.

    Parameters
    ----------
    explainer : type
        Ours.
    given : dict
        Its parameters.
    """

    explainer: type[BaseExplainer]
    given: dict[str, Any] = field(default_factory=dict)
    epochs_run: ClassVar[int] = 1
    is_extrapolated: ClassVar[bool] = False

    def explain(self, task: Task, i: int, initial: Whole, epochs: int) -> Whole:
        """Explain one instance; there are no initial masks and no epochs."""
        one = task.take(np.array([i]))
        return spread_out(scored_entries(self.explainer(task.network, **self.given), one)[0], one, 0, elsewhere=0.0)


@dataclass
class BatchesOfOne(OneCallEach):
    """One call with batches of one instance: the model is opened once for all."""

    def cost(self, task: Task) -> tuple[Cost, list[Whole]]:
        """Explain all instances, and return the mean cost of one."""
        with measured() as cost:
            found: list[Scored] = scored_entries(self.explainer(task.network, **self.given, batch_size=1), task)
        for name in ("seconds", "forwards", "edge_visits"):
            setattr(cost, name, getattr(cost, name) / len(task))
        return cost, [spread_out(scored, task, i, elsewhere=0.0) for i, scored in enumerate(found)]
