"""The edge of the user's graph behind every message of a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import NORMALISATION, ModelCall
from skgnnx.blackbox.edge_matching import CallKind, is_same, match_edges, split_parallel_edges
from skgnnx.blackbox.hooks import Nodes, message_hooks
from skgnnx.blackbox.pyg_compat import ends_of_call
from skgnnx.blackbox.receptive_field import ModelTrace
from skgnnx.blackbox.recording import CallTracer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.unions import with_split_edges


class NeedsAllEdgesError(Exception):
    """Parallel edges can be told apart only where a call has all of its messages."""


class MessageEdges:
    """Finds the edge behind each message of the propagate calls of a batch, and remembers it.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    batch : GraphBatch
        The batch that the model sees.
    trace : ModelTrace
        What is known of each propagate call.
    trimmed : bool
        True if layers see only some of the edges.
    """

    def __init__(self, call: ModelCall, batch: GraphBatch, trace: ModelTrace, *, trimmed: bool) -> None:
        self.call = call
        self.batch = batch
        self.trace = trace
        self.trimmed = trimmed
        self.resolving = False
        self._known: dict[int, tuple[Tensor, np.ndarray]] = {}

    def kind(self, number: int) -> CallKind:
        """Return what is known of a call."""
        kinds = self.trace.kinds
        return kinds[number] if number < len(kinds) else CallKind()

    def check(self, number: int, name: str, nodes: Nodes, allowed: set[int]) -> None:
        """Raise ValueError if the messages of a call run between other nodes than the graph's."""
        if self.kind(number).coarsened or (nodes[0] is not None and nodes[0] not in allowed):
            raise ValueError(
                f"Every message must run between nodes of the graph. Got {nodes[0]} nodes instead of "
                f"{self.batch.num_nodes} in layer {name!r}, which runs after a pooling; explain node features "
                "(mask='node_feature') or use a method that needs no edge masks."
            )

    def of_call(self, number: int, name: str, layer: MessagePassing, edge_index: Tensor) -> np.ndarray:
        """Return the edge of each message of a call, -1 for a loop that the layer made."""
        known = self._known.get(number)
        if known is not None and is_same(known[0], edge_index):
            return known[1]
        handed = self.batch.memo.get(NORMALISATION, {}).get(layer)
        if handed is not None and edge_index is handed.edge_index:
            edge = handed.edge.cpu().numpy()
        else:
            edge = self._found(number, name, ends_of_call(edge_index, layer))
        self._known[number] = (edge_index, edge)
        return edge

    def _found(self, number: int, name: str, edges: Tensor) -> np.ndarray:
        call, own = edges.detach().cpu().numpy(), self.batch.edge_index.cpu().numpy()
        found = match_edges(call, own, self.kind(number))
        if found is None:
            raise ValueError(
                f"Every message must run along an edge of the graph. Got others in layer {name!r} "
                f"({call.shape[1]} messages, {own.shape[1]} edges), which makes edges of its own; explain node "
                "features (mask='node_feature') or use a method that needs no edge masks."
            )
        return found.edge if found.certain else self._resolved(number, call)

    def _resolved(self, number: int, call: np.ndarray) -> np.ndarray:
        """Tell parallel edges apart by a forward pass in which each has a source of its own."""
        if self.trimmed:
            raise NeedsAllEdgesError
        edges = self.batch.edge_index.cpu().numpy()
        split, copied = split_parallel_edges(edges, self.batch.num_nodes)
        variant = with_split_edges(self.batch, split, copied)
        tracer = CallTracer()
        # This runs inside of the run that is being masked, whose hooks must do nothing meanwhile.
        self.resolving = True
        try:
            with torch.no_grad(), message_hooks(self.call.model, tracer.propagate, tracer.message):
                self.call(variant)
        finally:
            self.resolving = False
        own, kind = variant.edge_index.cpu().numpy(), self.kind(number)
        found = match_edges(tracer.edges[number], own, kind) if number < len(tracer.edges) else None
        edge = None if found is None else found.edge
        known = edges[::-1] if kind.flipped else edges
        if edge is None or len(edge) != call.shape[1] or (known[:, edge[edge >= 0]] != call[:, edge >= 0]).any():
            raise ValueError(
                f"Parallel edges must keep their order in layer {self.trace.names[number]!r}. Got messages that "
                "cannot be told apart; merge parallel edges or give each relation a model input of its own."
            )
        return edge
