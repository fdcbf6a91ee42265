"""True degrees at the rim of a cut: a layer's own normalisation, computed once for many instances and handed over."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import NORMALISATION, Handed
from skgnnx.blackbox.edge_matching import NOT_AN_EDGE, CallKind, match_edges
from skgnnx.blackbox.hooks import replaced
from skgnnx.blackbox.plan import Setup
from skgnnx.blackbox.pyg_compat import ends_of_call, nodes_of_call, normalising_layers
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.unions import distinct, joint_neighbourhood


class LayerUse(NamedTuple):
    """What is known of all calls of one layer: how far the farthest-reaching one is felt, and their kind."""

    reach: int
    kind: CallKind


class Normalised(NamedTuple):
    """What one layer made of the edges of a union.

    Parameters
    ----------
    swapped : bool
        Whether the layer keeps its edges the other way round.
    weight : Tensor or None
        Weight of each message.
    of_edge, of_node : ndarray
        The message of each edge of the union, and of the loop at each of its nodes; -1 where there is none.
    """

    swapped: bool
    weight: Tensor | None
    of_edge: np.ndarray
    of_node: np.ndarray


class Normaliser:
    """Lets layers normalise by the degrees of the whole graph although they see only a part of it.

    The layers normalise the union of what several instances reach, with one ring more, once. Whatever they keep of it
    is put into their own caches, by edge and node, whenever the model runs on a batch of these instances.

    Parameters
    ----------
    setup : Setup
        The model and its layers.
    X : Instances
        What is explained.
    device : torch.device
        Device of the model.
    """

    def __init__(self, setup: Setup, X: Instances, device: torch.device) -> None:
        self.setup, self.X, self.device = setup, X, device
        is_module = isinstance(setup.call.model, nn.Module)
        self._layers = normalising_layers(setup.call.model) if is_module else []
        self._nodes = np.empty(0, dtype=np.int64)
        self._edges = np.empty(0, dtype=np.int64)
        self._known: dict[MessagePassing, Normalised] = {}
        # A layer that is called several times must keep what its farthest-reaching call needs.
        self._uses: dict[str, LayerUse] = {}
        for name, reach, kind in zip(setup.trace.names, setup.trace.reach, setup.trace.kinds, strict=True):
            known = self._uses.get(name)
            self._uses[name] = LayerUse(max(reach, known.reach if known else 0), kind)
        self._fused = {name for name in self._uses if setup.fuses_all_calls_of(name)}

    def prepare(self, rows: np.ndarray, nodes: np.ndarray) -> bool:
        """Normalise what some instances need; return False where no layer can be given its normalisation.

        Parameters
        ----------
        rows : ndarray of int
            The instances.
        nodes : ndarray of int
            Nodes that reach them, as ids in the whole store, with repetitions.
        """
        if not self._layers or self.X.exclude_link:
            return False
        if len(self._nodes) and _is_in(nodes, self._nodes).all():
            return bool(self._known)
        return self.learn(joint_neighbourhood(self.X, rows, distinct(nodes), self.setup.trace.both_ways, self.device))

    def learn(self, union: GraphBatch) -> bool:
        """Normalise a joint neighbourhood; return False where no layer can be given its normalisation."""
        if not self._layers:
            return False
        self._nodes, self._edges = union.graphs.node_id[union.graphs.node_level == 0], union.graphs.edge_id
        self._known = self._normalised(union)
        self._all_nodes = union.graphs.node_id
        return bool(self._known)

    def _normalised(self, union: GraphBatch) -> dict[MessagePassing, Normalised]:
        """Let every layer normalise the edges of a union, and return what it cached, by edge and node."""
        kept = self._run(union)
        own, known = union.edge_index.cpu().numpy(), {}
        before: tuple[Any, ...] | None = None
        for (name, layer), (edge_index, weight) in kept.items():
            use = self._uses.get(name)
            if use is None or edge_index.layout != torch.strided:
                return {}  # a sparse matrix holds no list of edges that could be shortened
            same = (
                before is not None and _equal(before[:2], (edge_index, weight)) and before[2:] == (layer.flow, use.kind)
            )
            if not same:
                found = match_edges(ends_of_call(edge_index, layer).cpu().numpy(), own, use.kind)
                if found is None or not found.certain:
                    return {}
                swapped = (layer.flow != "source_to_target") ^ use.kind.flipped
                result = Normalised(swapped, weight, *_places(found.edge, edge_index, union))
                before = (edge_index, weight, layer.flow, use.kind)
            known[layer] = result
        return known

    def _run(self, union: GraphBatch) -> dict[tuple[str, MessagePassing], tuple[Tensor, Tensor | None]]:
        calls = iter(range(len(self.setup.trace.names)))

        def propagate(name: str, layer: MessagePassing, original: Any, edge_index: Tensor, **given: Any) -> Any:
            fusion = self.setup.fusion(next(calls, len(self.setup.trace.names)))
            if fusion is None:
                return original(edge_index, **given)
            rows, nodes = fusion.rows(given), nodes_of_call((edge_index, given.get("size"), given), layer)
            return rows.new_zeros(nodes[1] or len(rows), *rows.shape[1:])  # what is sent does not matter here

        try:
            for _, layer in self._layers:
                layer.cached = True
            with torch.no_grad(), replaced(self.setup.layers, "propagate", propagate):
                self.setup.call(union)
            kept = {named: named[1]._cached_edge_index for named in self._layers}
            return {named: cache for named, cache in kept.items() if cache is not None}
        except (RuntimeError, IndexError, ValueError):
            return {}
        finally:
            for _, layer in self._layers:
                layer.cached, layer._cached_edge_index = False, None

    def hand_to(self, batch: GraphBatch) -> GraphBatch:
        """Put normalised edges at a batch, for the layers to find whenever they run on it."""
        edge = np.searchsorted(self._edges, batch.graphs.edge_id)
        node = np.searchsorted(self._all_nodes, batch.graphs.node_id)
        handed: dict[tuple[int, int | None], Handed] = {}
        memo = {}
        for name, layer in self._layers:
            if layer in self._known:
                reach = None if name in self._fused else self._uses[name].reach
                key = (id(self._known[layer].of_edge), reach)
                if key not in handed:
                    handed[key] = _handed(self._known[layer], batch, edge, node, reach)
                memo[layer] = handed[key]
        batch.memo[NORMALISATION] = memo
        batch.cut_again = lambda instances: self.hand_to(
            GraphBatch(
                batch.X,
                batch.positions[instances],
                batch.graphs.take(instances),
                None if batch.targets is None else batch.targets.cpu().numpy()[instances],
                batch.device,
            )
        )
        return batch


def _handed(known: Normalised, batch: GraphBatch, edge: np.ndarray, node: np.ndarray, reach: int | None) -> Handed:
    """Cut what a layer knows to a batch, and to the messages that are felt over at most `reach` of them."""
    of_edge, of_node = known.of_edge[edge], known.of_node[node]
    edge_kept, node_kept = of_edge >= 0, of_node >= 0
    ends, level = batch.edge_index.cpu().numpy(), batch.graphs.node_level
    columns = ends[::-1] if known.swapped else ends
    if reach is not None:
        # Loops lead to their own node, edges to the second of their ends as messages run along them.
        edge_kept &= level[ends[1]] < reach
        node_kept &= level < reach
    edges, nodes = np.flatnonzero(edge_kept), np.flatnonzero(node_kept)
    message = torch.from_numpy(np.concatenate([of_edge[edges], of_node[nodes]])).to(batch.device)
    kept_columns = np.concatenate([columns[:, edges], np.stack([nodes, nodes])], axis=1)
    return Handed(
        torch.from_numpy(kept_columns).to(batch.device),
        None if known.weight is None else known.weight.index_select(0, message),
        torch.from_numpy(np.concatenate([edges, np.full(len(nodes), NOT_AN_EDGE)])).to(batch.device),
    )


def _places(edge: np.ndarray, edge_index: Tensor, union: GraphBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return the message of each edge and of the loop at each node, -1 where there is none."""
    of_edge, of_node = np.full(union.num_edges, -1), np.full(union.num_nodes, -1)
    message = np.arange(len(edge))
    is_loop = edge == NOT_AN_EDGE
    of_edge[edge[~is_loop]] = message[~is_loop]
    of_node[edge_index[0].cpu().numpy()[is_loop]] = message[is_loop]
    return of_edge, of_node


def _is_in(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    place = np.searchsorted(ordered, values)
    return ordered[np.minimum(place, len(ordered) - 1)] == values


def _equal(first: tuple[Any, ...], second: tuple[Tensor, Tensor | None]) -> bool:
    return all(
        a is b or (a is not None and b is not None and a.shape == b.shape and torch.equal(a, b))
        for a, b in zip(first, second, strict=True)
    )
