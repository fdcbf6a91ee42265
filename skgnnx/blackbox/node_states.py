"""Embeddings of nodes: what layers make of them on the user's whole graphs, never on a part that is cut out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from skgnnx.blackbox.cut_reference import WIDEST_RING, bytes_of, bytes_of_whole, degrees
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.probe_graphs import own_graph_batch, tournament_batch
from skgnnx.blackbox.pyg_compat import message_passing_modules
from skgnnx.config import memory_budget
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.neighbourhoods import distinct, joint_neighbourhood
from skgnnx.graphs.unions import shared_graphs


class LayerRun(NamedTuple):
    """What went into a module and what came out of it, the first of several parts."""

    before: Any
    after: Any


class NodeStates(NamedTuple):
    """Embeddings of the nodes of a batch, each different node once.

    Parameters
    ----------
    table : Tensor of shape (n, d)
        One row per different node, in the model's precision.
    place : Tensor of int of shape (N,)
        Row of each node of the batch.
    """

    table: Tensor
    place: Tensor


class NodeEmbedder:
    """Runs the model on whole graphs and keeps what one of its layers makes of the nodes.

    Parameters
    ----------
    gnn : OpenBox
    embedding : {"last", "concat"}, name of a module, or callable
        "last" is the output of the last message passing layer, or what goes into it where its output is the model's.
        "concat" puts the outputs of all layers side by side, again without the model's own. A name is that of any
        module with one row per node. A callable gets (model, PyG Batch of whole graphs) and returns such rows.

    Raises
    ------
    TypeError
        If no layer gives one row of numbers per node.
    ValueError
        If the model has no module of that name.
    """

    def __init__(self, gnn: OpenBox, embedding: str | Callable[..., Tensor]) -> None:
        gnn.check_maskable()
        self.gnn, self.embedding = gnn, embedding
        self._layers = [layer for _, layer in message_passing_modules(gnn.box.model)]
        if isinstance(embedding, str) and embedding not in ("last", "concat"):
            modules = dict(gnn.box.model.named_modules())
            if not embedding or embedding not in modules:
                raise ValueError(
                    f"'embedding' must be 'last', 'concat', a callable or the name of a module of {gnn.name}. Got "
                    f"{embedding!r}; print(dict(model.named_modules()).keys()) shows the names."
                )
            self._layers = [modules[embedding]]

    def of(self, batch: GraphBatch) -> NodeStates:
        """Return the embeddings of the nodes of a batch, on their whole graphs."""
        X = batch.X
        if X.level == "graph" or X.exclude_link:
            return self._of_own_graphs(batch)
        if bytes_of_whole(X, self.gnn.trace) <= memory_budget():
            ids, table = self._shared
        else:
            ids, table = self._of_cut(batch.positions, batch.graphs.node_ptr, batch.graphs.node_id)
        return NodeStates(table, self._rows(ids, batch.graphs.node_id))

    @cached_property
    def _shared(self) -> tuple[np.ndarray, Tensor]:
        """Ids of all nodes of the graphs that instances share, and their embeddings."""
        whole = shared_graphs(self.gnn.X, self.gnn.device)
        return whole.graphs.node_id, self._states(whole)

    def _of_own_graphs(self, batch: GraphBatch) -> NodeStates:
        """Return embeddings where every instance has a graph of its own."""
        X, first, keys, tables = batch.X, 0, [], []
        for whole in self.gnn.whole_batches(batch.positions):
            tables.append(self._states(whole))
            keys.append((whole.node_instance.cpu().numpy() + first, whole.graphs.node_id))
            first += len(whole)
        size = max(X.store.total_nodes, 1)
        known = np.concatenate([instance * size + node for instance, node in keys])
        wanted = batch.node_instance.cpu().numpy() * size + batch.graphs.node_id
        return NodeStates(torch.cat(tables), self._rows(known, wanted))

    def _rows(self, known: np.ndarray, wanted: np.ndarray) -> Tensor:
        return torch.from_numpy(np.searchsorted(known, wanted)).to(self.gnn.device)

    def _of_cut(self, rows: np.ndarray, node_ptr: np.ndarray, node_id: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Return ids and embeddings of nodes of a graph that does not fit, from cuts that agree with wider cuts."""
        wanted = nodes = distinct(node_id)
        found: Tensor | None = None
        for ring in range(1, (self.gnn.trace.hops or 0) + 1 + WIDEST_RING):
            size = len(nodes) + degrees(self.gnn.X, nodes, self.gnn.trace.both_ways)
            if bytes_of(size, self.gnn.trace) > memory_budget():
                break
            union = joint_neighbourhood(self.gnn.X, rows, nodes, self.gnn.trace.both_ways, self.gnn.device)
            nodes = union.graphs.node_id
            if ring <= (self.gnn.trace.hops or 0):
                continue
            states = self._states(union).index_select(0, self._rows(nodes, wanted))
            if found is not None and _agree(found, states):
                return wanted, states
            found = states
        if len(rows) == 1:
            raise MemoryError(
                f"The memory budget must hold what leads to the nodes of one instance, {node_ptr[-1]} here, to embed "
                f"them as on the whole graph. Got {memory_budget() / 2**20:.0f} MB, needed up to "
                f"{bytes_of_whole(self.gnn.X, self.gnn.trace) / 2**20:.0f} MB; raise it with "
                "config_context(memory_budget=...)."
            )
        middle = len(rows) // 2
        cut = node_ptr[middle]
        halves = [
            self._of_cut(rows[:middle], node_ptr[: middle + 1], node_id[:cut]),
            self._of_cut(rows[middle:], node_ptr[middle:] - cut, node_id[cut:]),
        ]
        ids, first = np.unique(np.concatenate([ids for ids, _ in halves]), return_index=True)
        return ids, torch.cat([table for _, table in halves])[torch.from_numpy(first).to(self.gnn.device)]

    def _states(self, whole: GraphBatch) -> Tensor:
        """Run the model once on a batch and return one row per node."""
        with torch.no_grad():
            if callable(self.embedding):
                found = [self.embedding(self.gnn.box.model, whole.to_data())]
            else:
                with runs_of(self._layers) as runs:
                    self.gnn.call(whole)
                found = self._chosen([run for run in runs if _is_embedding(run.after, whole)])
        if not found or not all(_is_embedding(one, whole) for one in found):
            raise TypeError(
                f"Embeddings of {self.gnn.name} must be one row of numbers per node ({whole.num_nodes} here). Got none "
                f"from embedding={self.embedding!r}; name another module, or use GNNExplainer, which needs none."
            )
        return torch.cat([one.detach().flatten(1) for one in found], dim=1)

    def _chosen(self, runs: list[LayerRun]) -> list[Tensor]:
        """Return the states that an option names, of the runs that have one row per node."""
        if not runs or self.embedding not in ("last", "concat"):
            return [run.after for run in runs[-1:]]
        if self._is_classifier:
            before = runs[-1].before
            runs = runs[:-1] if self.embedding == "concat" and len(runs) > 1 else [LayerRun(None, before)]
        if self.embedding == "last":
            return [runs[-1].after]
        return [run.after for run in runs]

    @cached_property
    def _is_classifier(self) -> bool:
        """Whether nothing comes after the last layer but a readout and a softmax: it is the classifier itself.

        Layers give random numbers here, on a small graph that is the same for all instances: what they give otherwise
        may happen to pass what comes after them as it is, a ReLU where none of it is negative.
        """
        if self.gnn.X.level == "edge":
            return False
        probe = (own_graph_batch if self.gnn.trace.fixed_size else tournament_batch)(self.gnn.X, self.gnn.device)
        with torch.no_grad(), runs_of(self._layers, torch.Generator().manual_seed(0)) as runs:
            output, _ = self.gnn.argument_of(lambda: self.gnn.call(probe))
        states = [run.after for run in runs if _is_embedding(run.after, probe)]
        return bool(states) and _is_output(states[-1], output, probe)


@contextmanager
def runs_of(modules: list[nn.Module], random: torch.Generator | None = None) -> Iterator[list[LayerRun]]:
    """Keep what goes into modules and comes out of them, run by run, while inside; from a generator, random numbers."""
    runs: list[LayerRun] = []

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        given = kwargs.get("x", args[0] if args else None)
        output = output if random is None else _drawn(output, random)
        runs.append(LayerRun(_first(given), _first(output)))
        return output

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        yield runs


def _first(value: Any) -> Any:
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value


def _drawn(value: Any, random: torch.Generator) -> Any:
    """Return random numbers in place of the first part of what a layer gives."""
    if type(value) in (tuple, list) and value:
        return type(value)([_drawn(value[0], random), *value[1:]])
    if not torch.is_tensor(value) or value.layout != torch.strided or not value.is_floating_point():
        return value
    return torch.randn(value.shape, generator=random, dtype=value.dtype).to(value.device)


def _is_embedding(value: Any, whole: GraphBatch) -> bool:
    """Return True for a matrix of numbers with one row per node."""
    dense = torch.is_tensor(value) and value.layout == torch.strided
    return dense and value.is_floating_point() and value.dim() >= 2 and len(value) == whole.num_nodes


def _is_output(states: Tensor, output: Tensor, whole: GraphBatch) -> bool:
    """Return True if an output is the states of a layer, or a readout of them."""
    states, rows = states.flatten(1), len(whole) if whole.X.level == "graph" else len(states)
    if output.numel() != rows * states.shape[1]:
        return False
    output = output.reshape(rows, -1)
    if whole.X.level == "node":
        return _agree(states, output)
    return any(
        _agree(scatter(states, whole.node_instance, dim_size=rows, reduce=how), output)
        for how in ("mean", "sum", "max")
    )


def _agree(first: Tensor, second: Tensor) -> bool:
    rounding = 1e-9 if second.dtype == torch.float64 else 1e-5
    scale = float(second.abs().nan_to_num().max()) if second.numel() else 0.0
    return torch.allclose(first, second, rtol=0, atol=rounding * scale, equal_nan=True)
