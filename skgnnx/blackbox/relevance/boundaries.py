"""Node states between graph convolutions: noted, cut off from what is before, or under a gate for each node."""

from __future__ import annotations

from torch import Tensor


class Boundaries:
    """Notes the states that go into each graph convolution, and those that come out of the last.

    Attributes
    ----------
    states : list of Tensor of shape (N, d)
        What scores are differentiated by.
    """

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self._left: Tensor | None = None  # what the model goes on with behind a convolution that may be the last

    def enter(self, state: Tensor) -> Tensor:
        """Return with what a convolution is to go on, given what goes into it."""
        if self._left is not None:
            self.states.pop()
            self._left = None
        return self._cross(state)

    def leave(self, state: Tensor) -> Tensor:
        """Return with what the model is to go on, given what comes out of the last convolution."""
        self._left = self._cross(state)
        return self._left

    def replace_last(self, state: Tensor) -> Tensor:
        """Return with what the model is to go on, where something was folded into the last convolution."""
        self.states.pop()
        return self.leave(state)

    def is_last(self, state: Tensor) -> bool:
        """Return True if a tensor is what came out of the last convolution."""
        return self._left is state

    def _cross(self, state: Tensor) -> Tensor:
        noted, handed = self._crossed(len(self.states), state)
        self.states.append(noted)
        return handed

    def _crossed(self, number: int, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is noted at a boundary, and what the model goes on with."""
        return state, state


class Cuts(Boundaries):
    """Cuts the model at every boundary: what follows starts at a leaf.

    Attributes
    ----------
    before : list of Tensor
        What was cut off, one for each state.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Tensor] = []

    def _crossed(self, number: int, state: Tensor) -> tuple[Tensor, Tensor]:
        self.before[number:] = [state]
        leaf = state.detach().clone().requires_grad_()
        return leaf, leaf.clone()  # the model may change what it is given in place; a leaf it may not


class NodeGates(Boundaries):
    """Puts a gate of 1 on the state of each node at every boundary.

    Attributes
    ----------
    gates : list of Tensor of shape (N, 1)
    """

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[Tensor] = []

    def _crossed(self, number: int, state: Tensor) -> tuple[Tensor, Tensor]:
        gate = state.new_ones(state.shape[0], *(1,) * (state.dim() - 1)).requires_grad_()
        self.gates[number:] = [gate]
        gated = state * gate
        return gated, gated
