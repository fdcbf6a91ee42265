"""The type of a field is its constraint: every kind of type, at its borders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from skgnnx.validation import (
    BatchSize,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_parameters,
)


@dataclasses.dataclass
class Parameters:
    """One field of every kind."""

    count: PositiveInt = 1
    from_zero: NonNegativeInt = 0
    rate: PositiveFloat = 0.1
    weight: NonNegativeFloat = 0.0
    share: Fraction = 0.5
    size: BatchSize = "auto"
    mode: Literal["a", "b"] | None = None
    flag: bool = True
    number: float | None = None
    function: Callable | None = None
    name: str = "x"
    anything: Any = None
    fixed: ClassVar[int] = 3


GOOD = {
    "count": [1, np.int64(7)],
    "from_zero": [0, 5],
    "rate": [1e-9, 3, np.float32(0.5)],
    "weight": [0, 0.0, 2.5],
    "share": [0, 1, 0.3],
    "size": [1, "auto"],
    "mode": ["a", "b", None],
    "flag": [True, False, np.True_],
    "number": [1, 2.5, None],
    "function": [len, None],
    "name": ["y", ""],
    "anything": [object(), None],
}
BAD = {
    "count": [0, -1, 1.0, True, "1", None],
    "from_zero": [-1, 0.5],
    "rate": [0, -1e-9, float("inf"), float("nan"), "0.1", True],
    "weight": [-1e-9, None],
    "share": [-0.01, 1.01, "all"],
    "size": [0, "all", 2.0],
    "mode": ["c", 1, True],
    "flag": [1, 0, "yes", None],
    "number": ["1", True],
    "function": [3, "len"],
    "name": [1, None],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in GOOD.items() for v in values])
def test_accepted(field, value):
    check_parameters(Parameters(**{field: value}))


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in BAD.items() for v in values])
def test_refused_by_name_and_value(field, value):
    with pytest.raises(ValueError, match=rf"The '{field}' parameter of Parameters must be .+\. Got .+ instead\."):
        check_parameters(Parameters(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("count", 0, r"an int in the range \[1, inf\)\. Got 0 instead"),
        ("rate", 0, r"a float in the range \(0, inf\)"),
        ("share", 2, r"a float in the range \[0, 1\]"),
        ("size", 0, r"an int in the range \[1, inf\) or 'auto'"),
        ("mode", "c", r"'a' or 'b'"),
        ("function", 3, r"a callable or None"),
        ("flag", 1, r"a bool"),
    ],
)
def test_says_what_it_must_be(field, value, words):
    with pytest.raises(ValueError, match=words):
        check_parameters(Parameters(**{field: value}))
