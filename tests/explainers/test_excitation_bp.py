"""ExcitationBP against Zhang's formula unit by unit, and the laws of a mass."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from relevance_networks import CONVS as ALL_CONVS
from relevance_networks import graphs, made
from relevance_oracles import CONVS, NODES, layers, random_network, shared
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, global_add_pool

from skgnnx import ExcitationBP, Instances

SUBTRACTING = ("cheb", "le", "edge", "sage several", "initial", "arma")
WHOLE = [conv for conv in ALL_CONVS if conv not in SUBTRACTING]


def positive(data):
    data.x = data.x.abs()
    return data


X = Instances.from_graphs([positive(data) for data in graphs()], target=1)


def mass_by_hand(model, x, edge_index, target, sign=1):
    found, inputs, _ = layers(model, x, edge_index)
    P = np.eye(len(found[-1].matrix))[target]
    for layer, a in zip(reversed(found), reversed(inputs), strict=True):
        if layer.matrix is not None:
            P, _ = shared(sign * layer.matrix, layer.bias, a, P, "mass")
            sign = 1
    return P.reshape(NODES, -1)


@pytest.mark.parametrize("kind", CONVS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_equals_the_formula_by_hand(kind, seed):
    model, x, edge_index = random_network(kind, seed)
    x = x.abs()
    instances = Instances.from_graphs([Data(x=x, edge_index=edge_index)])
    plain = ExcitationBP(model, mask="node_feature").explain_targets(instances)
    contrast = ExcitationBP(model, mask="node_feature", contrastive=True).explain_targets(instances)
    for target in range(len(plain)):
        mass, other = (mass_by_hand(model, x.numpy(), edge_index.numpy(), target, sign) for sign in (1, -1))
        np.testing.assert_allclose(plain[target][0], mass, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(contrast[target][0], np.maximum(mass - other, 0), rtol=1e-5, atol=1e-7)
        assert contrast[target].lost_mass == plain[target].lost_mass


NETWORKS = [
    *({"conv": conv} for conv in WHOLE),
    *({"wiring": wiring} for wiring in ("norm first", "residual", "jumping", "in place", "module", "quotient")),
    {"head": "normed"},
    {"pool": "max"},
    {"pool": "mean", "head": "softmax"},
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: "-".join(network.values()))
def test_a_mass_of_one_is_kept_or_reported_as_lost(network):
    model = made(**network)
    alone = ExcitationBP(model, mask="node_feature", batch_size=1).explain(X)
    together = ExcitationBP(model, mask="node_feature").explain_targets(X)
    for E in together:
        for i in range(len(X)):
            assert (E[i] >= 0).all()
            assert -1e-9 <= E.lost_mass[i] <= 1 + 1e-9
            assert E[i].sum() == pytest.approx(1 - E.lost_mass[i], abs=1e-5)
    for i in range(len(X)):
        np.testing.assert_allclose(alone[i], together[1][i], rtol=1e-5, atol=1e-7)


def test_the_sign_of_the_score_does_not_matter():
    low, high = made("gin"), made("gin")
    with torch.no_grad():
        low.head.bias.fill_(-100)
        high.head.bias.fill_(100)
    for one, other in zip(ExcitationBP(low).explain_targets(X), ExcitationBP(high).explain_targets(X)):
        for i in range(len(X)):
            np.testing.assert_array_equal(one[i], other[i])


def test_biases_matter_only_by_the_activations():
    """Where all units stay awake, what they hold is all that counts: biases that are moved into the input say so."""
    torch.manual_seed(0)
    conv, head = GCNConv(3, 4), nn.Linear(4, 2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = conv, head

        def forward(self, x, edge_index, batch):
            return self.head(global_add_pool(self.conv(x, edge_index).relu(), batch))

    model, data = (
        Net().double().eval(),
        Data(x=torch.rand(4, 3).double(), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]])),
    )
    with torch.no_grad():
        conv.lin.weight.abs_()
    instances = Instances.from_graphs([data], target=0)
    before = ExcitationBP(model, mask="node_feature").explain(instances)
    with torch.no_grad():
        head.bias.add_(5)
    np.testing.assert_array_equal(before[0], ExcitationBP(model, mask="node_feature").explain(instances)[0])


def test_a_unit_that_nothing_excites_loses_its_mass():
    model = made("gcn")
    with torch.no_grad():
        model.head.weight[1] = -model.head.weight[1].abs()
    E = ExcitationBP(model).explain(X)
    assert E.lost_mass == [1.0] * len(X)
    assert all((E[i] == 0).all() for i in range(len(X)))


@pytest.mark.parametrize("contrastive", [False, True])
def test_one_logit_stands_for_two_opposite_units(contrastive):
    one, two = made(classes=1), made(classes=2)
    with torch.no_grad():
        two.load_state_dict({**two.state_dict(), **{k: v for k, v in one.state_dict().items() if "head" not in k}})
        two.head.weight.copy_(torch.cat([-one.head.weight, one.head.weight]))
    explainer = {"mask": "node_feature", "contrastive": contrastive}
    single = ExcitationBP(one, output="binary_logit", **explainer).explain_targets(X)
    for target, expected in enumerate(ExcitationBP(two, **explainer).explain_targets(X)):
        for i in range(len(X)):
            np.testing.assert_allclose(single[target][i], expected[i], rtol=1e-6, atol=1e-9)
    mixed = Instances.from_graphs([X[i].graph for i in range(len(X))], target=[0, 1, 1, 0, 1])
    both = ExcitationBP(one, output="binary_logit", **explainer).explain(mixed)
    for i, target in enumerate([0, 1, 1, 0, 1]):
        np.testing.assert_array_equal(both[i], single[target][i])


@pytest.mark.parametrize("mask", ["node", "feature"])
def test_masks_are_sums(mask):
    whole, part = (ExcitationBP(made("gat"), mask=m).explain(X) for m in ("node_feature", mask))
    for i in range(len(X)):
        np.testing.assert_allclose(part[i], whole[i].sum(axis=int(mask == "node")), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("contrastive", [False, True])
def test_edges_carry_no_more_than_the_mass_in_each_layer(contrastive):
    E = ExcitationBP(made("graph"), mask="edge", contrastive=contrastive).explain(X)
    for i in range(len(X)):
        assert (E[i] >= 0).all()
        assert E[i].sum() <= 2 + 1e-6


def test_negative_features_are_refused_or_shifted():
    signed = graphs()
    signed[0].x = signed[0].x.abs()
    instances = Instances.from_graphs(signed, target=1)
    with pytest.raises(ValueError, match="not negative. Got -.* at index 1; pass shift_input=True"):
        ExcitationBP(made()).explain(instances)
    shifted = [data.clone() for data in signed]
    for data in shifted:
        data.x = data.x - min(0.0, float(data.x.min()))
    by_hand = ExcitationBP(made()).explain(Instances.from_graphs(shifted, target=1))
    E = ExcitationBP(made(), shift_input=True).explain(instances)
    for i in range(len(E)):
        np.testing.assert_allclose(E[i], by_hand[i], rtol=1e-6, atol=1e-9)


def test_features_that_reach_no_prediction_may_be_negative():
    data = positive(graphs()[2])
    data.x[5] = -1  # the isolated node
    nodes = Instances.from_nodes(data, [0, 1, 2], target=0)
    E = ExcitationBP(made(level="node")).explain(nodes)
    assert E[0].sum() == pytest.approx(1 - E.lost_mass[0], abs=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "leaky", "elu", "gelu"])
def test_negative_activations_are_refused(activation):
    with pytest.raises(TypeError, match="'convs.1' of Network, which gets negative activations.*use"):
        ExcitationBP(made(activation=activation)).explain(X)


@pytest.mark.parametrize(
    "network",
    [
        *({"conv": conv} for conv in SUBTRACTING),
        {"wiring": "layer norm"},
        {"wiring": "bias outside"},
        {"wiring": "twice"},
    ],
    ids=str,
)
def test_layers_that_subtract_are_refused(network):
    with pytest.raises(TypeError, match="negative activations|nothing is subtracted|adds something negative"):
        ExcitationBP(made(**network)).explain(X)


def test_scores_that_are_no_unit_of_a_layer_are_refused():
    data = positive(graphs()[0])
    pairs = Instances.from_edges(data, torch.tensor([[0, 1], [2, 3]]), target=1)
    with pytest.raises(TypeError, match="starts at a unit of a linear layer. Got Network"):
        ExcitationBP(made(level="edge"), output="binary_logit").explain(pairs)
