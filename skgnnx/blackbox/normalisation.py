"""True degrees at the rim of a cut: a layer's own normalisation, computed one ring further and handed over."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from skgnnx.blackbox.calling import NORMALISATION, ModelCall, Normalisation
from skgnnx.blackbox.edge_matching import match_edges
from skgnnx.blackbox.pyg_compat import normalising_layers
from skgnnx.graphs.batch import GraphBatch



def without_ring(call: ModelCall, batch: GraphBatch) -> GraphBatch | None:
    """Return a batch without its outer ring whose layers still normalise by the degrees of the whole graph.

    The layers normalise the batch with its ring; what they keep of it is cut to the nodes and edges that can reach the
    prediction, and put into the layers' own caches whenever the model runs on the smaller batch.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    batch : GraphBatch
        A batch with one ring more than its receptive field.

    Returns
    -------
    GraphBatch or None
        None if the model has no layer with such a cache.
    """
    known = _normalise(call, batch)
    if not known:
        return None
    smaller = batch.keep_nodes(batch.graphs.node_reach).keep_edges_where_reached()
    place = np.cumsum(batch.graphs.node_reach) - 1
    own = batch.edge_index.cpu().numpy()
    cut: Normalisation = {}
    for layer, (edge_index, weight) in known.items():
        ends = edge_index.cpu().numpy()
        found = match_edges(ends, own, replaces_loops=True)
        if found is None:
            return None
        inside = batch.graphs.node_reach[ends].all(axis=0)
        kept = inside & ((found < 0) | batch.graphs.edge_reach[found])
        rows = torch.from_numpy(np.flatnonzero(kept)).to(batch.device)
        cut[layer] = (torch.from_numpy(place[ends[:, kept]]).to(batch.device), weight.index_select(0, rows))
    smaller.memo[NORMALISATION] = cut
    return smaller


def _normalise(call: ModelCall, batch: GraphBatch) -> Normalisation:
    """Let every layer normalise the edges of a batch, and return what it cached."""
    layers = normalising_layers(call.model) if isinstance(call.model, nn.Module) else []
    try:
        for layer in layers:
            layer.cached = True
        if layers:
            with torch.no_grad():
                call(batch)
        return {layer: layer._cached_edge_index for layer in layers if layer._cached_edge_index is not None}
    finally:
        for layer in layers:
            layer.cached, layer._cached_edge_index = False, None
