"""True degrees at the rim of a cut: a layer's own normalisation, computed once for many instances and handed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import NORMALISATION, Handed
from skgnnx.blackbox.counted_edges import counted, edges_to_check
from skgnnx.blackbox.edge_matching import CallKind, match_edges
from skgnnx.blackbox.hooks import replaced
from skgnnx.blackbox.normalised_edges import Normalised, by_edge_and_loop, handed
from skgnnx.blackbox.plan import Setup
from skgnnx.blackbox.pyg_compat import ends_of_call, is_normalisation, nodes_of_call, normalising_layers
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import stable_order
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.neighbourhoods import Condensed, condensed_neighbourhood, distinct, joint_neighbourhood

WORTH_CONDENSING = 10_000  # fewer edges are run through faster than it is seen that some can be left out


class LayerUse(NamedTuple):
    """What is known of all calls of one layer: how far the farthest-reaching one is felt, and their kind."""

    reach: int
    kind: CallKind


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
        self._whole = np.empty(0, dtype=bool)  # nodes of which all edges that lead to them are known
        self._edges = np.empty(0, dtype=np.int64)
        self._ready = np.zeros(len(X), dtype=bool)  # instances of which all is known
        self._known: dict[MessagePassing, Normalised] = {}
        # A layer that is called several times must keep what its farthest-reaching call needs.
        self._uses: dict[str, LayerUse] = {}
        for name, reach, kind in zip(setup.trace.names, setup.trace.reach, setup.trace.kinds, strict=True):
            known = self._uses.get(name)
            self._uses[name] = LayerUse(max(reach, known.reach if known else 0), kind)
        self._fused = {name for name in self._uses if setup.fuses_all_calls_of(name)}

    @property
    def has_layers(self) -> bool:
        """Whether a layer may be given its normalisation."""
        return bool(self._layers)

    def prepare(self, rows: np.ndarray, nodes: np.ndarray, summing: np.ndarray | None = None) -> bool:
        """Normalise what some instances need; return False where no layer can be given its normalisation.

        Parameters
        ----------
        rows : ndarray of int
            The instances.
        nodes : ndarray of int
            Nodes that reach them, as ids in the whole store, with repetitions.
        summing : ndarray of int, optional
            Those of them at which messages end, with repetitions; the others matter by their degrees only.
        """
        if not self._layers or self.X.exclude_link:
            return False
        if not self._ready[rows].all():
            self._ready[rows] = self.prepare_part(rows, nodes, summing)
        return bool(self._ready[rows].all())

    def prepare_part(self, rows: np.ndarray, nodes: np.ndarray, summing: np.ndarray | None = None) -> bool:
        """Do the same for instances of which a part is explained, given by its nodes."""
        if not self._layers or self.X.exclude_link:
            return False
        nodes = distinct(nodes)
        summing = nodes if summing is None else distinct(summing)
        ready = self._knows(nodes, summing)
        if not ready and not self.setup.trace.both_ways and self._edges_to(nodes) >= WORTH_CONDENSING:
            condensed = condensed_neighbourhood(self.X, rows, nodes, summing, self.device)
            ready = condensed is not None and self.learn_condensed(condensed)
        if not ready:
            whole = joint_neighbourhood(self.X, rows, nodes, self.setup.trace.both_ways, self.device)
            ready = self.learn(whole)
        return ready

    def _edges_to(self, nodes: np.ndarray) -> int:
        ptr = self.X.store.in_edges.ptr
        return int((ptr[nodes + 1] - ptr[nodes]).sum())

    def _knows(self, nodes: np.ndarray, summing: np.ndarray) -> bool:
        if not self._known or not (_are_in(nodes, self._nodes).all() and _are_in(summing, self._nodes).all()):
            return False
        return bool(self._whole[np.searchsorted(self._nodes, summing)].all())

    def learn(self, union: GraphBatch, run: Callable[[], Any] | None = None) -> bool:
        """Normalise a joint neighbourhood; return False where no layer can be given its normalisation.

        Parameters
        ----------
        union : GraphBatch
            Some nodes with all edges that lead to them.
        run : callable, optional
            Runs the model on the union; by default it runs without messages, which do not matter here.
        """
        found = self._normalised(union, self._cached(run or (lambda: self._run_silently(union))))
        if not found or (self._known and found.keys() != self._known.keys()):
            # What is known stays as it is: weights found by position must not lag behind nodes and edges.
            self._layers = self._layers if self._known else []
            return False
        self._add(union, union.graphs.node_level == 0, found)
        return True

    def learn_condensed(self, condensed: Condensed, run: Callable[[], Any] | None = None) -> bool:
        """Normalise a condensed neighbourhood; return False where layers cannot count edges that are left out.

        That they count them is seen at some nodes, with all edges that lead to these.

        Parameters
        ----------
        condensed : Condensed
        run : callable, optional
            As in `learn`.
        """
        union = condensed.batch
        run = run or (lambda: self._run_silently(union))
        found = self._normalised(union, self._cached(run, condensed))
        if not found or (self._known and found.keys() != self._known.keys()) or not self._agrees(condensed, found):
            return False
        self._add(union, union.graphs.node_level <= 1, found)
        return True

    def _agrees(self, condensed: Condensed, found: dict[MessagePassing, Normalised]) -> bool:
        """Return True if some edges get the same weights among all edges that lead to their ends."""
        union, edges = condensed.batch, edges_to_check(condensed)
        ends = [
            union.graphs.node_id[places] for places in (union.graphs.ends[:, edges], union.rows[..., 0].cpu().numpy())
        ]
        nodes = distinct(np.concatenate([part.ravel() for part in ends]))
        part = joint_neighbourhood(self.X, union.positions, nodes, False, self.device)
        expected = self._normalised(part, self._cached(lambda: self._run_silently(part)))
        place = np.searchsorted(part.graphs.edge_id, union.graphs.edge_id[edges])
        return (
            bool(len(edges))
            and found.keys() == expected.keys()
            and all(found[layer].edges.take(edges).is_close(expected[layer].edges.take(place)) for layer in found)
        )

    def _add(self, union: GraphBatch, has_degree: np.ndarray, found: dict[MessagePassing, Normalised]) -> None:
        """Note what has been learned besides what was known: at nodes of true degree, and between these."""
        graphs = union.graphs
        source, target = graphs.ends
        missing = np.bincount(target[~has_degree[source]], minlength=union.num_nodes) > 0
        whole = (graphs.node_level == 0) & ~missing
        nodes = np.flatnonzero(has_degree)
        edges = np.flatnonzero((graphs.node_level[target] == 0) & has_degree[source])
        old_nodes, old_whole = self._nodes, self._whole
        self._nodes, first_node = _merged(old_nodes, graphs.node_id[nodes])
        self._edges, first_edge = _merged(self._edges, graphs.edge_id[edges])
        self._whole = np.zeros(len(self._nodes), dtype=bool)
        for ids in (old_nodes[old_whole], graphs.node_id[whole]):
            self._whole[np.searchsorted(self._nodes, ids)] = True
        for layer, every in found.items():
            new, old = every.take(edges, nodes), self._known.get(layer)
            both = new if old is None else Normalised.concat(old, new)
            self._known[layer] = both.take(first_edge, first_node)

    def _normalised(self, union: GraphBatch, cached: dict[tuple[str, MessagePassing], Any]) -> dict[Any, Normalised]:
        """Return what every layer has cached, by edge and node of the union."""
        own, known = union.edge_index.cpu().numpy(), {}
        before: tuple[Any, ...] = ()
        for (name, layer), (edge_index, weight) in cached.items():
            use = self._uses.get(name)
            if use is None:
                return {}
            if not (before and _equal(before[:2], (edge_index, weight)) and before[2:] == (layer.flow, use.kind)):
                found = match_edges(ends_of_call(edge_index, layer).cpu().numpy(), own, use.kind)
                if found is None or not found.certain:
                    return {}
                swapped = (layer.flow != "source_to_target") ^ use.kind.flipped
                result = Normalised(swapped, *by_edge_and_loop(found.edge, edge_index, weight, union))
                before = (edge_index, weight, layer.flow, use.kind)
            known[layer] = result
        return known

    def _cached(
        self, run: Callable[[], Any], condensed: Condensed | None = None
    ) -> dict[tuple[str, MessagePassing], Any]:
        """Return what layers keep of the edges when the model runs."""
        try:
            for _, layer in self._layers:
                layer.cached = True
            with counted(self._layers, condensed):
                run()
            kept = {named: named[1]._cached_edge_index for named in self._layers}
            return {named: cache for named, cache in kept.items() if is_normalisation(cache)}
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
        made: dict[tuple[int, int | None], Handed] = {}
        memo = {}
        for name, layer in self._layers:
            if layer in self._known:
                reach = None if name in self._fused else self._uses[name].reach
                key = (id(self._known[layer].edges.exist), reach)
                if key not in made:
                    made[key] = handed(self._known[layer], batch, edge, node, reach)
                memo[layer] = made[key]
        batch.memo[NORMALISATION] = memo
        batch.cut_again = self._take
        return batch

    def _take(self, batch: GraphBatch, instances: np.ndarray) -> GraphBatch:
        targets = None if batch.targets is None else batch.targets.cpu().numpy()[instances]
        graphs = batch.graphs.take(instances)
        return self.hand_to(GraphBatch(batch.X, batch.positions[instances], graphs, targets, batch.device))


def _merged(known: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different ids of two arrays, ascending, and where each comes first in both together."""
    both = np.concatenate([known, new])
    order, ordered = stable_order(both, int(both.max(initial=0)) + 1)
    first = np.ones(len(both), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first], order[first]


def _are_in(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    place = np.searchsorted(ordered, values)
    return ordered[np.minimum(place, len(ordered) - 1)] == values


def _equal(first: tuple[Any, ...], second: tuple[Tensor, Tensor | None]) -> bool:
    return all(
        a is b or (a is not None and b is not None and a.shape == b.shape and torch.equal(a, b))
        for a, b in zip(first, second, strict=True)
    )
