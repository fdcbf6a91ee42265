"""True degrees at the rim of a cut: a layer's own normalisation, computed one ring further and handed over."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import NORMALISATION, ModelCall, Normalisation
from skgnnx.blackbox.edge_matching import match_edges
from skgnnx.blackbox.pyg_compat import normalising_layers
from skgnnx.graphs.batch import GraphBatch


def without_ring(call: ModelCall, batch: GraphBatch, reach: dict[str, int]) -> GraphBatch | None:
    """Return a batch without its outer ring whose layers still normalise by the degrees of the whole graph.

    The layers normalise the batch with its ring; what they keep of it is cut to the edges whose messages can still be
    felt by the prediction, and put into the layers' own caches whenever the model runs on the smaller batch.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    batch : GraphBatch
        A batch with one ring more than its receptive field.
    reach : dict of str to int
        How far from its source a message of each layer can be felt.

    Returns
    -------
    GraphBatch or None
        None if the model has no layer with such a cache.
    """
    known = _normalise(call, batch)
    if not known:
        return None
    smaller = batch.keep_nodes(batch.graphs.node_reach)
    smaller = smaller.keep_edges(smaller.graphs.edge_reach)
    place = np.cumsum(batch.graphs.node_reach) - 1
    own, level = batch.edge_index.cpu().numpy(), batch.graphs.node_level
    cut: Normalisation = {}
    for (name, layer), (edge_index, weight) in known.items():
        ends = edge_index.cpu().numpy()
        found = match_edges(ends, own, replaces_loops=True)
        if found is None:
            return None
        kept = np.flatnonzero(level[ends[1]] < reach[name])
        rows = torch.from_numpy(kept).to(batch.device)
        cut[layer] = (torch.from_numpy(place[ends[:, kept]]).to(batch.device), weight.index_select(0, rows))
    smaller.memo[NORMALISATION] = cut
    return smaller


def _normalise(call: ModelCall, batch: GraphBatch) -> dict[tuple[str, MessagePassing], tuple[Tensor, Tensor]]:
    """Let every layer normalise the edges of a batch, and return what it cached."""
    layers = normalising_layers(call.model) if isinstance(call.model, nn.Module) else []
    try:
        for _, layer in layers:
            layer.cached = True
        if layers:
            with torch.no_grad():
                call(batch)
        return {named: named[1]._cached_edge_index for named in layers if named[1]._cached_edge_index is not None}
    finally:
        for _, layer in layers:
            layer.cached, layer._cached_edge_index = False, None
