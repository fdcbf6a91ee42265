"""What a model says of an instance when only a coalition of its nodes takes part, each coalition asked about once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.variants import Variants
from skgnnx.graphs.batch import GraphBatch

BYTES_AT_ONCE = 1 << 25
Found = TypeVar("Found")
Asking = Generator[np.ndarray, None, Found]
Removal = Callable[[OpenBox, GraphBatch, np.ndarray, np.ndarray], Tensor]


def zero_features(gnn: OpenBox, batch: GraphBatch, owner: np.ndarray, there: np.ndarray) -> Tensor:
    """Return raw outputs (V, C) where nodes that are not there have zero features; their edges stay.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    owner : ndarray of int, shape (V,)
        Instance of each version.
    there : ndarray of bool
        One for each node of each version.
    """
    variants = Variants(gnn, batch, owner)

    def features(copies: GraphBatch, part: slice) -> Tensor:
        x = gnn.float_features(copies, "removal='split'")
        here = torch.from_numpy(there[variants.nodes(part)]).to(x.device, x.dtype)
        return x * here.view(-1, *(1,) * (x.dim() - 1))

    return variants.with_features(features)


def split_edges(gnn: OpenBox, batch: GraphBatch, owner: np.ndarray, there: np.ndarray) -> Tensor:
    """Return raw outputs (V, C) where nodes that are not there have no edges; their features stay.

    Degrees are computed afresh, so the batch must have been cut for it, see `BaseExplainer.removes_edges`. Parameters
    are those of `zero_features`.
    """
    variants = Variants(gnn, batch, owner)

    def kept(part: slice) -> np.ndarray:
        number = np.diff(variants.edge_ptr[part.start : part.stop + 1])
        first = np.repeat(variants.node_ptr[part], number)
        source, target = batch.graphs.ends[:, variants.copied_edges(part)] + first
        return there[source] & there[target]

    return variants.keep_edges(kept)


REMOVALS: dict[str, Removal] = {"zero": zero_features, "split": split_edges}


class Coalitions:
    """Coalitions of the nodes of one instance: each has a number, and a value once it has been asked about.

    Parameters
    ----------
    num_nodes : int
        Nodes of the instance.
    remembers : bool, default=True
        False gives a coalition another number each time; values stay the same, and take longer.
    """

    def __init__(self, num_nodes: int, remembers: bool = True) -> None:
        self.num_nodes = num_nodes
        self._number: dict[bytes, int] = {}
        self._packed: list[bytes] = []
        self._remembers = remembers
        self._values = np.zeros((0, 0))

    def __len__(self) -> int:
        return len(self._packed)

    def numbers(self, there: np.ndarray) -> np.ndarray:
        """Return the number of each of K coalitions (K, n), new ones counted on."""
        packed = np.packbits(there, axis=1)
        keys = [row.tobytes() for row in packed]
        if not self._remembers:
            self._packed += keys
            return np.arange(len(self._packed) - len(keys), len(self._packed))
        for key in keys:
            if self._number.setdefault(key, len(self._packed)) == len(self._packed):
                self._packed.append(key)
        return np.array([self._number[key] for key in keys], dtype=np.int64)

    def unknown(self, numbers: np.ndarray) -> np.ndarray:
        """Return those of some coalitions, each once, that have no value yet."""
        numbers = np.unique(numbers)
        return numbers[~self._known(numbers)]

    def _known(self, numbers: np.ndarray) -> np.ndarray:
        known = numbers < len(self._values)
        known[known] = ~np.isnan(self._values[numbers[known]]).any(axis=1)
        return known

    def members(self, numbers: np.ndarray) -> np.ndarray:
        """Return who is in some coalitions (K, n)."""
        packed = np.frombuffer(b"".join(self._packed[number] for number in numbers), dtype=np.uint8)
        return np.unpackbits(packed.reshape(len(numbers), -1), axis=1, count=self.num_nodes).astype(bool)

    def learn(self, numbers: np.ndarray, values: np.ndarray) -> None:
        """Take down the values (K, T) of some coalitions, one for each target of the model."""
        missing = len(self._packed) - len(self._values)
        if missing > 0:
            empty = np.full((max(missing, len(self._values)), values.shape[1]), np.nan)
            self._values = np.concatenate([self._values.reshape(-1, values.shape[1]), empty])
        self._values[numbers] = values

    def values(self, numbers: np.ndarray, target: int) -> np.ndarray:
        """Return what is known of a target's probability, or its value in a regression, in some coalitions (K,)."""
        return self._values[numbers, target]


class CoalitionValues:
    """Values of coalitions of nodes, for all instances of a batch and all targets.

    A node that is in no coalition loses its features or its edges, as `removal` says.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    removal : {"zero", "split"} or callable
        What becomes of nodes that are not in a coalition, see `zero_features` and `split_edges`.
    remembers : bool, default=True
        As for `Coalitions`.

    Attributes
    ----------
    of : list of Coalitions
        Those of each instance.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, removal: str | Removal, remembers: bool = True) -> None:
        self._gnn, self._batch = gnn, batch
        self._remove = REMOVALS[removal] if isinstance(removal, str) else removal
        self.of = [Coalitions(int(n), remembers) for n in np.diff(batch.graphs.node_ptr)]

    def ask(self, wanted: Sequence[tuple[int, np.ndarray]]) -> None:
        """Ask the model about coalitions that have no value yet, in as few forward passes as fit.

        Parameters
        ----------
        wanted : sequence of (int, ndarray of int)
            Instances of the batch, each at most once, and numbers of their coalitions.
        """
        pieces: list[tuple[int, np.ndarray]] = []
        size = 0
        for i, numbers in wanted:
            unknown, most = self.of[i].unknown(numbers), max(1, BYTES_AT_ONCE // max(self.of[i].num_nodes, 1))
            for start in range(0, len(unknown), most):
                piece = unknown[start : start + most]
                size += len(piece) * self.of[i].num_nodes
                pieces.append((i, piece))
                if size >= BYTES_AT_ONCE:
                    self._run(pieces)
                    pieces, size = [], 0
        if pieces:
            self._run(pieces)

    def _run(self, pieces: list[tuple[int, np.ndarray]]) -> None:
        owner = np.repeat([i for i, _ in pieces], [len(numbers) for _, numbers in pieces])
        there = np.concatenate([self.of[i].members(numbers).ravel() for i, numbers in pieces])
        outputs = self._remove(self._gnn, self._batch, owner, there)
        values = heads.probabilities(self._gnn.kind_of_output, outputs.double()).cpu().numpy()
        first = 0
        for i, numbers in pieces:
            self.of[i].learn(numbers, values[first : first + len(numbers)])
            first += len(numbers)

    def side_by_side(self, searches: Sequence[Asking[Found]]) -> list[Found]:
        """Run one search for each instance in lock-step, and return what they find.

        Parameters
        ----------
        searches : sequence of generators
            One per instance; each yields numbers of coalitions of its instance whose values it needs next.
        """
        found: dict[int, Found] = {}
        wanted: list[tuple[int, np.ndarray]] = []
        going = dict(enumerate(searches))
        while going:
            wanted = []
            for i, search in list(going.items()):
                try:
                    wanted.append((i, next(search)))
                except StopIteration as end:
                    found[i] = end.value
                    del going[i]
            self.ask(wanted)
        return [found[i] for i in range(len(searches))]
