"""Seconds, memory and counts of a piece of work."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from side_by_side.networks import DONE
from skgnnx.blackbox.tape import Tape

OWN_STATUS, FORGET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """What a piece of work cost.

    Attributes
    ----------
    seconds : float
        Processor time of the one thread, which other work on the machine does not inflate; wall time on a GPU.
    forwards, edge_visits : int
        Runs of the network, those that are done again from a tape among them, and edges in all of them.
    start_megabytes, peak_megabytes : float
        Memory of the process before and at most; the peak is that of its whole life where the system cannot reset it.
    """

    seconds: float = 0.0
    forwards: int = 0
    edge_visits: int = 0
    start_megabytes: float = 0.0
    peak_megabytes: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Fill in a cost at the end of the block."""
    cost = Cost()
    gc.collect()
    try:
        FORGET_PEAK.write_text("5")
        cost.start_megabytes = _status("VmRSS")
    except OSError:
        cost.start_megabytes = float("nan")
    on_gpu = torch.cuda.is_initialized()
    clock = time.perf_counter if on_gpu else time.process_time
    forwards, edges, start = DONE.forwards, DONE.edges, clock()
    with patch.object(Tape, "__call__", _counted(Tape.__call__)):
        yield cost
    if on_gpu:
        torch.cuda.synchronize()
    cost.seconds = clock() - start
    cost.forwards, cost.edge_visits = DONE.forwards - forwards, DONE.edges - edges
    cost.peak_megabytes = _status("VmHWM")


def _counted(run: Callable[..., Any]) -> Callable[..., Any]:
    """Count what a tape does as a run over the batch that was taken down on it, the last one."""

    def counted(tape: Tape, *inputs: torch.Tensor) -> Any:
        DONE.note(DONE.edges_of_last)
        return run(tape, *inputs)

    return counted


def _status(key: str) -> float:
    """Return a line of the process's status in MB."""
    try:
        lines = OWN_STATUS.read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))
