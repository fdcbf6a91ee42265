"""Borrowing a model: evaluation mode and no parameter gradients inside, every bit as before outside."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_LOCK = threading.RLock()
_MUTABLE = (dict, list, set, deque, tuple, np.ndarray, Tensor)
_PLAIN = frozenset({type(None), bool, int, float, str})


@contextmanager
def frozen(model: nn.Module | None) -> Iterator[None]:
    """Put a model into evaluation mode without parameter gradients, and restore everything afterwards.

    Restored on exit, also after an error: module attributes (training flags, caches, hooks, stored activations) and
    all that they hold, parameters, buffers, ``requires_grad``, the global random states of torch, numpy and Python, the
    number of threads, and the gradient, inference and autocast modes. One thread at a time holds a model.

    Parameters
    ----------
    model : nn.Module or None
        None restores only the process-wide state.
    """
    parameters = [] if model is None else list(model.parameters())
    if any(parameter.is_inference() for parameter in parameters):
        raise ValueError(
            f"The parameters of {type(model).__name__} must be ordinary tensors. Got inference tensors, which know no "
            "gradients; make or load the model outside of torch.inference_mode()."
        )
    with _LOCK, torch.inference_mode(False), torch.enable_grad(), _process_state(parameters), ExitStack() as restored:
        for parameter in parameters:
            restored.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        seen: set[int] = set()
        empty: list[Any] = []
        restored.callback(_empty_again, empty)
        for module in [] if model is None else list(model.modules()):
            _keep(module.__dict__, restored, seen, empty)
            module.__dict__["training"] = False
            module.__dict__.pop("_compiled_call_impl", None)  # compiled calls skip the hooks of layers
            _drop_cache(module)
            if type(module).__name__ == "OptimizedModule":
                restored.enter_context(uncompiled())
        yield


def uncompiled() -> AbstractContextManager[Any]:
    """Return a context in which what torch has compiled runs as it was written, where torch (from 2.6) knows how."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")


def _keep(value: Any, restored: ExitStack, seen: set[int], empty: list[Any]) -> None:
    """Note how to give a value the content that it has now, and all that it holds; most containers are empty."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.layout == torch.strided:
            restored.callback(_restore_tensor, value, value.detach().clone())
        return
    if isinstance(value, np.ndarray):
        if value.flags.writeable:
            restored.callback(np.copyto, value, value.copy())
        return
    if not value:
        empty.append(value)
        return
    content = dict(value) if isinstance(value, dict) else list(value)
    if not isinstance(value, tuple):
        restored.callback(_restore, value, content)
    for member in content.values() if isinstance(content, dict) else content:
        if type(member) not in _PLAIN and isinstance(member, _MUTABLE):
            _keep(member, restored, seen, empty)


@contextmanager
def _process_state(parameters: list[nn.Parameter]) -> Iterator[None]:
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
    threads, numpy_state, python_state = torch.get_num_threads(), np.random.get_state(), random.getstate()  # noqa: NPY002 (it is what users may rely on)
    with torch.random.fork_rng(devices=devices), torch.autocast("cpu", enabled=False), ExitStack() as modes:
        if devices:
            modes.enter_context(torch.autocast("cuda", enabled=False))
        try:
            # Two threads on graphs of a few dozen nodes take ten times longer than one.
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def _empty_again(containers: list[Any]) -> None:
    for value in containers:
        if value:
            value.clear()


def _restore(value: Any, content: Any) -> None:
    value.clear()
    value.update(content) if isinstance(value, (dict, set)) else value.extend(content)


def _restore_tensor(value: Tensor, content: Tensor) -> None:
    with torch.no_grad():
        if value.shape != content.shape:
            value.set_(content)  # type: ignore[call-overload]
        elif not torch.equal(value, content):
            value.copy_(content)


def _drop_cache(module: nn.Module) -> None:
    """Empty cached normalisation: it belongs to the graph that filled it, not to the one that is explained."""
    if getattr(module, "cached", False) is True:
        setattr(module, "cached", False)  # noqa: B010 (a plain attribute of a module is a Tensor to the type checker)
    for name in list(module.__dict__):
        if name.startswith("_cached_"):
            setattr(module, name, None)
