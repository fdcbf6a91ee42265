"""Checks of the parameters of generators."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def check_int(function: str, **bounded: tuple[Any, int]) -> None:
    """Raise ValueError unless each named value is an int that is at least its bound."""
    for name, (value, low) in bounded.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
            raise ValueError(
                f"The {name!r} parameter of {function} must be an int in the range [{low}, inf). Got {value!r} instead."
            )


def check_float(function: str, **bounded: tuple[Any, float]) -> None:
    """Raise ValueError unless each named value is a finite number that is at least its bound."""
    for name, (value, low) in bounded.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not low <= float(value) < float("inf"):
            raise ValueError(
                f"The {name!r} parameter of {function} must be a float in [{low}, inf). Got {value!r} instead."
            )


def check_choice(function: str, **chosen: tuple[Any, tuple[str, ...]]) -> None:
    """Raise ValueError unless each named value is one of its choices."""
    for name, (value, choices) in chosen.items():
        if value not in choices:
            raise ValueError(f"The {name!r} parameter of {function} must be one of {choices}. Got {value!r} instead.")
