"""Many changed versions of the instances of a batch, run as copies in as few forward passes as fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.blackbox.trimming import Trim
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import ranges

TRIM = ("trim of copies",)  # a tuple, so that no key of the user's graphs is the same
AHEAD = 8  # how much more is looked at than runs at once, to see which edges stay
Run = Callable[[GraphBatch, slice], Tensor]


class Variants:
    """Versions of the instances of a batch, each changed in a way of its own, without gradient.

    What belongs to the edges or nodes of all versions is handed over as one flat array: the edges of the first version
    in the order of the batch, then those of the second, and so on, from ``edge_ptr`` and ``node_ptr``.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    owner : ndarray of int, shape (V,)
        Instance of which each version is a copy, by its position in the batch.

    Attributes
    ----------
    node_ptr, edge_ptr : ndarray of int, shape (V + 1,)
        First node and first edge of each version in flat arrays, and how many there are.
    targets : Tensor of shape (V,)
        Explained class or column of each version.

    Raises
    ------
    FloatingPointError
        If an output is not finite: no comparison with it means anything.
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, owner: np.ndarray) -> None:
        self.owner = np.asarray(owner, dtype=np.int64)
        self.targets = batch.targets[torch.from_numpy(self.owner).to(batch.device)]  # type: ignore[index]
        self.node_ptr, self.edge_ptr = (
            np.concatenate([[0], np.cumsum(np.diff(ptr)[self.owner])])
            for ptr in (batch.graphs.node_ptr, batch.graphs.edge_ptr)
        )
        self._gnn = gnn
        self._batch = batch

    def __len__(self) -> int:
        return len(self.owner)

    def keep_edges(self, keep: np.ndarray | Callable[[slice], np.ndarray]) -> Tensor:
        """Return raw outputs (V, C) with a shorter list of edges, degrees computed afresh; nodes stay.

        Parameters
        ----------
        keep : ndarray of bool, one per edge of each version, or callable
            What stays; a callable returns it for some versions, told as a slice of all, so that it need not be there
            for all at once. The batch must have been cut for it, see `BaseExplainer.removes_edges`.
        """
        with torch.no_grad():
            found = [self._gnn.forward_once(self._without(part, kept)) for part, kept in self._kept(keep)]
        return self._joined(found)

    def under_masks(self, masks: Tensor | Sequence[Tensor]) -> Tensor:
        """Return raw outputs (V, C) with messages multiplied by factors; normalisation stays that of all edges.

        Parameters
        ----------
        masks : Tensor, one factor per edge of each version, or sequence of such
            For all propagate calls, or for each of them.
        """

        def run(copies: GraphBatch, part: slice) -> Tensor:
            edges = self.edges(part)
            here = masks[edges] if torch.is_tensor(masks) else [mask[edges] for mask in masks]
            return self._gnn.forward(copies, edge_mask=here)

        return self.outputs(run)

    def with_features(self, features: Callable[[GraphBatch, slice], Tensor]) -> Tensor:
        """Return raw outputs (V, C) with other node features.

        Parameters
        ----------
        features : callable
            From some of the versions as one batch, and which of all they are, to their node features (N, F).
        """

        def run(copies: GraphBatch, part: slice) -> Tensor:
            return self._gnn.forward(copies, x=features(copies, part))

        return self.outputs(run)

    def outputs(self, run: Run) -> Tensor:
        """Return raw outputs (V, C) of versions that a function changes and runs.

        Parameters
        ----------
        run : callable
            From unchanged copies, as one batch, and which of all versions they are, to their raw outputs.
        """
        with torch.no_grad():
            return self._joined([run(copies, part) for copies, part in self.parts()])

    def _joined(self, found: list[Tensor]) -> Tensor:
        like = self._gnn.reference
        outputs = torch.cat([torch.empty((0, like.shape[1]), dtype=like.dtype, device=like.device), *found])
        bad = ~torch.isfinite(outputs).all(dim=1).cpu().numpy()
        if bad.any():
            raise FloatingPointError(
                f"The output of {self._gnn.name} must be finite for every changed version of an instance. Got NaN or "
                f"infinity at index {self._batch.positions[self.owner[bad][0]]}; look for overflow and for divisions "
                "by degrees or norms that may be 0, or use on_error='nan'."
            )
        return outputs

    def nodes(self, part: slice) -> slice:
        """Return where the nodes of some versions are in flat arrays."""
        return slice(self.node_ptr[part.start], self.node_ptr[part.stop])

    def edges(self, part: slice) -> slice:
        """Return where the edges of some versions are in flat arrays."""
        return slice(self.edge_ptr[part.start], self.edge_ptr[part.stop])

    def copied_edges(self, part: slice) -> np.ndarray:
        """Return for the edges of some versions of which edges of the batch they are copies."""
        owner = self.owner[part]
        return ranges(self._batch.graphs.edge_ptr[owner], np.diff(self._batch.graphs.edge_ptr)[owner])

    def values(self, outputs: Tensor) -> Tensor:
        """Return the probability of the target of each version (V,), in float64; its value in a regression."""
        return of_targets(heads.probabilities(self._gnn.kind_of_output, outputs.double()), self.targets)

    def log_values(self, outputs: Tensor) -> Tensor:
        """Return the log-probability of the target of each version (V,), in float64; its value in a regression."""
        kind = self._gnn.kind_of_output
        found = outputs.double() if kind == "regression" else heads.log_probabilities(kind, outputs.double())
        return of_targets(found, self.targets)

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return the class that the model predicts for each version (V,)."""
        return heads.predicted(self._gnn.kind_of_output, outputs, self._gnn.box.threshold)

    def parts(self) -> Iterator[tuple[GraphBatch, slice]]:
        """Yield runs of versions that fit the memory budget, as unchanged copies."""
        owner, copies = None, self._batch
        for part in self._runs(self.node_ptr + self.edge_ptr, self._gnn.rows_of_versions):
            if owner is None or not np.array_equal(owner, self.owner[part]):
                owner = self.owner[part]
                copies = self._copies(owner)
            yield copies, part

    def _runs(self, size: np.ndarray, rows: int) -> Iterator[slice]:
        """Yield runs of consecutive versions, from how many rows are before each of them."""
        start, end = 0, len(size) - 1
        most = end if self._gnn.keeps_copies_apart(self._batch) else 1
        while start < end:
            stop = int(np.searchsorted(size, size[start] + rows, side="right")) - 1
            stop = min(max(stop, start + 1), start + most, end)
            yield slice(start, stop)
            start = stop

    def _kept(self, keep: np.ndarray | Callable[[slice], np.ndarray]) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield runs of versions that fit the memory budget once they have lost edges, and what stays of these."""
        rows = self._gnn.rows_of_copies
        for many in self._runs(self.node_ptr + self.edge_ptr, AHEAD * rows):
            kept = keep(many) if callable(keep) else keep[self.edges(many)]
            ends = slice(many.start, many.stop + 1)
            edges = self.edge_ptr[ends] - self.edge_ptr[many.start]
            size = self.node_ptr[ends] + np.concatenate([[0], np.cumsum(kept)])[edges]
            for part in self._runs(size, rows):
                here = kept[edges[part.start] : edges[part.stop]]
                yield slice(many.start + part.start, many.start + part.stop), here

    def _without(self, part: slice, kept: np.ndarray) -> GraphBatch:
        """Return some versions with fewer edges."""
        owner = self.owner[part]
        copies = self._batch.take(owner, kept)
        if self._batch.trim != Trim.NONE:
            trim, size = self._batch.memo.get(TRIM, (None, 0))
            copies.trim = trim if copies.num_nodes <= size else self._copies(owner).trim
        return copies

    def _copies(self, owner: np.ndarray) -> GraphBatch:
        """Return copies of instances; the largest batch of them shows how much layers may leave out."""
        copies = self._batch.take(owner)
        trim, size = self._batch.memo.get(TRIM, (None, 0))
        if copies.num_nodes <= size:
            copies.trim = trim
            return copies
        if not self._gnn.settles(copies):
            self._gnn.setup.put(copies, Trim.NONE)
        self._batch.memo[TRIM] = copies.trim, copies.num_nodes
        return copies
