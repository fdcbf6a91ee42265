"""A function of tensors that is called again and again: soon only its operations are done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from skgnnx.blackbox.frozen import uncompiled
from skgnnx.blackbox.operations import LITERAL, SAME_TENSOR, Operation, Place, Recorder, TapeError, flat, parts_of
from skgnnx.blackbox.tape import Results, Tape

FEWEST_CALLS = 24
_READING = (
    *("numpy", "tolist", "__array__", "__dlpack__", "data_ptr", "storage", "untyped_storage"),
    *("apply_", "map_", "__deepcopy__", "__reduce_ex__", "register_hook"),
)
READS_NUMBERS = {getattr(Tensor, name) for name in _READING}
MADE_OF_NUMBERS = {torch.tensor: 0, torch.as_tensor: 0, torch.asarray: 0, Tensor.new_tensor: 1, Tensor.new: 1}
DIFFERENTIATES = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}


class NoReading(TorchFunctionMode):
    """Tells a recorder where numbers of its tensors leave torch by ways that no operation tells.

    Parameters
    ----------
    recorder : Recorder
        Which tensors depend on its inputs.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._recorder.problem and not self._recorder.inside:
            self._look(func, args)
        return func(*args, **(kwargs or {}))

    def _look(self, func: Any, args: Any) -> None:
        read: list[Any] = []
        if func in READS_NUMBERS:
            read = args[:2] if func == Tensor.map_ else args[:1]
        elif func == Tensor.data.__set__:  # type: ignore[attr-defined]
            read = args[1:]
        elif func in MADE_OF_NUMBERS:
            read = [value for value in args[MADE_OF_NUMBERS[func] :] if isinstance(value, (list, tuple))]
        elif func in DIFFERENTIATES:
            # Torch looks away during a backward pass, where only functions of the user's own can read anything.
            # What was entered is forgotten by torch itself if one of these stops half-way.
            for node in _python_nodes(args[0]):
                node.register_prehook(self._enter)
                node.register_hook(self._leave)
        for tensor in flat([read]):
            if torch.is_tensor(tensor):
                self._recorder.note_reading(tensor, f"Tensor.{func.__name__}")

    def _enter(self, *gradients: Any) -> None:
        self.__enter__()

    def _leave(self, *gradients: Any) -> None:
        self.__exit__(None, None, None)


def _python_nodes(outputs: Any) -> list[Any]:
    """Return the functions written in Python that a backward pass runs through."""
    waiting = [output.grad_fn for output in flat([outputs]) if torch.is_tensor(output) and output.grad_fn is not None]
    seen = set(waiting)
    found: list[Any] = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found.append(node)
        following = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= following
        waiting += following
    return found


class Follower(TorchDispatchMode):
    """Compares what happens to tensors with what was taken down before.

    Parameters
    ----------
    operations : list of Operation
        What was taken down.
    inputs : sequence of Tensor
        What takes the places of the inputs then.
    """

    supports_higher_order_operators = True

    def __init__(self, operations: list[Operation], inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._expected = iter(operations)
        self._same = True
        self._places = WeakTensorKeyDictionary({tensor: Place(number) for number, tensor in enumerate(inputs)})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self._same and func in SAME_TENSOR and args[0] in self._places:
            self._places[output] = self._places[args[0]]
        elif self._same:
            self._compare(next(self._expected, None), func, [args, kwargs or {}], output)
        return output

    def _compare(self, expected: Operation | None, func: Any, given: list[Any], output: Any) -> None:
        self._same = expected is not None and func is expected.function
        if expected is not None and self._same:
            self._same = self._is(given, [expected.args, expected.kwargs], literal=func is LITERAL)
            for part, place in zip(parts_of(output), expected.made(), strict=False):
                if torch.is_tensor(part):
                    self._places[part] = place

    def _is(self, value: Any, expected: Any, *, literal: bool) -> bool:
        """Return True for equal arguments; tensors from elsewhere that are no literals must be the same, not equal."""
        if isinstance(expected, dict):
            return value.keys() == expected.keys() and all(
                self._is(value[k], expected[k], literal=literal) for k in expected
            )
        if isinstance(expected, (list, tuple)):
            return len(value) == len(expected) and all(
                self._is(*both, literal=literal) for both in zip(value, expected, strict=True)
            )
        if torch.is_tensor(value) and isinstance(expected, Place):
            return bool(self._places.get(value) == expected)
        if torch.is_tensor(value):
            return value is expected or (literal and torch.is_tensor(expected) and _agree(value, expected))
        return type(value) is type(expected) and (value == expected or repr(value) == repr(expected))

    def came_to_the_end(self) -> bool:
        """Return True if everything happened again, and nothing else."""
        return self._same and next(self._expected, None) is None


class Repeated:
    """A function of tensors of the same shapes in every call; soon done from a tape.

    The first call is left alone, because it fills memories. The second is taken down. The third must
    do the same operations on the same tensors. The fourth is left alone again, because some functions do something
    else when they are looked at, and must give what the tape gives.

    Parameters
    ----------
    function : callable
        From tensors to a sequence of tensors or None.
    calls : int
        About how many calls will come; few are not worth a tape.
    problem : str, default=""
        Why there can be no tape, where that is known before.

    Attributes
    ----------
    problem : str
        Why there is no tape; empty if there is one, or none yet.
    """

    def __init__(self, function: Callable[..., Results], calls: int, problem: str = "") -> None:
        self.function = function
        self.problem = problem or ("" if calls >= FEWEST_CALLS else "too few steps")
        self._calls = 0
        self._tape: Tape | None = None
        self._operations: list[Operation] = []

    def __call__(self, *inputs: Tensor) -> Results:
        """Return what the function returns, without gradients once there is a tape; raise `TapeError` if unsure."""
        self._calls += 1
        if self.problem or self._calls == 1:
            return self.function(*inputs)
        if self._tape is None:
            return self._recorded(*inputs)
        if self._calls == 3:
            return self._followed(*inputs)
        return self._compared(self._tape, *inputs) if self._calls == 4 else _again(self._tape, *inputs)

    def _recorded(self, *inputs: Tensor) -> Results:
        recorder = Recorder(inputs)
        results = self._looked_at(recorder, *inputs)
        if self.problem:
            return self.function(*inputs)
        self._tape, self._operations = Tape(recorder, len(inputs), results), recorder.operations
        return results

    def _followed(self, *inputs: Tensor) -> Results:
        follower = Follower(self._operations, inputs)
        self._operations = []
        with uncompiled(), follower:
            results = self.function(*inputs)
        if not follower.came_to_the_end():
            raise TapeError("other operations")
        return results

    def _looked_at(self, recorder: Recorder, *inputs: Tensor) -> Results:
        """Return what the function returns; `problem` says if that cannot come from a tape."""
        results: Results = []
        try:
            # What torch compiles while it is looked at would stay compiled in that way.
            with uncompiled(), recorder, NoReading(recorder):
                results = self.function(*inputs)
        except Exception as error:
            # Whatever a model says about being looked at: it only runs slower.
            recorder.give_up(repr(error))
        self.problem = recorder.problem
        return results

    def _compared(self, tape: Tape, *inputs: Tensor) -> Results:
        results = self.function(*inputs)
        if not all(map(_agree, results, _again(tape, *inputs))):
            raise TapeError("other results")
        return results

    def check(self, *inputs: Tensor) -> None:
        """Raise `TapeError` if the tape no longer gives what the function gives."""
        if self._tape is not None and self._calls > 4:
            self._compared(self._tape, *inputs)


def _again(tape: Tape, *inputs: Tensor) -> Results:
    try:
        return tape(*inputs)
    except TapeError:
        raise
    except Exception as error:
        # An operator of the model's own may refuse to run outside of it, in its own words.
        raise TapeError(repr(error)) from error


def _agree(result: Tensor | None, again: Tensor | None) -> bool:
    """Return True if two tensors are equal, bit for bit where a device does everything in the same order each time."""
    if result is None or again is None:
        return result is again
    result, again = result.detach(), again.detach()
    if result.shape != again.shape or result.dtype != again.dtype:
        return False
    ordered = result.device.type == "cpu" or not result.numel()
    scale = 0.0 if ordered else float(result.abs().nan_to_num(0, 0, 0).max())
    rounding = 1e-9 if result.dtype == torch.float64 else 1e-5
    return torch.allclose(result, again, rtol=0, atol=rounding * scale, equal_nan=True)
