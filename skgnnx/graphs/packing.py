"""Python values as JSON and plain arrays, without pickle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

PLAIN = (str, int, float, bool, type(None))


class Packer:
    """Turns numbers, strings, arrays, and lists, tuples and dicts of these into JSON; arrays go to shared buffers.

    A file then has a few large members instead of one per array. Tensors come back as arrays, everything else as what
    it was.

    Examples
    --------
    >>> import numpy as np
    >>> from skgnnx.graphs.packing import Packer, unpack
    >>> packer = Packer()
    >>> tree = packer.pack({"a": [1, np.arange(3)]}, "extras")
    >>> unpack(tree, packer.buffers())
    {'a': [1, array([0, 1, 2])]}
    """

    def __init__(self) -> None:
        self._pieces: dict[str, list[np.ndarray]] = {}
        self._sizes: dict[str, int] = {}

    def buffers(self) -> dict[str, np.ndarray]:
        """Return all array values, joined by dtype."""
        return {dtype: np.concatenate(pieces) for dtype, pieces in self._pieces.items()}

    def pack(self, value: Any, name: str) -> Any:
        """Return a value as a JSON tree.

        Parameters
        ----------
        value : object
            What to pack.
        name : str
            What the value is called in errors.

        Returns
        -------
        object
            Lists, plain values, and dicts of one key that say what stood there.

        Raises
        ------
        TypeError
            If something else is in there; the message has `name`.
        """
        if isinstance(value, np.generic):
            return {"scalar": self._place(np.asarray(value), name)}
        if isinstance(value, PLAIN):
            return value
        if torch.is_tensor(value):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray) and value.dtype != object:
            return {"array": self._place(value, name)}
        if isinstance(value, np.ndarray):
            return {"objects": [self.pack(item, name) for item in value.reshape(-1)], "shape": value.shape}
        if isinstance(value, list):
            return [self.pack(item, name) for item in value]
        if isinstance(value, tuple):
            return {"tuple": [self.pack(item, name) for item in value]}
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"dict": {key: self.pack(item, name) for key, item in value.items()}}
        raise TypeError(
            f"{name} must hold numbers, strings, arrays, and lists, tuples or str-keyed dicts of these to be saved. "
            f"Got {type(value).__name__}; convert or remove it first."
        )

    def _place(self, array: np.ndarray, name: str) -> list[Any]:
        if array.dtype.hasobject or array.dtype.names is not None:
            raise TypeError(
                f"{name} must hold arrays of a plain dtype to be saved. Got {array.dtype}; convert it first."
            )
        dtype = array.dtype.str
        start = self._sizes.get(dtype, 0)
        self._pieces.setdefault(dtype, []).append(array.reshape(-1))
        self._sizes[dtype] = start + array.size
        return [dtype, start, list(array.shape)]


def unpack(tree: Any, buffers: dict[str, np.ndarray]) -> Any:
    """Return the value that `Packer.pack` turned into a tree.

    Parameters
    ----------
    tree : object
        What `Packer.pack` returned, also after a round through JSON.
    buffers : dict of str to ndarray
        What `Packer.buffers` returned.

    Returns
    -------
    object
    """
    if isinstance(tree, list):
        return [unpack(item, buffers) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return _taken(tree["array"], buffers)
    if "scalar" in tree:
        return _taken(tree["scalar"], buffers)[()]
    if "tuple" in tree:
        return tuple(unpack(item, buffers) for item in tree["tuple"])
    if "dict" in tree:
        return {key: unpack(item, buffers) for key, item in tree["dict"].items()}
    objects = np.empty(len(tree["objects"]), dtype=object)
    for i, item in enumerate(tree["objects"]):
        objects[i] = unpack(item, buffers)
    return objects.reshape(tree["shape"])


def _taken(place: list[Any], buffers: dict[str, np.ndarray]) -> np.ndarray:
    dtype, start, shape = place
    return buffers[dtype][start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape).copy()
