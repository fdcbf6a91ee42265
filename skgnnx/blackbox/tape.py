"""Operations on tensors, done again for other numbers without the Python around them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skgnnx.blackbox.hooks import mapped
from skgnnx.blackbox.operations import OF_A_SHAPE, Operation, Place, Recorder, TapeError, shapes_of

Results = Sequence[Tensor | None]


class Step(NamedTuple):
    """An operation as it is done again: on which values, which it makes, and which of them nobody needs any more."""

    function: Callable[..., Any]
    inputs: tuple[int, ...]
    output: int
    done: tuple[int, ...] = ()


class Tape:
    """The operations that lead from some tensors to the results of a function, to be done again for other tensors.

    What does not depend on the inputs is kept, what was done twice is done once, and values are let go after their
    last use.

    Parameters
    ----------
    recorder : Recorder
        What was taken down while the function ran.
    num_inputs : int
    results : sequence of Tensor or None
        What the function returned.
    """

    def __init__(self, recorder: Recorder, num_inputs: int, results: Results) -> None:
        inputs = {Place(number) for number in range(num_inputs)}
        places = [recorder.place_of(tensor) for tensor in results]
        operations = recorder.operations
        if not recorder.written:
            operations, places = _without_repetitions(operations, places)
        operations = _needed(_depending(operations, inputs, recorder.written), places, recorder.written)
        made = {place for operation in operations for place in operation.made()}
        self._constants = {place: value for place, value in recorder.constants.items() if place not in made}
        self._values: list[Any] = [None] * recorder.size
        steps = [step for operation in operations for step in self._steps_of(operation)]
        self._results = [self._number(place) for place in places]
        self._steps = _letting_go(steps, {*range(num_inputs), *self._results})
        del self._constants

    def __call__(self, *inputs: Tensor) -> Results:
        """Return the results for other inputs of the same shapes, without gradients."""
        values = self._values.copy()
        values[: len(inputs)] = inputs
        with torch.inference_mode():
            for function, taken, made, done in self._steps:
                values[made] = function(*[values[number] for number in taken])
                for number in done:
                    values[number] = None
        return [values[number] for number in self._results]

    def _steps_of(self, operation: Operation) -> list[Step]:
        """Return the steps of an operation; lists of values are made, and taken apart, by steps of their own."""
        function, args = operation.function, operation.args
        if function.namespace != "aten":
            function = partial(_of_shapes, function, operation.shapes)
        if any(isinstance(value, Place) for value in operation.kwargs.values()):
            function = partial(_with_keywords, function, len(args), tuple(operation.kwargs))
            args = (*args, *operation.kwargs.values())
        elif operation.kwargs:
            function = partial(function, **operation.kwargs)
        inputs = tuple(map(self._number, args))
        lists = [
            Step(_listed, tuple(map(self._number, value)), number)
            for value, number in zip(args, inputs, strict=True)
            if isinstance(value, (list, tuple)) and any(isinstance(part, Place) for part in value)
        ]
        if isinstance(operation.outputs, Place):
            return [*lists, Step(function, inputs, operation.outputs.number)]
        whole = self._number(None)
        parts = [
            Step(operator.getitem, (whole, self._number(i)), place.number) for i, place in enumerate(operation.outputs)
        ]
        return [*lists, Step(function, inputs, whole), *parts]

    def _number(self, value: Any) -> int:
        """Return where a value is found; what stays is put there."""
        if not isinstance(value, Place):
            self._values.append(value)
            return len(self._values) - 1
        if value in self._constants:
            self._values[value.number] = self._constants[value]
        return value.number


def _listed(*parts: Any) -> list[Any]:
    return list(parts)


def _of_shapes(function: Any, shapes: list[Any], *args: Any, **kwargs: Any) -> Any:
    """Call an operator that may return as much as it likes, which Python that is not done again may have looked at."""
    result = function(*args, **kwargs)
    if shapes != shapes_of(result):
        raise TapeError(f"{function} makes tensors of another shape each time")
    return result


def _with_keywords(function: Any, positional: int, names: tuple[str, ...], *values: Any) -> Any:
    return function(*values[:positional], **dict(zip(names, values[positional:], strict=True)))


def _depending(operations: list[Operation], inputs: set[Place], written: set[int]) -> list[Operation]:
    """Return the operations that have to be done again: on what depends on inputs, or in memory that is written to."""
    changing, found = set(inputs), []
    for operation in operations:
        reads = operation.function not in OF_A_SHAPE and not changing.isdisjoint(operation.inputs())
        if reads or operation.storages & written:
            found.append(operation)
            changing.update(operation.made())
    return found


def _needed(operations: list[Operation], results: list[Any], written: set[int]) -> list[Operation]:
    """Leave out operations that lead to no result; operators whose results may have any shape are looked at."""
    needed, found = {place for place in results if isinstance(place, Place)}, []
    for operation in reversed(operations):
        kept = operation.storages & written or operation.function.namespace != "aten"
        if kept or not needed.isdisjoint(operation.made()):
            needed.update(operation.inputs())
            found.append(operation)
    return found[::-1]


def _without_repetitions(operations: list[Operation], results: list[Any]) -> tuple[list[Operation], list[Any]]:
    """Do once what is done several times with the same values, where no memory is written to."""
    found: dict[Any, Operation] = {}
    same: dict[Place, Place] = {}

    def renamed(value: Any) -> Any:
        return same.get(value, value) if isinstance(value, Place) else value

    for operation in operations:
        kwargs = {name: mapped(renamed, value) for name, value in operation.kwargs.items()}
        operation = operation._replace(args=mapped(renamed, operation.args), kwargs=kwargs)
        first = found.setdefault(_key([operation.function, operation.args, operation.kwargs]), operation)
        same |= dict(zip(operation.made(), first.made(), strict=True))
    return list(found.values()), [renamed(place) for place in results]


def _key(value: Any) -> Any:
    """Return what is equal for equal arguments; tensors are equal only to themselves."""
    if isinstance(value, (list, tuple, dict)):
        return (*map(_key, value.items() if isinstance(value, dict) else value),)
    if isinstance(value, float):  # 0.0 equals -0.0
        value = value.hex()
    return (type(value), id(value) if torch.is_tensor(value) else value)


def _letting_go(steps: list[Step], kept: set[int]) -> list[Step]:
    """Let go of every value that a step made after the last step that takes it."""
    found, seen = [], set(kept)
    made = {step.output for step in steps}
    for step in reversed(steps):
        done = (made & {*step.inputs, step.output}) - seen
        seen |= done
        found.append(step._replace(done=tuple(done)))
    return found[::-1]
