"""A forward pass in which every message has a gate, also along the loops that layers make."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.masked_run import MaskedRun
from skgnnx.blackbox.pyg_compat import ends_of_call


class GatedRun(MaskedRun):
    """A `MaskedRun` whose masks (E + N,) hold a factor for each edge, and then one for the loop of each node."""

    is_scaling = False  # while messages are multiplied by their gates, which is no product of the model's

    def _message(self, layer: MessagePassing, output: Any) -> Any:
        self.is_scaling = True
        try:
            return super()._message(layer, output)
        finally:
            self.is_scaling = False

    def _factors_of(self, mask: Tensor, number: int, name: str, layer: MessagePassing, edge_index: Tensor) -> Tensor:
        edge = self.plan.message_edges(number, name, layer, edge_index)
        loop = self.plan.seen.num_edges + ends_of_call(edge_index, layer)[1]
        return mask.index_select(0, torch.where(edge < 0, loop, edge))
