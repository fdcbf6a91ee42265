"""The explainers of this package, and the table of their tags."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import skgnnx.explainers
from skgnnx.explainers.base import BaseExplainer
from skgnnx.taxonomy import Taxonomy

COLUMNS = {
    "level": "explains",
    "family": "family",
    "tasks": "tasks",
    "mask": "mask",
    "flow": "flow",
    "learned": "learned",
    "black_box": "black box",
    "deterministic": "deterministic",
}


def all_explainers(filter_tags: dict[str, Any] | None = None) -> list[tuple[str, type[BaseExplainer]]]:
    """Return the explainers of this package.

    Parameters
    ----------
    filter_tags : dict, optional
        Tags that must match, by field of `skgnnx.taxonomy.Taxonomy`. For ``tasks`` a name, or several of which all must
        be explained.

    Returns
    -------
    list of (name, class)
        In alphabetical order.

    Raises
    ------
    ValueError
        If there is no such tag.

    Examples
    --------
    >>> from skgnnx.testing import all_explainers
    >>> [name for name, _ in all_explainers({"family": "baseline", "tasks": "node"})]
    ['RandomExplainer']
    """
    wanted = filter_tags or {}
    known = [field.name for field in fields(Taxonomy)]
    for name in wanted:
        if name not in known:
            raise ValueError(f"The keys of 'filter_tags' must be among {known}. Got {name!r}.")
    found = [(name, getattr(skgnnx.explainers, name)) for name in sorted(skgnnx.explainers.__all__)]
    return [(name, cls) for name, cls in found if all(_has(cls.taxonomy, tag, value) for tag, value in wanted.items())]


def _has(taxonomy: Taxonomy, tag: str, value: Any) -> bool:
    if tag == "tasks":
        return {value} <= set(taxonomy.tasks) if isinstance(value, str) else set(value) <= set(taxonomy.tasks)
    return bool(getattr(taxonomy, tag) == value)


def explainers_table() -> str:
    """Return the tags of all explainers as a Markdown table, with their masks and first sentences.

    Returns
    -------
    str
        One line per explainer, in alphabetical order.
    """
    header = ["explainer", *COLUMNS.values(), "scores", "in one sentence"]
    rows = [header, ["---"] * len(header)]
    for name, cls in all_explainers():
        tags = [_cell(getattr(cls.taxonomy, tag)) for tag in COLUMNS]
        rows.append([f"`{name}`", *tags, ", ".join(cls.masks_), (cls.__doc__ or "").strip().split("\n\n")[0]])
    return "\n".join("| " + " | ".join(" ".join(cell.split()) for cell in row) + " |" for row in rows) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return ", ".join(value) if isinstance(value, tuple) else str(value)
