"""What a model turns out to be: how far it sees, what it predicts, and which batches are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgnnx.blackbox import heads
from skgnnx.blackbox.batching import Batcher
from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.cut_reference import CutReference, bytes_of_whole
from skgnnx.blackbox.normalisation import Normaliser
from skgnnx.blackbox.plan import Setup
from skgnnx.blackbox.receptive_field import ModelTrace, trace
from skgnnx.blackbox.reference import FirstLook, PlainRuns
from skgnnx.blackbox.structure import with_structure
from skgnnx.config import memory_budget
from skgnnx.graphs.arguments import as_int_array
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import ComputationGraphs, receptive_fields, whole_graphs
from skgnnx.graphs.instances import Instances


class Opening:
    """What is found out of a frozen model and of the instances to explain, and only when it is asked for.

    Parameters
    ----------
    box : BlackBox
        The model, frozen.
    X : Instances
        What is explained.
    """

    def __init__(self, box: Any, X: Instances) -> None:
        self.box = box
        self.X = X
        self.name = type(box.model).__name__
        self.device = _device_of(box.model)
        self.call = ModelCall(box.model, box.forward)
        self.memo: dict[str, Any] = {}  # what methods find out about the model

    @cached_property
    def trace(self) -> ModelTrace:
        """What a forward pass does: calls, message widths, receptive field."""
        found = trace(self.call, self.X, self.device)
        return with_structure(found, self.call, self.X, self.device) if self._is_too_large(found) else found

    def _is_too_large(self, found: ModelTrace) -> bool:
        """Return True if no run on a whole graph can tell whether a cut is right."""
        return self.X.level != "graph" and bytes_of_whole(self.X, found) > memory_budget()

    @cached_property
    def _runs(self) -> PlainRuns:
        return PlainRuns(self.call, self.X, self.device, sum(self.trace.widths))

    @cached_property
    def setup(self) -> Setup:
        """How batches run."""
        return Setup(self.call, self.X, self.device, self.trace)

    @cached_property
    def _normaliser(self) -> Normaliser:
        return Normaliser(self.setup, self.X, self.device)

    @cached_property
    def reference(self) -> Tensor:
        """The model's raw output (n, C) for every instance, on whole graphs, with nothing masked."""
        if self._is_too_large(self.trace):
            return CutReference(self._runs, self.setup, self._normaliser).outputs()
        local = self.trace.hops is not None or self.X.level == "graph"
        return self._runs.reference((lambda: self.look) if local else None)

    @cached_property
    def _batcher(self) -> Batcher:
        # The reference comes first: it tells whether graphs may share a batch.
        return Batcher(self._runs, self.setup, self._normaliser, self.reference, self.targets)

    def batches(
        self,
        positions: np.ndarray | None = None,
        batch_size: int | str = "auto",
        *,
        removal: bool = False,
        max_edges: int | None = None,
        random_state: int = 0,
    ) -> Iterator[GraphBatch]:
        """Yield batches of computation graphs whose predictions equal those on the whole graphs, if not thinned.

        Parameters
        ----------
        positions : ndarray of int, optional
            Rows of `X`; default all.
        batch_size : int or "auto", default="auto"
            Most instances in a batch; "auto" fills the memory budget of `config_context`.
        removal : bool, default=False
            True if edges of the batch will be removed, so that degrees have to be computed afresh.
        max_edges : int >= 1, optional
            Most edges of an instance; neighbours of larger ones are sampled, in batches of their own.
        random_state : int, default=0
            Root seed of the samples.
        """
        rows = np.arange(len(self.X)) if positions is None else positions
        return self._batcher.batches(rows, batch_size, removal=removal, max_edges=max_edges, random_state=random_state)

    def whole_batches(self, positions: np.ndarray) -> Iterator[GraphBatch]:
        """Yield batches of instances, each with a copy of its whole graph, in the order of their positions."""
        graphs = whole_graphs(self.X, positions)
        for rows, part in self._runs.packed(graphs, positions, "auto"):
            yield GraphBatch(self.X, rows, part, device=self.device)

    def sampled(self) -> list[dict[str, Any] | None]:
        """Return for each instance how many edges reached it, how many the last batches kept, and what that changed.

        The change is that of the target's probability, or of its value in a regression; None where nothing was left
        out.
        """
        sampler, targets = self._batcher.sampler, torch.from_numpy(self.targets).to(self.device)
        if sampler is None:
            return [None] * len(self.X)
        outputs = (self.reference.double(), sampler.outputs.double())
        whole, thinned = (of_targets(heads.probabilities(self.kind_of_output, output), targets) for output in outputs)
        return sampler.said(thinned - whole)

    @cached_property
    def _head(self) -> tuple[str, bool]:
        """What the raw output is, and whether its softmax or sigmoid was seen at work."""
        kind = self.look.head
        kind_of_output = heads.recognise(
            self.reference, kind, regression=self.box.regression, given=self.box.output, name=self.name
        )
        if kind_of_output == "multilabel" and kind == "sigmoid":
            kind_of_output = "multilabel_prob"
        return kind_of_output, kind is not None and kind_of_output in heads.ARGUMENT_KIND

    @cached_property
    def look(self) -> FirstLook:
        """A run on what reaches the first instance, alone."""
        rows, hops, both_ways = np.array([0]), self.trace.hops, self.trace.both_ways
        if hops is not None and self.X.level != "graph":
            try:
                return self._looked_at(rows, receptive_fields(self.X, rows, hops, 0, both_ways))
            except Exception:  # not every model takes so few nodes, and each refuses in its own way
                if self._is_too_large(self.trace):
                    raise
        return self._looked_at(rows, whole_graphs(self.X, rows))

    def _looked_at(self, rows: np.ndarray, cut: ComputationGraphs) -> FirstLook:
        batch = GraphBatch(self.X, rows, cut, device=self.device)
        with heads.HeadRecorder() as recorder, torch.no_grad():
            output = self.call(batch)
        found = recorder.head_of(output)
        return FirstLook(batch, output, found[1] if found else None)

    @property
    def kind_of_output(self) -> str:
        """One of the values of `output`, resolved."""
        return self._head[0]

    @property
    def box_output(self) -> str:
        """The `output` parameter that reads this model the same way without a warning."""
        return (
            self.kind_of_output.removesuffix("_prob")
            if self.kind_of_output == "multilabel_prob"
            else self.kind_of_output
        )

    @property
    def num_targets(self) -> int:
        """How many targets the output offers."""
        return heads.num_targets(self.kind_of_output, self.reference.shape[1])

    @cached_property
    def targets(self) -> np.ndarray:
        """Class or output column explained for each instance (n,)."""
        given = self.X.target
        if given is not None:
            if (given >= self.num_targets).any():
                i = int(np.argmax(given >= self.num_targets))
                raise ValueError(
                    f"'target' must be in [0, {self.num_targets}) for {self.name}. Got {given[i]} at index {i}."
                )
            return given
        if heads.needs_target(self.kind_of_output, self.reference.shape[1]):
            raise ValueError(
                f"'target' must be given for {self.name}, whose {self.reference.shape[1]} columns are "
                f"{self.kind_of_output} "
                "outputs. Got None; say which column, for example target=0."
            )
        return heads.predicted(self.kind_of_output, self.reference, self.box.threshold).cpu().numpy()

    def checked_targets(self, targets: Sequence[int] | None) -> list[int]:
        """Return the targets that are asked for, all of them by default; ValueError if the model has not that many."""
        given = as_int_array(range(self.num_targets) if targets is None else targets, "targets")
        if given.ndim != 1:
            raise ValueError(f"'targets' must be a sequence of targets of {self.name}. Got {targets!r}.")
        asked = given.tolist()
        if not asked:
            raise ValueError(f"'targets' must hold at least one target of {self.name}. Got none; None is all of them.")
        for target in asked:
            if not 0 <= target < self.num_targets:
                raise ValueError(f"'targets' must be in [0, {self.num_targets}) for {self.name}. Got {target}.")
        return asked

    def predicted(self) -> np.ndarray:
        """Return the predicted class of each instance (n,)."""
        return heads.predicted(self.kind_of_output, self.reference, self.box.threshold).cpu().numpy()

    @cached_property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the model's output."""
        return self.reference.dtype if self.reference.is_floating_point() else torch.float32


def of_targets(values: Tensor, targets: Tensor | None) -> Tensor:
    """Return of every row of values (B, T) the one in the column of its target (B,)."""
    return values.gather(1, targets.view(-1, 1)).squeeze(1)  # type: ignore[union-attr]


def _device_of(model: Any) -> torch.device:
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")
