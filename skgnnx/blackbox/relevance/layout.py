"""What a model is made of: layers that are linear blocks, and the order in which blocks run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Place(NamedTuple):
    """Where a linear block is.

    Parameters
    ----------
    conv : int
        Number of the graph convolution that it is, lies in, or follows; 0 also for what comes before the first.
    num_convs : int
        How many of them run in one forward pass.
    is_head : bool
        True behind the last convolution.
    is_last : bool
        True for the block whose output the scores are.
    """

    conv: int
    num_convs: int
    is_head: bool
    is_last: bool


@dataclass
class Layout:
    """Found in a forward pass on a small graph.

    Parameters
    ----------
    blocks : dict of str to (frozenset of str or None)
        For each layer the parameters that are biases; None where the layer is no linear block, but its parts may be.
    num_convs, num_blocks : int
        How many graph convolutions and linear blocks run in one forward pass.
    ends_in_block : bool
        True if the scores are the output of the last block.
    """

    blocks: dict[str, frozenset[str] | None] = field(default_factory=dict)
    num_convs: int = 0
    num_blocks: int = 0
    ends_in_block: bool = False
    is_complete: bool = False

    def note(self, num_convs: int, num_blocks: int, ends_in_block: bool) -> None:
        """Keep what the first whole run has shown."""
        if not self.is_complete:
            self.num_convs, self.num_blocks, self.ends_in_block = num_convs, num_blocks, ends_in_block
            self.is_complete = True

    def place(self, convs: int, blocks: int, inside: bool) -> Place:
        """Return where the next block is, after so many layers and blocks."""
        head = self.is_complete and convs == self.num_convs and not inside
        last = self.is_complete and self.ends_in_block and blocks == self.num_blocks - 1
        return Place(max(convs - 1, 0), self.num_convs, head, last)
