"""The states of nodes between the layers of a model, with the places where their gradients arrive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn.aggr import Aggregation

from skgnnx.blackbox import heads
from skgnnx.blackbox.hooks import mapped
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.blackbox.probe_graphs import path, probe_batch
from skgnnx.blackbox.probe_runs import distinct_features
from skgnnx.blackbox.pyg_compat import message_passing_modules
from skgnnx.blackbox.readouts import Made, StepRecorder, made, pooling_of
from skgnnx.graphs.batch import GraphBatch

READOUT = "readout"


class LayerStates(NamedTuple):
    """What a batch is between its layers.

    Parameters
    ----------
    states : list of Made
        Matrices (N, k). For graphs what each layer hands on after its activation: to the next layer, or to the readout.
        For nodes and links what goes into each layer.
    scores : Tensor of shape (B, T)
        Pre-softmax scores of all targets.
    """

    states: list[Made]
    scores: Tensor

    def gradients(self, states: Sequence[Made], targets: Tensor | None) -> list[Tensor]:
        """Return the gradient (N, k) of the score of each instance's target by each of some states."""
        found: Sequence[Tensor | None] = [None] * len(states)
        edges = [one.edge for one in states if one.edge is not None]
        if self.scores.requires_grad and len(edges) == len(states):
            score = of_targets(self.scores, targets).sum()
            found = torch.autograd.grad(score, edges, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(one.value) if got is None else got for one, got in zip(states, found, strict=True)]


def layer_states(gnn: OpenBox, batch: GraphBatch) -> LayerStates:
    """Run a batch once, and return the states of its nodes and its scores.

    A layer that is called twice has two states.

    Raises
    ------
    TypeError
        If the model has no MessagePassing layers, or it cannot be told what its readout sums up.
    """
    x = None if batch.x is None or not batch.x.is_floating_point() else batch.x.detach().clone().requires_grad_()
    with _observed(gnn.box.model, batch.num_nodes) as observed:
        argument, kind = gnn.plain_argument(batch, x)
    scores = heads.scores(kind, gnn.plain_rows(argument, batch))
    if not observed.entered:
        raise TypeError(
            f"States of nodes are taken between PyG MessagePassing layers. Got {gnn.name}, which calls none on all "
            "nodes of a graph; use InputXGradient with mask='node'."
        )
    if batch.X.level != "graph":
        return LayerStates(observed.entered, scores)
    return LayerStates([*observed.entered[1:], _readout(gnn, batch, observed)], scores)


class _Observed(StepRecorder):
    """Remembers what goes into layers and aggregations, besides what its base remembers."""

    def __init__(self, num_nodes: int) -> None:
        super().__init__()
        self.entered: list[Made] = []
        self.summed: list[Made] = []
        self.left = 0  # matrices made until the last layer was left
        self._num_nodes, self._depth = num_nodes, 0

    def enter_layer(self, layer: nn.Module, args: Any, kwargs: Any) -> Any:
        """Note what goes into a layer, made an input if no gradient would reach it."""
        self._depth += 1
        states = self._states([kwargs.get("x"), *args, *kwargs.values()])
        if self._depth > 1 or states is None:
            return None
        known = states if states.requires_grad else states.detach().clone().requires_grad_()
        # A copy, because a network may add to its states in place.
        self.entered.append(made(known)._replace(value=known.detach().clone()))

        def exchanged(value: Any) -> Any:
            return known if value is states else value

        return mapped(exchanged, args), {key: mapped(exchanged, value) for key, value in kwargs.items()}

    def leave_layer(self, layer: nn.Module, args: Any, output: Any) -> None:
        """Note that a layer is done."""
        self._depth -= 1
        self.left = len(self.made)

    def enter_aggregation(self, aggregation: nn.Module, args: Any, kwargs: Any) -> None:
        """Note what a readout is given, if it is written as a module."""
        states = self._states([kwargs.get("x"), *args])
        if self._depth == 0 and states is not None and self.entered:
            self.summed.append(made(states)._replace(value=states.detach().clone()))

    def _states(self, values: Sequence[Any]) -> Tensor | None:
        flat = [part for value in values for part in (value if isinstance(value, (tuple, list)) else [value])]
        dense = (part for part in flat if torch.is_tensor(part) and part.layout == torch.strided)
        fits = (part for part in dense if part.is_floating_point() and part.dim() == 2)
        return next((part for part in fits if len(part) == self._num_nodes), None)


@contextmanager
def _observed(model: nn.Module, num_nodes: int) -> Iterator[_Observed]:
    with ExitStack() as stack, _Observed(num_nodes) as observed:
        for _, layer in message_passing_modules(model):
            stack.callback(layer.register_forward_pre_hook(observed.enter_layer, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(observed.leave_layer).remove)
        for module in model.modules():
            if isinstance(module, Aggregation):
                hook = module.register_forward_pre_hook(observed.enter_aggregation, with_kwargs=True)
                stack.callback(hook.remove)
        yield observed


def _readout(gnn: OpenBox, batch: GraphBatch, observed: _Observed) -> Made:
    """Return what the readout sums up."""
    if observed.summed:
        return observed.summed[-1]
    if READOUT not in gnn.memo:
        gnn.memo[READOUT] = _place_of_readout(gnn)
    place = gnn.memo[READOUT]
    found = None if place is None or place > len(observed.made) else observed.made[-place]
    if found is None or len(found.value) != batch.num_nodes:
        found = _pooled(observed, batch)
    if found is None:
        raise TypeError(
            "The states that a readout sums up are found where mean, sum or maximum over the nodes of a graph, or a "
            f"PyG Aggregation, comes after the last layer. Got none of these in {gnn.name}; use InputXGradient with "
            "mask='node'."
        )
    return found


def _place_of_readout(gnn: OpenBox) -> int | None:
    """Return how many matrices before its end a run makes what its readout sums up, None if that cannot be told.

    Small graphs tell, on which units are awake and no graph is its only node.
    """
    if gnn.trace.fixed_size:
        return None
    batch = probe_batch(gnn.X, [path(4, both_ways=True), path(3, both_ways=True)], gnn.device)
    with torch.no_grad(), _observed(gnn.box.model, batch.num_nodes) as observed:
        gnn.plain_argument(batch, distinct_features(batch))
    found = _pooled(observed, batch)
    made_so_far = [one is found for one in observed.made]
    return None if found is None else len(made_so_far) - made_so_far.index(True)


def _pooled(observed: _Observed, batch: GraphBatch) -> Made | None:
    """Return the states after the last layer that the newest pool has summed up."""
    for number in reversed(range(observed.left, len(observed.made))):
        rows = observed.made[number].value
        if len(rows) == len(batch):
            before = observed.made[max(observed.left - 1, 0) : number]
            pooled = pooling_of(rows, [one for one in before if len(one.value) == batch.num_nodes], batch)
            if pooled is not None:
                return pooled.states
    return None
