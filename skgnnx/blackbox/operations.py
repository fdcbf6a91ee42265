"""What a function does with tensors, taken down operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from skgnnx.blackbox.hooks import mapped

_aten = torch.ops.aten

SAME_TENSOR = {_aten.detach.default, _aten.alias.default}
OF_A_SHAPE = {_aten.new_zeros.default, _aten.new_ones.default, _aten.zeros_like.default, _aten.ones_like.default}
_TRUTH = (torch.bool, torch.uint8)
READS_NUMBERS = {getattr(Tensor, name) for name in ("numpy", "tolist", "__array__", "__dlpack__", "data_ptr")}


class TapeError(Exception):
    """A function does what cannot be done again from a list of operations."""


@dataclass(frozen=True)
class Place:
    """The number of a tensor that was given, or made while operations were taken down."""

    number: int


class Operation(NamedTuple):
    """One operation on tensors.

    Parameters
    ----------
    function : callable
        An operator of torch.
    args, kwargs : tuple, dict
        Its arguments; a `Place` for each tensor that has one.
    outputs : Place or tuple of Place
        What it returns.
    storages : set of int
        Memory of what goes in and comes out.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Place | tuple[Place, ...]
    storages: set[int]

    def inputs(self) -> list[Place]:
        """Return the places that it reads."""
        return [value for value in flat([self.args, self.kwargs]) if isinstance(value, Place)]

    def made(self) -> tuple[Place, ...]:
        """Return the places that it fills."""
        return (self.outputs,) if isinstance(self.outputs, Place) else self.outputs


class Recorder(TorchDispatchMode):
    """Takes down what happens to some tensors inside of its context, in backward passes, too.

    Parameters
    ----------
    inputs : sequence of Tensor
        What will be other tensors next time; places 0, 1, ...

    Attributes
    ----------
    operations : list of Operation
        In their order.
    constants : dict
        What was made without the inputs, by place.
    written : set of int
        Memory that was written to.
    size : int
        Number of places.
    problem : str
        Why the operations cannot be done again; empty if they can. A model may catch the error that says so.

    Raises
    ------
    TapeError
        If an operation draws random numbers, makes something else than tensors of the inputs, or writes into a tensor
        that was there before.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.constants: dict[Place, Any] = {}
        self.written: set[int] = set()
        self.size = len(inputs)
        self.problem = ""
        # A tensor that nobody else holds is let go, as it would be if nobody looked on.
        self._places = WeakTensorKeyDictionary()
        self._depending = {Place(number) for number in range(len(inputs))}
        self._made: set[int] = set()
        for number, tensor in enumerate(inputs):
            self._places[tensor] = Place(number)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors([args, kwargs])
        before = {_storage(tensor) for tensor in given}
        depends = func not in OF_A_SHAPE and any(map(self.depends, given))
        output = func(*args, **kwargs)
        parts = list(flat([output]))
        made = _tensors(parts)
        if func in SAME_TENSOR and given[0] in self._places:
            self._places[output] = self._places[given[0]]
            return output
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.give_up(f"{func} draws random numbers")
        if depends and not all(value is None or torch.is_tensor(value) for value in parts):
            self.give_up(f"{func} makes something else than tensors")
        if depends and torch.Tag.dynamic_output_shape in func.tags and self._chooses(func, args):
            self.give_up(f"{func} makes tensors of another shape each time")
        self._made |= {_storage(tensor) for tensor in made} - before
        if func._schema.is_mutable:
            self._note_writes(func, args, kwargs)
        storages = (before | {_storage(tensor) for tensor in made}) - {0}
        placed = mapped(self.place_of, tuple(args)), {name: mapped(self.place_of, v) for name, v in kwargs.items()}
        places = self._new_places(parts, depends)
        self.operations.append(Operation(func, *placed, places[0] if torch.is_tensor(output) else places, storages))
        return output

    def _chooses(self, func: Any, args: Any) -> bool:
        """Return True if the inputs decide how much an operation returns; whole numbers that index do not."""
        chosen = _tensors([args[1]]) if func is _aten.index.Tensor else []
        return func is not _aten.index.Tensor or any(self.depends(c) and c.dtype in _TRUTH for c in chosen)

    def _new_places(self, parts: list[Any], depends: bool) -> tuple[Place, ...]:
        places = tuple(Place(self.size + number) for number in range(len(parts)))
        self.size += len(parts)
        for part, place in zip(parts, places, strict=True):
            if torch.is_tensor(part):
                self._places[part] = place
            if depends:
                self._depending.add(place)
            else:
                self.constants[place] = part
        return places

    def _note_writes(self, func: Any, args: Any, kwargs: Any) -> None:
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            storages = {_storage(tensor) for tensor in _tensors([value])}
            if not storages <= self._made:
                self.give_up(f"{func} writes into a tensor that was there before")
            self.written |= storages

    def give_up(self, problem: str) -> None:
        """Note why operations cannot be done again, and raise `TapeError`."""
        self.problem = problem
        raise TapeError(problem)

    def place_of(self, value: Any) -> Any:
        """Return the place of a tensor that has one, anything else as it is."""
        return self._places.get(value, value) if torch.is_tensor(value) else value

    def depends(self, tensor: Tensor) -> bool:
        """Return True if a tensor was made of the inputs."""
        return self._places.get(tensor) in self._depending


class NoReading(TorchFunctionMode):
    """Raises `TapeError` where numbers of recorded tensors leave torch by ways that no operation tells.

    Parameters
    ----------
    recorder : Recorder
        Which tensors depend on its inputs.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS_NUMBERS and self._recorder.depends(args[0]):
            self._recorder.give_up(f"Tensor.{func.__name__} reads numbers")
        return func(*args, **(kwargs or {}))


def flat(values: Any) -> Iterator[Any]:
    """Yield what lists, tuples and dicts hold, and what those inside hold."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, (list, tuple, dict)):
            yield from flat(value)
        else:
            yield value


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in flat(values) if torch.is_tensor(value)]


def _storage(tensor: Tensor) -> int:
    """Return the address of a tensor's memory; 0 where it has none that a write could reach."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0
