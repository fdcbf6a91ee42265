"""What probes have found of a model is kept between calls, for as long as nothing that it depends on has changed."""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections import OrderedDict, deque
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.inspector import Inspector

from skgnnx.blackbox.steady_code import globals_of, is_generated, is_steady, times_bound
from skgnnx.graphs.columns import Column
from skgnnx.graphs.instances import Instances

Facts = dict[str, Any]

MOST_BYTES = 2**22  # to compare more takes longer than to ask the model again
PROBED_ROWS = 64  # no probe reads more rows of the user's graph than this
MOST_CALLS = PROBED_ROWS // 4 - 1  # a path for this many has no more edges, both ways

_EXACT = frozenset({type(None), bool, int, str, bytes, type(Ellipsis)})
_NAMED = frozenset({float, complex, range, slice, torch.dtype, torch.device, torch.layout, torch.Size})
_ORDERED = frozenset({list, tuple, deque})
_SETTINGS = (
    *("torch", "torch.nn.functional", "torch.nn.modules.module", "torch_geometric.typing", "torch_geometric.backend"),
    *("torch_geometric.experimental", "torch_geometric.utils._scatter"),
)
_UNSTEADY_BUILTINS = frozenset({"eval", "exec", "globals", "locals", "vars", "open", "input", "__import__", "id"})
_NO_STATE = frozenset(
    {"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__abstractmethods__", "_abc_impl"}
    | {"__dataclass_fields__", "__dataclass_params__", "__match_args__"}
)
_PARTS: dict[type, tuple[str, ...]] = {
    types.MethodType: ("__func__", "__self__"),
    functools.partial: ("func", "args", "keywords"),
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    Inspector: (),
    types.GetSetDescriptorType: (),
    types.MemberDescriptorType: (),
}

_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


class _Known(NamedTuple):
    code: Any
    state: Any
    facts: Facts


class IncomparableError(Exception):
    """A part of a model may change without being seen to: what is known of the model cannot be kept."""


def facts_of(model: Any, forward: Any, X: Instances) -> Facts:
    """Return what is known of a model on graphs like these, to be read and to be added to.

    Compared with the last call are all values, classes and functions that a forward pass of the model on a probe
    can read: every attribute of every module bit by bit, the code of the user's classes with the globals and closures
    that it reads, settings of torch and PyG, and the rows of the first graph that probes are made of. Where a part
    cannot be compared (hooks, objects of unknown kinds, modules of the user's), nothing is kept.

    Parameters
    ----------
    model : nn.Module or callable
        The frozen model.
    forward : callable or None
        The user's way to call it.
    X : Instances
        What is explained.
    """
    if not isinstance(model, nn.Module) or type(model).__hash__ is not object.__hash__:
        return {}
    known, now = _KNOWN.get(model), _State()
    try:
        code = now.of_code(model)
        if known is not None and known.code != code:
            # A counter that every pass moves is different every time: nothing else need be looked at until it is not.
            _KNOWN[model] = _Known(code, None, {})
            return {}
        state = now.of_call(model, forward, X)
    except Exception:  # objects of the user's may also raise something else when they are looked at
        _KNOWN.pop(model, None)
        return {}
    if known is None or known.state != state:
        known = _KNOWN[model] = _Known(code, state, {})
    return known.facts


def is_plain(value: Any) -> bool:
    """Return True if a value may be kept: it holds nothing of the user's alive."""
    return type(value) in _EXACT or (isinstance(value, type) and is_steady(value.__module__))


class _State:
    """Turns what a model is into nested tuples without reference to the user's objects."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._bytes = 0

    def of_code(self, model: nn.Module) -> Any:
        """Return the code of the model itself, and what it reads besides attributes."""
        return self.of(type(model))

    def of_call(self, model: nn.Module, forward: Any, X: Instances) -> Any:
        if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
            raise IncomparableError
        hooks = [v for k, v in vars(nn.modules.module).items() if k.startswith("_global") and k.endswith("hooks")]
        if any(hooks):
            raise IncomparableError
        settings = (
            str(torch.get_default_dtype()),
            torch.are_deterministic_algorithms_enabled(),
            self.of(vars(sys.modules["torch_geometric.experimental"]).get("__experimental_flag__")),
            *(times_bound(sys.modules[name]) for name in _SETTINGS if name in sys.modules),
        )
        return settings, self.of(model), self.of(forward), self._graphs(X)

    def of(self, value: Any) -> Any:
        kind = type(value)
        if kind in _EXACT:
            return kind, value
        if kind in _NAMED:
            return kind, repr(value)
        if id(value) in self._seen:
            return "again", self._seen[id(value)]
        self._seen[id(value)] = len(self._seen)
        if kind is dict or kind is OrderedDict:
            return kind, tuple([(self.of(key), self.of(held)) for key, held in value.items()])
        if kind in _ORDERED:
            return kind, tuple(map(self.of, value))
        if kind is set or kind is frozenset:
            if not all(type(held) in _EXACT for held in value):
                raise IncomparableError
            return kind, frozenset((type(held), held) for held in value)
        if kind is Tensor or kind is nn.Parameter:
            return kind, self._tensor(value)
        if kind is np.ndarray:
            return kind, self._array(value)
        return self._object(kind, value)

    def _object(self, kind: type, value: Any) -> Any:
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
            return self._module(value)
        if kind is types.FunctionType:
            return self._function(value)
        if kind in _PARTS:
            return kind.__qualname__, tuple([self.of(getattr(value, name)) for name in _PARTS[kind]])
        if kind is types.BuiltinFunctionType and isinstance(value.__self__, (types.ModuleType, type(None))):
            return kind, value.__module__, value.__qualname__
        if kind is types.ModuleType and is_steady(value.__name__):
            return kind, value.__name__, times_bound(value)
        if kind is object or any(is_steady(base.__module__) or "__slots__" in vars(base) for base in kind.__mro__[:-1]):
            raise IncomparableError  # holds more than its attributes
        return "object", self.of(kind), self.of(vars(value))

    def _module(self, module: nn.Module) -> Any:
        # Code first: where it may read anything, nothing else need be looked at.
        kind, held = self.of(type(module)), []
        if not all(issubclass(base, nn.Module) or not is_steady(base.__module__) for base in type(module).__mro__[:-1]):
            raise IncomparableError
        for name, value in vars(module).items():
            if name.endswith("_hooks") and isinstance(value, dict) and value:
                raise IncomparableError
            held.append((name, (type(value), value) if type(value) in _EXACT else self.of(value)))
        return kind, tuple(held)

    def _class(self, cls: type) -> Any:
        name, home = (cls.__module__, cls.__qualname__), sys.modules.get(cls.__module__)
        if is_steady(cls.__module__):
            if getattr(home, cls.__name__, None) is not cls:
                raise IncomparableError  # made while the process runs
            return name, tuple([times_bound(base) for base in cls.__mro__ if base is not object]), times_bound(home)
        if type(cls).__module__ not in ("builtins", "abc"):
            raise IncomparableError
        held = tuple([(key, self.of(value)) for key, value in vars(cls).items() if key not in _NO_STATE])
        return name, tuple(map(self.of, cls.__bases__)), held

    def _function(self, function: types.FunctionType) -> Any:
        code, home = function.__code__, function.__globals__.get("__name__")
        steady = is_steady(home)
        if steady and getattr(sys.modules.get(str(home)), function.__name__, None) is function:
            return code
        names = () if steady or is_generated(function) else globals_of(code)
        if names is None:
            raise IncomparableError
        read = []
        for name in names:
            if name in function.__globals__:
                read.append((name, self.of(function.__globals__[name])))
            elif name in _UNSTEADY_BUILTINS or not hasattr(builtins, name):
                raise IncomparableError
        try:
            cells = tuple([self.of(cell.cell_contents) for cell in function.__closure__ or ()])
        except ValueError:
            raise IncomparableError from None
        given = self.of(function.__defaults__), self.of(function.__kwdefaults__), self.of(vars(function))
        return code, tuple(read), cells, given

    def _tensor(self, tensor: Tensor) -> Any:
        if tensor.layout != torch.strided or tensor.is_meta or vars(tensor):
            raise IncomparableError
        self._count(tensor.numel() * tensor.element_size())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        bits = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        return tensor.dtype, tuple(tensor.shape), str(tensor.device), bits

    def _array(self, array: np.ndarray) -> Any:
        if array.dtype.hasobject:
            raise IncomparableError
        self._count(array.nbytes)
        return array.dtype.str, array.shape, array.tobytes()

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > MOST_BYTES:
            raise IncomparableError

    def _graphs(self, X: Instances) -> Any:
        graph, store = X.graph_index[0], X.store
        columns = [
            (key, column.slot, column.along_last, self._column(column, graph)) for key, column in store.columns.items()
        ]
        objects = [(key, self.of(values[graph])) for key, values in store.objects.items()]
        return X.level, X.exclude_link, X.element.shape[1], store.sparse, tuple(columns), tuple(objects)

    def _column(self, column: Column, graph: int) -> Any:
        values = column.of(graph)
        if column.slot == "graph":
            return self._array(values)
        return self._array((values if len(values) else column.values)[:PROBED_ROWS])
