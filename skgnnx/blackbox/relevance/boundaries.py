"""Node states between graph convolutions: noted, cut off from what is before, or under a gate for each node."""

from __future__ import annotations

from torch import Tensor


class Boundaries:
    """Notes the states that go into each graph convolution, and those that come out of the last.

    Attributes
    ----------
    states : list of Tensor of shape (N, d)
        As the model goes on with them.
    """

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self._has_left = False

    def enter(self, state: Tensor) -> Tensor:
        """Return with what a convolution is to go on, given what goes into it."""
        if self._has_left:
            self.states.pop()
            self._has_left = False
        self.states.append(self._crossed(len(self.states), state))
        return self.states[-1]

    def leave(self, state: Tensor) -> Tensor:
        """Return with what the model is to go on, given what comes out of the last convolution."""
        self.states.append(self._crossed(len(self.states), state))
        self._has_left = True
        return self.states[-1]

    def replace_last(self, state: Tensor) -> Tensor:
        """Return with what the model is to go on, where something was folded into the last convolution."""
        self.states.pop()
        return self.leave(state)

    def is_last(self, state: Tensor) -> bool:
        """Return True if a tensor is what came out of the last convolution."""
        return self._has_left and self.states[-1] is state

    def _crossed(self, number: int, state: Tensor) -> Tensor:
        return state


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

    def _crossed(self, number: int, state: Tensor) -> Tensor:
        self.before[number:] = [state]
        return state.detach().clone().requires_grad_()


class NodeGates(Boundaries):
    """Puts a gate of 1 on the state of each node at every boundary.

    Attributes
    ----------
    gates : list of Tensor of shape (N, 1)
    """

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[Tensor] = []

    def _crossed(self, number: int, state: Tensor) -> Tensor:
        gate = state.new_ones(state.shape[0], *(1,) * (state.dim() - 1)).requires_grad_()
        self.gates[number:] = [gate]
        return state * gate
