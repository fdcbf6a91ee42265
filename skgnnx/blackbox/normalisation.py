"""True degrees at the rim of a cut: a layer's own normalisation, computed once for many instances and handed over."""

from __future__ import annotations

from collections.abc import Callable
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


class Weights(NamedTuple):
    """Whether there is a message for each of many edges or nodes, and its weight; no weights where all are one."""

    exist: np.ndarray
    values: Tensor | None

    def take(self, rows: np.ndarray) -> Weights:
        """Return those of some edges or nodes."""
        values = self.values
        return Weights(self.exist[rows], None if values is None else values[torch.from_numpy(rows).to(values.device)])

    @classmethod
    def concat(cls, first: Weights, second: Weights) -> Weights:
        """Join two."""
        values = None if first.values is None or second.values is None else torch.cat([first.values, second.values])
        return cls(np.concatenate([first.exist, second.exist]), values)


class Normalised(NamedTuple):
    """What one layer makes of edges and loops.

    Parameters
    ----------
    swapped : bool
        Whether the layer keeps its edges the other way round.
    edges, loops : Weights
        Of the messages along edges, and of the loops at nodes.
    """

    swapped: bool
    edges: Weights
    loops: Weights


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
        if self._known and _is_in(nodes, self._nodes).all():
            return True
        return self.learn(joint_neighbourhood(self.X, rows, distinct(nodes), self.setup.trace.both_ways, self.device))

    def learn(self, union: GraphBatch, run: Callable[[], Any] | None = None) -> bool:
        """Normalise a joint neighbourhood; return False where no layer can be given its normalisation.

        Parameters
        ----------
        union : GraphBatch
            Some nodes with all edges that lead to them.
        run : callable, optional
            Runs the model on the union; by default it runs without messages, which do not matter here.
        """
        cached = self._cached(union, run or (lambda: self._run_silently(union)))
        found = self._normalised(union, cached)
        if not found or (self._known and found.keys() != self._known.keys()):
            # What is known stays as it is: weights found by position must not lag behind nodes and edges.
            self._layers = self._layers if self._known else []
            return False
        inner = union.graphs.node_level == 0
        nodes = np.flatnonzero(inner)
        edges = np.flatnonzero(inner[union.graphs.ends].all(axis=0))
        ids = union.graphs.node_id[nodes], union.graphs.edge_id[edges]
        self._add(*ids, {k: n._replace(edges=n.edges.take(edges), loops=n.loops.take(nodes)) for k, n in found.items()})
        return True

    def _add(self, node_id: np.ndarray, edge_id: np.ndarray, found: dict[MessagePassing, Normalised]) -> None:
        """Note what has been learned besides what was known."""
        nodes, first_node = np.unique(np.concatenate([self._nodes, node_id]), return_index=True)
        edges, first_edge = np.unique(np.concatenate([self._edges, edge_id]), return_index=True)
        for layer, new in found.items():
            old = self._known.get(layer)
            if old is not None:
                new = Normalised(
                    new.swapped, Weights.concat(old.edges, new.edges), Weights.concat(old.loops, new.loops)
                )
            self._known[layer] = Normalised(new.swapped, new.edges.take(first_edge), new.loops.take(first_node))
        self._nodes, self._edges = nodes, edges

    def _normalised(self, union: GraphBatch, cached: dict[tuple[str, MessagePassing], Any]) -> dict[Any, Normalised]:
        """Return what every layer has cached, by edge and node of the union."""
        own, known = union.edge_index.cpu().numpy(), {}
        before: tuple[Any, ...] = ()
        for (name, layer), (edge_index, weight) in cached.items():
            use = self._uses.get(name)
            if use is None or edge_index.layout != torch.strided:
                return {}  # a sparse matrix holds no list of edges that could be shortened
            if not (before and _equal(before[:2], (edge_index, weight)) and before[2:] == (layer.flow, use.kind)):
                found = match_edges(ends_of_call(edge_index, layer).cpu().numpy(), own, use.kind)
                if found is None or not found.certain:
                    return {}
                swapped = (layer.flow != "source_to_target") ^ use.kind.flipped
                result = Normalised(swapped, *_weights(found.edge, edge_index, weight, union))
                before = (edge_index, weight, layer.flow, use.kind)
            known[layer] = result
        return known

    def _cached(self, union: GraphBatch, run: Callable[[], Any]) -> dict[tuple[str, MessagePassing], Any]:
        """Return what layers keep of the edges when the model runs."""
        try:
            for _, layer in self._layers:
                layer.cached = True
            run()
            kept = {named: named[1]._cached_edge_index for named in self._layers}
            return {named: cache for named, cache in kept.items() if cache is not None}
        except Exception:
            return {}  # whatever a model says about messages of zero: it only runs slower
        finally:
            for _, layer in self._layers:
                layer.cached, layer._cached_edge_index = False, None

    def _run_silently(self, union: GraphBatch) -> None:
        calls = iter(range(len(self.setup.trace.names)))

        def propagate(
            name: str, layer: MessagePassing, original: Any, /, edge_index: Tensor, *args: Any, **given: Any
        ) -> Any:
            fusion = self.setup.fusion(next(calls, len(self.setup.trace.names)))
            if fusion is None or args or not fusion.takes(given):
                return original(edge_index, *args, **given)
            rows, nodes = fusion.rows(given), nodes_of_call((edge_index, given.get("size"), given), layer)
            return rows.new_zeros(nodes[1] or len(rows), *rows.shape[1:])

        with torch.no_grad(), replaced(self.setup.layers, "propagate", propagate):
            self.setup.call(union)

    def hand_to(self, batch: GraphBatch) -> GraphBatch:
        """Put normalised edges at a batch, for the layers to find whenever they run on it."""
        edge = np.searchsorted(self._edges, batch.graphs.edge_id)
        node = np.searchsorted(self._nodes, batch.graphs.node_id)
        handed: dict[tuple[int, int | None], Handed] = {}
        memo = {}
        for name, layer in self._layers:
            if layer in self._known:
                reach = None if name in self._fused else self._uses[name].reach
                key = (id(self._known[layer].edges.exist), reach)
                if key not in handed:
                    handed[key] = _handed(self._known[layer], batch, edge, node, reach)
                memo[layer] = handed[key]
        batch.memo[NORMALISATION] = memo
        batch.cut_again = self._take
        return batch

    def _take(self, batch: GraphBatch, instances: np.ndarray) -> GraphBatch:
        targets = None if batch.targets is None else batch.targets.cpu().numpy()[instances]
        graphs = batch.graphs.take(instances)
        return self.hand_to(GraphBatch(batch.X, batch.positions[instances], graphs, targets, batch.device))


def _handed(known: Normalised, batch: GraphBatch, edge: np.ndarray, node: np.ndarray, reach: int | None) -> Handed:
    """Cut what a layer knows to a batch, and to the messages that are felt over at most `reach` of them."""
    edge_kept, node_kept = known.edges.exist[edge], known.loops.exist[node]
    ends, level = batch.edge_index.cpu().numpy(), batch.graphs.node_level
    if reach is not None:
        edge_kept &= level[ends[1]] < reach
        node_kept &= level < reach
    edges, nodes = np.flatnonzero(edge_kept), np.flatnonzero(node_kept)
    columns = (ends[::-1] if known.swapped else ends)[:, edges]
    weights = Weights.concat(known.edges.take(edge[edges]), known.loops.take(node[nodes]))
    return Handed(
        torch.from_numpy(np.concatenate([columns, np.stack([nodes, nodes])], axis=1)).to(batch.device),
        weights.values,
        torch.from_numpy(np.concatenate([edges, np.full(len(nodes), NOT_AN_EDGE)])).to(batch.device),
    )


def _weights(edge: np.ndarray, edge_index: Tensor, weight: Tensor | None, union: GraphBatch) -> tuple[Weights, Weights]:
    """Sort the messages of a call by the edge that they run along, or by the node whose loop they are."""
    message, is_loop = np.arange(len(edge)), edge == NOT_AN_EDGE
    loop_at = edge_index[0].cpu().numpy()[is_loop]
    found = []
    for size, place, number in (
        (union.num_edges, edge[~is_loop], message[~is_loop]),
        (union.num_nodes, loop_at, message[is_loop]),
    ):
        exist = np.zeros(size, dtype=bool)
        exist[place] = True
        values = None
        if weight is not None:
            values = weight.new_zeros(size, *weight.shape[1:])
            values[torch.from_numpy(place).to(weight.device)] = weight[torch.from_numpy(number).to(weight.device)]
        found.append(Weights(exist, values))
    return found[0], found[1]


def _is_in(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    place = np.searchsorted(ordered, values)
    return ordered[np.minimum(place, len(ordered) - 1)] == values


def _equal(first: tuple[Any, ...], second: tuple[Tensor, Tensor | None]) -> bool:
    return all(
        a is b or (a is not None and b is not None and a.shape == b.shape and torch.equal(a, b))
        for a, b in zip(first, second, strict=True)
    )
