"""Batches of computation graphs, each proven to give the model's own prediction."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox.calling import NORMALISATION, is_short_of_memory
from skgnnx.blackbox.cut_reference import wider_cut
from skgnnx.blackbox.neighbour_sampler import NeighbourSampler, Part
from skgnnx.blackbox.normalisation import Normaliser
from skgnnx.blackbox.plan import Setup
from skgnnx.blackbox.reference import PlainRuns
from skgnnx.blackbox.shortcuts import Shortcuts
from skgnnx.blackbox.trimming import Trim
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import ComputationGraphs, receptive_fields, whole_graphs
from skgnnx.graphs.instances import Instances

EXTRACTED_AT_ONCE = 2_048
SAMPLED = 8


class Cut(IntEnum):
    """How a prediction is cut out of its graph, from the smallest cut to none."""

    HOPS = 0
    NORMALISED = 1
    RING = 2
    WHOLE = 3


class Batcher:
    """Cuts instances out of their graphs and proves that the cut changes no prediction.

    Parameters
    ----------
    runs : PlainRuns
        The model as it is.
    setup : Setup
        The model as it runs on cuts, and its receptive field.
    normaliser : Normaliser
        Hands true degrees to layers that need them.
    reference : Tensor of shape (n, C)
        Its outputs on whole graphs.
    targets : ndarray of shape (n,)
        Explained classes or columns.
    """

    def __init__(
        self, runs: PlainRuns, setup: Setup, normaliser: Normaliser, reference: Tensor, targets: np.ndarray
    ) -> None:
        self.runs = runs
        self.setup = setup
        self.trace = trace = setup.trace
        self.reference = reference
        self.targets = targets
        self.level = runs.X.level
        self._least = Cut.WHOLE if self.level == "graph" or trace.hops is None else Cut.HOPS
        self._warned = False
        self._settled = False
        self._shortcuts = Shortcuts(runs, setup)
        self._trims: dict[Cut, Trim] = {}
        # Samples that have been run already, with the other features that they ran with and their outputs.
        self._tried: dict[Cut, tuple[GraphBatch | None, tuple[Tensor, Tensor] | None]] = {}
        self._normaliser = normaliser
        self._sample = _spread(len(reference))
        self.sampler: NeighbourSampler | None = None

    def batches(
        self,
        positions: np.ndarray,
        batch_size: int | str,
        *,
        removal: bool = False,
        max_edges: int | None = None,
        random_state: int = 0,
    ) -> Iterator[GraphBatch]:
        """Yield batches of instances: consecutive ones, but those that are thinned come in batches of their own.

        Parameters
        ----------
        positions : ndarray of int
            Rows of the instances.
        batch_size : int or "auto"
            Most instances in a batch.
        removal : bool, default=False
            True if edges will be removed, so that degrees have to be computed afresh.
        max_edges : int >= 1, optional
            Most edges of an instance; neighbours of larger ones are sampled.
        random_state : int, default=0
            Root seed of the samples.
        """
        self.sampler = None
        if max_edges is not None:
            limit = {"max_edges": max_edges, "random_state": random_state}
            self.sampler = NeighbourSampler(self.runs, self.setup, self.reference, self.targets, **limit)
        if not self._settled:
            self._settle()
        for part in np.split(positions, range(EXTRACTED_AT_ONCE, len(positions), EXTRACTED_AT_ONCE)):
            cut = Cut.RING if removal and self._least == Cut.NORMALISED else self._least
            yield from self._cut_out(part, cut, batch_size, removal)

    @property
    def explained(self) -> Tensor:
        """Outputs (n, C) that are explained: on whole graphs, or on what thinning left."""
        return self.reference if self.sampler is None else self.sampler.outputs

    def settles(self, copies: GraphBatch) -> bool:
        """Return True if a batch of copies of a smaller one gives what is explained; more rows may allow less trims."""
        expected = self.explained[torch.from_numpy(copies.positions).to(self.explained.device)]
        return copies.trim == Trim.NONE or self._shortcuts.gives(copies, expected)

    def _cut_out(self, rows: np.ndarray, cut: Cut, batch_size: int | str, removal: bool) -> Iterator[GraphBatch]:
        """Yield batches of instances that are cut like this, or less where that is needed."""
        found, thinned = self._found(rows, cut)
        if found is not None:
            if cut == Cut.NORMALISED:
                self._normaliser.prepare(found.rows, found.graphs.node_id, found.graphs.summing_nodes)
            for some, graphs in self.runs.packed(found.graphs, found.rows, batch_size):
                yield from self._proven(some, cut, batch_size, removal, graphs)
        if thinned is not None and self.sampler is not None:
            yield from self.sampler.batches(thinned, batch_size, cut == Cut.WHOLE, self._normaliser_of(cut))

    def _normaliser_of(self, cut: Cut) -> Normaliser | None:
        return self._normaliser if cut == Cut.NORMALISED else None

    def _found(self, rows: np.ndarray, cut: Cut) -> tuple[Part | None, Part | None]:
        """Return the instances that run as they are, and those that are thinned."""
        if self.sampler is None:
            tried = self._made(rows, cut)
            return Part(rows, self._extract(rows, cut) if tried is None else tried.graphs), None
        found, thinned = self.sampler.split(rows, cut == Cut.WHOLE or self.trace.hops is None)
        if found is not None and cut == Cut.RING:
            found = Part(found.rows, self._extract(found.rows, cut))
        return found, thinned

    def _settle(self) -> None:
        """Find the smallest cut that is right for a sample, also for other features, and whether copies are apart.

        Other features matter because units that are inactive now may wake up under a mask, and because in a graph whose
        nodes are all alike a wrong cut gives the right output.
        """
        self._settled = True
        if self.level == "graph":
            return
        if self.trace.fixed_size:
            self.runs.explain_singly("runs on graphs of one size only")
            return
        n = len(self.reference)
        if self.sampler is not None and self._least != Cut.WHOLE:
            self._sample = self.sampler.smallest(self._sample)
        sample = self._sample
        try:
            self._least = self._least_exact(sample)
        except (RuntimeError, IndexError, ValueError):
            if n == 1:
                raise
            self._least = self._least_exact(sample[:1])
            self.runs.explain_singly("takes one instance at a time")
        if self._least == Cut.WHOLE:
            self._warn_if_whole()
        if n > 1 and not self.runs.mixes_batch:
            some, elsewhere = self._several()
            if some is not None and not self.runs.independent(some, elsewhere):
                self.runs.explain_singly("mixes the instances of a batch")

    def _several(self) -> tuple[GraphBatch | None, tuple[Tensor, Tensor] | None]:
        """Return a batch of several instances, with other features and the outputs for these where they are known."""
        some, elsewhere = self._tried.get(self._least, (None, None))
        if some is not None and (len(some) > 1 or self.sampler is None):
            return some, elsewhere
        if self.sampler is not None:
            return self.sampler.some(_spread(len(self.reference)), self._least == Cut.WHOLE), None
        return self._make(np.array([0, len(self.reference) - 1]), self._least, None), None

    def _trim(self, cut: Cut) -> Trim:
        """Return how much layers may leave out of batches that are cut like this."""
        if cut not in self._trims:
            sample = self._sample[:1] if self.runs.mixes_batch else self._sample
            batch, elsewhere = self._tried.pop(cut, (None, None))
            batch = self._make(sample, cut, None) if batch is None or len(batch) != len(sample) else batch
            uncut = cut == Cut.WHOLE and self.level != "graph"
            self._trims[cut] = Trim.NONE if batch is None or uncut else self._shortcuts.of(batch, elsewhere)
        return self._trims[cut]

    def _least_exact(self, sample: np.ndarray) -> Cut:
        if self._least == Cut.WHOLE:
            return Cut.WHOLE
        # Layers that normalise need true degrees, even where no unit of the sample is awake to tell.
        normalised = self._make(sample, Cut.NORMALISED, None)
        for cut in (Cut.HOPS if normalised is None else Cut.NORMALISED, Cut.RING):
            batch = normalised if cut == Cut.NORMALISED else self._make(sample, cut, None)
            if batch is not None and self._is_exact(batch, sample, cut):
                return cut
        return Cut.WHOLE

    def _proven(
        self,
        rows: np.ndarray,
        cut: Cut,
        batch_size: int | str,
        removal: bool,
        graphs: ComputationGraphs | None = None,
    ) -> Iterator[GraphBatch]:
        """Yield batches that give the reference, cut as little as that takes."""
        while True:
            compared = self._compared(rows, cut)
            if compared is not None:
                yield compared
                return
            tried = self._made(rows, cut)
            batch = self._make(rows, cut, graphs) if tried is None else tried
            if batch is not None and self._runs_as_expected(batch, cut):
                yield batch
                return
            if cut == Cut.WHOLE:
                break
            cut = Cut(cut + 1)
            cut = Cut.RING if removal and cut == Cut.NORMALISED else cut
            graphs = None
            if cut == Cut.WHOLE:
                self._warn_if_whole()
                yield from self._cut_out(rows, cut, batch_size, removal)
                return
        if len(rows) == 1:
            raise ValueError(
                f"{self.runs.name} must give an instance the same output alone and among others. Got other outputs for "
                f"instance {rows[0]} alone; pass 'batch' to its pooling and normalisation."
            )
        if not self.runs.mixes_batch:
            self.runs.explain_singly("mixes the instances of a batch")
        for row in rows:
            yield from self._proven(np.array([row]), self._least, batch_size, removal)

    def _made(self, rows: np.ndarray, cut: Cut) -> GraphBatch | None:
        """Return the sample if it has been cut like this and is what is asked for."""
        batch, _ = self._tried.get(cut, (None, None))
        return batch if batch is not None and np.array_equal(batch.positions, rows) else None

    def _compared(self, rows: np.ndarray, cut: Cut) -> GraphBatch | None:
        """Return the batch that has been compared with the reference if it is cut and runs as this one would."""
        for batch in self.runs.compared:
            is_cut = cut == (Cut.NORMALISED if NORMALISATION in batch.memo else Cut.HOPS)
            if not is_cut or not np.array_equal(batch.positions, rows):
                continue
            if self._trim(cut) == batch.trim and self.setup.fusions:  # what was fused then would run otherwise
                self.runs.compared.remove(batch)
                batch.targets = torch.as_tensor(self.targets[rows], device=batch.device)
                return batch
        return None

    def _make(self, rows: np.ndarray, cut: Cut, graphs: ComputationGraphs | None) -> GraphBatch | None:
        graphs = self._extract(rows, cut) if graphs is None else graphs
        batch = GraphBatch(self.runs.X, rows, graphs, self.targets[rows], self.runs.device)
        if cut != Cut.NORMALISED:
            return batch
        ready = self._normaliser.prepare(rows, graphs.node_id, graphs.summing_nodes)
        return self._normaliser.hand_to(batch) if ready else None

    def _extract(self, rows: np.ndarray, cut: Cut) -> ComputationGraphs:
        X: Instances = self.runs.X
        if cut == Cut.WHOLE or self.trace.hops is None:
            return whole_graphs(X, rows)
        return receptive_fields(X, rows, self.trace.hops, int(cut == Cut.RING), self.trace.both_ways)

    def _runs_as_expected(self, batch: GraphBatch, cut: Cut) -> bool:
        """Return True if a batch is proven; a model may refuse parts of a graph, or several graphs at once."""
        try:
            return self._is_proven(batch, cut)
        except (RuntimeError, IndexError, ValueError) as error:
            if is_short_of_memory(error) or (cut == Cut.WHOLE and len(batch) == 1):
                raise
            if cut == Cut.WHOLE:
                self.runs.explain_singly("takes one instance at a time")
            return False

    def _is_proven(self, batch: GraphBatch, cut: Cut) -> bool:
        self.setup.put(batch, self._trim(cut))
        if self.level == "graph" and not self.runs.mixes_batch:
            return True  # the reference comes from the same graphs, of which a sample has been compared
        return self._shortcuts.gives(batch, self._expected(batch))

    def _expected(self, batch: GraphBatch) -> Tensor:
        return self.reference[torch.from_numpy(batch.positions).to(self.reference.device)]

    def _is_exact(self, batch: GraphBatch, sample: np.ndarray, cut: Cut) -> bool:
        """Return True if a cut gives what wider ones give for other features, all units awake.

        That its own features give the reference is asked only where there are no others: every batch is asked that
        before it is used.
        """
        wider, compared = wider_cut(self.runs, self.trace, batch, 2 if cut == Cut.RING else 1)
        found = None if wider is None else self.runs.outputs_elsewhere([batch, wider])
        if found is None:
            return self.runs.same(self.runs.outputs(batch), self._expected(batch))
        self._tried[cut] = (batch, found[0])
        return self.runs.same(found[0][1][compared], found[1][1])

    def _warn_if_whole(self) -> None:
        if self._warned or self.level == "graph":
            return
        self._warned = True
        warnings.warn(
            f"{self.runs.name} mixes nodes of the whole graph, so every explanation runs on the whole graph.",
            UserWarning,
            stacklevel=2,
        )


def _spread(n: int) -> np.ndarray:
    return np.linspace(0, n - 1, min(SAMPLED, n)).astype(int)
