"""The model's predictions on a graph that no single forward pass fits: from cuts that agree with wider cuts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.receptive_field import ModelTrace
from skgnnx.blackbox.reference import PlainRuns
from skgnnx.config import memory_budget
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import receptive_fields

EXTRACTED_AT_ONCE = 256
WIDEST_RING = 3


def bytes_of_whole(runs: PlainRuns, trace: ModelTrace) -> int:
    """Return the memory that one forward pass over the graphs of all instances takes, roughly."""
    store = runs.X.store
    graphs = np.unique(runs.X.graph_index)
    size = int((np.diff(store.edge_ptr)[graphs] + np.diff(store.node_ptr)[graphs]).sum())
    return bytes_of(size, trace)


def bytes_of(size: int, trace: ModelTrace) -> int:
    """Return the memory that one forward pass over so many nodes and edges takes, roughly.

    Without gradient the messages of one call are alive at a time, with their sources and their weighted copy.
    """
    return 4 * 3 * size * max([*trace.widths, 1])


def reference_of_cuts(runs: PlainRuns, trace: ModelTrace) -> Tensor:
    """Return the output (n, C) for every node or link without running the model on a whole graph.

    Parameters
    ----------
    runs : PlainRuns
        The model.
    trace : ModelTrace
        Its receptive field.

    Returns
    -------
    Tensor
        Outputs on the first cut that a cut with one ring more agrees with.

    Raises
    ------
    MemoryError
        If the prediction sees the whole graph, or cuts do not come to agree.
    """
    if trace.hops is not None:
        outputs = _outputs(runs, trace, 0)
        for ring in range(1, WIDEST_RING + 1):
            wider = _outputs(runs, trace, ring)
            if runs.same(outputs, wider):
                return wider
            outputs = wider
    raise MemoryError(
        f"The memory budget must hold a forward pass of {runs.name} over the whole graph, because its predictions "
        f"cannot be had from a part. Got {memory_budget() / 2**20:.0f} MB, needed about "
        f"{bytes_of_whole(runs, trace) / 2**20:.0f} MB; raise it with config_context(memory_budget=...)."
    )


def _outputs(runs: PlainRuns, trace: ModelTrace, ring: int) -> Tensor:
    rows, parts = np.arange(len(runs.X)), []
    for part in np.split(rows, range(EXTRACTED_AT_ONCE, len(rows), EXTRACTED_AT_ONCE)):
        graphs = receptive_fields(runs.X, part, trace.hops or 0, ring, trace.both_ways)
        for chosen, cut in runs.packed(graphs, part, "auto"):
            parts.append(runs.outputs(GraphBatch(runs.X, chosen, cut, device=runs.device)))
    return torch.cat(parts)
