"""Digests that tell whether a model or a set of instances is the one that was used before."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from skgnnx.graphs.instances import Instances


def model_digest(model: Any) -> str:
    """Return a SHA-256 of a model: class names, and names, shapes and bytes of its parameters and buffers.

    Parameters
    ----------
    model : Module, fitted estimator with `module_`, or callable
        Of a callable that is no module only the name can be seen.

    Returns
    -------
    str
        64 hexadecimal digits, equal on every machine and in every process.

    Examples
    --------
    >>> import torch
    >>> from skgnnx.graphs.digest import model_digest
    >>> layer = torch.nn.Linear(2, 1)
    >>> before = model_digest(layer)
    >>> _ = torch.nn.init.zeros_(layer.bias)
    >>> model_digest(layer) == before
    False
    """
    module = getattr(model, "module_", model)
    digest = hashlib.sha256()
    if not isinstance(module, torch.nn.Module):
        name = getattr(module, "__qualname__", type(module).__qualname__)
        digest.update(f"{getattr(module, '__module__', '')}.{name}".encode())
        return digest.hexdigest()
    for name, part in module.named_modules():
        digest.update(f"{name}:{type(part).__qualname__};".encode())
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for name in sorted(tensors):
        digest.update(f"{name};".encode())
        _add_tensor(digest, tensors[name])
    return digest.hexdigest()


def instances_digest(X: Instances) -> str:
    """Return a SHA-256 of predictions to explain: graphs, elements and targets, in order.

    It does not depend on how the graphs are stored, on unused graphs, or on ids and truth.

    Parameters
    ----------
    X : Instances
        Any number of them.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{X.level};{X.exclude_link};{X.target is None}".encode())
    for graph in _graph_digests(X):
        digest.update(graph)
    _add_array(digest, X.element)
    if X.target is not None:
        _add_array(digest, X.target)
    return digest.hexdigest()


def predictions_digests(X: Instances) -> list[bytes]:
    """Return a digest of each instance: its graph and the element that is predicted, whatever the target.

    Parameters
    ----------
    X : Instances
        Any number of them.

    Returns
    -------
    list of bytes
        In the order of `X`, equal on every machine and in every process.
    """
    elements = np.ascontiguousarray(X.element).reshape(len(X), -1)
    level = X.level.encode()
    return [
        hashlib.sha256(level + graph + element.tobytes()).digest()[:16]
        for graph, element in zip(_graph_digests(X), elements, strict=True)
    ]


def _graph_digests(X: Instances) -> list[bytes]:
    """Return a digest of the graph of each instance."""
    graphs, position = np.unique(X.graph_index, return_inverse=True)
    known = X.store.__dict__.setdefault("_digests", {})  # a store never changes
    for graph in graphs:
        if graph not in known:
            known[int(graph)] = _graph_digest(X, int(graph))
    return [known[graphs[place]] for place in position]


def _graph_digest(X: Instances, graph: int) -> bytes:
    store = X.store
    digest = hashlib.sha256(f"{store.num_nodes(graph)}".encode())
    _add_array(digest, store.edges(graph))
    for key in sorted(store.columns):
        digest.update(key.encode())
        _add_array(digest, store.columns[key].of(graph))
    for key in sorted(store.objects):
        value = store.objects[key][graph]
        if torch.is_tensor(value):
            digest.update(key.encode())
            _add_tensor(digest, value)
        elif isinstance(value, (str, int, float)):  # anything else may not look the same in another process
            digest.update(f"{key}:{value!r};".encode())
    return digest.digest()


def _add_array(digest: Any, array: np.ndarray) -> None:
    digest.update(f"{array.dtype.str}{array.shape};".encode())
    digest.update(np.ascontiguousarray(array).tobytes())


def _add_tensor(digest: Any, tensor: torch.Tensor) -> None:
    if torch.nn.parameter.is_lazy(tensor):
        digest.update(b"uninitialised;")
        return
    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)};".encode())
    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
