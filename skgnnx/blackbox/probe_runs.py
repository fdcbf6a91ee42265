"""Runs on small graphs, some messages silent or NaN; one run answers several questions where parts stay apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.hooks import Nodes, message_hooks, scaled
from skgnnx.blackbox.probe_graphs import CYCLE_NODES, Part, cycle, path, probe_batch
from skgnnx.blackbox.pyg_compat import ends_of_call
from skgnnx.blackbox.recording import CallTracer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.instances import Instances

NAN = float("nan")

# Takes the number of a propagate call, the ends of its messages and the numbers of its nodes.
Factors = Callable[[int, Tensor, Nodes], Tensor | None]


def run(
    call: ModelCall, batch: GraphBatch, factors: Factors | None = None, x: Tensor | None = None
) -> tuple[Tensor, CallTracer]:
    """Return the output of a run in which messages are multiplied by factors, and what its propagate calls did."""
    tracer, current = CallTracer(), None

    def propagate(name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        nonlocal current
        tracer.propagate(name, layer, edge_index, nodes)
        ends = ends_of_call(edge_index, layer)
        current = None if factors is None else factors(len(tracer.names) - 1, ends, nodes)

    def message(layer: MessagePassing, output: Any) -> Any:
        tracer.message(layer, output)
        return None if current is None else scaled(output, current, layer)

    with torch.no_grad(), message_hooks(call.model, propagate, message):
        return call(batch, x), tracer


def silent(batch: GraphBatch, first: int = 0) -> Factors:
    """Return factors that let nodes send no messages to nodes from a node on, and to readouts as before.

    Messages to themselves are silent, too: they know of others by their attention.
    """

    def factors(number: int, ends: Tensor, nodes: Nodes) -> Tensor:
        known = (None, batch.num_nodes)
        if nodes[0] in known and nodes[1] not in known:  # a readout
            return torch.ones_like(ends[0])
        return (ends[0] < first).long()

    return factors


def leaving_nan(senders: Tensor, number: int | None = None) -> Factors:
    """Return factors that make the messages that leave some nodes NaN, in one propagate call or in all."""

    def factors(current: int, ends: Tensor, nodes: Nodes) -> Tensor | None:
        if number not in (None, current):
            return None
        return torch.where(torch.isin(ends[0], senders) & (ends[0] != ends[1]), NAN, 1.0)

    return factors


def distinct_features(batch: GraphBatch, first: int = 0) -> Tensor | None:
    """Return features that differ from node to node from one on, so that exchanged neighbours are noticed."""
    x = real_features(batch)
    if x is None:
        return batch.x
    steps = torch.arange(x[first:].numel(), dtype=torch.float64, device=x.device).reshape(x[first:].shape)
    return torch.cat([x[:first], x[first:] + (steps * 0.618).frac().to(x.dtype)])


def real_features(batch: GraphBatch) -> Tensor | None:
    """Return the node features if they are floating-point numbers, which may be NaN; None otherwise."""
    return batch.x if batch.x is not None and batch.x.is_floating_point() else None


def same_outputs(first: Tensor, second: Tensor) -> bool:
    """Return True if two outputs have one shape and are equal up to rounding, NaN where the other is NaN."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True)


class SideBySide:
    """Asks a model about several small graphs in one run, and says so where their answers may depend on each other.

    A silent cycle is in every run, each time with other neighbours and beside other graphs. Where its outputs are the
    same every time, neither its neighbours nor what is beside it act on it.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    X : Instances
        What is explained.
    device : torch.device
        Device of the model.
    """

    def __init__(self, call: ModelCall, X: Instances, device: torch.device) -> None:
        self.call, self.X, self.device = call, X, device
        self.apart = not any(column.along_last for column in X.store.columns.values())  # ids of other parts
        self._of_cycle: Tensor | None = None

    def traced(self, length: int) -> CallTracer | None:
        """Return what the model does on a path, None where it does not run on a path beside a cycle."""
        found = self._run([path(length)], 1)
        if found is None:
            return None
        tracer = found[1]
        tracer.edges = [ends[:, ends[0] < length] for ends in tracer.edges]
        tracer.nodes = [(None, None)] * len(tracer.names)
        return tracer

    def outputs(self, part: Part, far: int, calls: int) -> list[Tensor] | None:
        """Return outputs for copies of a part, None where they may depend on each other.

        Returns
        -------
        list of 2 + calls tensors with one row per node, or None
            In the first copy the features of node `far` are NaN, if they may be; in the second all messages that leave
            it; in the others those of one propagate call each. A further copy, as it is, must not notice.
        """
        size, copies = part.num_nodes, 3 + calls
        found = self._run([part] * copies, 2, far)
        if found is None or len(found[1].names) != calls:
            return None
        output = found[0].unflatten(0, (copies, size))
        return None if bool(output[0].isnan().any()) else list(output[1:])

    def compare(self) -> bool:
        """Return True if a cycle beside a path gives the same with other neighbours, all of its messages silent."""
        return self._run([path(CYCLE_NODES)], 2) is not None

    def _run(self, parts: list[Part], step: int, far: int | None = None) -> tuple[Tensor, CallTracer] | None:
        """Return outputs for all parts but the cycle, and what the calls did."""
        if not self.apart:
            return None
        try:
            batch = probe_batch(self.X, [*parts, cycle(step)], self.device)
            first = batch.num_nodes - CYCLE_NODES
            x = distinct_features(batch, first)
            if far is not None and real_features(batch) is not None and x is not None:
                x[parts[0].num_nodes + far] = NAN
            output, tracer = run(self.call, batch, self._factors(batch, parts, far), x)
        except Exception:
            self.apart = False  # the graphs may be too many, or have too many nodes; one by one it may run
            return None
        rows, own = (len(parts), 1) if self.X.level == "graph" else (first, CYCLE_NODES)
        if not _stay_apart(tracer, batch.num_nodes, parts[0].num_nodes) or output.shape[:1] != (rows + own,):
            self.apart = False
            return None
        self._of_cycle = output[rows:] if self._of_cycle is None else self._of_cycle
        self.apart = same_outputs(self._of_cycle, output[rows:])
        return (output[:rows], tracer) if self.apart else None

    def _factors(self, batch: GraphBatch, parts: list[Part], far: int | None) -> Factors:
        size, first = parts[0].num_nodes, batch.num_nodes - CYCLE_NODES

        def factors(number: int, ends: Tensor, nodes: Nodes) -> Tensor:
            heard = (ends[0] < first).to(torch.get_default_dtype())
            if far is None:
                return heard
            copy, sender = ends[0] // size, ends[0] % size == far
            asked = (copy == 2) | (copy == 3 + number)
            return torch.where(asked & sender & (ends[0] < first) & (ends[0] != ends[1]), NAN, heard)

        return factors


def _stay_apart(tracer: CallTracer, num_nodes: int, size: int) -> bool:
    """Return True if all messages run between nodes of the graph, and none from part to part."""
    if any(count not in (None, num_nodes) for nodes in tracer.nodes for count in nodes):
        return False
    return all(bool((ends[0] // size == ends[1] // size).all()) for ends in tracer.edges)
