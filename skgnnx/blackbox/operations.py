"""What a function does with tensors, taken down operation by operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from skgnnx.blackbox.hooks import mapped

_aten = torch.ops.aten

SAME_TENSOR = {_aten.detach.default, _aten.alias.default}
OF_A_SHAPE = {_aten.new_zeros.default, _aten.new_ones.default, _aten.zeros_like.default, _aten.ones_like.default}
OF_A_SHAPE |= {_aten.is_same_size.default, _aten.is_pinned.default}
_TRUTH = (torch.bool, torch.uint8)
LITERAL = _aten.lift_fresh.default
_BLANK = {_aten.empty.memory_format, _aten.empty_strided.default, _aten.empty_like.default, _aten.new_empty.default}
_PLAIN_TYPES = (Tensor, nn.Parameter)


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
    function : OpOverload
        An operator of torch.
    args, kwargs : tuple, dict
        Its arguments; a `Place` for each tensor that has one.
    outputs : Place or tuple of Place
        What it returns.
    storages : set of int
        Memory of what goes in and comes out.
    shapes : list
        Shape of each output that is a tensor.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Place | tuple[Place, ...]
    storages: set[int]
    shapes: list[Any]

    def inputs(self) -> list[Place]:
        """Return the places that it reads."""
        return [value for value in flat([self.args, self.kwargs]) if isinstance(value, Place)]

    def made(self) -> tuple[Place, ...]:
        """Return the places that it fills."""
        return (self.outputs,) if isinstance(self.outputs, Place) else self.outputs


class Recorder(TorchDispatchMode):
    """Takes down what happens to some tensors inside of its context, in backward passes, too.

    It never raises, because not all of torch survives that. Operations cannot be done again if one draws random
    numbers, makes something else than tensors of the inputs, or writes into a tensor that was there before.

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
        Why the operations cannot be done again; empty if they can.
    inside : bool
        True while an operation runs.
    """

    supports_higher_order_operators = True

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.constants: dict[Place, Any] = {}
        self.written: set[int] = set()
        self.size = len(inputs)
        self.problem = ""
        self.inside = False
        # A tensor that nobody else holds is let go, as it would be if nobody looked on.
        self._places = WeakTensorKeyDictionary()
        self._depending = {Place(number) for number in range(len(inputs))}
        # Addresses of memory: made in here, holding what depends on inputs, never filled, and known outside of torch.
        self._made, self._filled, self._blank, self._read = (set[int]() for _ in range(4))
        for number, tensor in enumerate(inputs):
            self._places[tensor] = Place(number)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, self.inside = kwargs or {}, True
        try:
            if not isinstance(func, torch._ops.OpOverload):
                self.give_up(f"{func} is more than an operation on tensors")
            given = [] if self.problem else _tensors([args, kwargs])
            if any(type(tensor) not in _PLAIN_TYPES for tensor in given):
                self.give_up(f"{func} is given tensors of another class")
                given = []
            before = {_storage(tensor) for tensor in given}
            if func is LITERAL:  # its memory is new, though it may have been used before
                self._filled, self._read = self._filled - before, self._read - before
            depends = func not in OF_A_SHAPE and any(map(self.depends, given))
            output = func(*args, **kwargs)
            if not self.problem:
                self._note(func, args, kwargs, output, before, depends)
            return output
        finally:
            self.inside = False

    def _note(self, func: Any, args: Any, kwargs: Any, output: Any, before: set[int], depends: bool) -> None:
        if func in SAME_TENSOR and args[0] in self._places:
            self._places[output] = self._places[args[0]]
            return
        parts = parts_of(output)
        self._refuse(func, args, parts, depends)
        storages = (before | {_storage(tensor) for tensor in _tensors(parts)}) - {0}
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        fresh = set() if views else storages - before
        self._made |= fresh
        # Memory that was freed may be used again.
        self._filled, self._read = self._filled - fresh, self._read - fresh
        written = self._writes(func, args, kwargs, depends)
        if not views and not (before - written).isdisjoint(self._blank):
            self.give_up(f"{func} reads what nothing that is known has filled")
        self._blank = (self._blank - written - fresh) | (fresh if func in _BLANK else set())
        placed = mapped(self.place_of, tuple(args)), {name: mapped(self.place_of, v) for name, v in kwargs.items()}
        places = self._new_places(parts, depends)
        whole = places[0] if torch.is_tensor(output) else places
        self.operations.append(Operation(func, *placed, whole, storages, shapes_of(output)))

    def _refuse(self, func: Any, args: Any, parts: list[Any], depends: bool) -> None:
        """Give up where an operation cannot be done again."""
        if torch.Tag.nondeterministic_seeded in func.tags and _argument(func, args, "dropout_p") != 0:
            self.give_up(f"{func} draws random numbers")
        if depends and not all(value is None or torch.is_tensor(value) for value in parts):
            self.give_up(f"{func} makes something else than tensors")
        shaped = torch.Tag.dynamic_output_shape in func.tags or func._schema.name.startswith("aten::_to_sparse")
        if depends and shaped and self._chooses(func, args):
            self.give_up(f"{func} makes tensors of another shape each time")

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

    def _writes(self, func: Any, args: Any, kwargs: Any, depends: bool) -> set[int]:
        """Return the memory that an operation writes to."""
        found: set[int] = set()
        for number, argument in enumerate(func._schema.arguments if func._schema.is_mutable else ()):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = _tensors([args[number] if number < len(args) else kwargs.get(argument.name)])
                found |= {_storage(tensor) for tensor in given if tensor.layout != torch.strided or tensor.numel()}
        if not found <= self._made:
            self.give_up(f"{func} writes into a tensor that was there before")
        if not found.isdisjoint(self._read):
            self.give_up(f"{func} writes into a tensor whose numbers were read")
        self.written |= found
        self._filled |= found if depends else set()
        return found

    def note_reading(self, tensor: Tensor, how: str) -> None:
        """Note that numbers of a tensor leave torch; those that depend on inputs must not."""
        if self.depends(tensor):
            self.give_up(f"{how} reads numbers")
        else:
            self._read.add(_storage(tensor))

    def give_up(self, problem: str) -> None:
        """Note why operations cannot be done again, and stop taking them down."""
        self.problem = self.problem or problem
        self.operations, self.constants = [], {}

    def place_of(self, value: Any) -> Any:
        """Return the place of a tensor that has one, anything else as it is."""
        return self._places.get(value, value) if torch.is_tensor(value) else value

    def depends(self, tensor: Tensor) -> bool:
        """Return True if a tensor was made of the inputs, or shares memory with one that was."""
        return self._places.get(tensor) in self._depending or _storage(tensor) in self._filled


def parts_of(output: Any) -> list[Any]:
    """Return the tensors, numbers and missing values that an operation returned, one by one."""
    return [] if output is None else list(flat([output]))


def shapes_of(output: Any) -> list[Any]:
    """Return the shape of each tensor that an operation returned, None for what is no tensor."""
    return [part.shape if torch.is_tensor(part) else None for part in parts_of(output)]


def _argument(func: Any, args: Any, name: str) -> Any:
    """Return an argument that may be given by its place; None where there is no such argument."""
    for number, argument in enumerate(func._schema.arguments):
        if argument.name == name:
            return args[number] if number < len(args) else argument.default_value
    return None


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
