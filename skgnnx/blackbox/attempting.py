"""Explaining a batch that may be too large, or hold an instance that cannot be explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.exceptions import NotFittedError

from skgnnx.blackbox.calling import is_short_of_memory
from skgnnx.blackbox.gathering import Masks
from skgnnx.graphs.batch import GraphBatch


def attempts(
    explain: Callable[[GraphBatch], list[Masks]], batch: GraphBatch, *, keep_going: bool
) -> Iterator[tuple[GraphBatch, list[Masks] | None, str | None]]:
    """Explain a batch; on memory shortage halve it, on failure find the instances that cause it.

    Parameters
    ----------
    explain : callable
        Returns the masks of a batch, one for each of its targets.
    batch : GraphBatch
    keep_going : bool
        Whether the others are explained when an instance fails.

    Yields
    ------
    tuple
        The batch or a part of it, with its masks, or with the message of what failed.
    """
    try:
        masks = explain(batch)
        for one in masks:
            _check_finite(one, batch)
        yield batch, masks, None
        return
    except NotFittedError:
        raise
    except (RuntimeError, ValueError, IndexError, FloatingPointError) as error:
        if len(batch) == 1 and keep_going:
            yield batch, None, f"{type(error).__name__}: {error}"
            return
        if len(batch) == 1 or not (is_short_of_memory(error) or keep_going):
            raise
    middle = len(batch) // 2
    for half in (batch.take(np.arange(middle)), batch.take(np.arange(middle, len(batch)))):
        yield from attempts(explain, half, keep_going=keep_going)


def _check_finite(masks: Masks, batch: GraphBatch) -> None:
    for values in (masks.edge, masks.node, masks.feature, masks.node_feature):
        if values is not None and not bool(torch.isfinite(values).all()):
            raise FloatingPointError(
                f"Scores must be finite. Got NaN or infinity in a batch that starts at instance {batch.positions[0]}; "
                "look for overflow in the model, or use on_error='nan'."
            )
