"""Calling a user's model: `forward` filled by name from a batch of graphs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import MessagePassing

from skgnnx.graphs.batch import GraphBatch

_DATA_NAMES = frozenset({"data", "batch", "graph", "graphs", "g", "inputs", "batch_data", "data_batch"})


NORMALISATION = ("normalisation",)


class Handed(NamedTuple):
    """Normalised edges that a layer finds in its cache, and the edge of the batch behind each (-1 for a loop)."""

    edge_index: Tensor
    weight: Tensor | None
    edge: Tensor


@contextmanager
def handed_over(batch: GraphBatch) -> Iterator[None]:
    """Put the normalisation that belongs to a batch into the layers' caches for one run."""
    known: dict[MessagePassing, Handed] = batch.memo.get(NORMALISATION, {})
    try:
        for layer, handed in known.items():
            layer.cached, layer._cached_edge_index = True, (handed.edge_index, handed.weight)
        yield
    finally:
        for layer in known:
            layer.cached, layer._cached_edge_index = False, None


class ModelCall:
    """One model's `forward`, as a function of a batch.

    Parameters
    ----------
    model : nn.Module or callable
        The user's network; a plain callable takes a list of Data and returns an array.
    forward : callable or None
        ``forward(model, batch) -> Tensor`` for models that names cannot fill; `batch` is a PyG `Batch`.
    """

    def __init__(self, model: Any, forward: Callable[[Any, Batch], Any] | None = None) -> None:
        self.model = model
        self.forward = forward
        self._modifies_input: bool | None = None  # not known before the first run, which gets copies

    @cached_property
    def _names(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of the model's forward."""
        return inspect.signature(self.model.forward).parameters

    def __call__(self, batch: GraphBatch, x: Tensor | None = None) -> Tensor:
        """Return the raw output of the model on a batch, with other node features if given."""
        if self._modifies_input is not False:
            batch, x = batch.with_own_tensors(), None if x is None else x.clone()
        given = batch.x if x is None else x
        try:
            with handed_over(batch):
                output = self._run(batch, given)
        except (RuntimeError, IndexError) as error:
            raise self._explained(error, batch, given) from error
        if self._modifies_input is None:
            self._modifies_input = batch.is_modified() or (x is not None and x._version > 0)
        return _as_tensor(output, self.model)

    def _run(self, batch: GraphBatch, x: Tensor | None) -> Any:
        if self.forward is not None:
            return self.forward(self.model, batch.to_data(x))
        if not isinstance(self.model, nn.Module):
            return self._predict(batch, x)
        names = self._names
        decodes = hasattr(self.model, "encode") and hasattr(self.model, "decode")
        if batch.X.level == "edge" and "edge_label_index" not in names and decodes:
            return self._encode_decode(batch, x)
        if batch.X.level == "edge" and "edge_label_index" not in names and not _takes_data(names, batch):
            raise TypeError(
                f"A model for links must take 'edge_label_index' or have encode and decode. Got "
                f"{type(self.model).__name__}; give forward=callable(model, batch)."
            )
        if _takes_data(names, batch):
            return self.model(batch.to_data(x))
        return self.model(**self._fill(names, batch, x))

    def _encode_decode(self, batch: GraphBatch, x: Tensor | None) -> Any:
        encode = inspect.signature(self.model.encode).parameters
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in encode.values()) and hasattr(self.model, "encoder"):
            encode = inspect.signature(self.model.encoder.forward).parameters
        if _takes_data(encode, batch):
            z = self.model.encode(batch.to_data(x))
        else:
            z = self.model.encode(**self._fill(encode, batch, x))
        return self.model.decode(z, batch.rows)

    def _predict(self, batch: GraphBatch, x: Tensor | None) -> Any:
        return self.model(split_data(batch, batch.to_data(x)))

    def _fill(self, names: Any, batch: GraphBatch, x: Tensor | None) -> dict[str, Any]:
        filled = {}
        for name, parameter in names.items():
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                continue
            found, value = _lookup(name, batch, x)
            if found:
                filled[name] = value
            elif parameter.default is inspect.Parameter.empty:
                keys = ["x", "edge_index", "batch", *batch.X.store.columns, *batch.X.store.objects]
                raise TypeError(
                    f"The forward of {type(self.model).__name__} needs {name!r}, which the graphs do not hold. "
                    "Got keys "
                    f"{sorted(set(keys))}; add it to the graphs or give forward=callable(model, batch)."
                )
        return filled

    def _explained(self, error: Exception, batch: GraphBatch, x: Tensor | None) -> Exception:
        if is_short_of_memory(error):
            return error
        features = None if x is None or isinstance(error, IndexError) else tuple(x.shape[1:])
        expected = _expected_features(self.model)
        if features and len(features) == 1 and expected is not None and expected != features[0]:
            return ValueError(
                f"The graphs must have the {expected} node features that {type(self.model).__name__} was built "
                "for. Got "
                f"{features[0]} in graph {batch.X.graph_index[batch.positions[0]]}; apply the same "
                "preprocessing as in training."
            )
        kind = IndexError if isinstance(error, IndexError) else RuntimeError
        return kind(f"The model {type(self.model).__name__} raised: {error}")


def is_short_of_memory(error: Exception) -> bool:
    """Return True for what torch raises where memory does not suffice: the same may run in smaller pieces."""
    return isinstance(error, RuntimeError) and "memory" in str(error).lower()


def split_data(batch: GraphBatch, union: Batch) -> list[Data]:
    """Cut the union into one `Data` per instance, as a plain callable takes them."""
    graphs = []
    for i in range(len(batch)):
        nodes, edges = (slice(*map(int, ptr[i : i + 2])) for ptr in (batch.graphs.node_ptr, batch.graphs.edge_ptr))
        data = Data(edge_index=union.edge_index[:, edges] - nodes.start, num_nodes=nodes.stop - nodes.start)
        graph = batch.X.graph_index[batch.positions[i]]
        for key, values in batch.X.store.objects.items():
            data[key] = values[graph]
        for key, column in batch.X.store.columns.items():
            value = union[key]
            if column.slot == "graph":
                value = torch.from_numpy(column.of(graph).copy())
            data[key] = value[nodes] if column.slot == "node" else value[edges] if column.slot == "edge" else value
        graphs.append(data)
    return graphs


def _lookup(name: str, batch: GraphBatch, x: Tensor | None) -> tuple[bool, Any]:
    """Return whether a batch can fill a parameter of this name, and the value."""
    if name == "x":
        return x is not None, x
    if name in ("edge_index", "adj_t", "adj"):
        wants_sparse = batch.X.store.sparse or name != "edge_index"
        return True, batch.adjacency() if wants_sparse else batch.edge_index
    if name == "edge_label_index" and batch.X.level == "edge":
        return True, batch.rows
    if name in batch.X.store.columns:
        return True, batch.attribute(name)
    computed = {
        "batch": lambda: batch.node_instance,
        "ptr": lambda: batch.ptr,
        "num_nodes": lambda: batch.num_nodes,
        "num_graphs": lambda: len(batch),
        "batch_size": lambda: len(batch),
    }
    return (True, computed[name]()) if name in computed else (False, None)


def _takes_data(names: Any, batch: GraphBatch) -> bool:
    required = [
        p
        for p in names.values()
        if p.default is inspect.Parameter.empty
        and p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    if len(required) != 1 or required[0].name in batch.X.store.columns:
        return False
    annotated = isinstance(required[0].annotation, type) and issubclass(required[0].annotation, Data)
    return annotated or required[0].name in _DATA_NAMES


def _expected_features(model: Any) -> int | None:
    for module in model.modules() if isinstance(model, nn.Module) else ():
        for name in ("in_channels", "in_features"):
            width = getattr(module, name, None)
            if isinstance(width, int) and width > 0:
                return width
    return None


def _as_tensor(output: Any, model: Any) -> Tensor:
    while isinstance(output, (tuple, list)) and len(output) and isinstance(model, nn.Module):
        output = output[0]
    if not torch.is_tensor(output):
        try:
            output = torch.as_tensor(output)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"The model {type(model).__name__} must return a tensor or a tuple that starts with one. Got "
                f"{type(output).__name__}; give forward=callable(model, batch)."
            ) from error
    return output
