"""Borrowing a model: evaluation mode and no parameter gradients inside, every bit as before outside."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_LOCK = threading.RLock()
_CONTAINERS = (dict, list, set)


@contextmanager
def frozen(model: nn.Module | None) -> Iterator[None]:
    """Put a model into evaluation mode without parameter gradients, and restore everything afterwards.

    Restored on exit, also after an error: module attributes (training flags, caches, hooks, stored activations),
    buffers, ``requires_grad``, the global random states of torch, numpy and Python, the number of threads, and the
    gradient and inference modes. One thread at a time holds a model.

    Parameters
    ----------
    model : nn.Module or None
        None restores only the process-wide state.
    """
    parameters = [] if model is None else list(model.parameters())
    with _LOCK, torch.inference_mode(False), torch.enable_grad(), _process_state(parameters), ExitStack() as restored:
        for parameter in parameters:
            restored.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for module in [] if model is None else list(model.modules()):
            _borrow(module, restored)
        yield


def _borrow(module: nn.Module, restored: ExitStack) -> None:
    """Put one module into evaluation mode, and note how to undo that and all that a forward pass may leave behind."""
    for buffer in filter(torch.is_tensor, module._buffers.values()):
        restored.callback(_restore_buffer, buffer, buffer._version, buffer.clone())
    restored.callback(_restore, module, _attributes(module))
    module.__dict__["training"] = False
    _drop_cache(module)


@contextmanager
def _process_state(parameters: list[nn.Parameter]) -> Iterator[None]:
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
    threads, numpy_state, python_state = torch.get_num_threads(), np.random.get_state(), random.getstate()  # noqa: NPY002 (it is what users may rely on)
    with torch.random.fork_rng(devices=devices):
        try:
            # Two threads on graphs of a few dozen nodes take ten times longer than one.
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def _attributes(module: nn.Module) -> list[tuple[str, Any, Any]]:
    return [(k, v, v.copy() if isinstance(v, _CONTAINERS) else None) for k, v in module.__dict__.items()]


def _restore(module: nn.Module, saved: list[tuple[str, Any, Any]]) -> None:
    module.__dict__.clear()
    for name, value, content in saved:
        module.__dict__[name] = value
        if isinstance(value, list):
            value[:] = content
        elif isinstance(value, (dict, set)):
            value.clear()
            value.update(content)


def _restore_buffer(buffer: Tensor, version: int, value: Tensor) -> None:
    if buffer._version != version:
        with torch.no_grad():
            buffer.copy_(value)


def _drop_cache(module: nn.Module) -> None:
    """Empty cached normalisation: it belongs to the graph that filled it, not to the one that is explained."""
    if getattr(module, "cached", False) is True:
        setattr(module, "cached", False)  # noqa: B010 (a plain attribute of a module is a Tensor to the type checker)
    for name in list(module.__dict__):
        if name.startswith("_cached_"):
            setattr(module, name, None)
