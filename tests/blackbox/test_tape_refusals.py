"""What decides by numbers of masked tensors is never done again, however it comes by them.

Inputs are alike in the first steps and the last ones, which are looked at, and of another sign in between.
"""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
import torch
from blackbox_cases import random_graph, seeded
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from skgnnx import GNNExplainer, Instances
from skgnnx.blackbox.operations import TapeError
from skgnnx.blackbox.repeating import FEWEST_CALLS, Repeated
from skgnnx.testing.networks import CONVS


def inputs(step):
    x = torch.linspace(0.5, 2, 4, dtype=torch.float64) + step / 100
    return (-x.flip(0) if step in (6, 7) else x).requires_grad_()


def losses_and_gradient(function, x):
    loss = function(x)
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


def steps_of(function):
    """Return why the steps ran in full, None if they came from a tape; what came out is right."""
    repeated = Repeated(lambda x: losses_and_gradient(function, x), calls=100)
    try:
        for step in range(12):
            results = repeated(inputs(step))
            for got, expected in zip(results, losses_and_gradient(function, inputs(step)), strict=True):
                assert torch.equal(got, expected)
        repeated.check(inputs(12))
    except TapeError as error:
        return str(error)
    finally:
        assert not _get_current_function_mode_stack()
        assert not _get_current_dispatch_mode_stack()
    return repeated.problem or None


def hidden(x):
    return x.detach() * 1


def sign(x):
    return 1.0 if x > 0 else -1.0


def in_a_thread(x):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.sign(hidden(x))))
    thread.start()
    thread.join()
    return found[0].sum()


def written_in_part(x):
    buffer = torch.zeros(4, dtype=x.dtype)
    first = buffer[0]
    buffer.copy_(x.detach())
    return sign(first)


def numbers_known_before(x):
    buffer = torch.zeros(4, dtype=x.dtype)
    known = buffer.numpy()
    buffer.copy_(x.detach())
    return sign(known.sum())


def mapped_numbers(x):
    return torch.zeros(4, dtype=x.dtype).map_(hidden(x), lambda _, number: sign(number))


def other_data(x):
    fixed = torch.zeros(4, dtype=x.dtype)
    fixed.data = torch.sign(hidden(x))
    return sign(fixed.sum())


READERS = {
    "copy": lambda x: copy.deepcopy(hidden(x)).sign(),
    "pickle": lambda x: pickle.loads(pickle.dumps(hidden(x))).sign(),
    "storage": lambda x: sign(np.frombuffer(bytes(hidden(x).untyped_storage().tolist())).sum()),
    "map": mapped_numbers,
    "tensor of tensors": lambda x: torch.tensor([hidden(x)[0], hidden(x)[1]]).sign().sum(),
    "as_tensor": lambda x: torch.as_tensor([hidden(x)[0]]).sign().sum(),
    "FloatTensor": lambda x: torch.FloatTensor([hidden(x)[0]]).sign().sum(),
    "dlpack": lambda x: torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(hidden(x))).sign(),
    "thread": in_a_thread,
    "written in part": written_in_part,
    "numbers known before": numbers_known_before,
    "data": other_data,
    "dense to sparse": lambda x: len(hidden(x).relu().to_sparse().values()),
}


@pytest.mark.parametrize("name", READERS)
def test_numbers_that_are_read_by_a_back_door_are_not_kept(name):
    assert steps_of(lambda x: x * READERS[name](x)) is not None


class ReadsBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient * sign(ctx.saved_tensors[0].numpy().sum())


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def test_numbers_that_a_backward_pass_reads_are_not_kept():
    assert "Tensor.numpy" in steps_of(lambda x: ReadsBackwards.apply(x * 1))


def test_numbers_that_a_hook_of_a_gradient_reads_are_not_kept():
    def function(x):
        y = x * 2
        y.register_hook(lambda gradient: gradient * sign(hidden(x).numpy().sum()))
        return y * y

    assert "register_hook" in steps_of(function)


def test_functions_with_a_backward_pass_of_their_own_are_taped():
    assert steps_of(lambda x: Straight.apply(x * 3) * x) is None


@torch.library.custom_op("skgnnx_tests::positive", mutates_args=())
def positive(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0].clone()


@torch.library.custom_op("skgnnx_tests::double", mutates_args=("x",))
def double(x: torch.Tensor) -> None:
    x.mul_(2)


def test_operators_of_the_users_own_are_done_again_while_their_results_keep_their_shape():
    def doubled(x):
        y = hidden(x)
        double(y)
        return x * y

    assert "another shape" in steps_of(lambda x: x * len(positive(x.detach())))
    assert steps_of(doubled) is None


def test_a_jagged_tensor_is_left_alone():
    def function(x):
        rows = torch.nested.nested_tensor_from_jagged(x.view(4, 1), torch.tensor([0, 1, 4]))
        return x * (rows * 2).values().sum()

    assert "another class" in steps_of(function)


@pytest.mark.filterwarnings("ignore")
def test_a_choice_that_torch_makes_is_left_alone():
    def function(x):
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x * 3, (x,))

    assert "cond" in steps_of(function)


def test_what_does_something_else_when_it_is_looked_at_is_found_out():
    repeated = Repeated(lambda x: (x * (2 if _get_current_function_mode_stack() else 3),), calls=100)
    repeated(inputs(0))
    repeated(inputs(1))
    with pytest.raises(TapeError, match="other operations"):
        repeated(inputs(2))


def test_small_results_are_as_exact_as_large_ones():
    calls = []

    def function(x):
        calls.append(0)
        return torch.cat([1e12 * x[:2], x[2:] * (1 + 1e-3 * (len(calls) > 6))])

    repeated = Repeated(lambda x: losses_and_gradient(function, x), calls=100)
    for step in range(6):
        repeated(inputs(step))
    calls += [0] * 6
    with pytest.raises(TapeError, match="other results"):
        repeated.check(inputs(6))


def test_arguments_by_name_are_found_where_what_is_done_twice_is_done_once():
    def function(x):
        values = hidden(x).flip(0)
        orders = [(values * 2).argsort() for _ in range(2)]
        return sum(
            x * torch.searchsorted(values, x.detach() + place, sorter=order) for place, order in enumerate(orders)
        )

    assert steps_of(function) is None


def test_zeros_of_both_signs_are_two_numbers():
    def function(x):
        ones = [torch.full_like(x, zero).reciprocal().clamp(-1, 1) for zero in (0.0, -0.0)]
        return x * ones[0] + 2 * x * ones[1]

    assert steps_of(function) is None


def test_a_tensor_that_is_taken_as_one_is_taped():
    assert steps_of(lambda x: x * torch.as_tensor(x.detach().amin() - 1)) is None


def test_attention_without_dropout_is_taped():
    attention = torch.nn.functional.scaled_dot_product_attention
    assert steps_of(lambda x: attention(*[x.view(1, 1, 4, 1)] * 3).view(-1)) is None


def run(repeated, calls):
    for step in range(calls):
        repeated(inputs(step))


@pytest.mark.parametrize("call", [2, 3])
def test_an_interruption_while_a_tape_is_made_leaves_no_trace(call):
    calls = []

    def function(x):
        calls.append(0)
        if len(calls) == call:
            raise KeyboardInterrupt
        return x * 2

    with pytest.raises(KeyboardInterrupt):
        run(Repeated(lambda x: losses_and_gradient(function, x), calls=100), call)
    assert not _get_current_function_mode_stack()
    assert not _get_current_dispatch_mode_stack()


def test_a_backward_pass_that_stops_half_way_leaves_no_trace():
    calls = []

    class Stops(Straight):
        @staticmethod
        def backward(ctx, gradient):
            calls.append(0)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return gradient

    with pytest.raises(KeyboardInterrupt):
        run(Repeated(lambda x: losses_and_gradient(Stops.apply, x), calls=100), 2)
    assert not _get_current_function_mode_stack()
    assert not _get_current_dispatch_mode_stack()


def test_nothing_of_an_explanation_is_kept():
    alive = []

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = CONVS["graph"](3, 2)

        def forward(self, x, edge_index):
            h = self.conv(x, edge_index)
            alive.append(weakref.ref(h))
            return h * 1

    X = Instances.from_nodes(random_graph(), range(3), target=0)
    steps = GNNExplainer(seeded(Watched), epochs=FEWEST_CALLS).explain(X).steps
    gc.collect()
    assert set(steps) == {"from a tape"}
    assert not any(ref() is not None for ref in alive)
