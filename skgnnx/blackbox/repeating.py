"""A function of tensors that is called again and again: soon only its operations are done again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgnnx.blackbox.operations import NoReading, Recorder, TapeError
from skgnnx.blackbox.tape import Results, Tape

FEWEST_CALLS = 16


class Repeated:
    """A function of tensors of the same shapes in every call; soon done from a tape.

    The first call is left alone, because it fills memories, the second is taken down, and the third is done both ways.

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

    def __call__(self, *inputs: Tensor) -> Results:
        """Return what the function returns, without gradients once there is a tape."""
        self._calls += 1
        if self._tape is not None and self._calls > 3:
            return self._tape(*inputs)
        if self._tape is not None:
            return self._compared(*inputs)
        return self._recorded(*inputs) if self._calls == 2 and not self.problem else self.function(*inputs)

    def _recorded(self, *inputs: Tensor) -> Results:
        recorder = Recorder(inputs)
        try:
            with recorder, NoReading(recorder):
                results = self.function(*inputs)
                if not recorder.problem:
                    self._tape = Tape(recorder, len(inputs), results)
                    return results
        except Exception as error:
            # Whatever a model says about being looked at: it only runs slower.
            recorder.problem = recorder.problem or repr(error)
        self.problem = recorder.problem
        return self.function(*inputs)

    def _compared(self, *inputs: Tensor) -> Results:
        results = self.function(*inputs)
        try:
            same = self._tape is None or all(map(_agree, results, self._tape(*inputs)))
        except Exception as error:
            # An operator of the model's own may refuse to run outside of it, in its own words.
            self._tape, self.problem = None, repr(error)
        else:
            if not same:
                self._tape, self.problem = None, "other results"
        return results

    def check(self, *inputs: Tensor) -> None:
        """Raise `TapeError` if the tape no longer gives what the function gives."""
        if self._tape is not None and self._calls > 3:
            self._compared(*inputs)
            if self.problem:
                raise TapeError(self.problem)


def _agree(result: Tensor | None, again: Tensor | None) -> bool:
    if result is None or again is None:
        return result is again
    result, again = result.detach(), again.detach()
    scale = float(result.abs().nan_to_num(0, 0, 0).max()) if result.numel() else 0.0
    rounding = 1e-9 if result.dtype == torch.float64 else 1e-5
    return torch.allclose(result, again, rtol=0, atol=rounding * scale, equal_nan=True)
