"""A borrowed model at work: outputs, scores and gradients of batches of computation graphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.embeddings import Embedded, NodeEmbeddings
from skgnnx.blackbox.guided import GuidedReLUs, check_guidable
from skgnnx.blackbox.masked_features import MaskedFeatures, masked_features
from skgnnx.blackbox.message_gates import CallMessages, Recording, by_run
from skgnnx.blackbox.opening import Opening, of_targets
from skgnnx.blackbox.plan import EdgeMask
from skgnnx.blackbox.recording import HiddenState, recorded
from skgnnx.graphs.batch import GraphBatch

ROWS_AT_ONCE = 8_192  # nodes and edges of copies in one run: fewer take more Python, more leave the cache
VERSION_ROWS, VERSION_NUMBERS = 32_768, 8_388_608  # the same without gradient, and how many features at most


class OpenBox(Opening):
    """A frozen model and the instances to explain; made by `BlackBox.open`."""

    _told_of_leak = False
    _is_guidable = False
    _copies_stay_apart: bool | None = None

    def forward(self, batch: GraphBatch, x: Tensor | None = None, edge_mask: EdgeMask = None) -> Tensor:
        """Return the raw output (B, C) of a batch; differentiable in `x` and `edge_mask`.

        Where the node features are whole numbers, `x` are values of `node_inputs`. `MessageGates` in place of a mask
        replace messages instead of scaling them.
        """
        return self._rows(self._raw(batch, x, edge_mask), batch)

    def forward_once(self, batch: GraphBatch) -> Tensor:
        """Return what `forward` returns, of a batch that runs only once: what is prepared for many runs may not pay."""
        if self.setup.pays(batch):
            return self.forward(batch)
        return self.plain_rows(self.call(batch), batch)

    def _raw(self, batch: GraphBatch, x: Tensor | None, edge_mask: EdgeMask) -> Tensor:
        if edge_mask is not None:
            self.check_maskable()
        return self.setup.run(batch, self.as_input(x), edge_mask)

    def _rows(self, output: Tensor, batch: GraphBatch) -> Tensor:
        return self.setup.rows(output, batch, self._runs)

    def path(self, batch: GraphBatch) -> list[str]:
        """Say for each propagate call of a batch how it runs, and why not faster."""
        return self.setup.path(batch)

    def path_once(self, batch: GraphBatch) -> list[str]:
        """Say how the propagate calls of copies of a batch run in `forward_once`."""
        if self.setup.pays(batch):
            return self.path(batch)
        return [f"{name}: general path (graphs that run once), whole" for name in self.trace.names]

    def plain_path(self, batch: GraphBatch) -> list[list[str]]:
        """Say the same for each instance of a batch of which `plain_scores` are taken."""
        return [[f"{name}: general path (looked into), whole" for name in self.trace.names]] * len(batch)

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
        output, kind = self.argument_of(lambda: self._raw(batch, given.get("x"), given.get("edge_mask")))
        return heads.log_probability(kind, self._rows(output, batch), batch.targets)  # type: ignore[arg-type]

    def scores(self, batch: GraphBatch, **given: Any) -> Tensor:
        """Return the pre-softmax score of each instance's target (B,)."""
        return of_targets(self.all_scores(batch, **given), batch.targets)

    def all_scores(self, batch: GraphBatch, **given: Any) -> Tensor:
        """Return pre-softmax scores of all targets (B, T): the argument of the model's own head where it has one."""
        logits, kind = self.argument_of(lambda: self._raw(batch, given.get("x"), given.get("edge_mask")))
        return heads.scores(kind, self._rows(logits, batch))

    def plain_scores(self, batch: GraphBatch, x: Tensor | None = None, *, logits: bool = False) -> Tensor:
        """Return pre-softmax scores of all targets (B, T), the model running as it is, where hooks of others may act.

        Parameters
        ----------
        batch : GraphBatch
        x : Tensor of shape (N, F), optional
            Other node features; scores can be differentiated by them.
        logits : bool, default=False
            True raises TypeError where only log-probabilities could be had.
        """
        argument, kind = self.plain_argument(batch, x, logits=logits)
        return heads.scores(kind, self.plain_rows(argument, batch))

    def plain_argument(self, batch: GraphBatch, x: Tensor | None = None, *, logits: bool = False) -> tuple[Tensor, str]:
        """Return the tensor that holds the scores as the model made it, and its kind; parameters of `plain_scores`."""
        return self.argument_of(lambda: self.call(batch, x), logits=logits)

    def plain_rows(self, output: Tensor, batch: GraphBatch) -> Tensor:
        """Return the rows (B, C) that belong to the instances, of what a model that runs as it is made."""
        return self._runs.rows_of(output, batch)

    def argument_of(self, run: Callable[[], Tensor], *, logits: bool = False) -> tuple[Tensor, str]:
        """Return what a run gives before its softmax or sigmoid, if there is one, and what kind of output that is."""
        kind, seen = self._head
        if logits and not seen and kind in heads.ARGUMENT_KIND:
            raise TypeError(
                f"The output of {self.name} looks like (log-)probabilities and the logits could not be located: they "
                "must be the argument of a last softmax, log_softmax or sigmoid. Got none; return logits, or use "
                "InputXGradient."
            )
        if not seen:
            return run(), kind
        with heads.HeadRecorder() as recorder:
            found = recorder.head_of(run())
        if found is None:
            raise ValueError(f"{self.name} must end in the same softmax or sigmoid in every call. Got none this time.")
        return found[0], heads.ARGUMENT_KIND[kind]

    @cached_property
    def _has_float_features(self) -> bool:
        return "x" in self.X.store.columns and self.X.store.columns["x"].values.dtype.kind == "f"

    @cached_property
    def _embeddings(self) -> NodeEmbeddings:
        return NodeEmbeddings(self.call, self.look.batch)

    def node_inputs(self, batch: GraphBatch) -> Tensor:
        """Return the node features, or the outputs of the embeddings that read them side by side (N, D)."""
        if self._has_float_features or batch.x is None:
            return self.float_features(batch, "InputXGradient(mask='edge')")  # edges are scored by features, too
        return self._embeddings.values(batch)

    def as_input(self, x: Tensor | None) -> Any:
        """Return features, or values of `node_inputs`, in the form in which a run takes them."""
        if x is None or self._has_float_features or not x.is_floating_point():
            return x
        return Embedded(self._embeddings, x)

    def float_features(self, batch: GraphBatch, instead: str = "mask='edge'") -> Tensor:
        """Return the node features, or raise TypeError if they cannot be scaled or differentiated."""
        if batch.x is None or not self._has_float_features:
            got = "no 'x'" if batch.x is None else f"{batch.x.dtype}"
            raise TypeError(
                f"Scoring nodes or features needs floating-point node features. Got {got}; use {instead}, or encode "
                "categories one-hot before training."
            )
        return batch.x

    def masked_features(self, batch: GraphBatch) -> MaskedFeatures:
        """Return the node features of a batch in the form in which they are masked, or raise as `float_features`."""
        if not self._has_float_features:
            self.float_features(batch)
        return masked_features(batch)

    def prediction_loss(self, batch: GraphBatch, **given: Any) -> Tensor:
        """Return how far a masked prediction is from the explained one (B,): -log p, or the squared change."""
        if self.kind_of_output != "regression":
            return -self.log_prob(batch, **given)
        change = self.forward(batch, **given) - self._batcher.explained[torch.from_numpy(batch.positions)]
        return of_targets(change, batch.targets).square()

    def hidden_states(self, batch: GraphBatch) -> list[HiddenState]:
        """Return what goes into and comes out of every propagate call, without gradient."""
        with torch.no_grad(), recorded(self.box.model) as states:
            self.call(batch)
        return states

    def messages(self, batch: GraphBatch) -> list[CallMessages]:
        """Return the messages of every propagate call of the model as it is, without gradient."""
        recording = Recording()
        with torch.no_grad():
            self._raw(batch, None, recording)
        return by_run(recording.calls)

    def forward_pass(self, batch: GraphBatch, wanted: str) -> ForwardPass:
        """Run a batch once and keep what the gradient of any target's score needs.

        Parameters
        ----------
        batch : GraphBatch
        wanted : {"node", "x", "edge", "layer"}
            Node features, or what embeddings make of them (N, D); node features only (N, F); gates of 1 on the messages
            of each edge (E,), or one gate per propagate call (L, E).
        """
        value = self.input_values(batch, wanted).detach().clone().requires_grad_()
        if wanted in ("node", "x"):
            return ForwardPass(value, self.all_scores(batch, x=value))
        return ForwardPass(value, self.all_scores(batch, edge_mask=value if wanted == "edge" else value.unbind()))

    def input_values(self, batch: GraphBatch, wanted: str) -> Tensor:
        """Return what a batch has as one of the inputs of `forward_pass`."""
        if wanted == "node":
            return self.node_inputs(batch)
        if wanted == "x":
            return self.float_features(batch, "mask='node' where embeddings read them, mask='edge'")
        shape = (batch.num_edges,) if wanted == "edge" else (len(self.trace.names), batch.num_edges)
        return torch.ones(shape, dtype=self.dtype, device=batch.device)

    def copies(self, batch: GraphBatch, most: int) -> GraphBatch:
        """Return up to so many copies of a batch as one batch, as long as that is faster than one after the other."""
        number = min(self.rows_of_copies // max(batch.num_nodes + batch.num_edges, 1), most)
        if number <= 1 or not self.keeps_copies_apart(batch):
            return batch
        number = -(-most // -(-most // number))  # about the same in every run
        copies = batch.take(np.tile(np.arange(len(batch)), number))
        return copies if self.settles(copies) else batch

    @property
    def rows_of_copies(self) -> int:
        """How many nodes and edges copies that run together may have."""
        return min(ROWS_AT_ONCE, self._runs.rows_at_once)

    @property
    def rows_of_versions(self) -> int:
        """How many nodes and edges versions may have that run together without gradient, for which nothing is kept."""
        width = self.X.num_units("feature", 0)
        return min(VERSION_ROWS, max(VERSION_NUMBERS // max(width, 1), 1_024), self._runs.rows_at_once)

    def settles(self, copies: GraphBatch) -> bool:
        """Return True if copies of instances give what these give, with as many shortcuts as that takes away."""
        return self._batcher.settles(copies)

    def keeps_copies_apart(self, batch: GraphBatch) -> bool:
        """Return True if copies may share a batch; what several instances have shown, a lone one has to be asked."""
        if len(self.X) > 1:
            return not self._runs.mixes_batch
        if self._copies_stay_apart is None:
            self._copies_stay_apart = self._runs.keeps_apart(batch, batch.take(np.array([0, 0])))
        return self._copies_stay_apart

    def guided_pass(self, batch: GraphBatch, wanted: str) -> ForwardPass:
        """Run a batch as `forward_pass` does, with ReLUs that hold back negative gradients; TypeError if none runs."""
        if not self._is_guidable:
            check_guidable(self)
            self._is_guidable = True
        with GuidedReLUs():
            return self.forward_pass(batch, wanted)


class ForwardPass(NamedTuple):
    """An input of a batch and the scores that it leads to.

    Parameters
    ----------
    value : Tensor of shape (N, F), (N, D), (E,) or (L, E)
        Node features, what embeddings make of them, or gates.
    scores : Tensor of shape (B, T)
        Pre-softmax scores of all targets.
    """

    value: Tensor
    scores: Tensor

    def gradient(self, targets: Tensor | None) -> Tensor:
        """Return the gradient of the score of each instance's target, in the shape of the value."""
        if not self.scores.requires_grad:
            return torch.zeros_like(self.value)
        score = of_targets(self.scores, targets).sum()
        (gradient,) = torch.autograd.grad(score, self.value, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.value) if gradient is None else gradient
