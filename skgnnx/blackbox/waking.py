"""Networks without sleeping units: what cannot pass a ReLU now may pass it under a mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SLOPE = 0.5
_COPYING = {functional.relu, torch.relu, Tensor.relu, functional.relu6}
_IN_PLACE = {functional.relu_, torch.relu_, Tensor.relu_}


class Awake(TorchFunctionMode):
    """Lets every ReLU pass a part of what is negative.

    Two cuts of a graph that give the same output then agree in all of their units, and not only in those that happen to
    be active.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func not in _COPYING and func not in _IN_PLACE:
            return func(*args, **given)
        value = args[0] if args else given["input"]
        in_place = func in _IN_PLACE or given.get("inplace") or args[1:2] == (True,)
        return functional.leaky_relu(value, SLOPE, inplace=bool(in_place))
