"""What an `Explanations` holds, and how it is read as an array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from skgnnx.graphs.entries import DenseSequence, Entries, as_ragged, is_int, positions_of
from skgnnx.graphs.explanation_checks import check_entries, check_lengths
from skgnnx.graphs.instances import Instances

FIELDS = (
    *("instances", "masks", "kind", "targets", "errors", "extras", "sparsity", "hard"),
    *("model", "model_digest", "explainer", "params", "box"),
)
LARGEST_ARRAY = 10**9  # bytes
# What the results of some methods can be asked besides: functions of the explanations, by explainer and name.
RESULT_METHODS: dict[tuple[str, str], Callable[..., Any]] = {}


def result_method(explainer: str, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that makes a function of explanations a method of those that one explainer has made.

    Parameters
    ----------
    explainer : str
        Name of its class.
    name : str
        Name of the method: ``E.name(...)`` calls ``function(E, ...)``.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        RESULT_METHODS[explainer, name] = function
        return function

    return register


class ExplanationArray:
    """Columns of scores, read as a one-dimensional array-like of dense arrays; see `Explanations`."""

    instances: Instances
    masks: dict[str, Entries]
    kind: str
    targets: np.ndarray
    errors: list[str | None]
    extras: dict[str, list[Any]]
    sparsity: float
    hard: bool
    model: Any
    model_digest: str | None
    explainer: str
    params: dict[str, Any]
    box: dict[str, Any]

    def __init__(
        self,
        instances: Instances,
        masks: dict[str, Entries],
        kind: str,
        *,
        targets: Any,
        errors: Sequence[str | None] | None = None,
        extras: dict[str, list[Any]] | None = None,
        sparsity: float = 0.7,
        hard: bool = False,
        model: Any = None,
        model_digest: str | None = None,
        explainer: str = "",
        params: dict[str, Any] | None = None,
        box: dict[str, Any] | None = None,
    ) -> None:
        self.instances = instances
        self.masks = dict(masks)
        self.kind = kind
        self.targets = np.asarray(targets, dtype=np.int64)
        self.errors = [None] * len(instances) if errors is None else list(errors)
        self.extras = {key: list(values) for key, values in (extras or {}).items()}
        self.sparsity = sparsity
        self.hard = hard
        self.model = model
        self.model_digest = model_digest
        self.explainer = explainer
        self.params = dict(params or {})
        self.box = dict(box or {})
        check_lengths(self)
        for name, entries in self.masks.items():
            check_entries(self, name, entries)

    def _with(self, **changes: Any) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n,)``, or ``(n, n_features)`` for feature scores."""
        return self.masks["feature"].values.shape if self.kind == "feature" else (len(self),)

    @property
    def ndim(self) -> int:
        """Number of dimensions of ``np.asarray(E)``."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of ``np.asarray(E)``: float32 for feature scores, else object."""
        return np.dtype(np.float32 if self.kind == "feature" else object)

    @property
    def ids(self) -> np.ndarray:
        """The user's own names of the instances."""
        return self.instances.ids

    @property
    def ok(self) -> np.ndarray:
        """True for every instance that was explained, False where it failed."""
        return np.array([error is None for error in self.errors], dtype=bool)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if is_int(key):
            return self._dense(self.kind, range(len(self))[key])
        rows = positions_of(key, len(self))
        return self._with(
            instances=self.instances[rows],
            masks={kind: entries.take(rows) for kind, entries in self.masks.items()},
            targets=self.targets[rows],
            errors=[self.errors[i] for i in rows],
            extras={name: [values[i] for i in rows] for name, values in self.extras.items()},
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("np.asarray of Explanations must copy the stored entries. Got copy=False; leave it out.")
        if self.kind == "feature":
            values = self.masks["feature"].values.copy()
            values[~self.ok] = np.nan
            return values if dtype is None else values.astype(dtype, copy=False)
        if dtype is not None and np.dtype(dtype) != object:
            raise ValueError(
                f"np.asarray of {self.kind} scores must have dtype object, because their lengths differ. "
                f"Got {np.dtype(dtype)}; reduce them to a table first, for example with preprocessing.MaskStats."
            )
        size = 4 * int(self.lengths().sum()) * (self.stored().width or 1)
        if size > LARGEST_ARRAY:
            raise MemoryError(
                f"np.asarray of Explanations must stay below {LARGEST_ARRAY / 1e9:g} GB. Got {size / 1e9:.1f} GB for "
                f"{len(self)} instances; read one E[i] at a time, or the stored scores with E.entries(i)."
            )
        return as_ragged(list(self))

    def __getattr__(self, name: str) -> Any:
        extras = self.__dict__.get("extras", {})
        if name in extras:
            return extras[name]
        method = RESULT_METHODS.get((self.__dict__.get("explainer", ""), name))
        if method is not None:
            return partial(method, self)
        known = ", ".join(extras) or "none"
        raise AttributeError(f"{name!r} must be an attribute or one of the extras of Explanations ({known}).")

    def stored(self, mask: str | None = None) -> Entries:
        """Return the entries of one mask for all instances.

        Parameters
        ----------
        mask : {"edge", "node", "feature", "node_feature"}, default=None
            None means the kind of these explanations.

        Returns
        -------
        Entries

        Raises
        ------
        ValueError
            If there is no such mask.
        """
        name = self.kind if mask is None else mask
        if name not in self.masks:
            raise ValueError(f"The 'mask' parameter must be one of {sorted(self.masks)} here. Got {mask!r} instead.")
        return self.masks[name]

    def entries(self, i: int, mask: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return what is stored for one instance: the entries of its computation graph only.

        Parameters
        ----------
        i : int
            Position of the instance.
        mask : {"edge", "node", "feature", "node_feature"}, default=None
            None means the kind of these explanations.

        Returns
        -------
        ids, values : ndarray
            Ids in the user's numbering, and a score (or a row of scores) for each; NaN where the instance failed.
        """
        i = range(len(self))[i]
        ids, values = self.stored(mask).of(i)
        return ids, values.copy() if self.errors[i] is None else np.full_like(values, np.nan)

    def lengths(self, mask: str | None = None) -> np.ndarray:
        """Return the length of the dense array of every instance, for one mask (None: the kind)."""
        kind = self.kind if mask is None else mask
        if kind == "feature":
            return np.full(len(self), self.stored(kind).width)
        store = self.instances.store
        ptr = store.edge_ptr if kind == "edge" else store.node_ptr
        return np.diff(ptr)[self.instances.graph_index]

    @property
    def edge_mask(self) -> DenseSequence | None:
        """Edge scores, one array of shape (num_edges,) per instance; None if there are none."""
        return self._sequence("edge")

    @property
    def node_mask(self) -> DenseSequence | None:
        """Node scores, one array of shape (num_nodes,) per instance; None if there are none."""
        return self._sequence("node")

    @property
    def feature_mask(self) -> DenseSequence | None:
        """Feature scores, one array of shape (n_features,) per instance; None if there are none."""
        return self._sequence("feature")

    @property
    def node_feature_mask(self) -> DenseSequence | None:
        """Scores per node and feature, one (num_nodes, n_features) array per instance; None if there are none."""
        return self._sequence("node_feature")

    @property
    def explained(self) -> DenseSequence:
        """Bool arrays shaped like ``E[i]``, True for what was scored.

        False outside of the computation graph, for loops that the layer replaces, and where the instance failed.
        """
        return DenseSequence(self._dense_explained, np.arange(len(self)))

    def _sequence(self, kind: str) -> DenseSequence | None:
        if kind not in self.masks:
            return None
        return DenseSequence(lambda i: self._dense(kind, i), np.arange(len(self)))

    def _dense(self, kind: str, i: int) -> np.ndarray:
        dense = self.masks[kind].dense(i, self._length(kind, i))
        if self.errors[i] is not None:
            dense[...] = np.nan
        return dense

    def _dense_explained(self, i: int) -> np.ndarray:
        explained = self.masks[self.kind].dense_explained(i, self._length(self.kind, i))
        return explained & (self.errors[i] is None)

    def _length(self, kind: str, i: int) -> int:
        if kind == "feature":
            return self.masks[kind].values.shape[1]
        return self.instances.num_units("edge" if kind == "edge" else "node", i)
