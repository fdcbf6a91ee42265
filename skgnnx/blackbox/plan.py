"""How batches run through a model: ordered, trimmed, fused, with constants kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import NORMALISATION, Handed, ModelCall
from skgnnx.blackbox.constants import Constants, foldable_modules
from skgnnx.blackbox.edge_masking import MessageEdges, NeedsAllEdgesError
from skgnnx.blackbox.edge_matching import NOT_AN_EDGE
from skgnnx.blackbox.embeddings import Embedded
from skgnnx.blackbox.feature_matrices import Constant, Dense
from skgnnx.blackbox.fused_call import FusedCall
from skgnnx.blackbox.fusing import Fusion, fusions
from skgnnx.blackbox.hooks import Nodes
from skgnnx.blackbox.lazy_features import WIDE, lazy, rows_of
from skgnnx.blackbox.masked_features import masked_features
from skgnnx.blackbox.masked_run import MaskedRun
from skgnnx.blackbox.message_run import MessageRun, MessageVisitor
from skgnnx.blackbox.probe_graphs import tournament_batch
from skgnnx.blackbox.pyg_compat import ends_of_call, message_passing_modules, multiplies
from skgnnx.blackbox.receptive_field import ModelTrace
from skgnnx.blackbox.reference import PlainRuns
from skgnnx.blackbox.sparse_values import missing_values
from skgnnx.blackbox.trimming import Prefixes, Trim, is_mistakable
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.unions import by_distance, unlinked

PLAN = ("plan",)
WIDE_MESSAGES = 512  # numbers over one edge in all calls
EdgeMask = Tensor | Sequence[Tensor] | MessageVisitor | None


class Setup:
    """What all batches have in common: the layers of the model, and what may be done about each of their calls.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    X : Instances
        What is explained.
    device : torch.device
        Device of the model.
    trace : ModelTrace
        What a forward pass does.
    """

    def __init__(self, call: ModelCall, X: Instances, device: torch.device, trace: ModelTrace) -> None:
        self.call = call
        self.trace = trace
        is_module = isinstance(call.model, nn.Module)
        self.layers = message_passing_modules(call.model) if is_module else []
        self.multiplying = {layer for _, layer in self.layers if multiplies(layer)}
        self.foldable = foldable_modules(call.model, {layer for _, layer in self.layers}) if is_module else []
        found = fusions(call, tournament_batch(X, device)) if self.layers and not trace.fixed_size else []
        self.fusions: list[Fusion | str] = found if len(found) == len(trace.names) else []
        self._unfused = "another run on a small graph"

    def give_up_fusing(self) -> None:
        """Run all calls as they are, because fused ones gave other outputs."""
        self.fusions, self._unfused = [], "sums of copies give other outputs"

    def fusion(self, number: int) -> Fusion | None:
        """Return how a call may be fused, None if it may not."""
        if number >= len(self.fusions):
            return None
        fusion, kind = self.fusions[number], self.trace.kinds[number]
        return fusion if isinstance(fusion, Fusion) and not (kind.coarsened or kind.readout) else None

    def fuses_all_calls_of(self, layer: str) -> bool:
        """Return True if every call of a layer, given by its name, is fused."""
        return all(self.fusion(number) for number, name in enumerate(self.trace.names) if name == layer)

    def trimmed_layers(self, trim: Trim) -> list[MessagePassing]:
        """Return the layers whose inputs are cut; a fused call leaves edges out by itself."""
        if trim <= Trim.ROWS:
            return [layer for _, layer in self.layers]
        general = {name for number, name in enumerate(self.trace.names) if self.fusion(number) is None}
        return [layer for name, layer in self.layers if name in general] if trim == Trim.EDGES else []

    def plan(self, batch: GraphBatch) -> Plan:
        """Return how a batch runs; made once."""
        if PLAN not in batch.memo:
            self.put(batch, Trim(batch.trim))
        return batch.memo[PLAN]

    def pays(self, batch: GraphBatch) -> bool:
        """Return True if a single run of a batch is worth a plan: where much is left out, or features are wide."""
        column = batch.X.store.columns.get("x")
        is_wide = column is not None and column.values.ndim == 2 and column.values.shape[1] >= WIDE
        # Layers that get all rows spare only messages, which have to be wide to be worth the search for them.
        widest = Trim.EDGES if sum(self.trace.widths) >= WIDE_MESSAGES else Trim.ROWS
        return is_wide or batch.trim <= widest

    def put(self, batch: GraphBatch, trim: Trim) -> None:
        """Let layers leave so much out of a batch, and of what will be cut from it, if they can tell what is what."""
        trim = Trim.NONE if is_mistakable(batch, trim) else trim
        batch.trim = int(trim)
        batch.memo[PLAN] = Plan(self, batch, trim)

    def run(self, batch: GraphBatch, x: Tensor | Embedded | None = None, mask: EdgeMask = None) -> Tensor:
        """Return the raw output of the model on a batch, with other node features or under an edge mask."""
        if isinstance(mask, MessageVisitor) and self.plan(batch).trim != Trim.NONE:
            self.put(batch, Trim.NONE)
        try:
            return self.plan(batch).run(x, mask)
        except NeedsAllEdgesError:
            self.put(batch, Trim.NONE)
            return self.plan(batch).run(x, mask)

    def rows(self, output: Tensor, batch: GraphBatch, runs: PlainRuns) -> Tensor:
        """Return the rows of a raw output of `run` that belong to the instances."""
        plan = self.plan(batch)
        return runs.rows_of(output, plan.seen, plan.num_rows)

    def path(self, batch: GraphBatch) -> list[str]:
        """Say for each propagate call of a batch how it runs, and why not faster."""
        trim = self.plan(batch).trim
        trimmed = "whole" if trim == Trim.NONE else "trimmed edges" if trim == Trim.EDGES else "trimmed rows and edges"
        said = []
        for number, name in enumerate(self.trace.names):
            found, fused = self.fusions[number] if self.fusions else self._unfused, self.fusion(number)
            reason = "between other nodes than those of the graph" if isinstance(found, Fusion) else found
            said.append(f"{name}: {fused if fused else f'general path ({reason})'}, {trimmed}")
        return said


class Plan:
    """How one batch runs.

    Parameters
    ----------
    setup : Setup
        What it has in common with others.
    batch : GraphBatch
    trim : Trim
        What layers leave out.

    Attributes
    ----------
    seen : GraphBatch
        The batch as the model sees it: ordered by distance where layers are trimmed.
    """

    def __init__(self, setup: Setup, batch: GraphBatch, trim: Trim) -> None:
        self.setup = setup
        self.trim = trim
        # What a batch remembers must not lead back to it: large batches are to go when they are no longer used.
        self.seen = unlinked(batch)
        self._node_order: Tensor | None = None
        self._edge_order: Tensor | None = None
        if trim != Trim.NONE:
            self.seen, self._node_order, self._edge_order = by_distance(batch)
            self._hand_on(batch, _inverse(self._node_order), _inverse(self._edge_order))
        self._x = self._features(batch)
        self.constants = Constants(self._inputs())
        self.prefixes = Prefixes(self.seen, self.constants)
        self.allowed_rows = {batch.num_nodes} | (self.prefixes.known_rows() if trim <= Trim.ROWS else set())
        self.edges = MessageEdges(setup.call, self.seen, setup.trace, trimmed=trim != Trim.NONE)
        self.missing_values: dict[int, Tensor | None] = {}
        self._fused: dict[int, FusedCall] = {}
        self._message_edges: dict[int, tuple[np.ndarray, Tensor]] = {}
        self.num_rows = batch.num_nodes

    def _features(self, batch: GraphBatch) -> Tensor | None:
        """Return the features in a form that is cheap to multiply and to sum; None leaves them dense."""
        column = self.seen.X.store.columns.get("x")
        if not self.setup.fusions or column is None or column.slot != "node" or column.values.ndim != 2:
            return None
        if column.values.shape[1] < WIDE or column.values.dtype not in ("float32", "float64"):
            return None
        known = masked_features(batch)
        if not known.is_sparse:
            return lazy(Constant(Dense(self.seen.attribute("x"))), known.shape)
        entries = known.entries({})
        order = self._node_order
        return lazy(Constant(entries if order is None else entries.take(order)), known.shape)

    def _inputs(self) -> list[Tensor]:
        keys = [key for key, column in self.seen.X.store.columns.items() if column.slot != "graph"]
        handed = [tensor for h in self.seen.memo.get(NORMALISATION, {}).values() for tensor in (h.edge_index, h.weight)]
        # Features in another form need never be written out.
        named = [self.seen.attribute(key) for key in keys if key != "x" or self._x is None]
        tensors = [self.seen.edge_index, self._x, *named, *handed]
        return [tensor for tensor in tensors if tensor is not None]

    def _hand_on(self, batch: GraphBatch, place: Tensor, edge_place: Tensor) -> None:
        """Renumber the normalisation that layers find in their caches."""
        known: dict[MessagePassing, Handed] = batch.memo.get(NORMALISATION, {})
        edges = np.append(edge_place.cpu().numpy(), NOT_AN_EDGE)
        self.seen.memo[NORMALISATION] = {
            layer: Handed(
                place[handed.edge_index],
                handed.weight,
                torch.from_numpy(edges[handed.edge.cpu().numpy()]).to(self.seen.device),
            )
            for layer, handed in known.items()
        }

    def run(self, x: Tensor | Embedded | None = None, mask: EdgeMask = None) -> Tensor:
        """Return the raw output of the model, with other node features or under an edge mask.

        Parameters
        ----------
        x : Tensor of shape (N, F) or Embedded, optional
        mask : Tensor of shape (E,), sequence of such, or MessageVisitor, optional
            In the order of the batch, as `x`; a visitor needs a plan that leaves nothing out.
        """
        if isinstance(mask, MessageVisitor):
            return MessageRun(self, mask)(x)
        run = MaskedRun(self, mask)
        output = run(self._ordered(x))
        self.num_rows = run.num_rows
        return output

    def _ordered(self, x: Tensor | Embedded | None) -> Tensor | Embedded | None:
        """Return features in the order in which the model sees nodes."""
        if x is None:
            return self._x
        if isinstance(x, Embedded):
            return x if self._node_order is None else x.take(self._node_order)
        return x if self._node_order is None else rows_of(x, self._node_order)

    def in_batch(self, edge: np.ndarray) -> np.ndarray:
        """Return the position in the batch of edges that the model sees; -1 stays."""
        if self._edge_order is None:
            return edge
        return np.append(self._edge_order.cpu().numpy(), NOT_AN_EDGE)[edge]

    def message_edges(self, number: int, name: str, layer: MessagePassing, edge_index: Tensor) -> Tensor:
        """Return the edge of the batch behind each message of a call."""
        edge = self.edges.of_call(number, name, layer, edge_index)
        known = self._message_edges.get(number)
        if known is None or known[0] is not edge:
            known = (edge, torch.from_numpy(self.in_batch(edge)).to(self.seen.device))
            self._message_edges[number] = known
        return known[1]

    def look_at_values(
        self, number: int, layer: MessagePassing, adjacency: Tensor, propagate: Callable[[], Tensor]
    ) -> None:
        """Note for a call over a sparse matrix which values its messages miss, see `missing_values`."""
        if number in self.missing_values or layer not in self.setup.multiplying:
            return
        # This runs inside of a masked run, whose hooks must do nothing meanwhile.
        self.edges.resolving = True
        try:
            self.missing_values[number] = missing_values(layer, adjacency, propagate)
        finally:
            self.edges.resolving = False

    def fused_call(
        self, number: int, layer: MessagePassing, edge_index: Tensor, nodes: Nodes, given: dict[str, Any]
    ) -> FusedCall | None:
        """Return a call as a sparse product, None where it must run as it is."""
        fusion = self.setup.fusion(number)
        if fusion is None or nodes[0] is None or not fusion.takes(given):
            return None
        shape = (nodes[0] if nodes[1] is None else nodes[1], nodes[0])
        if self.trim == Trim.TARGETS:
            shape = (min(shape[0], self.prefixes.nodes(self.setup.trace.reach[number] - 1)), shape[1])
        known = self._fused.get(number)
        if known is None or not known.runs_over(edge_index, shape):
            ends = ends_of_call(edge_index, layer)
            kept = self._felt(number, ends)
            kinds = self.setup.trace.kinds
            alike = [c for n, c in self._fused.items() if kinds[n].flipped == kinds[number].flipped and kept is None]
            twin = next((call for call in alike if call.runs_over(edge_index, shape)), None)
            known = FusedCall(fusion, edge_index, ends, kept, shape) if twin is None else twin.like(fusion, edge_index)
            self._fused[number] = known
        return known

    def _felt(self, number: int, ends: Tensor) -> np.ndarray | None:
        """Return which messages of a call can still reach a prediction, None for all."""
        if self.trim == Trim.NONE:
            return None
        level = self.seen.graphs.node_level[ends[1].cpu().numpy()]
        return level < self.setup.trace.reach[number]


def _inverse(order: Tensor) -> Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse
