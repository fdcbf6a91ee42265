"""Explanations in a file: one npz archive of plain arrays and a JSON header, versioned, without pickle."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from skgnnx.graphs.digest import instances_digest
from skgnnx.graphs.entries import Entries
from skgnnx.graphs.explanations import Explanations
from skgnnx.graphs.instance_parts import get_instances, put_instances
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.packing import Packer, unpack
from skgnnx.graphs.stripped import StrippedStore

FORMAT = "skgnnx.explanations"
VERSION = 1
BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, TypeError, IndexError, NotImplementedError)


def write(E: Explanations, path: str | os.PathLike[str], graphs: str | bool) -> None:
    """Write explanations to one file, whole or not at all; see `Explanations.save`."""
    if not (graphs is False or graphs in ("used", "all")):
        raise ValueError(f"The 'graphs' parameter of save must be 'used', 'all' or False. Got {graphs!r} instead.")
    packer = Packer()
    arrays: dict[str, np.ndarray] = {"targets": E.targets}
    header = {
        "format": FORMAT,
        "version": VERSION,
        **{field: getattr(E, field) for field in ("kind", "explainer", "model_digest", "errors")},
        "hard": bool(E.hard),
        "sparsity": float(E.sparsity),
        "params": {key: _informative(packer, value) for key, value in E.params.items()},
        "box": {key: None if callable(value) else packer.pack(value, f"box[{key!r}]") for key, value in E.box.items()},
        "extras": {key: packer.pack(values, f"extras[{key!r}]") for key, values in E.extras.items()},
        "masks": {kind: _put_entries(entries, kind, arrays) for kind, entries in E.masks.items()},
        "instances": _put_instances(E.instances, graphs, packer, arrays),
    }
    header["buffers"] = list(packer.buffers())
    arrays |= {f"buffer{i}": values for i, values in enumerate(packer.buffers().values())}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    _write_archive(Path(path), arrays)


def read(path: str | os.PathLike[str], instances: Instances | None) -> Explanations:
    """Read explanations from one file, or say why it cannot be; see `Explanations.load`."""
    header, arrays = _read_archive(path)
    if header.get("version", 0) > VERSION:
        raise ValueError(
            f"The file must have a format version of at most {VERSION}. Got {header['version']} in {str(path)!r}; "
            "upgrade skgnnx to read it."
        )
    try:
        buffers = {dtype: arrays[f"buffer{i}"] for i, dtype in enumerate(header["buffers"])}
        X = get_instances(header["instances"], arrays, buffers)
        masks = {kind: _entries(parts, kind, arrays) for kind, parts in header["masks"].items()}
        fields = {key: unpack({"dict": header[key]}, buffers) for key in ("params", "box", "extras")}
        fields |= {key: header[key] for key in ("kind", "hard", "sparsity", "explainer", "model_digest", "errors")}
        digest = header["instances"]["digest"]
    except BROKEN as error:
        raise _not_ours(path) from error
    E = Explanations(X, masks, targets=arrays["targets"], **fields)
    return E if instances is None else E.with_instances(_same_instances(instances, digest, path))


def _informative(packer: Packer, value: Any) -> Any:
    """Parameters are kept to be read by people: what cannot be stored is shown as text."""
    try:
        return packer.pack(value, "params")
    except TypeError:
        return repr(value)


def _put_entries(entries: Entries, kind: str, arrays: dict[str, np.ndarray]) -> list[str]:
    columns = {name: getattr(entries, name) for name in ("ptr", "ids", "values", "explained")}
    present = {name: column for name, column in columns.items() if column is not None}
    arrays.update({f"{kind}.{name}": column for name, column in present.items()})
    return list(present)


def _entries(parts: list[str], kind: str, arrays: dict[str, np.ndarray]) -> Entries:
    columns = {name: arrays[f"{kind}.{name}"] for name in parts}
    return Entries(columns.get("ptr"), columns.get("ids"), columns["values"], columns.get("explained"))


def _put_instances(X: Instances, graphs: str | bool, packer: Packer, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if graphs != "all":
        X = X.compact()
    stripped = isinstance(X.store, StrippedStore)
    header = put_instances(X, packer, arrays, stripped=stripped or graphs is False)
    return header | {"digest": None if stripped else instances_digest(X)}


def _same_instances(X: Instances, digest: str | None, path: str | os.PathLike[str]) -> Instances:
    if digest is not None and instances_digest(X) != digest:
        raise ValueError(
            f"The 'instances' parameter of load must hold the predictions that were explained, in their order. "
            f"Got others than those of {str(path)!r}."
        )
    return X


def _write_archive(path: Path, arrays: dict[str, Any]) -> None:
    """Write beside the final name and rename, so that nobody ever sees half a file."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            np.savez_compressed(file, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_archive(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop("header").tobytes())
    except (*BROKEN, AttributeError) as error:
        raise _not_ours(path) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _not_ours(path)
    return header, arrays


def _not_ours(path: str | os.PathLike[str]) -> ValueError:
    return ValueError(
        f"The file must have been written by Explanations.save. Got another or a damaged one: {str(path)!r}."
    )
