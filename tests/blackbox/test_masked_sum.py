"""One sparse product against one message after the other, in values and gradients."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from skgnnx.blackbox.masked_sum import Pattern, masked_sum, sorted_by

CPU = torch.device("cpu")


def message_by_message(values, x, ends, num_targets):
    """The sum that is meant; `values` in the order of `ends`."""
    total = x.new_zeros(num_targets, *x.shape[1:]) + 0 * (x.sum() + values.sum())  # so that it always has gradients
    for position, (source, target) in enumerate(ends.T):
        total = total.index_add(0, torch.tensor([target]), (values[position] * x[source])[None])
    return total


@st.composite
def products(draw):
    """Ends, numbers of sources and targets, values, rows and a gradient, of one dtype."""
    sources, targets = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    messages = draw(st.integers(0, 30))  # often more than there are cells, so that some are parallel
    shape = draw(st.sampled_from([(1,), (3,), (2, 3), (0,)]))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    ends = np.stack([random.integers(0, sources, messages), random.integers(0, targets, messages)])
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    sizes = ((messages,), (sources, *shape), (targets, *shape))
    return ends, sources, targets, *(torch.from_numpy(random.normal(size=size)).to(dtype) for size in sizes)


def both(case, *, strided=False):
    """Sums and gradients by values and rows: one product, and message by message."""
    ends, sources, targets, values, x, gradient = case
    found = []
    for one_by_one in (False, True):
        pattern = Pattern(ends, sources, targets, CPU)
        leaves = [values.clone().requires_grad_(), x.clone().requires_grad_()]
        v, rows = leaves
        if strided:
            rows = rows.repeat_interleave(2, dim=0)[::2].transpose(0, -1).contiguous().transpose(0, -1)
        output = (
            message_by_message(v, rows, ends, targets) if one_by_one else masked_sum(v[pattern.order], rows, pattern)
        )
        cotangent = gradient.transpose(0, -1).contiguous().transpose(0, -1) if strided else gradient
        found.append((output, *torch.autograd.grad(output, leaves, cotangent)))
    return found


@pytest.mark.parametrize("strided", [False, True])
@given(case=products())
def test_equals_the_sum_of_messages(strided, case):
    tolerance = 1e-12 if case[3].dtype == torch.float64 else 2e-5
    for got, expected in zip(*both(case, strided=strided), strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


@given(products())
def test_gradients_are_those_of_finite_differences(case):
    ends, sources, targets, values, x, _ = case
    assume(x.numel())  # the check itself takes nothing empty
    pattern = Pattern(ends, sources, targets, CPU)
    values, x = values.double().requires_grad_(), x.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v, rows: masked_sum(v[pattern.order], rows, pattern), (values, x))


def test_only_what_is_asked_for_is_differentiated():
    pattern = Pattern(np.array([[0, 1, 1], [0, 0, 1]]), 2, 2, CPU)
    values, x = torch.ones(3, requires_grad=True), torch.ones(2, 2)
    masked_sum(values, x, pattern).sum().backward()
    assert values.grad.tolist() == [2, 2, 2]
    assert x.grad is None
    x.requires_grad_()
    masked_sum(values.detach(), x, pattern).sum().backward()
    assert x.grad.tolist() == [[1, 1], [2, 2]]


def test_expanded_gradients_are_taken():
    pattern = Pattern(np.array([[0, 1], [1, 1]]), 2, 2, CPU)
    x = torch.arange(4.0).view(2, 2).requires_grad_()
    masked_sum(torch.ones(2), x, pattern).sum().backward()  # its gradient has strides of zero
    assert x.grad.tolist() == [[1, 1], [1, 1]]


def test_sums_of_nothing_still_depend_on_what_is_summed():
    pattern = Pattern(np.empty((2, 0), dtype=np.int64), 2, 3, CPU)
    values, x = torch.ones(0, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    output = masked_sum(values, x, pattern)
    assert output.tolist() == [[0, 0]] * 3
    output.sum().backward()
    assert (values.grad.tolist(), x.grad.tolist()) == ([], [[0, 0], [0, 0]])


@given(st.lists(st.integers(0, 6), max_size=30))
def test_sorting_by_counting_is_stable(keys):
    keys = np.array(keys, dtype=np.int64)
    start, order = sorted_by(keys, 7)
    assert order.tolist() == np.argsort(keys, kind="stable").tolist()
    assert start.tolist() == np.searchsorted(np.sort(keys), np.arange(8)).tolist()
