"""Joining instances: several parts into one, or a list of single instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_geometric.data import Data

from skgnnx.graphs.instances import Instance, Instances
from skgnnx.graphs.store import GraphStore
from skgnnx.graphs.truth import Truth


def join_instances(parts: list[Instances]) -> Instances:
    """Join parts of one level; parts that share a store go on sharing it."""
    if not parts:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: nothing to join.")
    _check_same([part.level for part in parts], "level")
    _check_same([part.target is None for part in parts], "choice of given or predicted targets")
    _check_same([part.exclude_link for part in parts], "exclude_link")
    stores = list({id(part.store): part.store for part in parts}.values())
    offset = dict(zip(map(id, stores), np.cumsum([0] + [store.num_graphs for store in stores]), strict=False))
    store = stores[0]
    if len(stores) > 1:
        store = GraphStore.from_graphs([s.graph(g) for s in stores for g in range(s.num_graphs)]).like(stores[0])
    first = parts[0]
    return Instances(
        store,
        np.concatenate([part.graph_index + offset[id(part.store)] for part in parts]),
        np.concatenate([part.element for part in parts]),
        None if first.target is None else np.concatenate([np.asarray(part.target) for part in parts]),
        truth=_joined_truth(parts),
        ids=np.concatenate([part.ids for part in parts]),
        node_ids=_joined_node_ids(parts, stores),
        exclude_link=first.exclude_link,
    )


def gather_instances(items: list[Any]) -> Instances:
    """Make `Instances` of a list of `Instance`, as scikit-learn cuts a sequence."""
    for i, item in enumerate(items):
        if not isinstance(item, Instance):
            raise TypeError(
                f"X must hold only Instance objects or only graphs. Got {type(item).__name__} at index {i}."
            )
    sources = [item.source for item in items]
    if all(source is not None and source[0] is sources[0][0] for source in sources):
        return sources[0][0][np.array([i for _, i in sources])]
    if all(source is not None for source in sources):
        return join_instances([X[np.array([i])] for X, i in sources])
    return _from_bare(items)


def _from_bare(items: list[Instance]) -> Instances:
    _check_same([item.level for item in items], "level")
    _check_same([item.target is None for item in items], "choice of given or predicted targets")
    graphs: dict[int, tuple[int, Data]] = {}
    index = [graphs.setdefault(id(item.graph), (len(graphs), item.graph))[0] for item in items]
    elements: list[Any] = [[] if item.element is None else np.atleast_1d(item.element) for item in items]
    target = None if items[0].target is None else np.array([item.target for item in items])
    store = GraphStore.from_graphs([graph for _, graph in graphs.values()])
    return Instances(store, np.array(index), np.array(elements, dtype=np.int64).reshape(len(items), -1), target)


def _joined_truth(parts: list[Instances]) -> Truth | None:
    kinds = {kind for part in parts for kind in part.truth or {}}
    if not kinds:
        return None
    missing = [np.full(len(part), None, dtype=object) for part in parts]
    return {
        kind: np.concatenate([(part.truth or {}).get(kind, none) for part, none in zip(parts, missing, strict=True)])
        for kind in kinds
    }


def _joined_node_ids(parts: list[Instances], stores: list[GraphStore]) -> list[Any] | None:
    names = {id(part.store): part.node_ids for part in parts if part.node_ids is not None}
    if not names:
        return None
    return [
        name
        for store in stores
        for name in names.get(id(store), [np.arange(store.num_nodes(g)) for g in range(store.num_graphs)])
    ]


def _check_same(values: list[Any], what: str) -> None:
    for i, value in enumerate(values):
        if value != values[0]:
            raise ValueError(
                f"All instances must have the same {what}. Got {value!r} at index {i}, {values[0]!r} before."
            )
