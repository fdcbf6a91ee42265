"""Which shortcuts a model allows: tried on a sample against the model as it is, with other features, all awake."""

from __future__ import annotations

import torch
from torch import Tensor

from skgnnx.blackbox.plan import Setup
from skgnnx.blackbox.reference import PlainRuns
from skgnnx.blackbox.trimming import Trim
from skgnnx.blackbox.waking import Awake
from skgnnx.graphs.batch import GraphBatch


class Shortcuts:
    """Finds and checks what may be left out of a forward pass.

    Parameters
    ----------
    runs : PlainRuns
        The model as it is.
    setup : Setup
        The model with shortcuts.
    """

    def __init__(self, runs: PlainRuns, setup: Setup) -> None:
        self.runs = runs
        self.setup = setup

    def of(self, batch: GraphBatch, elsewhere: tuple[Tensor, Tensor] | None = None) -> Trim:
        """Return the most that layers can leave out of batches like this one; give up fused calls that are wrong.

        Parameters
        ----------
        batch : GraphBatch
            A sample.
        elsewhere : tuple of Tensor, optional
            Other features of it and the outputs for these, all units awake, where they are known.
        """
        if elsewhere is None:
            found = self.runs.outputs_elsewhere([batch])
            elsewhere = None if found is None else found[0]
        x, expected = (None, self.runs.outputs(batch)) if elsewhere is None else elsewhere
        first = Trim.NONE if self.runs.X.level == "graph" else Trim.TARGETS
        for trim in list(Trim)[first:]:
            if self._agrees(batch, trim, x, expected, awake=elsewhere is not None):
                return Trim(batch.trim)
        self.setup.give_up_fusing()
        return Trim.NONE

    def _agrees(self, batch: GraphBatch, trim: Trim, x: Tensor | None, expected: Tensor, *, awake: bool) -> bool:
        self.setup.put(batch, trim)
        try:
            with torch.no_grad():
                if not awake:
                    return self.runs.same(self._outputs(batch, x), expected)
                with Awake():
                    return self.runs.same(self._outputs(batch, x), expected)
        except Exception:
            # Whatever a model says about graphs that are not whole: they only run slower.
            return False

    def _outputs(self, batch: GraphBatch, x: Tensor | None = None) -> Tensor:
        return self.setup.rows(self.setup.run(batch, x), batch, self.runs)

    def gives(self, batch: GraphBatch, expected: Tensor) -> bool:
        """Return True if a batch gives the expected outputs, with as many of its shortcuts as that takes away."""
        while True:
            trim = self.setup.plan(batch).trim
            try:
                with torch.no_grad():
                    same = self.runs.same(self._outputs(batch), expected)
            except Exception:
                if trim == Trim.NONE and not self.setup.fusions:
                    raise
                same = False
            if same or (trim == Trim.NONE and not self.setup.fusions):
                return same
            if trim != Trim.NONE:
                self.setup.put(batch, Trim(trim + 1))
            elif self.runs.same(self.runs.outputs(batch), expected):
                self.setup.give_up_fusing()
            else:
                return False
