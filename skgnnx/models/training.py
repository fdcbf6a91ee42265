"""Training a network on instances: batches cut from the columns, seeded without touching global random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.reference import PlainRuns
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import whole_graphs
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.unions import shared_graphs

# Up to this many nodes and edges in a batch, a second thread costs more than it brings.
LARGEST_FOR_ONE_THREAD = 20_000


@dataclass
class Target:
    """What the network shall predict.

    Parameters
    ----------
    values : Tensor of shape (n,) or (n, k)
        Class numbers, or values of a regression.
    weights : Tensor of shape (n,)
        Weight of every instance in the loss.
    losses : callable
        ``losses(output, values) -> (n,)``.
    """

    values: Tensor
    weights: Tensor
    losses: Callable[[Tensor, Tensor], Tensor]

    def mean_loss(self, output: Tensor, rows: np.ndarray) -> Tensor:
        """Return the weighted mean of the losses of some instances."""
        at = torch.from_numpy(rows).to(output.device)
        weights = self.weights[at]
        return (self.losses(output, self.values[at]) * weights).sum() / weights.sum().clamp_min(1e-12)


@dataclass
class Course:
    """How training went: mean loss per epoch, and when it was best."""

    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    best: float = np.inf
    best_state: dict[str, Tensor] | None = None
    without_gain: int = 0


class Training:
    """Instances and targets, ready to train a network on.

    Parameters
    ----------
    module : nn.Module
        The network; changed in place.
    X : Instances
        Predictions about graphs or nodes.
    target : Target
        What they shall be.
    batch_size : int
        Graphs per step; predictions about the nodes of one graph are always one step.
    rng : Generator
        Order of the graphs.
    """

    def __init__(
        self, module: nn.Module, X: Instances, target: Target, batch_size: int, rng: np.random.Generator
    ) -> None:
        self.module = module
        self.X = X
        self.target = target
        self.batch_size = batch_size
        self.rng = rng
        self.device = target.values.device
        self._call = ModelCall(module)
        self._kept: dict[bytes, GraphBatch] = {}

    def run(
        self,
        rows: np.ndarray,
        validation_rows: np.ndarray | None,
        *,
        epochs: int,
        lr: float,
        schedule: str,
        weight_decay: float,
        patience: int,
        tol: float,
    ) -> Course:
        """Train by Adam.

        Parameters
        ----------
        rows, validation_rows : ndarray of int
            Instances to learn from, and to watch, or None.
        epochs : int
            Passes over the instances.
        lr, weight_decay : float
            Of Adam.
        schedule : {"cosine", "constant"}
            What becomes of `lr` over the epochs.
        patience : int
            With validation rows: epochs without a gain of `tol` in their loss, after which training stops. The weights
            of the best epoch are kept.
        tol : float
            See `patience`.

        Returns
        -------
        Course
        """
        optimizer = torch.optim.Adam(self.module.parameters(), lr=lr, weight_decay=weight_decay)
        course = Course()
        for epoch in range(epochs):
            if schedule == "cosine":
                optimizer.param_groups[0]["lr"] = lr * (1 + np.cos(np.pi * epoch / epochs)) / 2
            course.losses.append(self._epoch(rows, optimizer))
            if validation_rows is None:
                continue
            self._watch(course, validation_rows, tol)
            if course.without_gain >= patience:
                break
        if course.best_state is not None:
            self.module.load_state_dict(course.best_state)
        self.module.eval()
        return course

    def _epoch(self, rows: np.ndarray, optimizer: torch.optim.Optimizer) -> float:
        self.module.train()
        total = 0.0
        for part in self._parts(rows, shuffle=True):
            with self._suitable_threads(part):
                total += self._step(part, optimizer) * len(part)
        return total / len(rows)

    def _step(self, rows: np.ndarray, optimizer: torch.optim.Optimizer) -> float:
        loss = self.target.mean_loss(self._outputs(rows), rows)
        if not torch.isfinite(loss):
            raise ValueError("The loss must be finite. Got NaN or infinity; lower 'lr', or scale the node features.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def _watch(self, course: Course, rows: np.ndarray, tol: float) -> None:
        self.module.eval()
        total = 0.0
        for part in self._parts(rows, shuffle=False):
            with torch.no_grad(), self._suitable_threads(part):
                total += self.target.mean_loss(self._outputs(part), part).item() * len(part)
        loss = total / len(rows)
        course.validation_losses.append(loss)
        course.without_gain = 0 if loss < course.best - tol else course.without_gain + 1
        if loss < course.best:
            course.best = loss
            course.best_state = {name: value.clone() for name, value in self.module.state_dict().items()}

    def _parts(self, rows: np.ndarray, shuffle: bool) -> Iterator[np.ndarray]:
        """Cut instances into steps of about equal size; the nodes of one graph stay together."""
        groups = np.arange(len(rows))
        if self.X.level == "node":
            _, groups = np.unique(self.X.graph_index[rows], return_inverse=True)
        number = int(groups.max()) + 1
        order = self.rng.permutation(number) if shuffle else np.arange(number)
        parts = np.array_split(order, -(-number // self.batch_size))
        if len(parts) == 1:
            yield rows
            return
        by_group = np.argsort(groups, kind="stable")
        ptr = np.searchsorted(groups[by_group], np.arange(number + 1))
        for part in parts:
            yield rows[np.concatenate([by_group[ptr[g] : ptr[g + 1]] for g in part])]

    def _outputs(self, rows: np.ndarray) -> Tensor:
        batch = self._batch(rows)
        runs = PlainRuns(self._call, self.X, self.device, 1)
        return runs.rows_of(self._call(batch), batch)

    @contextmanager
    def _suitable_threads(self, rows: np.ndarray) -> Iterator[None]:
        batch, before = self._batch(rows), torch.get_num_threads()
        try:
            if before > 1 and batch.num_nodes + batch.num_edges <= LARGEST_FOR_ONE_THREAD:
                torch.set_num_threads(1)
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)

    def _batch(self, rows: np.ndarray) -> GraphBatch:
        """Return the graphs of some instances as one batch; the last few are remembered, for full-batch training."""
        key = rows.tobytes()
        if key not in self._kept:
            if len(self._kept) > 1:
                self._kept.clear()
            if self.X.level == "node":
                self._kept[key] = shared_graphs(self.X[rows], self.device)
            else:
                self._kept[key] = GraphBatch(self.X, rows, whole_graphs(self.X, rows), device=self.device)
        return self._kept[key]


@contextmanager
def own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for what runs inside, and leave its global random state as it was."""
    devices = [] if device.type == "cpu" else [torch.cuda.current_device() if device.index is None else device.index]
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=devices):
        # torch.manual_seed would also seed devices whose state is not restored
        torch.default_generator.manual_seed(seed)
        for index in devices:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield
