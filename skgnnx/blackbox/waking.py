"""Networks without sleeping units: what cannot pass a ReLU now may pass it under a mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SLOPE = 0.5
_COPYING = {functional.relu, torch.relu, Tensor.relu}
_IN_PLACE = {functional.relu_, torch.relu_, Tensor.relu_}


def relu_call(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, bool] | None:
    """Return what a ReLU is taken of, and whether in place; None for any other function.

    Parameters
    ----------
    func : callable
        As a function mode of torch gets it.
    args : tuple
    kwargs : dict
    """
    if func not in _COPYING and func not in _IN_PLACE:
        return None
    in_place = func in _IN_PLACE or kwargs.get("inplace") or args[1:2] == (True,)
    return args[0] if args else kwargs["input"], bool(in_place)


class Awake(TorchFunctionMode):
    """Lets every ReLU pass a part of what is negative.

    Two cuts of a graph that give the same output then agree in all of their units, and not only in those that happen to
    be active.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        found = relu_call(functional.relu if func is functional.relu6 else func, args, given)
        if found is None:
            return func(*args, **given)
        value, in_place = found
        return functional.leaky_relu(value, SLOPE, inplace=in_place)
