"""How far a prediction sees: measured by letting NaN travel along a path, never by counting layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.edge_masking import CallTracer, message_hooks
from skgnnx.blackbox.edge_matching import CallKind
from skgnnx.blackbox.pyg_compat import ends_of_call, message_dim
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import Column
from skgnnx.graphs.computation_graph import whole_graphs
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.store import GraphStore
from skgnnx.graphs.unions import shared_graphs

LEAST_CALLS = 4


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
    hops : int or None
        Longest chain of messages along the edges; None if the prediction sees the whole graph.
    both_ways : bool
        True if messages also run against the edges.
    reach : list of int
        For each propagate call, how far from its source a message of this call can still be felt.
    """

    names: list[str]
    widths: list[int]
    replaces_loops: list[bool]
    flipped: list[bool]
    hops: int | None
    both_ways: bool
    reach: list[int]

    @property
    def kinds(self) -> list[CallKind]:
        """What is known of each propagate call before it runs."""
        return [CallKind(*facts) for facts in zip(self.replaces_loops, self.flipped, strict=True)]


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
        return ModelTrace([], [], [], [], None, False, [])
    tracer = CallTracer()
    with torch.no_grad(), message_hooks(call.model, tracer.propagate, tracer.message):
        call(_path_batch(X, 3, device))
    loops = [bool((edges[0] == edges[1]).any()) for edges in tracer.edges]
    flipped = [bool((ends[0] > ends[1]).any() and (ends[0] >= ends[1]).all()) for ends in tracer.edges]
    facts = (tracer.names, tracer.widths, loops, flipped)
    calls = len(tracer.names)
    if X.level == "graph":
        return ModelTrace(*facts, None, False, [calls] * calls)
    far = max(calls, LEAST_CALLS) + 1
    path = _path_batch(X, 2 * far + 1, device)
    try:
        hops, both_ways = _hops(call, path, far)
        reach = [max(_felt(_with_nan_message(call, path, far, number), far)) for number in range(calls)]
    except (RuntimeError, ValueError, IndexError):
        # A model may refuse NaN, or give too few rows, which the first real run reports; counting calls then
        # over-estimates, which costs time but not correctness.
        return ModelTrace(*facts, calls, True, [calls] * calls)
    return ModelTrace(*facts, hops, both_ways, reach)


def _hops(call: ModelCall, path: GraphBatch, far: int) -> tuple[int | None, bool]:
    """Return the longest chain of messages, and whether they also run backwards."""
    x = path.x
    if x is not None and x.is_floating_point():
        x = x.clone()
        x[far] = float("nan")
        with torch.no_grad():
            output = _of_elements(call(path, x), path)
    else:
        output = _with_nan_message(call, path, far, None)
    backward, forward = _felt(output, far)
    return (None, False) if max(backward, forward) >= far else (max(backward, forward), backward > 0)


def _felt(output: Tensor, node: int) -> tuple[int, int]:
    """Return how far before and behind a node outputs are NaN."""
    reached = output.isnan().flatten(1).any(1).nonzero().flatten() - node
    return (0, 0) if len(reached) == 0 else (max(-int(reached.min()), 0), max(int(reached.max()), 0))


def _with_nan_message(call: ModelCall, path: GraphBatch, node: int, number: int | None) -> Tensor:
    """Return the outputs when the messages that leave a node are NaN, in one propagate call or in all."""
    calls: list[Tensor] = []

    def propagate(name: str, layer: MessagePassing, edge_index: Tensor) -> None:
        calls.append(ends_of_call(edge_index, layer))

    def message(layer: MessagePassing, output: Tensor) -> Tensor | None:
        if number not in (None, len(calls) - 1) or not output.is_floating_point():
            return None
        leaving = (calls[-1][0] == node) & (calls[-1][1] != node)
        return output.index_fill(message_dim(layer, output), leaving.nonzero().flatten(), float("nan"))

    with torch.no_grad(), message_hooks(call.model, propagate, message):
        return _of_elements(call(path), path)


def _of_elements(output: Tensor, batch: GraphBatch) -> Tensor:
    return output[batch.rows] if batch.X.level == "node" else output


def _path_batch(X: Instances, num_nodes: int, device: torch.device) -> GraphBatch:
    """Return a directed path whose nodes and edges have attributes of the first graph that is explained."""
    store, graph = X.store, X.graph_index[0]
    edge_index = np.stack([np.arange(num_nodes - 1), np.arange(1, num_nodes)])
    columns = {}
    for key, column in store.columns.items():
        if column.slot == "graph":
            columns[key] = Column("graph", column.of(graph), np.array([0, len(column.of(graph))]), column.along_last)
            continue
        size = num_nodes if column.slot == "node" else num_nodes - 1
        values = column.of(graph) if len(column.of(graph)) else column.values
        values = values if len(values) else np.zeros((1, *values.shape[1:]), values.dtype)
        columns[key] = Column(column.slot, values[np.arange(size) % len(values)], np.array([0, size]))
    objects = {key: [values[graph]] for key, values in store.objects.items()}
    path = GraphStore(
        edge_index, np.array([0, num_nodes]), np.array([0, num_nodes - 1]), columns, objects, store.sparse
    )
    rows = np.arange(num_nodes)
    if X.level == "graph":
        Z = Instances(path, np.zeros(1, dtype=np.int64), np.empty((1, 0), dtype=np.int64))
        return GraphBatch(Z, np.array([0]), whole_graphs(Z, np.array([0])), device=device)
    element = np.repeat(rows[:, None], X.element.shape[1], axis=1)
    return shared_graphs(Instances(path, np.zeros(num_nodes, dtype=np.int64), element), device)
