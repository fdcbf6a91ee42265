"""What all tasks of a call need, sent to every worker once."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from threading import Lock
from typing import Any
from uuid import uuid4

import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend

try:
    import cloudpickle
except ImportError:  # up to 1.5, joblib had a copy instead of the dependency
    from joblib.externals import cloudpickle

MAPPED_FROM = 2**20  # bytes; joblib maps arrays into memory from this size on
CALLS_KEPT = 2

_OPENED: OrderedDict[str, Any] = OrderedDict()
_LOCK = Lock()


class Parcel:
    """A Python value on its way to workers.

    joblib pickles the arguments of every task, models included, but it maps large arrays into the memory of all
    processes of a machine once, and Dask scatters a large argument once. So a parcel is arrays: the large ones of the
    value as they are, and one with the pickle of everything else. A worker unpickles it once for all of its tasks.

    Parameters
    ----------
    content : object
        Must not be changed by the tasks. Where tasks stay in this process, they get this very object.

    Raises
    ------
    TypeError
        When the parcel is packed, if something in it cannot be pickled.

    Examples
    --------
    >>> import pickle
    >>> from skgnnx.parallel.parcel import Parcel
    >>> sent = [pickle.loads(pickle.dumps(Parcel({"weights": [1, 2]}).packed())) for _ in range(2)]
    >>> sent[0].open()
    {'weights': [1, 2]}
    """

    def __init__(self, content: Any) -> None:
        self.key = uuid4().hex
        self._content = content
        self._here = True
        self._arrays: list[np.ndarray] = []

    def packed_for(self, n_jobs: int | None) -> Parcel:
        """Return the parcel, packed if joblib's active backend runs `n_jobs` tasks at a time in other processes."""
        away = effective_n_jobs(n_jobs) > 1 and not getattr(get_active_backend()[0], "supports_sharedmem", False)
        return self.packed() if away else self

    def packed(self) -> Parcel:
        """Pack the content for other processes and return the parcel."""
        file = io.BytesIO()
        packer = _ArrayPicker(file)
        try:
            packer.dump(self._content)
        except (pickle.PicklingError, TypeError, AttributeError, RuntimeError) as error:
            raise TypeError(
                f"The model and the explainer must be picklable to travel to worker processes. Got {error}; use "
                "n_jobs=1, or parallel_config('threading')."
            ) from error
        self._arrays = [np.frombuffer(file.getbuffer(), dtype=np.uint8), *packer.arrays]
        return self

    def open(self) -> Any:
        """Return the content, in a worker the same object for every task."""
        if self._here:
            return self._content
        with _LOCK:
            if self.key not in _OPENED:
                _OPENED[self.key] = _ArrayPlacer(self._arrays).load()
            _OPENED.move_to_end(self.key)
            while len(_OPENED) > CALLS_KEPT:
                _OPENED.popitem(last=False)
            return _OPENED[self.key]

    @property
    def nbytes(self) -> int:
        """Number of bytes that travel."""
        return sum(array.nbytes for array in self._arrays)

    def __sizeof__(self) -> int:
        # Dask scatters arguments whose size is more than a kilobyte.
        return object.__sizeof__(self) + self.nbytes

    def __getstate__(self) -> dict[str, Any]:
        if not self._arrays:
            self.packed()
        return {"key": self.key, "_arrays": self._arrays, "_content": None, "_here": False}


class _ArrayPicker(cloudpickle.CloudPickler):
    """Pickles classes of scripts by value, and leaves large arrays to the side, each once."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.arrays: list[np.ndarray] = []
        self._places: dict[int, int] = {}

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, np.ndarray) or value.nbytes < MAPPED_FROM or value.dtype.hasobject:
            return None
        if id(value) not in self._places:
            self._places[id(value)] = len(self.arrays)
            self.arrays.append(value)
        return self._places[id(value)]


class _ArrayPlacer(pickle.Unpickler):
    """Unpickles the first of the arrays, and puts the others where they were."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        super().__init__(io.BytesIO(arrays[0].tobytes()))
        self._others = arrays[1:]

    def persistent_load(self, place: int) -> np.ndarray:
        return self._others[place]
