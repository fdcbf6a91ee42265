"""Instances taken apart, into named arrays and what JSON can hold, and put together again."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from skgnnx.graphs.columns import Column
from skgnnx.graphs.instance_array import InstanceArray
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.packing import Packer, unpack
from skgnnx.graphs.store import GraphStore
from skgnnx.graphs.stripped import StrippedStore


def put_instances(
    X: InstanceArray, packer: Packer, arrays: dict[str, np.ndarray], *, stripped: bool = False
) -> dict[str, Any]:
    """Add the columns of instances to some arrays, and return the rest as plain values.

    Parameters
    ----------
    X : InstanceArray
        What to take apart.
    packer : Packer
        Where names and truth go.
    arrays : dict of str to ndarray
        Where columns go, as they are.
    stripped : bool, default=False
        True to leave out what the graphs hold, and keep their sizes.

    Returns
    -------
    dict
    """
    arrays["graph_index"], arrays["element"] = X.graph_index, X.element
    if X.target is not None:
        arrays["target"] = X.target
    truth = None if X.truth is None else {kind: list(values) for kind, values in X.truth.items()}
    return {
        "ids": packer.pack(X.ids, "ids"),
        "truth": packer.pack(truth, "truth"),
        "node_ids": packer.pack(X.node_ids, "node_ids"),
        "exclude_link": X.exclude_link,
        "store": _put_store(X.store, stripped, packer, arrays),
    }


def get_instances(header: dict[str, Any], arrays: dict[str, np.ndarray], buffers: dict[str, np.ndarray]) -> Instances:
    """Return the instances that `put_instances` took apart.

    Parameters
    ----------
    header : dict
        What `put_instances` returned, also after a round through JSON.
    arrays, buffers : dict of str to ndarray
        All arrays, and those of the packer.

    Returns
    -------
    Instances
    """
    truth = unpack(header["truth"], buffers)
    if truth is not None:
        truth = {kind: _object_column(values) for kind, values in truth.items()}
    return Instances(
        _store(header["store"], arrays, buffers),
        arrays["graph_index"],
        arrays["element"],
        arrays.get("target"),
        truth=truth,
        ids=unpack(header["ids"], buffers),
        node_ids=unpack(header["node_ids"], buffers),
        exclude_link=header["exclude_link"],
    )


def _put_store(
    store: GraphStore, stripped: bool, packer: Packer, arrays: dict[str, np.ndarray]
) -> dict[str, Any] | None:
    arrays["node_ptr"], arrays["edge_ptr"] = store.node_ptr, store.edge_ptr
    if stripped:
        return None
    arrays["edge_index"] = store.edge_index
    columns = []
    for i, (key, column) in enumerate(store.columns.items()):
        arrays[f"column{i}.values"], arrays[f"column{i}.ptr"] = column.values, column.ptr
        columns.append([key, column.slot, column.along_last])
    objects = {}
    for key, values in store.objects.items():
        try:
            objects[key] = packer.pack(values, f"The graphs' {key!r}")
        except TypeError as error:
            warnings.warn(f"{error} It is left out.", UserWarning, stacklevel=6)
    return {"columns": columns, "objects": objects, "sparse": store.sparse}


def _store(header: dict[str, Any] | None, arrays: dict[str, np.ndarray], buffers: dict[str, np.ndarray]) -> GraphStore:
    if header is None:
        return StrippedStore(arrays["node_ptr"], arrays["edge_ptr"])
    columns = {
        key: Column(slot, arrays[f"column{i}.values"], arrays[f"column{i}.ptr"], along_last)
        for i, (key, slot, along_last) in enumerate(header["columns"])
    }
    objects = {key: unpack(values, buffers) for key, values in header["objects"].items()}
    return GraphStore(arrays["edge_index"], arrays["node_ptr"], arrays["edge_ptr"], columns, objects, header["sparse"])


def _object_column(values: list[Any]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
