"""A model that pools its nodes and ends in one linear map: what it pools, and the map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.probe_graphs import path, probe_batch
from skgnnx.blackbox.readouts import LinearCall, Pooled, StepRecorder, pooled_blocks, states_of_nodes
from skgnnx.graphs.batch import GraphBatch


class PooledHead(NamedTuple):
    """What the scores of a batch are made of: ``scores = pooled @ weight.T + bias``.

    Parameters
    ----------
    blocks : list of Pooled
        Columns of the pooled rows, one pool after the other.
    weight : Tensor of shape (T, K)
    bias : Tensor of shape (T,)
    scores : Tensor of shape (B, T)
    """

    blocks: list[Pooled]
    weight: Tensor
    bias: Tensor
    scores: Tensor


def pooled_head(gnn: OpenBox, batch: GraphBatch) -> PooledHead:
    """Return what is pooled and mapped to the scores of a batch of graphs, from one run of the model.

    Raises
    ------
    TypeError
        If the scores are not one linear map of mean, sum or maximum over the nodes of each graph.
    """
    found = _found(gnn, batch)
    if found is not None and len(batch) == batch.num_nodes:
        # Graphs of one node are their own pools, whatever comes after: larger ones tell.
        found = None if _found(gnn, _larger(gnn)) is None else found
    if found is None:
        raise TypeError(
            "CAM needs scores that are one Linear of the mean, sum or maximum over the nodes of a graph. Got no "
            f"global pooling followed by one Linear found in {gnn.name} (several maps after the pooling, or another "
            "readout); use GradCAM, LRP or InputXGradient."
        )
    return found


def _larger(gnn: OpenBox) -> GraphBatch:
    return probe_batch(gnn.X, [path(4, both_ways=True), path(3, both_ways=True)], gnn.device)


def _found(gnn: OpenBox, batch: GraphBatch) -> PooledHead | None:
    with torch.no_grad(), StepRecorder() as recorder:
        argument, kind = gnn.plain_argument(batch, logits=True)
    last = next((call for call in reversed(recorder.linears) if _is_same(call, argument)), None)
    rows = None if last is None else _rows(last, len(batch))
    if last is None or rows is None:
        return None
    blocks = pooled_blocks(rows, states_of_nodes(recorder, batch), batch)
    if blocks is None:
        return None
    bias = last.weight.new_zeros(len(last.weight)) if last.bias is None else last.bias
    weight, bias = heads.scores(kind, last.weight.T).T, heads.scores(kind, bias.view(1, -1))[0]
    return PooledHead(blocks, weight, bias, heads.scores(kind, gnn.plain_rows(argument, batch)))


def _rows(call: LinearCall, graphs: int) -> Tensor | None:
    """Return what goes into a linear map as one row per graph, None if it has other rows."""
    width = call.weight.shape[1]
    return call.entered.reshape(-1, width) if call.entered.numel() == graphs * width else None


def _is_same(call: LinearCall, argument: Tensor) -> bool:
    """Return True if the scores are what a linear map gave, maybe in another shape, copied, or checked on the way."""
    if call.left._version != call.version or call.left.numel() != argument.numel():
        return False
    return torch.equal(call.left.reshape(argument.shape), argument)
