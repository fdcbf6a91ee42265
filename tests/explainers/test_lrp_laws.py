"""Laws of LRP on every kind of network."""

import numpy as np
import pytest
import torch
from relevance_networks import ACTIVATIONS, CONVS, HEADS, POOLS, WIRINGS, graphs, made
from torch import nn

from skgnnx import LRP, InputXGradient, Instances

X = Instances.from_graphs(graphs(), target=1)
RULES = ("gamma", "zero", "epsilon", "zplus")
NETWORKS = [
    *({"conv": conv} for conv in CONVS),
    *({"wiring": wiring, "conv": conv} for wiring in WIRINGS[1:] for conv in ("gcn", "gin")),
    *({"pool": pool, "head": head} for pool in POOLS for head in HEADS),
    *({"activation": activation} for activation in ACTIVATIONS),
]


def name_of(network):
    return "-".join(network.values())


def score_of(model, instance, column=1):
    """The score before a softmax, without any tool."""
    data, end = instance.graph, model.head[-1] if isinstance(model.head, nn.Sequential) else None
    with torch.no_grad():
        if isinstance(end, (nn.Softmax, nn.LogSoftmax)):
            batch = torch.zeros(data.num_nodes, dtype=torch.long)
            return float(model.head[:-1](model.pool(model.states(data.x, data.edge_index, batch), batch))[0, column])
        return float(model(data.x, data.edge_index)[0, column])


@pytest.mark.parametrize("network", NETWORKS, ids=name_of)
def test_every_rule_shares_out_the_whole_score_and_batches_do_not_matter(network):
    model = made(**network)
    for rule in RULES:
        E = LRP(model, mask="node_feature", rule=rule).explain(X)
        for i, instance in enumerate(X):
            assert E.score[i] == pytest.approx(score_of(model, instance), rel=1e-12, abs=1e-13)
            assert abs(E.gap[i]) <= 1e-12 * max(1, abs(E.score[i]))
            assert E[i].sum() + E.bias_share[i] == pytest.approx(E.score[i], rel=1e-5, abs=1e-5)
        if rule in ("gamma", "epsilon"):
            alone = LRP(model, mask="node_feature", rule=rule, batch_size=1).explain(X[::-1])
            for i in range(len(X)):
                assert alone.bias_share[-1 - i] == pytest.approx(E.bias_share[i], rel=1e-10, abs=1e-11)
                np.testing.assert_allclose(alone[len(X) - 1 - i], E[i], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("conv", [conv for conv in CONVS if "gat" not in conv])
def test_the_zero_rule_is_input_times_gradient(conv):
    zero = LRP(made(conv), mask="node_feature", rule="zero").explain(X)
    plain = InputXGradient(made(conv), mask="node_feature").explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(zero[i], plain[i], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("conv", ["gcn", "sage", "gin", "graph"])
def test_the_zero_rule_has_no_other_bits(conv):
    model = made(conv)
    zero = LRP(model, mask="node_feature", rule="zero", batch_size=1).explain(X)
    plain = InputXGradient(model, mask="node_feature", batch_size=1).explain(X)
    for i in range(len(X)):
        np.testing.assert_array_equal(zero[i], plain[i])


@pytest.mark.parametrize("conv", ["gat", "gatv2"])
def test_attention_gets_nothing(conv):
    zero = LRP(made(conv), mask="node_feature", rule="zero").explain(X)
    plain = InputXGradient(made(conv), mask="node_feature").explain(X)
    assert np.abs(zero[0] - plain[0]).max() > 1e-4


@pytest.mark.parametrize("conv", ["gcn", "graph", "sage", "gin", "gat"])
def test_a_large_gamma_is_zplus(conv):
    model = made(conv, head="no bias")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    large = LRP(model, mask="node_feature", gamma=1e9).explain(X)
    plus = LRP(model, mask="node_feature", rule="zplus").explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(large[i], plus[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("conv", ["gcn", "graph", "gin"])
def test_a_folded_norm_is_a_layer_with_other_weights(conv):
    model = made(conv, wiring="norm first")
    plain = made(conv)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        for norm, layer in zip(model.norms, plain.convs, strict=True):
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            weights = {"gcn": lambda c: [c.lin], "graph": lambda c: [c.lin_rel, c.lin_root], "gin": lambda c: [c.nn[2]]}
            for linear in weights[conv](layer):
                linear.weight.mul_(factor[:, None])
            bias = {"gcn": lambda c: c.bias, "graph": lambda c: c.lin_rel.bias, "gin": lambda c: c.nn[2].bias}[conv](
                layer
            )
            bias.copy_((bias - norm.running_mean) * factor + norm.bias)
    for rule in RULES:
        folded, unfolded = (LRP(m, mask="node_feature", rule=rule).explain(X) for m in (model, plain))
        for i in range(len(X)):
            np.testing.assert_allclose(folded[i], unfolded[i], rtol=1e-5, atol=1e-7)
            assert folded.bias_share[i] == pytest.approx(unfolded.bias_share[i], rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("conv", ["gcn", "gin", "sage", "gat"])
def test_layers_carry_what_nodes_get(conv, rule):
    model, without_loops = made(conv), X[[0, 2, 3, 4]]
    nodes = LRP(model, rule=rule).explain(without_loops)
    edges = LRP(model, mask="edge", rule=rule, per_layer=True).explain(without_loops)
    for i in range(len(without_loops)):
        kept = edges.entries(i)
        assert edges.layer_masks[i].shape == (2, len(kept[0]))
        np.testing.assert_allclose(edges.layer_masks[i].sum(0), kept[1], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(edges.layer_nodes[i][0], nodes[i], rtol=1e-5, atol=1e-7)
        if conv in ("gcn", "gat"):  # nothing reaches a node but by messages
            through = edges.layer_masks[i][0].sum() + edges.loop_masks[i][0].sum()
            assert through == pytest.approx(nodes[i].sum(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("mask", ["node", "feature"])
def test_masks_are_sums(mask):
    whole, part = (LRP(made("gin"), mask=m).explain(X) for m in ("node_feature", mask))
    for i in range(len(X)):
        np.testing.assert_allclose(part[i], whole[i].sum(axis=int(mask == "node")), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("conv", ["gcn", "gin", "gat", "sage max"])
def test_relabelled_nodes_have_relabelled_relevance(conv):
    data = graphs()[1]
    order = torch.tensor([2, 0, 3, 1])
    moved = data.clone()
    moved.x, moved.edge_index = data.x[order], order.argsort()[data.edge_index]
    E = LRP(made(conv), mask="node_feature").explain(Instances.from_graphs([data, moved], target=0))
    np.testing.assert_allclose(E[1], E[0][order.numpy()], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("conv", ["gcn", "gin", "gat"])
def test_nodes(conv):
    model, data = made(conv, level="node"), graphs()[2]
    nodes = Instances.from_nodes(data, target=2)
    E = LRP(model, mask="node_feature").explain(nodes)
    scores = model(data.x, data.edge_index)[:, 2].detach()
    for i in range(len(nodes)):
        assert E[i].sum() + E.bias_share[i] == pytest.approx(float(scores[i]), rel=1e-5, abs=1e-5)
        assert (E[i][np.arange(6) == 5] == 0).all() or i == 5  # an isolated node


@pytest.mark.parametrize("rule", RULES)
def test_the_two_ends_of_a_link_get_half_each(rule):
    """The product of two states is of the second degree in them: without biases gradients would give all twice."""
    model, data = made(level="edge"), graphs()[0]
    E = LRP(model, rule=rule, output="binary_logit").explain(
        Instances.from_edges(data, torch.tensor([[0, 1], [2, 3]]), target=1)
    )
    for i in range(len(E)):
        assert abs(E.gap[i]) <= 1e-12 * max(1, abs(E.score[i]))
        assert E[i].sum() + E.bias_share[i] == pytest.approx(E.score[i], rel=1e-5, abs=1e-5)
    if rule == "zero":
        with torch.no_grad():
            for conv in model.convs:
                conv.bias.zero_()
        pairs = Instances.from_edges(data, torch.tensor([[0, 1], [2, 3]]), target=1)
        twice = InputXGradient(model, mask="node", output="binary_logit").explain(pairs)
        once = LRP(model, rule="zero", output="binary_logit").explain(pairs)
        for i in range(len(pairs)):
            np.testing.assert_allclose(twice[i], 2 * once[i], rtol=1e-5, atol=1e-7)


def test_one_logit_has_two_opposite_classes():
    no, yes = LRP(made(classes=1), output="binary_logit").explain_targets(X)
    for i in range(len(X)):
        np.testing.assert_array_equal(no[i], -yes[i])
        assert no.bias_share[i] == -yes.bias_share[i]


def test_a_regression_is_shared_out():
    E = LRP(made(classes=1), output="regression").explain(Instances.from_graphs(graphs()))
    for i, instance in enumerate(X):
        assert E[i].sum() + E.bias_share[i] == pytest.approx(score_of(made(classes=1), instance, 0), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("conv", ["gcn", "gin", "gat"])
def test_single_precision(conv):
    single = Instances.from_graphs(graphs(dtype=torch.float32), target=1)
    small, large = LRP(made(conv, dtype=torch.float32)).explain(single), LRP(made(conv)).explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(small[i], large[i], rtol=1e-4, atol=1e-4 * np.abs(large[i]).max())


def test_all_targets_from_one_forward_pass():
    model = made("gin")
    for target, E in enumerate(LRP(model).explain_targets(X)):
        one = LRP(model).explain(Instances.from_graphs(graphs(), target=target))
        for i in range(len(X)):
            np.testing.assert_array_equal(E[i], one[i])
