"""Hard concrete gates by sampling, and multipliers by their rule."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgnnx.blackbox.hard_concrete import HardConcrete
from skgnnx.blackbox.multipliers import Multipliers

DRAWS = 40_000


def noise(seed=0, draws=DRAWS):
    return torch.randn(draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    st.floats(-6, 3), st.floats(0.2, 1.5), st.floats(-0.5, -0.05), st.floats(0.8, 1.3), st.floats(0, 3), st.integers(0)
)
def test_penalty_and_probability_agree_with_sampling(location, temperature, low, high, bias, seed):
    law = HardConcrete(temperature, low, high, bias)
    x = noise(seed % 2**31)
    a = torch.full_like(x, location)
    u = torch.special.ndtr(x)
    stretched = ((u.log() - (1 - u).log() + location + bias) / temperature).sigmoid() * (high - low) + low
    for sampled, expected in (
        ((stretched > 0).double(), law.penalty(a[:1])),
        (law.sampled(a, x), law.probability(a[:1])),
    ):
        p = float(expected)
        # four standard errors, because there are many cases; two draws more, because nothing varies where p is 0 or 1
        assert abs(float(sampled.mean()) - p) <= 4 * math.sqrt(p * (1 - p) / DRAWS) + 2 / DRAWS


@given(st.floats(-40, 40), st.integers(0, 2**31))
def test_gates_are_zero_or_one_and_have_the_gradient_of_what_is_cut(location, seed):
    law = HardConcrete()
    a = torch.full((200,), location, dtype=torch.float64, requires_grad=True)
    gates = law.sampled(a, noise(seed, 200))
    assert set(gates.tolist()) <= {0.0, 1.0}
    assert set(law.settled(a.detach()).tolist()) <= {0.0, 1.0}
    (gradient,) = torch.autograd.grad(gates.sum(), a)
    u = torch.special.ndtr(noise(seed, 200)).clamp(1e-6, 1 - 1e-6)
    soft = (((u.log() - (1 - u).log() + a + 3) * 3).sigmoid() * 1.2 - 0.2).clamp(0, 1)
    (expected,) = torch.autograd.grad(soft.sum(), a)
    torch.testing.assert_close(gradient, expected)


def test_without_noise_the_cut_is_absolute():
    law = HardConcrete()
    at = math.log(0.7 / 1.2 / (1 - 0.7 / 1.2)) - 3  # where the stretched value is one half
    assert law.settled(torch.tensor([at - 1e-3, at, at + 1e-3])).tolist() == [0, 0, 1]
    # a gate does not depend on the others, as it does where it is compared with their least and largest
    assert law.settled(torch.full((3,), 2.0)).tolist() == [1, 1, 1]
    assert law.settled(torch.full((3,), -5.0)).tolist() == [0, 0, 0]


def test_an_untrained_gate_is_closed_as_often_as_in_the_authors_code():
    assert 1 - float(HardConcrete().probability(torch.zeros(1))) == pytest.approx(0.053, abs=5e-4)


@given(st.lists(st.sampled_from([0.0, 1e-9, 0.3, 20.0]), min_size=1, max_size=60))
def test_a_multiplier_grows_if_and_only_if_something_is_violated(violations):
    ours = Multipliers(2, lr=0.01)
    raw = torch.full((1,), 0.55, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.RMSprop([raw], lr=0.01, centered=True)
    for violation in violations:
        before = ours.raw
        ours.ascend(torch.tensor([0.0, violation]))
        assert float(ours.raw[0]) == 0.55
        assert (ours.raw[1] > before[1]) == (violation > 0)
        raw.grad = torch.autograd.grad(-torch.nn.functional.softplus(raw) * violation, raw)[0]
        theirs.step()
    torch.testing.assert_close(ours.raw[1:], raw.detach(), rtol=1e-6, atol=1e-9)


def test_a_multiplier_stays_in_its_bounds():
    multipliers = Multipliers(1, lr=5.0)
    for _ in range(50):
        multipliers.ascend(torch.ones(1))
    assert float(multipliers.raw) == 30
