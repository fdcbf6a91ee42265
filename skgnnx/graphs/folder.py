"""Instances in a folder: one npy file per column, mapped into memory when opened, and a JSON header; versioned."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from skgnnx.graphs.instance_array import InstanceArray
from skgnnx.graphs.instance_parts import get_instances, put_instances
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.packing import Packer
from skgnnx.graphs.store import EdgeIndex, GraphStore

FORMAT = "skgnnx.instances"
VERSION = 1
HEADER = "header.json"
INDEX = ("ptr", "far_end", "edge_id")


def write(X: InstanceArray, path: str | os.PathLike[str]) -> None:
    """Write instances to a folder, whole or not at all; see `Instances.save`."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(
            f"The 'path' parameter of save must name a new folder. Got {str(path)!r}, which exists; remove it first."
        )
    header, arrays = _taken_apart(X.compact())
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        for name, values in arrays.items():
            np.save(temporary / f"{name}.npy", values, allow_pickle=False)
        (temporary / HEADER).write_text(json.dumps(header))
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(path: str | os.PathLike[str]) -> Instances:
    """Map the columns of a folder into memory; see `Instances.open`."""
    path = Path(path)
    header = _header(path)
    try:
        arrays = {name: _mapped(path, name, *expected) for name, expected in header["arrays"].items()}
        buffers = {dtype: np.asarray(arrays[f"buffer{i}"]) for i, dtype in enumerate(header["buffers"])}
        X = get_instances(header["instances"], arrays, buffers)
        in_edges, out_edges = (
            EdgeIndex(*(arrays[f"{way}.{part}"] for part in INDEX)) for way in ("in_edges", "out_edges")
        )
        X.store.with_index(in_edges, out_edges, (arrays["undirected"], arrays["partner"]))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise _not_ours(path) from error
    return X


def _taken_apart(X: InstanceArray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    packer = Packer()
    arrays: dict[str, np.ndarray] = {}
    instances = put_instances(X, packer, arrays)
    arrays |= _index(X.store)
    arrays |= {f"buffer{i}": values for i, values in enumerate(packer.buffers().values())}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "instances": instances,
        "buffers": list(packer.buffers()),
        "arrays": {name: [values.dtype.str, list(values.shape)] for name, values in arrays.items()},
    }
    return header, arrays


def _index(store: GraphStore) -> dict[str, np.ndarray]:
    """Return what would have to look at every edge if it were made after opening."""
    undirected, partner = store.pairs
    arrays = {"undirected": undirected, "partner": partner}
    for way, index in (("in_edges", store.in_edges), ("out_edges", store.out_edges)):
        arrays |= {f"{way}.{part}": getattr(index, part) for part in INDEX}
    return arrays


def _header(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"The 'path' parameter of open must name a folder. Got {str(path)!r}: nothing there.")
    try:
        header = json.loads((path / HEADER).read_text())
    except (OSError, ValueError) as error:
        raise _not_ours(path) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("version"), int):
        raise _not_ours(path)
    if header["version"] > VERSION:
        raise ValueError(
            f"The folder must have a format version of at most {VERSION}. Got {header['version']} in {str(path)!r}; "
            "upgrade skgnnx to open it."
        )
    return header


def _mapped(path: Path, name: str, dtype: str, shape: list[int]) -> np.ndarray:
    try:
        values = np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, name, "none that can be read") from error
    if values.dtype.str != dtype or list(values.shape) != shape:
        raise _damaged(path, name, f"{values.dtype.str} of shape {list(values.shape)}")
    return values


def _damaged(path: Path, name: str, got: str) -> ValueError:
    return ValueError(
        f"The folder must hold all files that Instances.save wrote, unchanged. Got {got} for '{name}.npy' in "
        f"{str(path)!r}; save the instances again."
    )


def _not_ours(path: Path) -> ValueError:
    return ValueError(
        f"The folder must have been written by Instances.save. Got another or a damaged one: {str(path)!r}."
    )
