"""What of code can be taken as unchanging: the names that it reads, and packages as they were loaded."""

from __future__ import annotations

import dis
import operator
import tempfile
import types
from typing import Any
from weakref import WeakKeyDictionary

_STEADY = frozenset(
    {"torch", "torch_geometric", "torch_scatter", "torch_sparse", "torch_cluster", "pyg_lib", "numpy", "scipy"}
    | {"math", "typing", "builtins", "functools", "itertools", "operator", "collections", "abc", "enum"}
    | {"dataclasses", "copy", "contextlib", "warnings", "types"}
)
_OPEN = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "IMPORT_NAME", "LOAD_NAME"})

_BOUND: dict[Any, tuple[int, list[Any]]] = {}  # of packages only, which stay as long as the process
_GLOBALS: WeakKeyDictionary[types.CodeType, tuple[str, ...] | None] = WeakKeyDictionary()


def is_steady(name: str | None) -> bool:
    """Return True for modules of packages that do not change, unless a name in them is bound to something else."""
    return (name or "").partition(".")[0] in _STEADY


def is_generated(function: types.FunctionType) -> bool:
    """Return True for what PyG writes for a class of layers, which reads nothing else."""
    own = function.__module__.endswith(("_propagate", "_edge_updater"))
    return own and function.__code__.co_filename.startswith(tempfile.gettempdir())


def times_bound(holder: Any) -> int:
    """Return how often a name in a module or class of a package has been seen to be bound to something else."""
    values = list(vars(holder).values())
    number, known = _BOUND.get(holder, (-1, []))
    if len(values) != len(known) or not all(map(operator.is_, values, known)):
        _BOUND[holder] = number, known = number + 1, values
    return number


def globals_of(code: types.CodeType) -> tuple[str, ...] | None:
    """Return the global names that code reads, None where it also binds or imports some."""
    if code not in _GLOBALS:
        steps = list(dis.get_instructions(code))
        names = dict.fromkeys(step.argval for step in steps if step.opname == "LOAD_GLOBAL")
        inner = [globals_of(part) for part in code.co_consts if isinstance(part, types.CodeType)]
        closed = not any(step.opname in _OPEN for step in steps)
        for found in inner:
            names |= dict.fromkeys(found or ())
        _GLOBALS[code] = tuple(names) if closed and None not in inner else None
    return _GLOBALS[code]
