"""Everything about a model, its inputs and the process that an explanation must leave as it was."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Data

from skgnnx.graphs import Instances

_CONTAINERS = (dict, list, set, tuple)


def snapshot(model: nn.Module, *others: Any) -> dict[str, Any]:
    """Return a comparable picture of a model, the process, and instances or graphs.

    Parameters
    ----------
    model : nn.Module
        Parameters, buffers, gradients, flags, hooks, and every attribute of every submodule.
    *others : Instances or Data
        Inputs that must not change either.

    Returns
    -------
    dict
        Values by name; compare two with `differences`.
    """
    picture = _process()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        picture[f"{name}.object"] = id(tensor)
        picture[f"{name}.values"] = _bits(tensor)
        picture[f"{name}.requires_grad"] = tensor.requires_grad
        picture[f"{name}.grad"] = None if tensor.grad is None else (id(tensor.grad), _bits(tensor.grad))
    for name, module in model.named_modules():
        picture[f"{name}.class"] = type(module)
        for key, value in module.__dict__.items():
            picture[f"{name or 'model'}.{key}"] = _picture(value)
    for number, item in enumerate(others):
        picture.update(_input(item, f"input {number}"))
    return picture


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of what two snapshots do not have in common, in the order of the first."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if name not in before or name not in after or before[name] != after[name]]


def _process() -> dict[str, Any]:
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global state is what must not move
    return {
        "torch random state": _bits(torch.get_rng_state()),
        "numpy random state": (numpy_state[1].tobytes(), *numpy_state[2:]),  # type: ignore[index]
        "python random state": random.getstate(),
        "threads": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "working directory": os.getcwd(),
    }


def _input(item: Any, name: str) -> dict[str, Any]:
    if isinstance(item, Data):
        picture: dict[str, Any] = {f"{name} keys": tuple(sorted(item.keys()))}
        picture |= {f"{name} {key}": _picture(item[key]) for key, _ in item()}
        return picture
    X: Instances = item
    arrays = {"graph_index": X.graph_index, "element": X.element, "target": X.target, "ids": X.ids}
    arrays |= {"edges": X.store.edge_index, "node_ptr": X.store.node_ptr, "edge_ptr": X.store.edge_ptr}
    arrays |= {f"column {key}": column.values for key, column in X.store.columns.items()}
    return {f"{name} {key}": _picture(value) for key, value in arrays.items()}


def _picture(value: Any) -> Any:
    """Return what identifies a value: its bits, or its members, or the object itself."""
    if torch.is_tensor(value):
        return (id(value), _bits(value), value.requires_grad)
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return (type(value), tuple((key, _picture(member)) for key, member in value.items()))
    if isinstance(value, _CONTAINERS):
        return (type(value), tuple(_picture(member) for member in value))
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


def _bits(tensor: torch.Tensor) -> Any:
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    values = tensor.detach().cpu().contiguous()
    return (str(values.dtype), tuple(values.shape), values.reshape(-1).view(torch.uint8).numpy().tobytes())
