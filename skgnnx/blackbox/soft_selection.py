"""Weights of nodes and features that keep a prediction, learned by gradient descent under the same random features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from skgnnx.blackbox import heads
from skgnnx.blackbox.feature_draws import FeatureDraws
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.blackbox.variants import Variants
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.columns import ranges
from skgnnx.graphs.feature_columns import FeatureColumns

EPS = 1e-15  # keeps the slope of the entropy finite where a weight is 0 or 1
BETAS, STABLE = (0.9, 0.999), 1e-8  # torch's defaults for Adam


class Chunk(NamedTuple):
    """Some copies of instances, each with features of its own.

    Parameters
    ----------
    copies : GraphBatch
    owner : Tensor of int
        The instance of the batch behind each copy.
    rows : Tensor of int
        The node of the batch behind each node of the copies.
    drawn, difference : Tensor of shape (nodes, F)
        Random features, and how far those of the nodes are from them.
    """

    copies: GraphBatch
    owner: Tensor
    rows: Tensor
    drawn: Tensor
    difference: Tensor


class SoftFidelity:
    """Mean probability of the target when node features are partly known and for the rest drawn.

    Parameters
    ----------
    gnn : OpenBox
        A classifier whose outputs can be differentiated.
    batch : GraphBatch
    draws : FeatureDraws
    """

    def __init__(self, gnn: OpenBox, batch: GraphBatch, draws: FeatureDraws) -> None:
        self._gnn, self._batch, self._draws = gnn, batch, draws
        self._variants = Variants(gnn, batch, np.repeat(np.arange(len(batch)), len(draws)))
        self._chunks = list(self._made()) if draws.are_kept else None

    def __call__(self, nodes: Tensor, features: Tensor) -> Tensor:
        """Return the mean over all draws (B,) under weights of nodes (N,) and of features (B, F)."""
        with torch.no_grad():
            return sum((self._of(chunk, nodes, features) for chunk in self._all()), self._zeros())

    def gradients(self, nodes: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the sum over instances by both, made anew: nothing is left of earlier ones."""
        leaves = nodes.detach().requires_grad_(), features.detach().requires_grad_()
        total = torch.zeros_like(nodes), torch.zeros_like(features)
        for chunk in self._all():
            fidelity = self._of(chunk, *leaves).sum()
            if fidelity.requires_grad:
                for sum_, gradient in zip(total, torch.autograd.grad(fidelity, leaves, allow_unused=True)):
                    sum_ += 0 if gradient is None else gradient
        return total

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self._batch), dtype=torch.float64, device=self._batch.device)

    def _of(self, chunk: Chunk, nodes: Tensor, features: Tensor) -> Tensor:
        """Return what one chunk adds to the mean of each instance."""
        owner = self._batch.node_instance.index_select(0, chunk.rows)
        weight = nodes.index_select(0, chunk.rows)[:, None] * features.index_select(0, owner)
        x = chunk.drawn + weight.to(chunk.drawn.dtype) * chunk.difference
        output = self._gnn.forward(chunk.copies, x=x.view(-1, *self._batch.x.shape[1:]))  # type: ignore[union-attr]
        found = of_targets(heads.probabilities(self._gnn.kind_of_output, output.double()), chunk.copies.targets)
        return self._zeros().index_add(0, chunk.owner, found) / len(self._draws)

    def _all(self) -> Iterator[Chunk]:
        return self._made() if self._chunks is None else iter(self._chunks)

    def _made(self) -> Iterator[Chunk]:
        node_ptr, count = self._batch.graphs.node_ptr, len(self._draws)
        for copies, part in self._variants.parts():
            owner, draw = self._variants.owner[part], np.arange(part.start, part.stop) % max(count, 1)
            rows = ranges(node_ptr[owner], np.diff(node_ptr)[owner])
            drawn = np.concatenate([self._draws.of(i, slice(k, k + 1))[0] for i, k in zip(owner, draw)])
            own = np.concatenate([self._draws.own[i] for i in owner])
            arrays = (owner, rows, drawn, own - drawn)
            yield Chunk(copies, *(torch.from_numpy(array).to(self._batch.device) for array in arrays))


class Weights:
    """Weights in [0, 1] of units of one kind, moved by Adam and brought back into [0, 1] after each step.

    Parameters
    ----------
    values : Tensor of shape (P,) or (B, F)
        Initial weights, in float64.
    exists : Tensor of bool, of the same shape
        Which units there are; others are 0.
    instance : Tensor of int
        Instance of each row.
    num_instances : int
    size, entropy : float
        Penalties of the sum of the weights of an instance, and of the mean of their entropy.
    lr : float
        Learning rate.
    """

    def __init__(
        self,
        values: Tensor,
        exists: Tensor,
        instance: Tensor,
        num_instances: int,
        *,
        size: float,
        entropy: float,
        lr: float,
    ) -> None:
        self.values = values * exists
        self._exists, self._instance, self._size, self._entropy, self._lr = exists, instance, size, entropy, lr
        self._count = self._sums(exists.double(), num_instances).clamp_min(1)
        self._mean, self._square, self._steps = torch.zeros_like(values), torch.zeros_like(values), 0

    def _sums(self, values: Tensor, num_instances: int) -> Tensor:
        rows = values if values.dim() == 1 else values.sum(1)
        return rows.new_zeros(num_instances).index_add(0, self._instance, rows)

    def penalty(self) -> Tensor:
        """Return the penalties of each instance (B,)."""
        v = self.values
        entropy = -(v * (v + EPS).log() + (1 - v) * (1 - v + EPS).log()) * self._exists
        num = len(self._count)
        return self._size * self._sums(v, num) + self._entropy * self._sums(entropy, num) / self._count

    def step(self, gradient: Tensor) -> None:
        """Go one step down a loss of which this is the gradient, and down the penalties."""
        count = self._count[self._instance]
        count = count if self.values.dim() == 1 else count[:, None]
        on, off = self.values + EPS, 1 - self.values + EPS
        slope = off.log() - on.log() + (1 - self.values) / off - self.values / on
        gradient = (gradient + self._size + self._entropy * slope / count) * self._exists
        self._steps += 1
        self._mean = BETAS[0] * self._mean + (1 - BETAS[0]) * gradient
        self._square = BETAS[1] * self._square + (1 - BETAS[1]) * gradient.square()
        mean, square = (moment / (1 - beta**self._steps) for moment, beta in zip((self._mean, self._square), BETAS))
        self.values = (self.values - self._lr * mean / (square.sqrt() + STABLE)).clamp(0, 1)


class SoftSelection(NamedTuple):
    """Learned weights, and what they reach.

    Parameters
    ----------
    nodes : Tensor of shape (N,)
    features : Tensor of shape (B, F)
    loss, search_fidelity, fidelity : Tensor of shape (B,)
        Final loss, and the mean probability of the target on the draws that it was learned on and on fresh ones.
    """

    nodes: Tensor
    features: Tensor
    loss: Tensor
    search_fidelity: Tensor
    fidelity: Tensor


def learn_selection(
    gnn: OpenBox,
    batch: GraphBatch,
    columns: FeatureColumns,
    seed: int,
    *,
    n_samples: int,
    epochs: int,
    lr: float,
    size: float,
    entropy: float,
) -> SoftSelection:
    """Minimise penalties minus the mean probability of the target over weights of nodes and features.

    Parameters
    ----------
    gnn : OpenBox
        A classifier whose outputs can be differentiated.
    batch : GraphBatch
        With floating-point features.
    columns : FeatureColumns
        What is drawn from.
    seed : int
    n_samples, epochs : int
        Draws, and steps of Adam.
    lr, size, entropy : float
        Learning rate, and penalties of the sum of weights and of the mean of their entropy.
    """
    draws = FeatureDraws(batch, columns, seed, range(n_samples))
    reach = np.split(batch.graphs.node_reach, batch.graphs.node_ptr[1:-1])
    changeable = np.stack([columns.could_change(own[there]) for own, there in zip(draws.own, reach)])
    of_node, of_feature = batch.noise(seed, "node"), batch.noise(seed, "instance", changeable.shape[1])
    given = {"size": size, "entropy": entropy, "lr": lr}
    instances = torch.arange(len(batch), device=batch.device)
    nodes = Weights(uniform(of_node), batch.node_reach, batch.node_instance, len(batch), **given)
    exists = torch.from_numpy(changeable).to(batch.device)
    features = Weights(uniform(of_feature), exists, instances, len(batch), **given)
    fidelity = SoftFidelity(gnn, batch, draws)
    for _ in range(epochs):
        by_node, by_feature = fidelity.gradients(nodes.values, features.values)
        nodes.step(-by_node)
        features.step(-by_feature)
    reached = fidelity(nodes.values, features.values)
    del fidelity, draws
    fresh = SoftFidelity(gnn, batch, FeatureDraws(batch, columns, seed, range(n_samples, 2 * n_samples)))
    loss = nodes.penalty() + features.penalty() - reached
    return SoftSelection(nodes.values, features.values, loss, reached, fresh(nodes.values, features.values))


def uniform(noise: Tensor) -> Tensor:
    """Return standard normal noise as numbers that are uniform on (0, 1)."""
    return torch.from_numpy(ndtr(noise.cpu().numpy())).to(noise.device)
