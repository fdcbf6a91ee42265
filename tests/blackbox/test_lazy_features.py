"""Lazy features give what the dense tensor gives, and the same gradients, whatever a model does with them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from skgnnx.blackbox.feature_matrices import Constant, Dense, Entries
from skgnnx.blackbox.feature_pattern import FeaturePattern
from skgnnx.blackbox.lazy_features import LazyFeatures, lazy, rows_of, summed
from skgnnx.blackbox.masked_sum import Pattern

WIDTH = 6


class Doubled(torch.autograd.Function):
    """A function that torch does not let a tensor override."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def changed_in_place(x):
    x = x * 1
    x[1:] = 3.0
    return functional.linear(x, WEIGHT)


def set_and_multiplied(x):
    x[0] += 1.0
    return functional.linear(x, WEIGHT)


RANDOM = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(4, WIDTH, generator=RANDOM, dtype=torch.float64)
WIDER = torch.randn(9, WIDTH, generator=RANDOM, dtype=torch.float64)
BIAS = torch.randn(4, generator=RANDOM, dtype=torch.float64)
ORDER = torch.tensor([3, 0, 4, 1, 2])
CHEAP = {
    "linear": lambda x: functional.linear(x, WEIGHT),
    "with a bias": lambda x: functional.linear(x, WEIGHT, BIAS),
    "by keyword": lambda x: functional.linear(input=x, weight=WEIGHT, bias=BIAS),
    "operator": lambda x: x @ WEIGHT.t(),
    "mm": lambda x: torch.mm(x, WEIGHT.t()),
    "matmul": lambda x: x.matmul(WEIGHT.t()),
    "first rows": lambda x: functional.linear(x.narrow(0, 0, 3), WEIGHT),
    "no rows": lambda x: functional.linear(x.narrow(0, 0, 0), WEIGHT),
    "other rows": lambda x: functional.linear(rows_of(x, ORDER), WEIGHT),
    "first of other rows": lambda x: functional.linear(rows_of(x, ORDER).narrow(0, 0, 2), WEIGHT),
    "idle dropout": lambda x: functional.linear(functional.dropout(x, 0.5, training=False), WEIGHT),
    "scaled": lambda x: functional.linear(2.5 * x, WEIGHT),
    "scaled by a tensor": lambda x: functional.linear(x * (1 + BIAS[:1]), WEIGHT),
    "twice": lambda x: functional.linear(x + 0.5 * x, WEIGHT) + functional.linear(x, WEIGHT),
}
DENSE = {
    "abs": lambda x: x.abs() @ WEIGHT.t(),
    "wider": lambda x: functional.linear(x, WIDER),
    "rows": lambda x: functional.linear(x[[1, 1, 3]], WEIGHT),
    "part of the rows": lambda x: functional.linear(x.narrow(0, 1, 3), WEIGHT),
    "columns": lambda x: x.narrow(1, 1, 3),
    "transposed": lambda x: x.t(),
    "product": lambda x: x * x,
    "scaled rows": lambda x: x * torch.arange(5.0, dtype=torch.float64).view(5, 1),
    "with a number": lambda x: x + 1,
    "vector": lambda x: x @ WEIGHT[0],
    "concatenated": lambda x: torch.cat([x, 2 * x], dim=1),
    "stacked": lambda x: torch.stack([x, x]),
    "normalised": lambda x: functional.normalize(x + 1e-3, dim=1),
    "copied": changed_in_place,
    "set": set_and_multiplied,
    "own function": Doubled.apply,
    "own function and product": lambda x: functional.linear(Doubled.apply(x), WEIGHT),
    "sum": lambda x: x.sum(),
    "dropout of everything": lambda x: functional.linear(functional.dropout(x, 1.0), WEIGHT),
    "recomputed": lambda x: checkpoint(lambda y: functional.linear(y.exp(), WEIGHT), x, use_reentrant=False),
}


def random_entries(seed, density, rows=5, dtype=torch.float64):
    random = np.random.default_rng(seed)
    found = np.nonzero(random.random((rows, WIDTH)) < density)
    pattern = FeaturePattern(*found, (rows, WIDTH), torch.device("cpu"))
    return torch.from_numpy(random.standard_normal(len(found[0]))).to(dtype), pattern


def dense_of(values, pattern):
    """The oracle: a dense matrix, one entry after the other."""
    rows = [[values.new_zeros(()) for _ in range(pattern.shape[1])] for _ in range(pattern.shape[0])]
    for value, place in zip(values, pattern.places.tolist(), strict=True):
        rows[place // pattern.shape[1]][place % pattern.shape[1]] = value
    return torch.stack([torch.stack(row) for row in rows])


def result(function, x, values):
    output = function(x)
    weight = torch.sin(torch.arange(output.numel(), dtype=output.dtype)).view(output.shape)
    if not output.requires_grad:
        return output, torch.zeros_like(values)
    return output.detach(), torch.autograd.grad((output * weight).sum(), values, allow_unused=True)[0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), density=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@pytest.mark.parametrize("name", [*CHEAP, *DENSE])
def test_equals_dense(name, seed, density):
    values, pattern = random_entries(seed, density)
    function = (CHEAP | DENSE)[name]
    one, other = (values.clone().requires_grad_() for _ in range(2))
    found = result(function, lazy(Entries(one * 1, pattern), pattern.shape), one)
    expected = result(function, dense_of(other, pattern) * 1, other)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CHEAP)
def test_no_dense_tensor_is_made(name, monkeypatch):
    values, pattern = random_entries(0, 0.3)
    x = lazy(Entries(values, pattern), pattern.shape)
    monkeypatch.setattr(Entries, "dense", lambda self: pytest.fail("made dense"))
    CHEAP[name](x)


@pytest.mark.parametrize("name", ["with a bias", "twice", "first of other rows", "product", "own function", "set"])
def test_gradients_against_differences(name):
    values, pattern = random_entries(1, 0.4)
    function = (CHEAP | DENSE)[name]
    assert torch.autograd.gradcheck(
        lambda v: function(lazy(Entries(v * 1, pattern), pattern.shape)), values.requires_grad_()
    )


def test_float32_agrees_to_single_precision():
    values, pattern = random_entries(3, 0.3, dtype=torch.float32)
    x = lazy(Entries(values, pattern), pattern.shape)
    found = functional.linear(x, WEIGHT.float(), BIAS.float())
    torch.testing.assert_close(found, functional.linear(dense_of(values, pattern), WEIGHT.float(), BIAS.float()))


def test_what_it_tells_about_itself():
    values, pattern = random_entries(0, 0.3)
    x = lazy(Entries(values.requires_grad_(), pattern), pattern.shape)
    assert isinstance(x, LazyFeatures)
    assert torch.is_tensor(x)
    assert (tuple(x.shape), x.dim(), len(x), x.size(1), x.numel()) == ((5, WIDTH), 2, 5, WIDTH, 5 * WIDTH)
    assert (x.dtype, x.device, x.layout) == (torch.float64, torch.device("cpu"), torch.strided)
    assert x.requires_grad
    assert x.is_floating_point()
    assert x._dense is None


def test_another_type_of_weight_fails_as_for_dense():
    values, pattern = random_entries(0, 0.3)
    with pytest.raises(RuntimeError, match="dtype|type"):
        functional.linear(lazy(Entries(values, pattern), pattern.shape), WEIGHT.float())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), density=st.sampled_from([0.0, 0.3, 1.0]))
def test_sums_of_rows(seed, density):
    """A(m) (X W) + (1 + eps) X W, as in GIN, equals sums of the dense rows; with gradients to both masks."""
    values, pattern = random_entries(seed, density)
    random = torch.Generator().manual_seed(seed)
    messages = Pattern(torch.randint(5, (2, 7), generator=random).numpy(), 5, 5, torch.device("cpu"))
    weights = torch.randn(7, generator=random, dtype=torch.float64)

    def output(x, v, w):
        features = summed(w, x, messages) + (1 + BIAS[:1]) * x
        total = functional.linear(features, WEIGHT).square().sum() + summed(w, x, messages).abs().sum()
        gradients = torch.autograd.grad(total + 0 * (v.sum() + w.sum()), [v, w])
        return total, *gradients

    v, w = (tensor.clone().requires_grad_() for tensor in (values, weights))
    torch.testing.assert_close(
        output(lazy(Entries(v, pattern), pattern.shape), v, w), output(dense_of(v, pattern), v, w)
    )


def test_products_of_what_stays_are_computed_once_until_a_parameter_changes():
    x = torch.randn(5, WIDTH, generator=RANDOM, dtype=torch.float64)
    features, weight = lazy(Constant(Dense(x)), (5, WIDTH)), nn.Parameter(WEIGHT.clone(), requires_grad=False)
    first = functional.linear(features, weight)
    assert functional.linear(features, weight) is first
    weight.mul_(2)
    torch.testing.assert_close(functional.linear(features, weight), x @ weight.t())
    assert functional.linear(features, WEIGHT + 0) is not functional.linear(features, WEIGHT + 0)
