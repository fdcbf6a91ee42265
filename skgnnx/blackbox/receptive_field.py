"""How far a prediction sees: measured by letting NaN travel along a path, never by counting layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.edge_matching import CallKind
from skgnnx.blackbox.probe_graphs import cycle, own_graph_batch, path, probe_batch
from skgnnx.blackbox.probe_runs import (
    NAN,
    Factors,
    SideBySide,
    distinct_features,
    leaving_nan,
    real_features,
    run,
    same_outputs,
    silent,
)
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
    outer_degrees : bool
        True if degrees of the farthest nodes may be felt, and not because a layer normalises; asked only where no run
        on a whole graph fits.
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
    outer_degrees: bool = False

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
    beside = SideBySide(call, X, device)
    tracer, fixed_size = _traced(call, X, device, beside)
    loops = [bool((ends[0] == ends[1]).any()) for ends in tracer.edges]
    flipped = [bool((ends[0] > ends[1]).any() and (ends[0] >= ends[1]).all()) for ends in tracer.edges]
    whole = (None, LONG_PATH)
    coarsened = [not fixed_size and source not in whole for source, _ in tracer.nodes]
    readout = [not fixed_size and source in whole and target not in whole for source, target in tracer.nodes]
    facts = (tracer.names, tracer.widths, loops, flipped, coarsened, readout)
    calls = len(tracer.names)
    if X.level == "graph" or fixed_size:
        leaks = not fixed_size and not beside.compare() and _leaks(call, X, device)
        return ModelTrace(*facts, None, False, [calls] * calls, fixed_size, leaks)
    far = max(calls, LEAST_CALLS) + 1
    # Against an edge and then along another one leads to a sibling, which a path with one direction does not have.
    part = path(2 * far + 1, both_ways=any(flipped) and not all(flipped))
    outputs, leaks = beside.outputs(part, far, calls), False
    if outputs is None:
        alone, leaks = probe_batch(X, [part], device), _leaks(call, X, device)
        if leaks and real_features(alone) is None:
            return ModelTrace(*facts, None, False, [calls] * calls, leaks=True)
    try:
        outputs = _one_by_one(call, alone, far, calls) if outputs is None else outputs
        hops, both_ways = _hops([_felt(output, far) for output in outputs[:2]], far)
        reach = [max(_felt(output, far)) for output in outputs[2:]]
    except Exception:
        # A model may refuse NaN in its own words; counting calls then over-estimates: slower, but not wrong.
        return ModelTrace(*facts, calls, True, [calls] * calls, leaks=leaks)
    return ModelTrace(*facts, hops, both_ways, _completed(tracer.names, reach), leaks=leaks)


def _traced(call: ModelCall, X: Instances, device: torch.device, beside: SideBySide) -> tuple[CallTracer, bool]:
    """Run the model on a path, or on the user's own graph if it takes no other size."""
    tracer = beside.traced(LONG_PATH)
    if tracer is not None:
        return tracer, False
    try:
        output, tracer = run(call, probe_batch(X, [path(LONG_PATH)], device))
    except (RuntimeError, ValueError, IndexError):
        return run(call, own_graph_batch(X, device))[1], True
    if X.level != "node" or len(output) == LONG_PATH:
        return tracer, False
    return run(call, own_graph_batch(X, device))[1], True


def _leaks(call: ModelCall, X: Instances, device: torch.device) -> bool:
    """Return True if other neighbours in a cycle change outputs although every message between nodes is zero.

    Every node keeps one edge in and one out, so that degrees, which masks leave alone, are the same.
    """
    outputs = []
    for step in (1, 2):
        batch = probe_batch(X, [cycle(step)], device)
        try:
            outputs.append(run(call, batch, silent(batch), distinct_features(batch))[0])
        except Exception:
            return False  # what such a model does on the graphs themselves is checked anyway
    return outputs[0].shape == outputs[1].shape and not same_outputs(*outputs)


def _one_by_one(call: ModelCall, batch: GraphBatch, far: int, calls: int) -> list[Tensor]:
    """Return for one path what `SideBySide.outputs` returns for copies of it."""
    sender, x = torch.tensor([far], device=batch.device), real_features(batch)
    if x is not None:
        x = x.clone()
        x[far] = NAN
    asked: list[tuple[Factors | None, Tensor | None]] = [(None, x), (leaving_nan(sender), None)]
    asked += [(leaving_nan(sender, number), None) for number in range(calls)]
    return [of_elements(run(call, batch, factors, x)[0], batch) for factors, x in asked]


def _hops(felt: list[tuple[int, int]], far: int) -> tuple[int | None, bool]:
    """Return the longest chain of messages, and whether they also run backwards.

    Some models drop what is NaN, edges between such nodes for example: what its messages reach counts, too.
    """
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
    reached = output.isnan().reshape(len(output), -1).any(1).nonzero().flatten() - node
    return (0, 0) if len(reached) == 0 else (max(-int(reached.min()), 0), max(int(reached.max()), 0))


def of_elements(output: Tensor, batch: GraphBatch) -> Tensor:
    """Return the rows of a raw output that belong to the elements of a small graph."""
    return output[batch.rows] if batch.X.level == "node" else output
