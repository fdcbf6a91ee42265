"""The order of scores and the number that stays: scores within 1e-5 relative are tied, shares are rounded half up."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction

import numpy as np

TIE = 1e-5
TINY = float(np.finfo(np.float32).tiny)


def n_kept(n: int | np.ndarray, sparsity: float) -> int | np.ndarray:
    """Return how many of `n` units stay at a sparsity s: max(1, floor((1 - s) n + 0.5)), and 0 when s = 1.

    The decimal digits of `sparsity` are taken literally, so 0.9 of 10 units leaves 1, not 0.

    Parameters
    ----------
    n : int or ndarray of int
        Number of units, at least 0.
    sparsity : float
        Share left out, in [0, 1].

    Returns
    -------
    int or ndarray of int

    Examples
    --------
    >>> from skgnnx.graphs.ranking import n_kept
    >>> n_kept(10, 0.9), n_kept(10, 0.55), n_kept(10, 1.0)
    (1, 5, 0)
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"The 'sparsity' parameter must be a number in the range [0, 1]. Got {sparsity!r} instead.")
    share = 1 - Fraction(str(sparsity))
    sizes, inverse = np.unique(np.asarray(n, dtype=np.int64), return_inverse=True)
    kept = [int(share * int(size) + Fraction(1, 2)) for size in sizes]
    if share > 0:
        kept = [min(max(1, keep), int(size)) for keep, size in zip(kept, sizes)]
    result = np.array(kept, dtype=np.int64)[inverse].reshape(np.shape(n))
    return int(result) if result.ndim == 0 else result


def select_top(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the positions of the `k` best of some scores, the best first; ties go to the earlier position.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Finite; must be in the order that breaks ties.
    k : int
        At least 0; more than n means all.

    Returns
    -------
    ndarray of int

    Examples
    --------
    >>> import numpy as np
    >>> from skgnnx.graphs.ranking import select_top
    >>> select_top(np.array([0.3, 0.9, 0.3000001]), 2).tolist()
    [1, 0]
    """
    scores = np.asarray(scores, dtype=np.float64)
    return rank_order(scores, np.array([0, len(scores)]))[:k]


def rank_order(score: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Return the units of each group from the best to the worst.

    Sorted by score, a tie group starts at its largest score and holds what lies within 1e-5 relative of it; inside a
    group the order of the units decides.

    Parameters
    ----------
    score : ndarray of shape (num_units,)
        Finite scores.
    ptr : ndarray of shape (n + 1,)
        First unit of every group.

    Returns
    -------
    ndarray of int, shape (num_units,)
    """
    segment = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    order = np.lexsort((-score, segment))
    tie_group = np.cumsum(_starts_tie_group(score[order], segment[order]))
    return order[np.lexsort((order, tie_group))]


def _starts_tie_group(score: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """Mark the first of every tie group of scores that fall within each segment."""
    limit = score - TIE * np.maximum(np.abs(score), TINY)
    starts = np.ones(len(score), dtype=bool)
    # the limit grows with the score, so a step below the neighbour's limit is below that of any group it may be in
    starts[1:] = (segment[1:] != segment[:-1]) | (score[1:] < limit[:-1])
    first = np.flatnonzero(starts)
    end = np.append(first, len(score))[1:]
    for k in np.flatnonzero(score[end - 1] < limit[first]):  # a chain of small steps, longer than one group
        _split_chain(starts, score, int(first[k]), int(end[k]))
    return starts


def _split_chain(starts: np.ndarray, score: np.ndarray, first: int, end: int) -> None:
    falling = (-score[first:end]).tolist()
    at = 0
    while at < len(falling):
        starts[first + at] = True
        top = -falling[at]
        at = bisect_right(falling, -(top - TIE * max(abs(top), TINY)))
