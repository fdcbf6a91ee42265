"""Joining explanations that were made in parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from skgnnx.graphs.entries import Entries
from skgnnx.graphs.explanations import Explanations
from skgnnx.graphs.instances import Instances


def join_explanations(parts: list[Explanations]) -> Explanations:
    """Join parts of one kind and level; see `Explanations.concat`."""
    if not parts:
        raise ValueError("The 'parts' of Explanations.concat must hold at least one. Got none.")
    made = [part for part in parts if part.ok.any()] or parts  # a part that failed as a whole knows little of the model
    for i, part in enumerate(parts):
        if part.kind != parts[0].kind or (part.hard != made[0].hard and part.ok.any()):
            raise ValueError(
                f"All parts must have the same kind and be all hard or all soft. Got {_form(part)} at position {i}, "
                f"{_form(made[0])} before; use to_kind or at_sparsity first."
            )
    names = dict.fromkeys(name for part in parts for name in part.extras)
    return Explanations(
        Instances.concat([part.instances for part in parts]),
        {kind: _joined_mask(parts, kind) for kind in dict.fromkeys(kind for part in parts for kind in part.masks)},
        parts[0].kind,
        targets=np.concatenate([part.targets for part in parts]),
        errors=[error for part in parts for error in part.errors],
        extras={name: [v for part in parts for v in part.extras.get(name, [None] * len(part))] for name in names},
        sparsity=made[0].sparsity,
        hard=made[0].hard,
        model=_common(made, "model"),
        model_digest=_common(made, "model_digest"),
        explainer=_common(made, "explainer") or "",
        params=_common(made, "params"),
        box=_common(made, "box"),
    )


def _joined_mask(parts: list[Explanations], kind: str) -> Entries:
    like = next(part.masks[kind] for part in parts if kind in part.masks)
    pieces = []
    for i, part in enumerate(parts):
        if kind not in part.masks and part.ok.any():
            raise ValueError(f"All parts must have the same masks. Got none of kind {kind!r} at position {i}.")
        piece = part.masks.get(kind)
        if piece is None or (piece.width != like.width and not part.ok.any()):
            piece = Entries.empty(len(part), like)
        if piece.width != like.width:
            raise ValueError(f"All parts must have {like.width} features. Got {piece.width} at position {i}.")
        pieces.append(piece)
    return Entries.concat(pieces)


def _common(parts: list[Explanations], field: str) -> Any:
    first = getattr(parts[0], field)
    same = all(getattr(part, field) is first or getattr(part, field) == first for part in parts)
    return first if same else None


def _form(part: Explanations) -> str:
    return f"{'hard' if part.hard else 'soft'} {part.kind} scores"
