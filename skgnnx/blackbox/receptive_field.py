"""How far a prediction sees: measured by letting NaN travel along a path, never by counting layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.edge_matching import CallKind
from skgnnx.blackbox.hooks import Nodes, message_hooks, scaled
from skgnnx.blackbox.probe_graphs import cycle_batch, own_graph_batch, path_batch
from skgnnx.blackbox.pyg_compat import ends_of_call
from skgnnx.blackbox.recording import CallTracer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.instances import Instances

LEAST_CALLS = 4
LONG_PATH = 17  # layers for some edges only find one of theirs


@dataclass(frozen=True)
class ModelTrace:
    """What a forward pass of the model does, measured on a path graph.

    Parameters
    ----------
    names : list of str
        Layer of each propagate call.
    widths : list of int
        Numbers per message of each call.
    replaces_loops : list of bool
        Whether a call has self loops although the path has none.
    flipped : list of bool
        Whether the messages of a call run against the edges.
    coarsened : list of bool
        Whether the messages of a call run between other nodes than those of the graph.
    readout : list of bool
        Whether the messages of a call run from the nodes of the graph to something else.
    hops : int or None
        Longest chain of messages along the edges; None if the prediction sees the whole graph.
    both_ways : bool
        True if messages also run against the edges.
    reach : list of int
        For each propagate call, how far from its source a message of this call can still be felt.
    fixed_size : bool
        True if the model runs only on graphs as large as the user's own.
    leaks : bool
        True if what one node holds reaches another by other ways than the messages of its layers.
    """

    names: list[str]
    widths: list[int]
    replaces_loops: list[bool]
    flipped: list[bool]
    coarsened: list[bool]
    readout: list[bool]
    hops: int | None
    both_ways: bool
    reach: list[int]
    fixed_size: bool = False
    leaks: bool = False

    @property
    def kinds(self) -> list[CallKind]:
        """What is known of each propagate call before it runs."""
        facts = (self.replaces_loops, self.flipped, self.coarsened, self.readout)
        return [CallKind(*of_call) for of_call in zip(*facts, strict=True)]


def trace(call: ModelCall, X: Instances, device: torch.device) -> ModelTrace:
    """Measure the message calls and the receptive field of a model.

    Node features of one node of a directed path are set to NaN; every node whose output turns NaN depends on it. NaN
    survives inactive ReLUs and zero weights, so what is measured is the structure, not one input's gradient. With
    integer features the message that leaves the node is NaN instead.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    X : Instances
        Where attributes of the path's nodes and edges are taken from.
    device : torch.device
        Device of the model.

    Returns
    -------
    ModelTrace
    """
    if not isinstance(call.model, nn.Module):
        return ModelTrace([], [], [], [], [], [], None, False, [])
    tracer, fixed_size = _traced(call, X, device)
    loops = [bool((ends[0] == ends[1]).any()) for ends in tracer.edges]
    flipped = [bool((ends[0] > ends[1]).any() and (ends[0] >= ends[1]).all()) for ends in tracer.edges]
    whole = (None, LONG_PATH)
    coarsened = [not fixed_size and source not in whole for source, _ in tracer.nodes]
    readout = [not fixed_size and source in whole and target not in whole for source, target in tracer.nodes]
    facts = (tracer.names, tracer.widths, loops, flipped, coarsened, readout)
    calls = len(tracer.names)
    leaks = not fixed_size and _leaks(call, X, device)
    if X.level == "graph" or fixed_size:
        return ModelTrace(*facts, None, False, [calls] * calls, fixed_size, leaks)
    far = max(calls, LEAST_CALLS) + 1
    # Against an edge and then along another one leads to a sibling, which a path with one direction does not have.
    path = path_batch(X, 2 * far + 1, device, both_ways=any(flipped) and not all(flipped))
    if leaks and _real_features(path) is None:
        return ModelTrace(*facts, None, False, [calls] * calls, leaks=True)
    try:
        hops, both_ways = _hops(call, path, far)
        reach = [max(_felt(_with_nan_message(call, path, far, number), far)) for number in range(calls)]
    except Exception:
        # A model may refuse NaN in its own words; counting calls then over-estimates: slower, but not wrong.
        return ModelTrace(*facts, calls, True, [calls] * calls, leaks=leaks)
    return ModelTrace(*facts, hops, both_ways, _completed(tracer.names, reach), leaks=leaks)


def _traced(call: ModelCall, X: Instances, device: torch.device) -> tuple[CallTracer, bool]:
    """Run the model on a path, or on the user's own graph if it takes no other size."""
    try:
        tracer, output = _run_traced(call, path_batch(X, LONG_PATH, device))
    except (RuntimeError, ValueError, IndexError):
        return _run_traced(call, own_graph_batch(X, device))[0], True
    if X.level != "node" or len(output) == LONG_PATH:
        return tracer, False
    return _run_traced(call, own_graph_batch(X, device))[0], True


def _run_traced(call: ModelCall, batch: GraphBatch) -> tuple[CallTracer, Tensor]:
    tracer = CallTracer()
    with torch.no_grad(), message_hooks(call.model, tracer.propagate, tracer.message):
        return tracer, call(batch)


def _leaks(call: ModelCall, X: Instances, device: torch.device) -> bool:
    """Return True if other neighbours in a cycle change outputs although every message between nodes is zero.

    Every node keeps one edge in and one out, so that degrees, which masks leave alone, are the same.
    """
    outputs = []
    for step in (1, 2):
        cycle = cycle_batch(X, device, step=step)
        x = _distinct_features(cycle)
        try:
            outputs.append(_silent(call, cycle, x))
        except Exception:
            return False  # what such a model does on the graphs themselves is checked anyway
    first, second = outputs
    return first.shape == second.shape and not torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True)


def _silent(call: ModelCall, batch: GraphBatch, x: Tensor | None) -> Tensor:
    """Return the output when nodes send no messages to nodes; those to themselves know of others by their attention."""
    calls: list[Tensor] = []

    def propagate(name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        ends = ends_of_call(edge_index, layer)
        known = (None, batch.num_nodes)
        calls.append(torch.full_like(ends[0], nodes[0] in known and nodes[1] not in known))  # a readout

    def message(layer: MessagePassing, output: Any) -> Any:
        return scaled(output, calls[-1], layer)

    with torch.no_grad(), message_hooks(call.model, propagate, message):
        return call(batch, x)


def _distinct_features(batch: GraphBatch) -> Tensor | None:
    """Return features that differ from node to node, so that exchanged neighbours are noticed."""
    x = _real_features(batch)
    if x is None:
        return batch.x
    steps = torch.arange(x.numel(), dtype=torch.float64, device=x.device).reshape(x.shape)
    return x + (steps * 0.618).frac().to(x.dtype)


def _real_features(batch: GraphBatch) -> Tensor | None:
    return batch.x if batch.x is not None and batch.x.is_floating_point() else None


def _hops(call: ModelCall, path: GraphBatch, far: int) -> tuple[int | None, bool]:
    """Return the longest chain of messages, and whether they also run backwards."""
    # Some models drop what is NaN, edges between such nodes for example: what its messages reach counts, too.
    felt = [_felt(_with_nan_message(call, path, far, None), far)]
    x = _real_features(path)
    if x is not None:
        x = x.clone()
        x[far] = float("nan")
        with torch.no_grad():
            felt.append(_felt(_of_elements(call(path, x), path), far))
    backward, forward = (max(reached) for reached in zip(*felt, strict=True))
    return (None, False) if max(backward, forward) >= far else (max(backward, forward), backward > 0)


def _completed(names: list[str], reach: list[int]) -> list[int]:
    """Return how far each call is felt, also where no message of its kind, of one relation say, leaves the node."""
    of_layer: dict[str, int] = {}
    for name, felt in zip(names, reach, strict=True):
        of_layer[name] = max(of_layer.get(name, 0), felt)
    return [felt or of_layer[name] or len(names) for name, felt in zip(names, reach, strict=True)]


def _felt(output: Tensor, node: int) -> tuple[int, int]:
    """Return how far before and behind a node outputs are NaN."""
    reached = output.isnan().flatten(1).any(1).nonzero().flatten() - node
    return (0, 0) if len(reached) == 0 else (max(-int(reached.min()), 0), max(int(reached.max()), 0))


def _with_nan_message(call: ModelCall, path: GraphBatch, node: int, number: int | None) -> Tensor:
    """Return the outputs when the messages that leave a node are NaN, in one propagate call or in all."""
    calls: list[Tensor] = []

    def propagate(name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        calls.append(ends_of_call(edge_index, layer))

    def message(layer: MessagePassing, output: Any) -> Any:
        if number not in (None, len(calls) - 1):
            return None
        leaving = (calls[-1][0] == node) & (calls[-1][1] != node)
        return scaled(output, torch.where(leaving, float("nan"), 1.0), layer)

    with torch.no_grad(), message_hooks(call.model, propagate, message):
        return _of_elements(call(path), path)


def _of_elements(output: Tensor, batch: GraphBatch) -> Tensor:
    return output[batch.rows] if batch.X.level == "node" else output
