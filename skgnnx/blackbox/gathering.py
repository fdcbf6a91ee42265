"""Scores of batches, and how they become columns over all instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from skgnnx.blackbox.open_box import OpenBox
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.entries import Entries


@dataclass
class Masks:
    """Scores of one batch, in batch order.

    Parameters
    ----------
    edge : Tensor of shape (E,), optional
    node : Tensor of shape (N,), optional
    feature : Tensor of shape (B, F), optional
    node_feature : Tensor of shape (N, F), optional
    extras : dict of str to list of length B
        Further results of the method, one value per instance; "path" where the batch did not run as `OpenBox.path` has
        it.
    """

    edge: Tensor | None = None
    node: Tensor | None = None
    feature: Tensor | None = None
    node_feature: Tensor | None = None
    extras: dict[str, list[Any]] = field(default_factory=dict)


def entry_masks(batch: GraphBatch, kind: str, values: Tensor, extras: dict[str, list[Any]] | None = None) -> Masks:
    """Return scores of the entries of the node features (N, ...) as they are, or their sums by node or by feature."""
    masks = Masks(extras={} if extras is None else extras)
    if kind == "node":
        masks.node = values.flatten(1).sum(1)
    elif kind == "node_feature":
        masks.node_feature = values
    else:
        masks.feature = batch.sum_nodes(values)
    return masks


def layer_masks(batch: GraphBatch, values: Tensor) -> list[np.ndarray]:
    """Return for each instance what the edges that reach its prediction have in each layer (L, E), as (L, entries)."""
    return [part.T for part in batch.split(values.T, "edge")]


def layer_nodes(batch: GraphBatch, values: Tensor) -> list[np.ndarray]:
    """Return for each instance what the nodes that reach its prediction have in each layer (L, N), as (L, nodes)."""
    return [part.T for part in batch.split(values.T, "node")]


class Gathered:
    """Collects the masks of batches, in any order, into columns over all instances in the order of `X`.

    Parameters
    ----------
    kind : str
        The primary mask.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._errors: list[str | None] = []
        self._positions: list[np.ndarray] = []
        self._parts: list[dict[str, Entries]] = []
        self._extras: list[dict[str, list[Any]]] = []
        self._sizes: list[int] = []

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, gnn: OpenBox, batch: GraphBatch, masks: Masks | None, error: str | None) -> None:
        """Add one batch, or its failure."""
        self._errors += [error] * len(batch)
        self._positions.append(batch.positions)
        self._sizes.append(len(batch))
        self._parts.append({} if masks is None else _entries_of(gnn, batch, masks))
        extras = {} if masks is None else masks.extras
        said = {} if masks is None or "path" in extras else {"path": [gnn.path(batch)] * len(batch)}
        self._extras.append(extras | said)

    def _order(self) -> np.ndarray:
        """Return where each instance of `X` is among what was added."""
        return np.argsort(np.concatenate(self._positions), kind="stable")

    def errors(self) -> list[str | None]:
        """Return the message of each instance that failed, None for others."""
        return [self._errors[i] for i in self._order()]

    def entries(self) -> dict[str, Entries]:
        """Return all masks as columns over all instances."""
        order = self._order()
        kinds = dict.fromkeys(kind for part in self._parts for kind in part)
        joined = {}
        for kind in kinds:
            like = next(part[kind] for part in self._parts if kind in part)
            pieces = [
                part.get(kind) or Entries.empty(n, like) for part, n in zip(self._parts, self._sizes, strict=True)
            ]
            joined[kind] = Entries.concat(pieces).take(order)
        return joined or {self.kind: Entries(np.zeros(len(self) + 1), np.zeros(0), np.zeros(0))}

    def extras(self) -> dict[str, list[Any]]:
        """Return method-specific results, None where an instance failed."""
        names = dict.fromkeys(name for part in self._extras for name in part)
        parts = list(zip(self._extras, self._sizes, strict=True))
        added = {name: [v for part, n in parts for v in part.get(name, [None] * n)] for name in names}
        return {name: [values[i] for i in self._order()] for name, values in added.items()}


def add_to_all(
    gathered: Sequence[Gathered], gnn: OpenBox, batch: GraphBatch, masks: Sequence[Masks] | None, error: str | None
) -> None:
    """Add the masks of one batch for several targets, each to its own collection."""
    for i, collection in enumerate(gathered):
        collection.add(gnn, batch, None if masks is None else masks[i], error)


def _entries_of(gnn: OpenBox, batch: GraphBatch, masks: Masks) -> dict[str, Entries]:
    graphs, entries = batch.graphs, {}
    if masks.edge is not None:
        explained = gnn.explained_edges(batch)
        values = np.where(explained, _numpy(masks.edge), 0)
        entries["edge"] = _reached(graphs.edge_ptr, graphs.edge_reach, batch.edge_id, values, explained)
    for kind, scores in (("node", masks.node), ("node_feature", masks.node_feature)):
        if scores is not None:
            entries[kind] = _reached(graphs.node_ptr, graphs.node_reach, batch.node_id, _numpy(scores), None)
    if masks.feature is not None:
        entries["feature"] = Entries(None, None, _numpy(masks.feature))
    return entries


def _reached(
    ptr: np.ndarray, reach: np.ndarray, ids: np.ndarray, values: np.ndarray, explained: np.ndarray | None
) -> Entries:
    counts = np.add.reduceat(np.append(reach, 0), ptr[:-1]) * (np.diff(ptr) > 0)
    kept = None if explained is None else explained[reach]
    return Entries(np.concatenate([[0], np.cumsum(counts)]), ids[reach], values[reach], kept)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
