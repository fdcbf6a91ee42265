"""What the columns of explanations must look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skgnnx.graphs.entries import Entries

if TYPE_CHECKING:
    from skgnnx.graphs.explanation_array import ExplanationArray

KINDS = ("edge", "node", "feature", "node_feature")


def check_lengths(E: ExplanationArray) -> None:
    """Raise unless every column has one entry per instance and the kind is one of the masks."""
    if not set(E.masks) <= set(KINDS):
        raise ValueError(f"The keys of 'masks' must be among {KINDS}. Got {list(E.masks)}.")
    if E.kind not in E.masks:
        raise ValueError(f"'kind' must be one of the masks {list(E.masks)}. Got {E.kind!r}.")
    n = len(E.instances)
    columns: dict[str, Any] = {"targets": E.targets, "errors": E.errors}
    columns |= {f"masks[{key!r}]": entries for key, entries in E.masks.items()}
    columns |= {f"extras[{key!r}]": values for key, values in E.extras.items()}
    for name, column in columns.items():
        if len(column) != n:
            raise ValueError(f"{name} must have one entry per instance ({n}). Got {len(column)}.")


def check_entries(E: ExplanationArray, kind: str, entries: Entries) -> None:
    """Raise unless the ids of one mask are in range and the scores of explained instances are finite."""
    if (entries.width is not None) != ("feature" in kind):
        raise ValueError(f"The values of {kind} scores must not have shape {entries.values.shape}; see Entries.")
    rows = entries.rows
    finite = np.isfinite(entries.values)
    if entries.width is not None:
        finite = finite.all(axis=1)
    bad = ~finite & E.ok[rows]
    if bad.any():
        i = rows[np.argmax(bad)]
        raise ValueError(
            f"The {kind} scores of an explained instance must be finite. Got NaN or infinity at instance {i}."
        )
    if entries.ids is None:
        return
    bad = (entries.ids < 0) | (entries.ids >= E.lengths(kind)[rows])
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"The ids of {kind} scores must be in [0, {E.lengths(kind)[rows[row]]}). Got {entries.ids[row]} at "
            f"instance {rows[row]}."
        )
