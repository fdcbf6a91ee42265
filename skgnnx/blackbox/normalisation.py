"""True degrees at the rim of a cut: a layer's own normalisation, computed one ring further and handed over."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.calling import NORMALISATION, Handed, ModelCall
from skgnnx.blackbox.edge_matching import NOT_AN_EDGE, CallKind, match_edges
from skgnnx.blackbox.pyg_compat import ends_of_call, normalising_layers
from skgnnx.graphs.batch import GraphBatch


class LayerUse(NamedTuple):
    """What is known of all calls of one layer: how far the farthest-reaching one is felt, and their kind."""

    reach: int
    kind: CallKind


def without_ring(call: ModelCall, batch: GraphBatch, uses: dict[str, LayerUse]) -> GraphBatch | None:
    """Return a batch without its outer ring whose layers still normalise by the degrees of the whole graph.

    The layers normalise the batch with its ring; what they keep of it is cut to the edges whose messages can still be
    felt by the prediction, and put into the layers' own caches whenever the model runs on the smaller batch.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    batch : GraphBatch
        A batch with one ring more than its receptive field.
    uses : dict of str to LayerUse
        What is known of each layer.

    Returns
    -------
    GraphBatch or None
        None if the model has no layer with such a cache, or one whose edges cannot be told apart.
    """
    known = _normalise(call, batch)
    if not known or any(name not in uses for name, _ in known):
        return None
    smaller = batch.keep_nodes(batch.graphs.node_reach)
    smaller = smaller.keep_edges(smaller.graphs.edge_reach)
    new_node, new_edge = _numbering(batch.graphs.node_reach), _numbering(batch.graphs.edge_reach)
    own, level = batch.edge_index.cpu().numpy(), batch.graphs.node_level
    handed: dict[MessagePassing, Handed] = {}
    for (name, layer), (edge_index, weight) in known.items():
        columns = edge_index.cpu().numpy()
        ends = ends_of_call(edge_index, layer).cpu().numpy()
        found = match_edges(ends, own, uses[name].kind)
        if found is None or not found.certain:
            return None
        kept = np.flatnonzero(level[ends[1]] < uses[name].reach)
        edge = np.append(new_edge, NOT_AN_EDGE)[found.edge[kept]]  # -1 is the last one
        handed[layer] = Handed(
            torch.from_numpy(new_node[columns[:, kept]]).to(batch.device),
            None if weight is None else weight.index_select(0, torch.from_numpy(kept).to(batch.device)),
            torch.from_numpy(edge).to(batch.device),
        )
    smaller.memo[NORMALISATION] = handed
    smaller.cut_again = lambda instances: _again(call, batch.take(instances), uses)
    return smaller


def _again(call: ModelCall, batch: GraphBatch, uses: dict[str, LayerUse]) -> GraphBatch:
    # What was possible for all instances is possible for some; the ring alone is right, too.
    return without_ring(call, batch, uses) or batch


def _numbering(kept: np.ndarray) -> np.ndarray:
    """Return the new number of everything that is kept."""
    return np.cumsum(kept) - 1


def _normalise(call: ModelCall, batch: GraphBatch) -> dict[tuple[str, MessagePassing], tuple[Tensor, Tensor | None]]:
    """Let every layer normalise the edges of a batch, and return what it cached."""
    layers = normalising_layers(call.model) if isinstance(call.model, nn.Module) else []
    try:
        for _, layer in layers:
            layer.cached = True
        if layers:
            with torch.no_grad():
                call(batch)
        known = {named: named[1]._cached_edge_index for named in layers if named[1]._cached_edge_index is not None}
        # A sparse matrix holds no list of edges that could be shortened.
        return {} if any(edge_index.layout != torch.strided for edge_index, _ in known.values()) else known
    finally:
        for _, layer in layers:
            layer.cached, layer._cached_edge_index = False, None
