"""Networks whose units do not sleep."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from skgnnx.blackbox.waking import SLOPE, Awake

WAYS = {
    "functional": functional.relu,
    "functional, in place": lambda x: functional.relu(x, inplace=True),
    "functional, in place by position": lambda x: functional.relu(x, True),
    "functional with an underscore": functional.relu_,
    "by name": lambda x: functional.relu(input=x),
    "torch": torch.relu,
    "torch, in place": torch.relu_,
    "method": lambda x: x.relu(),
    "method, in place": lambda x: x.relu_(),
    "module": nn.ReLU(),
    "module, in place": nn.ReLU(inplace=True),
    "six": functional.relu6,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_a_relu_lets_something_pass(way):
    x = torch.tensor([-2.0, 0.0, 3.0])
    with Awake():
        changed = x.clone()
        result = WAYS[way](changed)
    assert result.tolist() == [-2.0 * SLOPE, 0.0, 3.0]
    assert torch.equal(changed, result if "in place" in way or "underscore" in way else x)
    assert WAYS[way](x.clone()).tolist() == [0.0, 0.0, 3.0]


def test_everything_else_is_as_it_was():
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    with Awake():
        inside = [x.sigmoid(), functional.elu(x), x.clamp(min=0), torch.tanh(x)]
    for got, expected in zip(inside, [x.sigmoid(), functional.elu(x), x.clamp(min=0), torch.tanh(x)]):
        assert torch.equal(got, expected)
