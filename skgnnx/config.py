"""Run-time settings of the library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import psutil

LARGEST_DEFAULT = 2 * 2**30
_BUDGET: ContextVar[int | None] = ContextVar("skgnnx_memory_budget", default=None)


@contextmanager
def config_context(*, memory_budget: int | None = None) -> Iterator[None]:
    """Set run-time options for a block of code.

    Parameters
    ----------
    memory_budget : int, optional
        Bytes that one batch may take. The default is a quarter of the free memory, at most 2 GB per process.

    Raises
    ------
    ValueError
        If `memory_budget` is not positive.

    Examples
    --------
    >>> import skgnnx
    >>> with skgnnx.config_context(memory_budget=500_000_000):
    ...     pass
    """
    if memory_budget is not None and memory_budget <= 0:
        raise ValueError(
            f"The 'memory_budget' parameter must be a positive number of bytes. Got {memory_budget} instead."
        )
    token = _BUDGET.set(memory_budget)
    try:
        yield
    finally:
        _BUDGET.reset(token)


def memory_budget() -> int:
    """Return how many bytes one batch may take in this process at most."""
    given = _BUDGET.get()
    return min(psutil.virtual_memory().available // 4, LARGEST_DEFAULT) if given is None else given
