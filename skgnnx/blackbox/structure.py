"""What of the edges of a graph a prediction sees besides the messages that run along them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.probe_graphs import Part, path, probe_batch
from skgnnx.blackbox.probe_runs import distinct_features, run, same_outputs
from skgnnx.blackbox.receptive_field import ModelTrace, of_elements
from skgnnx.blackbox.waking import Awake
from skgnnx.graphs.instances import Instances

PATH_NODES = 9
# Edges between as many other nodes as the path has, and as many as these: a hub that hears of others, one that others
# hear of, and what is left.
HUBS = np.array([[1, 2, 3, 4, 5, 5, 5, 6, 7], [0, 0, 0, 0, 6, 7, 8, 7, 8]])


def with_structure(found: ModelTrace, call: ModelCall, X: Instances, device: torch.device) -> ModelTrace:
    """Return what is known of a model, and that it sees more where it looks at edges that no message takes to it.

    A part of a graph that holds every edge that leads to some nodes, like all wider ones, gives such a model a wrong
    prediction: edges that leave these nodes, which their out-degrees count, may lead to somewhere else, and the largest
    degree of all may be anywhere.

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
        With `both_ways` if edges that leave a path change outputs on it, with no `hops` if edges elsewhere do.
    """
    if found.hops is None:
        return found
    own, ring = np.arange(PATH_NODES), np.roll(np.arange(PATH_NODES), -1)
    outputs = []
    for edges in (np.stack([own, ring]) + PATH_NODES, np.stack([own, own + PATH_NODES]), HUBS + PATH_NODES):
        part = Part(np.concatenate([path(PATH_NODES).edges, edges], axis=1), 2 * PATH_NODES)
        batch = probe_batch(X, [part], device)
        try:
            with Awake():
                output = run(call, batch, x=distinct_features(batch))[0]
        except Exception:
            return found  # not every model takes such graphs, and each refuses in its own way
        outputs.append(of_elements(output, batch)[:PATH_NODES])
    leaving, elsewhere = (not same_outputs(outputs[0], output) for output in outputs[1:])
    return replace(found, both_ways=found.both_ways or leaving, hops=None if elsewhere else found.hops)
