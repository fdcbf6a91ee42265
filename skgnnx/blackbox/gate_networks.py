"""Networks that read a message and the states of its ends, and say how far its gate is open."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skgnnx.blackbox.message_gates import CallMessages

NARROWEST = 8


class GateNetwork(nn.Module):
    r"""The location of the gate of each message of one propagate call.

    .. math:: a = w^T \mathrm{ReLU}\Bigl(\frac{c + \sum_j \mathrm{LayerNorm}_j(W_j x_j)}{3}\Bigr) + w_0

    where :math:`x_j` are the state of the source, the message and the state of the target, in a run of the model as it
    is.

    Parameters
    ----------
    widths : sequence of three int
        Numbers in each of the three.
    hidden : int
        Width of the hidden layer.
    """

    def __init__(self, widths: Sequence[int], hidden: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (sum(widths) + hidden))
        self.weights = nn.ParameterList(torch.empty(width, hidden).uniform_(-bound, bound) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in widths)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.last = nn.Linear(hidden, 1)

    def forward(self, source: Tensor, messages: Tensor, target: Tensor) -> Tensor:
        """Return one location per message (M,)."""
        parts = [
            norm(x.to(weight.dtype) @ weight)
            for x, weight, norm in zip((source, messages, target), self.weights, self.norms, strict=True)
        ]
        hidden = (self.bias + parts[0] + parts[1] + parts[2]) / len(parts)
        return self.last(hidden.relu()).squeeze(1)


class GateNetworks(nn.Module):
    """One gate network for each propagate call, and the message that stands in for those behind closed gates.

    Parameters
    ----------
    calls : sequence of CallMessages
        Of any batch, which tell how wide everything is.
    hidden : int, optional
        Width of hidden layers; None takes that of the messages, but no less than 8: normalised, a single number says
        nothing.
    """

    def __init__(self, calls: Sequence[CallMessages], hidden: int | None = None) -> None:
        super().__init__()
        self.widths = _widths(calls)
        self.networks = nn.ModuleList(GateNetwork(each, hidden or max(each[1], NARROWEST)) for each in self.widths)
        self.baselines = nn.ParameterList(
            torch.empty(width).uniform_(-1, 1) / math.sqrt(max(width, 1)) for _, width, _ in self.widths
        )

    def forward(self, calls: Sequence[CallMessages]) -> list[Tensor]:
        """Return the locations of the gates of each call's messages."""
        if len(calls) != len(self.networks):
            raise ValueError(
                f"The model must pass messages {len(self.networks)} times in every run, as in fit. Got {len(calls)} "
                "times; use a method that learns nothing of its layers."
            )
        got = _widths(calls)
        if got != self.widths:
            raise ValueError(
                "Sources, messages and targets of the model must have as many numbers in every run as in fit, "
                f"{self.widths} in its calls. Got {got}; fit again with the model to explain."
            )
        return [
            network(call.source, call.messages, call.target) for network, call in zip(self.networks, calls, strict=True)
        ]


def _widths(calls: Sequence[CallMessages]) -> list[tuple[int, int, int]]:
    """Return how many numbers sources, messages and targets of each call have."""
    return [(call.source.shape[1], call.messages.shape[1], call.target.shape[1]) for call in calls]
