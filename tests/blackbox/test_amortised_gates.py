"""Learning of gates that goes on: with other numbers of steps, and never with another model."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GraphConv, global_add_pool

from skgnnx import GraphMask, InformationBottleneck, Instances
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.amortised_gates import AmortisedLearning, GateProblem, LearnedGates
from skgnnx.blackbox.gate_networks import GateNetworks
from skgnnx.blackbox.gate_sites import GateSites
from skgnnx.blackbox.hard_concrete import HardConcrete
from skgnnx.blackbox.multipliers import Multipliers


class Layers(nn.Module):
    """Layers of given widths, and the sum of what they make of the nodes."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(GraphConv(a, b) for a, b in pairwise(widths))

    def forward(self, x, edge_index, batch):
        for conv in self.convs:
            x = conv(x, edge_index).tanh()
        return global_add_pool(x, batch)


def made(*widths):
    torch.manual_seed(0)
    return Layers(*widths).double().eval()


def instances(count=6):
    random = torch.Generator().manual_seed(0)
    edges = [torch.randint(5, (2, 9), generator=random) for _ in range(count)]
    x = torch.randn(count, 5, 3, generator=random, dtype=torch.float64)
    return Instances.from_graphs([Data(x=a, edge_index=b) for a, b in zip(x, edges)])


class Noted(AmortisedLearning):
    """Keeps the numbers of the noise that is drawn."""

    def _terms(self, sites, number):
        self.numbers = [*getattr(self, "numbers", []), number]
        return super()._terms(sites, number)


def test_layers_go_on_and_noise_is_new_where_an_epoch_takes_other_steps():
    """How many epochs a layer has may depend on how many steps each takes; one that has begun never stops for that."""
    with BlackBox(made(3, 5, 2), output="logits").open(instances()) as gnn:
        parts, whole = list(gnn.batches(batch_size=2)), list(gnn.batches())
        learned = LearnedGates(GateNetworks(GateSites(gnn, parts[0]).calls).double(), Multipliers(1, 0.01))
        lower = learned.networks.networks[0]
        seen, numbers = [nn.utils.parameters_to_vector(lower.parameters()).clone()], []
        for steps, per_layer, epochs in (([[part] for part in parts], 2, 2), ([whole], 6, 1), ([whole], 50, 1)):
            run = Noted(gnn, GateProblem(HardConcrete(), 5.0, 0.0, per_layer, 0.01, 0.01), learned, seed=7)
            run.run(steps, parts, epochs, tolerance=1.0)
            numbers += run.numbers
            seen.append(nn.utils.parameters_to_vector(lower.parameters()).clone())
    assert [not torch.equal(a, b) for a, b in pairwise(seen)] == [False, True, True]
    assert len(numbers) == len(set(numbers)) == 2 * len(parts) + 2


@pytest.mark.parametrize("method", [GraphMask, InformationBottleneck])
@pytest.mark.parametrize(
    ("widths", "message"),
    [((3, 6, 2), r"as in fit, \[\(3, 3, 3\), \(5, 5, 5\)\] .* Got .*\(6, 6, 6\)"), ((3, 5, 5, 2), "Got 3 times")],
)
def test_another_model_than_in_fit_is_refused(method, widths, message):
    X = instances()
    learned = method(made(3, 5, 2), epochs=1, max_change=1.0, output="logits").fit(X)
    learned.set_params(model=made(*widths))
    for use in (learned.partial_fit, learned.explain):
        with pytest.raises(ValueError, match=message):
            use(X)
