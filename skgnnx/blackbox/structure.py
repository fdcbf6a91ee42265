"""What of the edges of a graph a prediction sees besides the messages that run along them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.operations import flat
from skgnnx.blackbox.probe_graphs import Part, path, probe_batch
from skgnnx.blackbox.probe_runs import distinct_features, run, same_outputs
from skgnnx.blackbox.pyg_compat import message_passing_modules, normalising_layers
from skgnnx.blackbox.receptive_field import ModelTrace, of_elements
from skgnnx.blackbox.waking import Awake
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.instances import Instances

NUM_NODES = 9
FARTHER = 4  # rings beyond the farthest senders whose degrees are changed
NODES = np.arange(NUM_NODES)
# As many edges each: two that lead to every node and two that leave it; a node that hears of all others, and one that
# all others hear of; all of them from the first half of the nodes to the second.
REGULAR = np.concatenate([np.stack([NODES, (NODES + step) % NUM_NODES]) for step in (1, 2)], axis=1)
HUBS = np.array(
    [[1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 1, 1, 1, 1, 1, 5, 6, 7], [0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8]]
)
LEAVING = np.stack([REGULAR[0], REGULAR[1] + NUM_NODES])


def with_structure(found: ModelTrace, call: ModelCall, X: Instances, device: torch.device) -> ModelTrace:
    """Return what is known of a model, and that it sees more where it looks at edges that no message takes to it.

    A part of a graph that holds every edge that leads to some nodes, like all wider ones, gives such a model a wrong
    prediction: edges that leave these nodes, which their out-degrees count, may lead to somewhere else, and the largest
    or smallest degree of all may be anywhere.

    Parameters
    ----------
    found : ModelTrace
        Of node or link predictions.
    call : ModelCall
        The frozen model.
    X : Instances
        Where attributes of nodes and edges are taken from.
    device : torch.device
        Device of the model.

    Returns
    -------
    ModelTrace
        With `both_ways` if edges that leave a graph change outputs on it, with more `hops` if degrees are felt from
        farther than messages, with none if edges elsewhere are, and with `outer_degrees`.
    """
    if found.hops is None:
        return found
    outputs = []
    for edges in (REGULAR + NUM_NODES, HUBS + NUM_NODES, LEAVING):
        batch = _beside(edges, X, device)
        try:
            with Awake():
                output = run(call, batch, x=distinct_features(batch))[0]
        except Exception:
            return found  # not every model takes such graphs, and each refuses in its own way
        outputs.append(of_elements(output, batch)[:NUM_NODES])
    elsewhere, leaving = (not same_outputs(outputs[0], output) for output in outputs[1:])
    both_ways = found.both_ways or leaving
    farther = _felt_degrees(found.hops, both_ways, call, X, device)
    beyond = max(farther, default=0)
    hops = None if elsewhere or beyond == FARTHER else found.hops + (beyond + 1 if beyond else 0)
    felt = 0 in farther and not beyond and not normalising_layers(call.model)
    outer_degrees = felt or _reads_edges(call, X, device)
    return replace(found, both_ways=both_ways, hops=hops, outer_degrees=outer_degrees)


def _beside(edges: np.ndarray, X: Instances, device: torch.device) -> GraphBatch:
    """Return a regular graph with as many other nodes, and further edges."""
    return probe_batch(X, [Part(np.concatenate([REGULAR, edges], axis=1), 2 * NUM_NODES)], device)


def _felt_degrees(hops: int, both_ways: bool, call: ModelCall, X: Instances, device: torch.device) -> list[int]:
    """Return how much farther away than the farthest messages degrees are felt, 0 for those of the farthest senders.

    In each copy of a path another node has one more neighbour, which is too far away from the end to be heard of.
    """
    last = hops + FARTHER + 1
    far, other = last + 1, last + 2
    edges = path(last + 1, both_ways=both_ways).edges
    parts = []
    for place in [other, *(last - hops - more for more in range(FARTHER + 1))]:
        extra = np.array([[far, place], [place, far]] if both_ways else [[far], [place]])
        parts.append(Part(np.concatenate([edges, extra], axis=1), last + 3))
    batch = probe_batch(X, parts, device)
    x = distinct_features(batch)
    try:
        with Awake():
            output = run(call, batch, x=None if x is None else torch.cat([x[: last + 3]] * len(parts)))[0]
    except Exception:
        return []  # not every model takes such graphs, and each refuses in its own way
    ends = of_elements(output, batch)[last :: last + 3]
    return [more for more in range(FARTHER + 1) if not same_outputs(ends[0], ends[more + 1])]


class _Reading(TorchDispatchMode):
    """Notes whether edges are used while no layer runs."""

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.edges, self.layers, self.found = edges, 0, False

    def enter(self, *_: Any) -> None:
        self.layers += 1

    def leave(self, *_: Any) -> None:
        self.layers -= 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [value for value in flat([args, kwargs or {}]) if torch.is_tensor(value)]
        alike = any(value.dtype == self.edges.dtype and value.shape == self.edges.shape for value in given)
        self.found = self.found or (alike and not self.layers)
        return func(*args, **(kwargs or {}))


def _reads_edges(call: ModelCall, X: Instances, device: torch.device) -> bool:
    """Return True if the model does something with the edges besides giving them to layers.

    What it counts may matter in large numbers only, which small graphs do not have.
    """
    batch = _beside(REGULAR + NUM_NODES, X, device)
    reading = _Reading(batch.edge_index)
    with ExitStack() as stack:
        for _, layer in message_passing_modules(call.model):
            stack.callback(layer.register_forward_pre_hook(reading.enter).remove)
            stack.callback(layer.register_forward_hook(reading.leave).remove)
        stack.enter_context(reading)
        run(call, batch)
    return reading.found
