"""Parameter constraints: the type of a field says what it may be, and one function checks it."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
    """An int or a float inside bounds.

    Parameters
    ----------
    kind : type
        ``int`` or ``float``.
    low, high : float
        Bounds.
    open_low : bool
        Whether `low` itself is outside.
    """

    kind: type
    low: float
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: Any) -> bool:
        number = numbers.Integral if self.kind is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number):
            return False
        size = float(value)
        return (self.low < size if self.open_low else self.low <= size) and size <= self.high and math.isfinite(size)

    def __str__(self) -> str:
        name = "an int" if self.kind is int else "a float"
        closing = ")" if math.isinf(self.high) else "]"
        return f"{name} in the range {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{closing}"


PositiveInt = Annotated[int, Interval(int, 1)]
NonNegativeInt = Annotated[int, Interval(int, 0)]
PositiveFloat = Annotated[float, Interval(float, 0, open_low=True)]
NonNegativeFloat = Annotated[float, Interval(float, 0)]
Fraction = Annotated[float, Interval(float, 0, 1)]
BatchSize = PositiveInt | Literal["auto"]


def check_parameters(estimator: Any) -> None:
    """Check every field of a dataclass estimator against its type.

    Parameters
    ----------
    estimator : dataclass instance
        Its annotated fields are its parameters and their constraints.

    Raises
    ------
    ValueError
        Naming the first parameter that breaks its constraint, of whom, what it must be, and what it is.
    """
    hints = _hints(type(estimator))  # type: ignore[arg-type]  # types are hashable
    for field in dataclasses.fields(estimator):
        value, hint = getattr(estimator, field.name), hints[field.name]
        if get_origin(hint) is not ClassVar and not _accepts(hint, value):
            raise ValueError(
                f"The {field.name!r} parameter of {type(estimator).__name__} must be {_describe(hint)}. Got "
                f"{value!r} instead."
            )


@functools.lru_cache(maxsize=64)
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _accepts(hint: Any, value: Any) -> bool:
    origin = get_origin(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin is Annotated:
        return all(value in constraint for constraint in get_args(hint)[1:])
    if origin in (Union, types.UnionType):
        return any(_accepts(part, value) for part in get_args(hint))
    if origin is Literal:
        return any(value is option or (isinstance(value, str) and value == option) for option in get_args(hint))
    if origin is Callable or hint is Callable:
        return callable(value)
    if hint in (int, float):
        number = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if hint is bool:
        # A grid that is given as an array holds numpy's own booleans.
        return isinstance(value, (bool, np.bool_))
    return isinstance(value, origin or hint)


def _describe(hint: Any) -> str:
    origin = get_origin(hint)
    if hint is None or hint is type(None):
        return "None"
    if origin is Annotated:
        return " and ".join(str(constraint) for constraint in get_args(hint)[1:])
    if origin in (Union, types.UnionType):
        parts = [_describe(part) for part in get_args(hint)]
        return f"{', '.join(parts[:-1])} or {parts[-1]}"
    if origin is Literal:
        return " or ".join(repr(option) for option in get_args(hint))
    if origin is Callable or hint is Callable:
        return "a callable"
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
