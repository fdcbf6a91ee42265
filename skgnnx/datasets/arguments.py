"""Checks of the parameters of functions, in the words that estimators use."""

from __future__ import annotations

from typing import Any

from skgnnx.validation import Interval


def check_arguments(function: str, **arguments: tuple[Any, Interval | tuple[Any, ...]]) -> None:
    """Check each named value against an interval or a tuple of choices.

    Raises
    ------
    ValueError
        Naming the first parameter outside of its range, of which function, what it must be, and what it is.
    """
    for name, (value, allowed) in arguments.items():
        if value not in allowed:
            must_be = str(allowed) if isinstance(allowed, Interval) else " or ".join(map(repr, allowed))
            raise ValueError(f"The {name!r} parameter of {function} must be {must_be}. Got {value!r} instead.")
