"""What comes from a tape is what the function gives, and what cannot be taped is refused."""

import gc
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, opened, random_graph, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from skgnnx import GNNExplainer, Instances
from skgnnx.blackbox.mask_learning import learn_masks
from skgnnx.blackbox.mask_logits import MaskParameters, Penalty
from skgnnx.blackbox.operations import TapeError
from skgnnx.blackbox.repeating import FEWEST_CALLS, Repeated
from skgnnx.blackbox.tape import Tape
from skgnnx.explainers import gnn_explainer
from skgnnx.testing.drawing import Seeded, draw_instances
from skgnnx.testing.networks import CONVS

STEPS = 6


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def with_gradient(function):
    """Losses and their gradient, as masks are learned from."""

    def both(x):
        loss = function(x)
        return loss.detach(), torch.autograd.grad(loss.sum(), x, allow_unused=True)[0]

    return both


def check_tape(function, *shape):
    """Every call gives what the function gives; return what was repeated, which has a tape."""
    repeated = Repeated(function, calls=100)
    for seed in range(STEPS):
        x = numbers(seed, *shape)
        for got, expected in zip(repeated(x), function(x), strict=True):
            assert (got is None) == (expected is None)
            assert got is None or (got.dtype == expected.dtype and torch.equal(got, expected))
    repeated.check(x)
    assert repeated.problem == ""
    assert repeated._tape is not None
    return repeated


def check_refused(function, problem):
    """The function is called in every step, and is right; or the error says that nothing may come from a tape."""
    repeated = Repeated(function, calls=100)
    found = ""
    for seed in range(STEPS):
        x = numbers(seed, 4)
        try:
            results = repeated(x)
        except TapeError as error:
            found = str(error)
            break
        for got, expected in zip(results, function(x), strict=True):
            torch.testing.assert_close(got, expected, equal_nan=True)
    assert problem in (found or repeated.problem)
    assert found or repeated._tape is None


UNARY = [
    torch.sin,
    torch.relu,
    lambda x: x.t() @ x,
    lambda x: x.cumsum(0),
    lambda x: torch.cat([x, 2 * x])[::2],
    lambda x: x.sort(dim=0).values,
    lambda x: torch.stack(x.unbind(0)).flip(0),
    lambda x: x.new_zeros(x.shape).index_add_(0, torch.zeros(len(x), dtype=torch.long), x),
    lambda x: x.clone().mul_(3).sub_(1),
    lambda x: functional.leaky_relu(x.clone(), inplace=True),
    lambda x: torch.where(x > 0, x, x.exp()),
    lambda x: x.new_ones(x.shape).add_(x),
    lambda x: x.softmax(0) * x.amax(),
]


@given(st.lists(st.integers(0, len(UNARY) - 1), min_size=1, max_size=6))
def test_any_chain_of_operations_is_repeated_with_its_gradient(chain):
    def function(x):
        for number in chain:
            x = UNARY[number](x) / 2
        return x

    check_tape(with_gradient(function), 4, 4)


def test_memory_that_is_written_to_starts_anew_in_every_step():
    def function(x):
        total, fixed = torch.zeros(4, dtype=x.dtype), torch.zeros(4, dtype=x.dtype)
        before = fixed + 1  # read before it is written to
        fixed += 5
        total[1:3] += x[:2]
        total.view(2, 2)[0] *= x[3]
        return total * fixed + before

    check_tape(with_gradient(function), 4)


def test_results_may_be_written_where_they_are_asked_for():
    check_tape(lambda x: (torch.add(x.detach(), 1, alpha=3, out=torch.zeros(4, dtype=x.dtype)),), 4)


def test_what_does_not_depend_on_the_inputs_is_done_once():
    large = torch.rand(50, 50, dtype=torch.float64)
    steps = check_tape(with_gradient(lambda x: (large @ large @ large).sum() * x), 4)._tape._steps
    assert not any("mm" in str(step.function) for step in steps)


def test_what_is_done_twice_is_done_once():
    once = check_tape(with_gradient(lambda x: x.exp() * 2), 4)._tape
    twice = check_tape(with_gradient(lambda x: x.exp() + x.exp() * 1), 4)._tape
    exp = [[str(step.function) for step in tape._steps].count("aten.exp.default") for tape in (once, twice)]
    assert exp == [1, 1]


def test_two_and_two_point_zero_are_not_the_same_argument():
    def function(x):
        places = x.topk(2).indices
        return places**2, places**2.0

    check_tape(function, 4)


def test_results_may_be_missing_constant_or_the_input():
    fixed = torch.ones(3)

    def function(x):
        return x, None, fixed, x.new_zeros(2), x.detach()

    check_tape(function, 4)


def test_several_inputs_and_outputs():
    def function(x):
        values, places = x.topk(2)
        return values, places, torch.gather(x, 0, places)

    check_tape(function, 4)


def test_values_are_let_go_after_their_last_use():
    alive = []

    def function(x):
        for _ in range(20):
            x = torch.sin(x)
        return (x,)

    tape = check_tape(function, 1000)._tape
    steps = []
    for step in tape._steps:

        def counted(*args, function=step.function):
            result = function(*args)
            alive.append(weakref.ref(result))
            gc.collect()
            steps.append(sum(ref() is not None for ref in alive))
            return result

        steps_of = step._replace(function=counted)
        tape._steps[tape._steps.index(step)] = steps_of
    tape(numbers(0, 1000))
    assert len(steps) == 20
    assert max(steps) <= 2


def test_the_recording_itself_keeps_nothing():
    alive, seen = [], []

    def function(x):
        for _ in range(20):
            x = torch.sin(x.detach())
            alive.append(weakref.ref(x))
        seen.append(sum(ref() is not None for ref in alive))
        alive.clear()
        return (x,)

    check_tape(function, 1000)
    assert max(seen) == 1


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda x: (x * torch.rand(4, generator=torch.Generator().manual_seed(0), dtype=x.dtype),), "random"),
        (lambda x: (x * float(x.detach().sum()),), "something else than tensors"),
        (lambda x: (x if x.sum() > 0 else -x,), "something else than tensors"),
        (lambda x: (x[x > 0].sum() * x,), "another shape"),
        (lambda x: (x * len((x > 0).nonzero()),), "another shape"),
        (lambda x: (x * x.detach().numpy().sum(),), "Tensor.numpy"),
        (lambda x: (x * sum(x.tolist()),), "Tensor.tolist"),
        (lambda x: (x * np.asarray(x.detach()).sum(),), "Tensor.__array__"),
    ],
    ids=["random", "float", "branch", "selection", "count", "numpy", "tolist", "array"],
)
def test_what_a_list_of_operations_cannot_tell_is_refused(function, problem):
    check_refused(function, problem)


def test_a_function_that_writes_into_what_was_there_is_refused():
    held = torch.zeros(4, dtype=torch.float64)

    def function(x):
        held.copy_(x.detach())
        return (held * 2,)

    check_refused(function, "was there before")


def test_a_function_that_hides_the_refusal_is_refused():
    def function(x):
        try:
            return (x * float(x.detach().sum()),)
        except Exception:
            return (x * 0,)

    check_refused(function, "something else than tensors")


def test_a_function_that_looks_at_nothing_but_its_calls_is_found_out_at_the_check():
    calls = []

    def function(x):
        calls.append(0)
        return (x * (1 if len(calls) < 20 else 2),)

    repeated = Repeated(function, calls=100)
    for seed in range(30):
        repeated(numbers(seed, 4))
    repeated.check(numbers(0, 4))
    calls += [0] * 20
    with pytest.raises(TapeError, match="other results"):
        repeated.check(numbers(0, 4))


def test_an_operator_that_refuses_to_run_again_is_left_to_the_function(monkeypatch):
    def refuse(self, *inputs):
        raise RuntimeError("not in this mode")

    monkeypatch.setattr(Tape, "__call__", refuse)
    check_refused(lambda x: (x * 2,), "not in this mode")


def explained_both_ways(explainer, X, monkeypatch):
    """Explain from tapes and without."""
    taped = explainer.explain(X)
    with monkeypatch.context() as patch:
        patch.setattr(gnn_explainer, "learn_masks", partial(learn_masks, taped=False))
        return taped, explainer.explain(X)


def check_same_masks(taped, untaped):
    assert taped.masks.keys() == untaped.masks.keys()
    for kind, entries in taped.masks.items():
        assert np.array_equal(entries.values, untaped.masks[kind].values)
    assert taped.loss == untaped.loss


@pytest.mark.filterwarnings("ignore:Self loops cannot:UserWarning", "ignore:Network mixes:UserWarning")
@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("level", ["node", "graph", "edge"])
def test_a_tape_changes_no_mask_of_any_layer(conv, level, monkeypatch):
    for seed in range(4):
        model, X = draw_instances(Seeded(seed), level, convs=(conv,))
        second = None if model.categories or level == "edge" else "node_feature"
        explainer = GNNExplainer(model, epochs=FEWEST_CALLS, feature_mask=second, init_mean=0.0)
        taped, untaped = explained_both_ways(explainer, X, monkeypatch)
        check_same_masks(taped, untaped)
        assert set(taped.steps) == {"from a tape"}
        assert set(untaped.steps) == {"in full (not asked for)"}


class Reading(torch.nn.Module):
    """Reads numbers of hidden states, which a tape cannot tell."""

    def __init__(self):
        super().__init__()
        self.conv = CONVS["graph"](3, 2)

    def forward(self, x, edge_index):
        h = self.conv(x, edge_index)
        return h * torch.from_numpy(np.tanh(h.detach().numpy()))


def test_masks_of_a_model_that_reads_numbers_are_those_of_full_steps(monkeypatch):
    X = Instances.from_nodes(random_graph(dtype=torch.float64), range(3), target=0)
    explainer = GNNExplainer(seeded(Reading).double(), epochs=FEWEST_CALLS)
    taped, untaped = explained_both_ways(explainer, X, monkeypatch)
    assert set(taped.steps) == {"in full (Tensor.numpy reads numbers)"}
    check_same_masks(taped, untaped)


def test_an_objective_that_does_something_else_in_the_end_is_done_again_in_full():
    calls = []

    def objective(batch, masks):
        calls.append(0)
        return batch.sum_edges(masks["edge"] * (1 if len(calls) < 5 else -1))

    def learned(**options):
        logits = torch.linspace(-1, 1, batch.num_edges, dtype=torch.float64)
        mask = MaskParameters(logits, batch.edge_instance, torch.ones_like(logits))
        penalties = {"edge": Penalty(0.1, 0.0, mean=False)}
        return learn_masks(objective, batch, {"edge": mask}, penalties, epochs=FEWEST_CALLS, lr=0.1, **options)

    X = Instances.from_nodes(random_graph(dtype=torch.float64), range(3), target=0)
    with opened(seeded(lambda: Stack(CONVS["graph"](3, 2))).double(), X) as gnn:
        (batch,) = gnn.batches()
        found = learned()
        assert len(calls) == 5 + FEWEST_CALLS
        assert found.path == "in full (other results)"
        assert torch.equal(found.masks["edge"], learned(taped=False).masks["edge"])
