"""What layers that normalise make of edges and loops, by edge and node, and how a batch is handed its part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.calling import Handed
from skgnnx.blackbox.edge_matching import NOT_AN_EDGE
from skgnnx.graphs.batch import GraphBatch


class Weights(NamedTuple):
    """Whether there is a message for each of many edges or nodes, and its weight; no weights where all are one."""

    exist: np.ndarray
    values: Tensor | None

    def take(self, rows: np.ndarray) -> Weights:
        """Return those of some edges or nodes."""
        values = self.values
        return Weights(self.exist[rows], None if values is None else values[torch.from_numpy(rows).to(values.device)])

    def is_close(self, other: Weights) -> bool:
        """Return True if the same messages exist, with weights that are equal up to rounding."""
        exist, (one, two) = self.exist, (self.values, other.values)
        if not np.array_equal(exist, other.exist) or (one is None) != (two is None):
            return False
        return one is None or two is None or torch.allclose(one[exist], two[exist])

    @classmethod
    def concat(cls, first: Weights, second: Weights) -> Weights:
        """Join two."""
        values = None if first.values is None or second.values is None else torch.cat([first.values, second.values])
        return cls(np.concatenate([first.exist, second.exist]), values)


class Normalised(NamedTuple):
    """What one layer makes of edges and loops.

    Parameters
    ----------
    swapped : bool
        Whether the layer keeps its edges the other way round.
    edges, loops : Weights
        Of the messages along edges, and of the loops at nodes.
    """

    swapped: bool
    edges: Weights
    loops: Weights

    def take(self, edges: np.ndarray, loops: np.ndarray) -> Normalised:
        """Return what is made of some edges and loops."""
        return Normalised(self.swapped, self.edges.take(edges), self.loops.take(loops))

    @classmethod
    def concat(cls, first: Normalised, second: Normalised) -> Normalised:
        """Join what one layer makes of some edges and of others."""
        edges, loops = Weights.concat(first.edges, second.edges), Weights.concat(first.loops, second.loops)
        return cls(second.swapped, edges, loops)


def handed(known: Normalised, batch: GraphBatch, edge: np.ndarray, node: np.ndarray, reach: int | None) -> Handed:
    """Cut what a layer knows to a batch, and to the messages that are felt over at most `reach` of them."""
    edge_kept, node_kept = known.edges.exist[edge], known.loops.exist[node]
    ends, level = batch.edge_index.cpu().numpy(), batch.graphs.node_level
    if reach is not None:
        edge_kept &= level[ends[1]] < reach
        node_kept &= level < reach
    edges, nodes = np.flatnonzero(edge_kept), np.flatnonzero(node_kept)
    columns = (ends[::-1] if known.swapped else ends)[:, edges]
    weights = Weights.concat(known.edges.take(edge[edges]), known.loops.take(node[nodes]))
    return Handed(
        torch.from_numpy(np.concatenate([columns, np.stack([nodes, nodes])], axis=1)).to(batch.device),
        weights.values,
        torch.from_numpy(np.concatenate([edges, np.full(len(nodes), NOT_AN_EDGE)])).to(batch.device),
    )


def by_edge_and_loop(
    edge: np.ndarray, edge_index: Tensor, weight: Tensor | None, union: GraphBatch
) -> tuple[Weights, Weights]:
    """Sort the messages of a call by the edge that they run along, or by the node whose loop they are."""
    message, is_loop = np.arange(len(edge)), edge == NOT_AN_EDGE
    loop_at = edge_index[0].cpu().numpy()[is_loop]
    found = []
    for size, place, number in (
        (union.num_edges, edge[~is_loop], message[~is_loop]),
        (union.num_nodes, loop_at, message[is_loop]),
    ):
        exist = np.zeros(size, dtype=bool)
        exist[place] = True
        values = None
        if weight is not None:
            values = weight.new_zeros(size, *weight.shape[1:])
            values[torch.from_numpy(place).to(weight.device)] = weight[torch.from_numpy(number).to(weight.device)]
        found.append(Weights(exist, values))
    return found[0], found[1]
