"""Matrices of node features in forms that are cheaper to multiply by a weight than the dense matrix is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from skgnnx.blackbox.feature_pattern import FeaturePattern
from skgnnx.blackbox.masked_sum import Pattern, masked_sum


class Matrix(ABC):
    """Features of nodes, one row each, that can be multiplied by a weight without being written out."""

    @property
    @abstractmethod
    def tensors(self) -> Sequence[Tensor]:
        """What gradients flow to."""

    @abstractmethod
    def times(self, weight: Tensor) -> Tensor:
        """Return the matrix times the transpose of a weight (H, F)."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the matrix (N, F) itself."""

    def first(self, count: int) -> Matrix | None:
        """Return the first rows, None where the dense matrix has them at less cost."""
        return None


@dataclass(frozen=True)
class Entries(Matrix):
    """Values at the places of a pattern, zero elsewhere.

    Parameters
    ----------
    values : Tensor of shape (places,)
    pattern : FeaturePattern
    """

    values: Tensor
    pattern: FeaturePattern

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The values."""
        return (self.values,)

    def times(self, weight: Tensor) -> Tensor:
        """Return one sparse product."""
        return masked_sum(self.values, weight.t(), self.pattern)

    def dense(self) -> Tensor:
        """Return the values among zeros."""
        return self.pattern.dense(self.values)

    def first(self, count: int) -> Entries:
        """Return the first rows."""
        pattern, size = self.pattern.first(count)
        return Entries(self.values.narrow(0, 0, size), pattern)

    def take(self, rows: Tensor) -> Entries:
        """Return some rows; cheap for a tensor that has been given before."""
        pattern, places = self.pattern.take(rows)
        return Entries(self.values.index_select(0, places), pattern)


@dataclass(frozen=True)
class Dense(Matrix):
    """A matrix that is written out already.

    Parameters
    ----------
    x : Tensor of shape (N, F)
    """

    x: Tensor

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The matrix."""
        return (self.x,)

    def times(self, weight: Tensor) -> Tensor:
        """Return one dense product."""
        return nn.functional.linear(self.x, weight)

    def dense(self) -> Tensor:
        """Return the matrix."""
        return self.x


@dataclass(frozen=True)
class Constant(Matrix):
    """A matrix that stays; its products with parameters are computed once.

    Parameters
    ----------
    matrix : Matrix
    """

    matrix: Matrix
    _products: dict[int, tuple[Tensor, int, Tensor]] = field(default_factory=dict)

    @property
    def tensors(self) -> Sequence[Tensor]:
        """What it is made of."""
        return self.matrix.tensors

    def times(self, weight: Tensor) -> Tensor:
        """Return the product, from memory where the weight is a parameter that has not changed."""
        known = self._products.get(id(weight))
        if known is not None and known[0] is weight and known[1] == weight._version:
            return known[2]
        product = self.matrix.times(weight)
        if isinstance(weight, nn.Parameter) and not product.requires_grad:
            self._products[id(weight)] = (weight, weight._version, product)
        return product

    def dense(self) -> Tensor:
        """Return the dense matrix."""
        return self.matrix.dense()

    def first(self, count: int) -> FirstRows:
        """Return the first rows, whose products are parts of what is in memory."""
        return FirstRows(self, count)


@dataclass(frozen=True)
class FirstRows(Matrix):
    """The first rows of a matrix.

    Parameters
    ----------
    matrix : Matrix
    count : int
    """

    matrix: Matrix
    count: int

    @property
    def tensors(self) -> Sequence[Tensor]:
        """What the matrix is made of."""
        return self.matrix.tensors

    def times(self, weight: Tensor) -> Tensor:
        """Return the first rows of the product."""
        return self.matrix.times(weight).narrow(0, 0, self.count)

    def dense(self) -> Tensor:
        """Return the first rows of the dense matrix."""
        return self.matrix.dense().narrow(0, 0, self.count)


@dataclass(frozen=True)
class Summed(Matrix):
    """Sums of weighted rows of a matrix over the messages of a pattern.

    Parameters
    ----------
    values : Tensor of shape (messages,)
        Weights.
    rows : Matrix
        What is summed.
    pattern : Pattern
        From which row to which sum messages run.
    """

    values: Tensor
    rows: Matrix
    pattern: Pattern

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The weights, and what the rows are made of."""
        return (self.values, *self.rows.tensors)

    def times(self, weight: Tensor) -> Tensor:
        """Return the sums of the rows of the product, which are shorter."""
        return masked_sum(self.values, self.rows.times(weight), self.pattern)

    def dense(self) -> Tensor:
        """Return the sums of the rows."""
        return masked_sum(self.values, self.rows.dense(), self.pattern)


@dataclass(frozen=True)
class Scaled(Matrix):
    """A matrix times one number.

    Parameters
    ----------
    matrix : Matrix
    factor : Tensor of one entry
    """

    matrix: Matrix
    factor: Tensor

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The number, and what the matrix is made of."""
        return (self.factor, *self.matrix.tensors)

    def times(self, weight: Tensor) -> Tensor:
        """Return the product times the number."""
        return self.matrix.times(weight) * self.factor

    def dense(self) -> Tensor:
        """Return the matrix times the number."""
        return self.matrix.dense() * self.factor


@dataclass(frozen=True)
class Added(Matrix):
    """The sum of two matrices.

    Parameters
    ----------
    one, other : Matrix
        Of one shape.
    """

    one: Matrix
    other: Matrix

    @property
    def tensors(self) -> Sequence[Tensor]:
        """What both are made of."""
        return (*self.one.tensors, *self.other.tensors)

    def times(self, weight: Tensor) -> Tensor:
        """Return the sum of both products."""
        return self.one.times(weight) + self.other.times(weight)

    def dense(self) -> Tensor:
        """Return the sum."""
        return self.one.dense() + self.other.dense()
