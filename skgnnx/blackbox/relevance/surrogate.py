"""Relevances of a model's scores: found from one forward pass, for any of its targets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn.norm import DiffGroupNorm, GraphNorm, InstanceNorm, MeanSubtractionNorm, PairNorm

from skgnnx.blackbox.heads import scores as head_scores
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.blackbox.probe_graphs import own_graph_batch, tournament_batch
from skgnnx.blackbox.relevance.boundaries import Boundaries
from skgnnx.blackbox.relevance.diagnosis import check_conservation
from skgnnx.blackbox.relevance.layout import Layout, Place
from skgnnx.blackbox.relevance.rules import Rule
from skgnnx.blackbox.relevance.surrogate_run import RefusalError, SurrogateRun
from skgnnx.graphs.batch import GraphBatch

LAYOUT = "layout"
MIXING = (DiffGroupNorm, GraphNorm, InstanceNorm, MeanSubtractionNorm, PairNorm)
GAP = {torch.float64: 1e-9, torch.float32: 1e-4}


class Relevances(NamedTuple):
    """How the score of each instance's target is shared out.

    Parameters
    ----------
    score : Tensor of shape (B,)
        The scores.
    x : Tensor of shape (N, F)
        Relevance of every entry of the node features.
    gates : Tensor of shape (L, E) or None
        Relevance of the messages along each edge, for each propagate call.
    loops : Tensor of shape (L, N) or None
        The same along the loops that layers make.
    bias : Tensor of shape (B,)
        Share of biases and other constants.
    gap : Tensor of shape (B,)
        What is missing: score - x - bias, rounding only where relevance is conserved.
    size : Tensor of shape (B,)
        Largest sum of absolute relevances at a boundary, or of biases.
    states : list of Tensor of shape (N,)
        Relevance of the state of each node that goes into each graph convolution, and that comes out of the last.
    """

    score: Tensor
    x: Tensor
    gates: Tensor | None
    loops: Tensor | None
    bias: Tensor
    gap: Tensor
    size: Tensor
    states: list[Tensor]


class RelevancePass:
    """A forward pass whose relevances can be asked for, target by target.

    Parameters
    ----------
    batch : GraphBatch
    run : SurrogateRun
        The run, over.
    x : Tensor of shape (N, F)
        Node features.
    gates : Tensor of shape (L, E + N) or None
    scores : Tensor of shape (B, T)
        Scores of all targets.
    ends_in_layer : bool
        True if the scores come out of the last graph convolution, and nothing follows.
    """

    def __init__(
        self,
        batch: GraphBatch,
        run: SurrogateRun,
        x: Tensor,
        gates: Tensor | None,
        scores: Tensor,
        ends_in_layer: bool = False,
    ) -> None:
        self.batch, self.run, self.x, self.gates, self.scores = batch, run, x, gates, scores
        self.ends_in_layer = ends_in_layer

    def relevances(self, targets: Tensor | None) -> Relevances:
        """Return the relevances of each instance's target."""
        score, run = of_targets(self.scores, targets), self.run
        states = run.boundaries.states
        gates = [] if self.gates is None else [self.gates]
        asked = [self.x, *gates, *states, *run.shares.factors]
        slopes = _slopes(score, asked)
        shared = [_product(value, slope) for value, slope in zip(asked, slopes, strict=True)]
        x, after = shared[0], 1 + len(gates) + len(states)
        bias = run.shares.sums(slopes[after:], score.dtype)
        total = self.batch.sum_nodes(x.flatten(1).sum(1))
        # What flows through a layer may be much larger than what it sums up to, and rounds accordingly.
        nodes = [x, *(values for values in shared[1 + len(gates) : after] if len(values) == len(x))]
        flows = [self.batch.sum_nodes(values.abs().flatten(1).sum(1)) for values in nodes]
        flows.append(run.shares.sums([None if slope is None else slope.abs() for slope in slopes[after:]], score.dtype))
        size = torch.stack(flows).amax(0)
        if not run.shares.are_clear or bool(_is_lost(score.detach() - total - bias, score, size).any()):
            bias = run.shares.sums_by_code(
                slopes[after:], lambda codes: _slopes(score * codes, asked)[after:], score.dtype
            )
        edges, loops = shared[1].split([self.batch.num_edges, self.batch.num_nodes], 1) if gates else (None, None)
        of_states = [values.flatten(1).sum(1) for values in shared[1 + len(gates) : after]]
        score = score.detach()
        return Relevances(score, x, edges, loops, bias, score - total - bias, size, of_states)

    def flows(self, targets: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what arrives at the node features (N, F), and at the gates of edges (L, E) if there are any."""
        asked = [self.x, *([] if self.gates is None else [self.gates])]
        slopes = _slopes(of_targets(self.scores, targets), asked)
        x, *gates = (_product(value, slope) for value, slope in zip(asked, slopes, strict=True))
        return x, gates[0][:, : self.batch.num_edges] if gates else None

    def marginals(self, targets: Tensor | None, node_gates: list[Tensor]) -> tuple[Tensor | None, list[Tensor]]:
        """Return the relevance of all walks that take each message, and that pass each node at each boundary.

        The relevance of a walk is a product along it, so that it is the derivative of the sum over all walks by a gate
        that they pass: one backward pass through the backward pass.

        Parameters
        ----------
        targets : Tensor of shape (B,)
        node_gates : list of Tensor of shape (N, ...)
            Gates of `NodeGates`, if there are any.

        Returns
        -------
        Tensor of shape (L, E + N) or None
            For each propagate call the edges, and then the loops that the layer makes.
        list of Tensor of shape (N,)
        """
        score = of_targets(self.scores, targets).sum()
        gates = [] if self.gates is None else [self.gates]
        asked = [*gates, *node_gates]
        slopes: list[Tensor | None] = [None] * len(asked)
        if score.requires_grad:
            (weights,) = torch.autograd.grad(score, self.x, create_graph=True)
            total = (self.x.detach() * weights).sum()
            if total.requires_grad:
                slopes = list(torch.autograd.grad(total, asked, retain_graph=True, allow_unused=True))
        found = [torch.zeros_like(v) if slope is None else slope for v, slope in zip(asked, slopes, strict=True)]
        return (found[0] if gates else None), [values.flatten(1).sum(1) for values in found[len(gates) :]]


def _slopes(score: Tensor, asked: list[Tensor]) -> list[Tensor | None]:
    if not score.requires_grad:
        return [None] * len(asked)
    return list(torch.autograd.grad(score.sum(), asked, retain_graph=True, allow_unused=True))


def _is_lost(gap: Tensor, score: Tensor, size: Tensor) -> Tensor:
    """Return where gaps are larger than rounding."""
    allowed = GAP.get(score.dtype, 1e-2) * torch.maximum(score.detach().abs(), size / 10).clamp(min=1)
    return gap.abs() > allowed


def _product(value: Tensor, slope: Tensor | None) -> Tensor:
    return torch.zeros_like(value) if slope is None else value.detach() * slope


class Surrogate:
    """A model that is made to share its scores out, without a change of its values.

    Parameters
    ----------
    gnn : OpenBox
        The frozen model.
    choice : callable
        Returns the `Rule` of a linear block, given its `Place`.
    runs : type, default=SurrogateRun
        Class of the forward passes of the user's batches.
    """

    def __init__(self, gnn: OpenBox, choice: Callable[[Place], Rule], runs: type[SurrogateRun] = SurrogateRun) -> None:
        self.gnn = gnn
        self.choice = choice
        self.runs = runs

    def pass_forward(
        self,
        batch: GraphBatch,
        x: Tensor | None = None,
        *,
        gated: bool = False,
        boundaries: Boundaries | None = None,
    ) -> RelevancePass:
        """Run a batch.

        Parameters
        ----------
        batch : GraphBatch
        x : Tensor, optional
            Instead of what `OpenBox.node_inputs` returns.
        gated : bool, default=False
            Whether relevances of edges will be asked for.
        boundaries : Boundaries, optional
            What is done between graph convolutions.
        """
        x = self.gnn.node_inputs(batch) if x is None else x
        return self._pass(batch, x, self.layout, self.choice, gated, boundaries)

    def _pass(
        self,
        batch: GraphBatch,
        x: Tensor,
        layout: Layout,
        choice: Callable[[Place], Rule],
        gated: bool = False,
        boundaries: Boundaries | None = None,
    ) -> RelevancePass:
        x = x.detach().clone().requires_grad_()
        gates = None
        # Products with sparse matrices cannot be differentiated twice, or in several ways at once; messages can.
        if gated or (boundaries is not None and self.gnn.X.store.sparse):
            self.gnn.check_maskable()
            shape = (len(self.gnn.trace.names), batch.num_edges + batch.num_nodes)
            gates = torch.ones(shape, dtype=x.dtype, device=batch.device, requires_grad=True)
        runs = self.runs if layout.is_complete else SurrogateRun
        run = runs(self.gnn, batch, layout, choice, None if gates is None else gates.unbind(), boundaries)
        try:
            argument, kind = self.gnn.argument_of(lambda: run(x), logits=True)
        except RefusalError as error:
            raise TypeError(f"{error}; use InputXGradient or IntegratedGradients.") from None
        if not layout.is_complete:
            layout.note(run.convs, run.blocks, run.is_last_output(argument))
        scores = head_scores(kind, self.gnn.plain_rows(argument, batch))
        return RelevancePass(batch, run, x, gates, scores, run.boundaries.is_last(argument))

    @property
    def layout(self) -> Layout:
        """What the model is made of; found once for all batches."""
        if LAYOUT not in self.gnn.memo:
            self.gnn.memo[LAYOUT] = self._found_layout()
        return self.gnn.memo[LAYOUT]

    def small_batch(self) -> GraphBatch:
        """Return a small graph of which the model shows what it is made of."""
        X, device = self.gnn.X, self.gnn.device
        return own_graph_batch(X, device) if self.gnn.trace.fixed_size else tournament_batch(X, device)

    def _found_layout(self) -> Layout:
        """Return what the model is made of, after a run on a small graph has shown that relevance is conserved."""
        batch = self.small_batch()
        # Values that hide nothing: the user's may all be the same, or zero.
        x = self.gnn.node_inputs(batch)
        steps = torch.arange(x.numel(), dtype=torch.float64, device=x.device).view(x.shape)
        layout = Layout()
        passed = self._pass(batch, x + (steps * 0.618).frac().to(x.dtype), layout, lambda place: Rule("zero"))
        self._check_values(passed, batch)
        check_conservation(passed, self.gnn.name)
        self._name_mixing(passed)
        return layout

    def _name_mixing(self, passed: RelevancePass) -> None:
        """Warn of layers in which all nodes of a graph act on each other."""
        named = {seen.name: seen.module for seen in passed.run.seen}.items()
        mixing = [
            name for name, module in named if isinstance(module, MIXING) or getattr(module, "mode", "") == "graph"
        ]
        if mixing:
            warnings.warn(
                f"Layers of {self.gnn.name} normalise over the nodes of a graph: {', '.join(mixing)}. Their means hand "
                "relevance to all nodes, and what they divide by is taken for a constant.",
                UserWarning,
                stacklevel=2,
            )

    def _check_values(self, passed: RelevancePass, batch: GraphBatch) -> None:
        run = SurrogateRun(self.gnn, batch, Layout(), lambda place: Rule("zero"))
        with torch.no_grad(), run.quiet():
            argument, kind = self.gnn.argument_of(lambda: run(passed.x.detach()))
        plain = head_scores(kind, self.gnn.plain_rows(argument, batch))
        if not torch.allclose(plain, passed.scores, rtol=1e-3, atol=1e-4):
            raise TypeError(
                f"Relevance needs a model that computes the same when it is watched. Got {self.gnn.name}, which does "
                "not; use InputXGradient or IntegratedGradients."
            )


def check_gap(found: Relevances, batch: GraphBatch) -> None:
    """Raise ValueError, naming the instance, if relevance got lost: if a gap is larger than rounding."""
    lost = _is_lost(found.gap, found.score, found.size)
    if bool(lost.any()):
        i = int(lost.nonzero()[0])
        raise ValueError(
            f"Relevance and the share of biases must sum to the score. Got a gap of {float(found.gap[i]):.2g} to a "
            f"score of {float(found.score[i]):.2g} at index {batch.positions[i]}; use InputXGradient or "
            "IntegratedGradients."
        )


def shares(found: Relevances, passed: RelevancePass) -> dict[str, list[Any]]:
    """Return for each instance its score, what biases have of it, what is missing, and how relevance passed layers."""
    values = {"score": found.score, "bias_share": found.bias, "gap": found.gap}
    said: dict[str, list[Any]] = {name: value.tolist() for name, value in values.items()}
    return said | {"rules": [passed.run.rules] * len(passed.batch)}
