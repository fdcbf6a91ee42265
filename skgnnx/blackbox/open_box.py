"""A borrowed model at work: scores, probabilities and batches of computation graphs."""

from __future__ import annotations

import warnings
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
from skgnnx.blackbox.masked_features import MaskedFeatures, masked_features
from skgnnx.blackbox.normalisation import Normaliser
from skgnnx.blackbox.plan import Setup
from skgnnx.blackbox.receptive_field import ModelTrace, trace
from skgnnx.blackbox.recording import HiddenState, recorded
from skgnnx.blackbox.reference import FirstLook, PlainRuns
from skgnnx.config import memory_budget
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import receptive_fields, whole_graphs
from skgnnx.graphs.instances import Instances


class OpenBox:
    """A frozen model and the instances to explain; made by `BlackBox.open`."""

    def __init__(self, box: Any, X: Instances) -> None:
        self.box = box
        self.X = X
        self.name = type(box.model).__name__
        self.device = _device_of(box.model)
        self.call = ModelCall(box.model, box.forward)
        self._told_of_leak = False

    @cached_property
    def trace(self) -> ModelTrace:
        """What a forward pass does: calls, message widths, receptive field."""
        return trace(self.call, self.X, self.device)

    @cached_property
    def _runs(self) -> PlainRuns:
        return PlainRuns(self.call, self.X, self.device, sum(self.trace.widths))

    @cached_property
    def _setup(self) -> Setup:
        return Setup(self.call, self.X, self.device, self.trace)

    @cached_property
    def _normaliser(self) -> Normaliser:
        return Normaliser(self._setup, self.X, self.device)

    @cached_property
    def reference(self) -> Tensor:
        """The model's raw output (n, C) for every instance, on whole graphs, with nothing masked."""
        if self.X.level != "graph" and bytes_of_whole(self._runs, self.trace) > memory_budget():
            return CutReference(self._runs, self._setup, self._normaliser).outputs()
        local = self.trace.hops is not None or self.X.level == "graph"
        return self._runs.reference((lambda: self._look) if local else None)

    @cached_property
    def _batcher(self) -> Batcher:
        # The reference comes first: it tells whether graphs may share a batch.
        return Batcher(self._runs, self._setup, self._normaliser, self.reference, self.targets)

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

    def sampled(self) -> list[dict[str, Any] | None]:
        """Return for each instance how many edges reached it, how many the last batches kept, and what that changed.

        The change is that of the target's probability, or of its value in a regression; None where nothing was left
        out.
        """
        sampler, targets = self._batcher.sampler, torch.from_numpy(self.targets).to(self.device)
        if sampler is None:
            return [None] * len(self.X)
        outputs = (self.reference.double(), sampler.outputs.double())
        whole, thinned = (_pick(heads.probabilities(self.kind_of_output, output), targets) for output in outputs)
        return sampler.said(thinned - whole)

    @cached_property
    def _head(self) -> tuple[str, bool]:
        """What the raw output is, and whether its softmax or sigmoid was seen at work."""
        kind = self._look.head
        kind_of_output = heads.recognise(
            self.reference, kind, regression=self.box.regression, given=self.box.output, name=self.name
        )
        if kind_of_output == "multilabel" and kind == "sigmoid":
            kind_of_output = "multilabel_prob"
        return kind_of_output, kind is not None and kind_of_output in heads.ARGUMENT_KIND

    @cached_property
    def _look(self) -> FirstLook:
        rows, hops, both_ways = np.array([0]), self.trace.hops, self.trace.both_ways
        cut = whole_graphs(self.X, rows) if hops is None else receptive_fields(self.X, rows, hops, 0, both_ways)
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

    def predicted(self) -> np.ndarray:
        """Return the predicted class of each instance (n,)."""
        return heads.predicted(self.kind_of_output, self.reference, self.box.threshold).cpu().numpy()

    def forward(
        self, batch: GraphBatch, x: Tensor | None = None, edge_mask: Tensor | Sequence[Tensor] | None = None
    ) -> Tensor:
        """Return the raw output (B, C) of a batch; differentiable in `x` and `edge_mask`."""
        return self._rows(self._raw(batch, x, edge_mask), batch)

    def _raw(self, batch: GraphBatch, x: Tensor | None, edge_mask: Tensor | Sequence[Tensor] | None) -> Tensor:
        if edge_mask is not None:
            self.check_maskable()
        return self._setup.run(batch, x, edge_mask)

    def _rows(self, output: Tensor, batch: GraphBatch) -> Tensor:
        return self._setup.rows(output, batch, self._runs)

    def path(self, batch: GraphBatch) -> list[str]:
        """Say for each propagate call of a batch how it runs, and why not faster."""
        return self._setup.path(batch)

    def check_maskable(self) -> None:
        """Raise TypeError if the model passes no messages that an edge mask could scale."""
        if not self.trace.names:
            raise TypeError(
                f"Edge masks need a model with PyG MessagePassing layers. Got {self.name}, which calls none; explain "
                "node features (mask='node_feature') or use a black-box method."
            )
        if self.trace.leaks and not self._told_of_leak:
            self._told_of_leak = True
            warnings.warn(
                f"{self.name} lets nodes act on each other also outside of its registered MessagePassing layers, where "
                "no edge mask acts; keep layers in nn.ModuleList, and use message passing instead of matrix products.",
                UserWarning,
                stacklevel=2,
            )

    def explained_edges(self, batch: GraphBatch) -> np.ndarray:
        """Return False for self loops that every layer replaces by its own, True for other edges (E,)."""
        source, target = batch.edge_index.cpu().numpy()
        replaced = [kind.replaces_loops for kind in self.trace.kinds if not kind.readout]
        return (source != target) | (not replaced or not all(replaced))

    def probabilities(self, batch: GraphBatch, **given: Any) -> Tensor:
        """Return probabilities of all targets (B, T), or raw values for regression."""
        return heads.probabilities(self.kind_of_output, self.forward(batch, **given))

    def log_prob(self, batch: GraphBatch, **given: Any) -> Tensor:
        """Return the log-probability of each instance's target (B,)."""
        output = self.forward(batch, **given)
        return _pick(heads.log_probabilities(self.kind_of_output, output), batch.targets)

    def scores(self, batch: GraphBatch, **given: Any) -> Tensor:
        """Return the pre-softmax score of each instance's target (B,)."""
        return _pick(self.all_scores(batch, **given), batch.targets)

    def all_scores(self, batch: GraphBatch, **given: Any) -> Tensor:
        """Return pre-softmax scores of all targets (B, T): the argument of the model's own head where it has one."""
        kind, seen = self._head
        if not seen:
            return heads.scores(kind, self.forward(batch, **given))
        with heads.HeadRecorder() as recorder:
            found = recorder.head_of(self._raw(batch, given.get("x"), given.get("edge_mask")))
        if found is None:
            raise ValueError(f"{self.name} must end in the same softmax or sigmoid in every call. Got none this time.")
        return heads.scores(heads.ARGUMENT_KIND[kind], self._rows(found[0], batch))

    @cached_property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the model's output."""
        return self.reference.dtype if self.reference.is_floating_point() else torch.float32

    def float_features(self, batch: GraphBatch) -> Tensor:
        """Return the node features, or raise TypeError if they cannot be scaled or differentiated."""
        if batch.x is None or not batch.x.is_floating_point():
            got = "no 'x'" if batch.x is None else f"{batch.x.dtype}"
            raise TypeError(
                f"Scoring nodes or features needs floating-point node features. Got {got}; use mask='edge', or encode "
                "categories one-hot before training."
            )
        return batch.x

    def masked_features(self, batch: GraphBatch) -> MaskedFeatures:
        """Return the node features of a batch in the form in which they are masked, or raise as `float_features`."""
        if "x" not in batch.X.store.columns or batch.X.store.columns["x"].values.dtype.kind != "f":
            self.float_features(batch)
        return masked_features(batch)

    def prediction_loss(self, batch: GraphBatch, **given: Any) -> Tensor:
        """Return how far a masked prediction is from the explained one (B,): -log p, or the squared change."""
        if self.kind_of_output != "regression":
            return -self.log_prob(batch, **given)
        change = self.forward(batch, **given) - self._batcher.explained[torch.from_numpy(batch.positions)]
        return _pick(change, batch.targets).square()

    def hidden_states(self, batch: GraphBatch) -> list[HiddenState]:
        """Return what goes into and comes out of every propagate call, without gradient."""
        with torch.no_grad(), recorded(self.box.model) as states:
            self.call(batch)
        return states

    def target_gradients(self, batch: GraphBatch, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return scores (B, T) and their gradients (T, N, F) by the node features, from one forward pass.

        Each target is a row of cotangents: T targets cost one forward pass and T backward passes.

        Parameters
        ----------
        batch : GraphBatch
        targets : sequence of int
            Classes or output columns.
        """
        x = self.float_features(batch).detach().clone().requires_grad_()
        scores = self.all_scores(batch, x=x)[:, list(targets)]
        sums = scores.sum(0)
        gradients = [torch.autograd.grad(one, x, retain_graph=True)[0] for one in sums]
        return scores.detach(), torch.stack(gradients)

    def input_gradient(self, batch: GraphBatch, wanted: str) -> tuple[Tensor, Tensor]:
        """Return an input and the gradient of the scores with respect to it.

        Parameters
        ----------
        batch : GraphBatch
        wanted : {"x", "edge"}
            Node features, or the gates of 1 on the messages of each edge.
        """
        if wanted == "x":
            value = self.float_features(batch).detach().clone().requires_grad_()
            score = self.scores(batch, x=value)
        else:
            value = torch.ones(batch.num_edges, dtype=self.dtype, device=batch.device, requires_grad=True)
            score = self.scores(batch, edge_mask=value)
        if not score.requires_grad:
            return value.detach(), torch.zeros_like(value)
        (gradient,) = torch.autograd.grad(score.sum(), value, allow_unused=True)
        return value.detach(), torch.zeros_like(value) if gradient is None else gradient


def _pick(values: Tensor, targets: Tensor | None) -> Tensor:
    return values.gather(1, targets.view(-1, 1)).squeeze(1)  # type: ignore[union-attr]


def _device_of(model: Any) -> torch.device:
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")
