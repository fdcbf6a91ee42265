"""Gradients in closed form equal those of autograd, and Adam in place equals torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgnnx.blackbox.adam import Adam
from skgnnx.blackbox.mask_logits import MaskLogits, MaskParameters, Penalty

EPS = 1e-15
SIZE_AND_ENTROPY = [(0.0, 0.0, False), (0.3, 0.0, False), (0.0, 0.7, True), (0.3, 0.7, False), (0.3, 0.7, True)]


def naive_penalty(theta, instance, weight, penalty):
    """The formula, one instance at a time, as PyG writes it."""
    total = []
    for b in range(int(instance.max()) + 1):
        used = weight[instance == b] > 0
        s = theta[instance == b].sigmoid()[used]
        h = -s * torch.log(s + EPS) - (1 - s) * torch.log(1 - s + EPS)
        count = max(len(s), 1)
        total.append(penalty.size * s.sum() / (count if penalty.mean else 1) + penalty.entropy * h.sum() / count)
    return torch.stack(total)


def logits_of(theta, instance, weight, penalty, **options):
    rows = MaskParameters(theta, instance, weight, **options)
    return MaskLogits(rows, penalty, int(instance.max()) + 1, lr=0.1)


thetas = st.lists(st.tuples(st.floats(-25, 25), st.integers(0, 3), st.booleans()), min_size=1, max_size=12)


@given(thetas, st.sampled_from(SIZE_AND_ENTROPY), st.integers(0, 9))
def test_the_gradient_in_closed_form_is_that_of_autograd(rows, penalty, seed):
    penalty = Penalty(penalty[0], penalty[1], mean=penalty[2])
    theta = torch.tensor([row[0] for row in rows], dtype=torch.float64, requires_grad=True)
    instance = torch.tensor([row[1] for row in rows])
    weight = torch.tensor([float(row[2]) for row in rows], dtype=torch.float64)
    by_masks = torch.randn(len(rows), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    naive = naive_penalty(theta, instance, weight, penalty)
    (expected,) = torch.autograd.grad(naive.sum() + (theta.sigmoid() * by_masks).sum(), theta)
    logits = logits_of(theta.detach(), instance, weight, penalty)
    logits.masks()
    logits.take_gradient(by_masks, penalised=True)
    torch.testing.assert_close(logits.gradient, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(logits.value(len(naive)), naive.detach(), atol=1e-12, rtol=1e-12)
    logits.take_gradient(by_masks, penalised=False)
    sigma = theta.detach().sigmoid()
    torch.testing.assert_close(logits.gradient, by_masks * sigma * (1 - sigma), atol=1e-15, rtol=1e-12)


@pytest.mark.parametrize("size", SIZE_AND_ENTROPY)
def test_one_weight_per_row_is_as_good_as_one_per_entry(size):
    random = torch.Generator().manual_seed(0)
    theta = torch.randn(4, 3, generator=random, dtype=torch.float64)
    instance, weight = torch.tensor([0, 1, 0, 1]), torch.tensor([1.0, 0, 1, 1], dtype=torch.float64)[:, None]
    penalty = Penalty(size[0], size[1], mean=size[2])
    short, full = (logits_of(theta, instance, w, penalty) for w in (weight, weight.expand(4, 3)))
    for logits in (short, full):
        logits.masks()
        logits.take_gradient(None, penalised=True)
    torch.testing.assert_close(short.gradient, full.gradient, atol=0, rtol=1e-15)
    flat = naive_penalty(theta.flatten(), instance.repeat_interleave(3), weight.expand(4, 3).flatten(), penalty)
    torch.testing.assert_close(short.value(2), flat, atol=1e-12, rtol=1e-12)


def test_an_instance_without_anything_to_penalise_has_no_penalty():
    logits = logits_of(torch.ones(3), torch.tensor([0, 0, 1]), torch.tensor([0.0, 0, 1]), Penalty(1.0, 1.0, mean=True))
    logits.masks()
    logits.take_gradient(None, penalised=True)
    assert logits.gradient[:2].tolist() == [0.0, 0.0]
    assert logits.value(2)[0] == 0
    assert logits.value(2)[1] > 0


@given(st.integers(0, 99), st.sampled_from([0.01, 0.5]))
def test_adam_is_torch_adam(seed, lr):
    random = torch.Generator().manual_seed(seed)
    value = torch.randn(5, generator=random, dtype=torch.float64)
    theirs = value.clone().requires_grad_()
    optimiser, ours = torch.optim.Adam([theirs], lr=lr), Adam(value, lr)
    for _ in range(20):
        gradient = torch.randn(5, generator=random, dtype=torch.float64) * 10.0 ** torch.randint(-9, 3, (5,))
        theirs.grad = gradient.clone()
        optimiser.step()
        ours.step(value, gradient)
    torch.testing.assert_close(value, theirs.detach(), atol=1e-13, rtol=1e-13)


def test_steps_make_no_arrays():
    """What a step works on stays where it is, and the parameters that were given stay as they are."""
    theta = torch.randn(6, generator=torch.Generator().manual_seed(0))
    rows = MaskParameters(theta.clone(), torch.zeros(6, dtype=torch.long), torch.ones(6))
    logits = MaskLogits(rows, Penalty(0.1, 0.1, mean=False), 1, lr=0.1)

    def places():
        tensors = (logits.theta, logits.sigma, logits.gradient, logits.leaf, logits.adam.mean, logits.adam.square)
        return [tensor.data_ptr() for tensor in tensors]

    before = places()
    for _ in range(3):
        logits.masks()
        logits.take_gradient(torch.ones(6), penalised=True)
        logits.step()
    logits.penalise_only(torch.zeros(6, dtype=torch.bool), 1)
    assert places() == before
    assert logits.theta.dtype == torch.float64
    assert logits.leaf.dtype == torch.float32
    assert torch.equal(rows.logits, theta)
    assert rows.weight.tolist() == [1.0] * 6


def masks_of(logits):
    """What the masks are after the last step, or were on average."""
    logits.settle(torch.ones(int(logits.rows.instance.max()) + 1, dtype=torch.bool))
    return logits.final[logits._place].clone()


def test_the_size_penalty_grows_in_units_of_the_first_gradient_and_masks_are_averaged():
    """The formula written with torch's own Adam, one instance at a time."""
    instance = torch.tensor([0, 0, 1, 1, 1])
    theta = torch.tensor([1.0, -1.0, 0.5, 2.0, 0.0], dtype=torch.float64)
    slope = torch.tensor([-3.0, 1.0, -1e-9, 2e-9, 4e-9], dtype=torch.float64)  # the loss is linear in the masks
    weight = torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)
    penalty = Penalty(0.5, 0.1, mean=False, growth=16.0, relative=True)
    logits = MaskLogits(MaskParameters(theta, instance, weight), penalty, 2, 0.1, steps=5, average=True)
    values = []
    for _ in range(5):
        logits.masks()
        logits.take_gradient(slope, penalised=True)
        values.append(logits.value(2))
        logits.step()
    found = masks_of(logits)
    for b in range(2):
        mine = instance == b
        used, one = weight[mine] > 0, theta[mine].clone().requires_grad_()
        unit = slope[mine][used].abs().mean()
        # The loss is divided by the unit, so that Adam's epsilon does not matter.
        adam, seen = torch.optim.Adam([one], lr=0.1), []
        for step in range(5):
            s = one.sigmoid()
            entropy = -(s * s.log() + (1 - s) * (1 - s).log())[used].mean()
            value = 0.5 * 2.0**step * s[used].sum() + 0.1 * entropy
            torch.testing.assert_close(values[step][b], (unit * value).detach(), rtol=1e-12, atol=0)
            adam.zero_grad()
            (value + (slope[mine] / unit * s).sum()).backward()
            adam.step()
            seen.append(one.detach().sigmoid())
        torch.testing.assert_close(found[mine], torch.stack(seen).mean(0), rtol=1e-12, atol=0)


def test_masks_on_their_way_are_told_from_those_that_have_arrived():
    """Logits that are pushed steadily; 0 and 5 are not yet and already near 1, and the last one is not pushed."""
    theta = torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64)
    logits = MaskLogits(
        MaskParameters(theta, torch.zeros(3, dtype=torch.long), torch.ones(3)), Penalty(0, 0, False), 1, 0.1
    )
    assert not logits.is_open_ended().any()  # nothing has moved
    for _ in range(3):
        logits.masks()
        logits.take_gradient(torch.tensor([-1.0, -1.0, 0.0], dtype=torch.float64), penalised=True)
        logits.step()
    assert logits.is_open_ended().tolist() == [True, False, False]
    assert logits.reacts.tolist() == [True]


@given(st.integers(0, 99), st.booleans(), st.sets(st.integers(0, 4), min_size=1), st.booleans())
def test_some_instances_go_on_as_if_they_were_alone(seed, tied, kept, on_a_path):
    random = np.random.default_rng(seed)
    size, edges = 10, 17
    instance = torch.from_numpy(np.append(np.arange(5), random.integers(0, 5, size - 5)))
    theta = torch.from_numpy(random.standard_normal(size))
    weight = torch.from_numpy(random.integers(0, 2, size).astype(float))
    expand = torch.from_numpy(random.integers(0, size, edges)) if tied else None
    penalty = Penalty(0.2, 0.3, mean=False, growth=8.0 if on_a_path else 1.0, relative=on_a_path)
    all_rows, stays = MaskParameters(theta, instance, weight, expand), torch.tensor([b in kept for b in range(5)])
    together, alone = (
        MaskLogits(rows, penalty, number, 0.1, steps=4, average=on_a_path)
        for rows, number in ((all_rows, 5), (all_rows.take(stays), len(kept)))
    )
    by_masks = torch.from_numpy(random.standard_normal((4, size)))
    row_stays = stays[instance]
    row_of_entry = torch.arange(size) if expand is None else expand
    for step in range(4):
        if step == 2:
            together.settle(~stays)
            stopped = masks_of(together)[~row_stays]
            together.keep(stays)
        expected = alone.masks()
        found = together.rows.entries(together.masks())
        found = found if step >= 2 else found[row_stays[row_of_entry]]
        assert torch.equal(found, alone.rows.entries(expected))
        together.take_gradient(by_masks[step][row_stays] if step >= 2 else by_masks[step], penalised=True)
        alone.take_gradient(by_masks[step][row_stays], penalised=True)
        together.step()
        alone.step()
    together.settle(torch.ones(len(kept), dtype=torch.bool))
    assert torch.equal(together.final[row_stays], masks_of(alone))
    assert torch.equal(together.final[~row_stays], stopped)
