"""What the columns of an output are, in every way of writing it."""

import math

import numpy as np
import pytest
import torch
from blackbox_cases import no_warnings, opened, random_graph, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch_geometric.nn import GraphConv, global_add_pool

from skgnnx import Instances
from skgnnx.blackbox import heads
from skgnnx.testing.networks import Network


class Headed(nn.Module):
    """A graph network and what is written after it."""

    def __init__(self, columns, head):
        super().__init__()
        self.conv, self.columns, self.head = GraphConv(3, columns), columns, head

    def forward(self, x, edge_index, batch):
        return self.head(self.logits(x, edge_index, batch))

    def logits(self, x, edge_index, batch):
        return global_add_pool(self.conv(x, edge_index), batch)


HEADS = {
    "none": (3, lambda z: z, "logits"),
    "functional log-softmax": (3, lambda z: functional.log_softmax(z, dim=1), "log_probs"),
    "functional log-softmax, last": (3, lambda z: functional.log_softmax(z, -1), "log_probs"),
    "torch log-softmax": (3, lambda z: torch.log_softmax(z, dim=-1), "log_probs"),
    "method log-softmax": (3, lambda z: z.log_softmax(1), "log_probs"),
    "module log-softmax": (3, nn.LogSoftmax(dim=1), "log_probs"),
    "functional softmax": (3, lambda z: functional.softmax(z, dim=1), "probs"),
    "torch softmax": (3, lambda z: torch.softmax(z, 1), "probs"),
    "method softmax": (3, lambda z: z.softmax(dim=-1), "probs"),
    "module softmax": (3, nn.Softmax(dim=-1), "probs"),
    "softmax, then view": (3, lambda z: z.softmax(dim=1).view(len(z), -1), "probs"),
    "log-softmax in a tuple": (3, lambda z: (z.log_softmax(dim=1), z), "log_probs"),
    "sigmoid": (1, torch.sigmoid, "binary_prob"),
    "functional sigmoid": (1, functional.sigmoid, "binary_prob"),
    "module sigmoid": (1, nn.Sigmoid(), "binary_prob"),
    "method sigmoid": (1, lambda z: z.sigmoid(), "binary_prob"),
    "sigmoid, then squeeze": (1, lambda z: z.sigmoid().squeeze(-1), "binary_prob"),
    "squeeze, then sigmoid": (1, lambda z: z.squeeze(-1).sigmoid(), "binary_prob"),
    "sigmoid of many": (3, torch.sigmoid, "multilabel_prob"),
}


def case(kind, n=4):
    columns, head, expected = HEADS[kind]
    target = [0, 1, 2, 1][:n] if columns == 3 else [0, 1, 1, 0][:n]
    X = Instances.from_graphs([random_graph(seed) for seed in range(n)], target=target)
    model = seeded(lambda: Headed(columns, head))
    logits = torch.cat([model.logits(g.graph.x, g.graph.edge_index, None) for g in X]).detach()
    return model, X, logits, expected


@pytest.mark.parametrize("kind", HEADS)
def test_scores_are_what_goes_into_the_head(kind):
    model, X, logits, expected = case(kind)
    with no_warnings(), opened(model, X) as gnn:
        assert gnn.kind_of_output == expected
        (batch,) = gnn.batches()
        pre = torch.cat([-logits, logits], dim=1) if expected == "binary_prob" else logits
        chosen = pre.gather(1, torch.tensor(X.target).view(-1, 1)).flatten()
        torch.testing.assert_close(gnn.all_scores(batch), pre, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gnn.plain_scores(batch, logits=True), pre, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gnn.scores(batch), chosen, atol=1e-5, rtol=1e-5)
        if expected == "binary_prob":
            probabilities = torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)
        else:
            probabilities = logits.sigmoid() if expected == "multilabel_prob" else logits.softmax(dim=1)
        torch.testing.assert_close(gnn.probabilities(batch), probabilities, atol=1e-5, rtol=1e-5)
        log_prob = probabilities.log().gather(1, torch.tensor(X.target).view(-1, 1)).flatten()
        torch.testing.assert_close(gnn.log_prob(batch), log_prob, atol=1e-4, rtol=1e-4)
        if expected != "multilabel_prob":
            assert gnn.predicted().tolist() == probabilities.argmax(dim=1).tolist()


def test_saturated_heads_keep_their_scores():
    model, X, logits, _ = case("functional softmax")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    with opened(model, X) as gnn:
        (batch,) = gnn.batches()
        torch.testing.assert_close(gnn.all_scores(batch), logits * 100, rtol=1e-4, atol=1e-3)


def test_a_head_that_is_not_seen_is_told_by_its_sums():
    for head, expected in ((lambda z: z.softmax(1) + 0, "probs"), (lambda z: z.log_softmax(1) * 1, "log_probs")):
        X = Instances.from_graphs([random_graph(seed) for seed in range(4)], target=[0, 1, 2, 1])
        model = seeded(lambda head=head: Headed(3, head))
        with no_warnings(), opened(model, X) as gnn:
            assert gnn.kind_of_output == expected
            (batch,) = gnn.batches()
            torch.testing.assert_close(gnn.scores(batch), gnn.log_prob(batch))
            torch.testing.assert_close(gnn.plain_scores(batch), gnn.all_scores(batch))
            with pytest.raises(TypeError, match="Headed looks like .log-.probabilities and the logits could not"):
                gnn.plain_scores(batch, logits=True)


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
def test_plain_scores_can_be_differentiated_while_others_look_on(level):
    model, X = Network("gcn", level, log_softmax=True, seed=1), random_graph(0)
    made = {"graph": lambda: Instances.from_graphs([X]), "node": lambda: Instances.from_nodes(X, [3, 5]),
            "edge": lambda: Instances.from_edges(X, [[0, 1], [2, 7]])}  # fmt: skip
    seen = []
    with opened(model, made[level]()) as gnn:
        (batch,) = gnn.batches()
        x = batch.x.clone().requires_grad_()
        handle = model.head.register_forward_hook(lambda module, inputs, output: seen.append(output))
        scores = gnn.plain_scores(batch, x)
        handle.remove()
        torch.testing.assert_close(scores, gnn.all_scores(batch), atol=1e-5, rtol=1e-5)
        (gradient,) = torch.autograd.grad(scores[:, 1].sum(), x)
        (other,) = torch.autograd.grad(gnn.all_scores(batch, x=x)[:, 1].sum(), x)
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-5)
    assert len(seen) == 1


def test_softmax_over_nodes_is_not_a_head():
    class Attention(Headed):
        def forward(self, x, edge_index, batch):
            return super().forward(x, edge_index, batch)

    model = seeded(lambda: Attention(3, lambda z: functional.softmax(z, dim=0)))
    X = Instances.from_graphs([random_graph(0)])
    with opened(model, X) as gnn:
        assert gnn.kind_of_output in ("logits", "probs")
        assert not gnn._head[1]


def test_one_column_is_read_as_a_binary_logit_with_a_warning():
    X = Instances.from_graphs([random_graph(seed) for seed in range(4)])
    model = seeded(lambda: Headed(1, nn.Identity()))
    with pytest.warns(UserWarning, match="one output column, read as the logit.*say output="), opened(model, X) as gnn:
        kind = gnn.kind_of_output
    assert kind == "binary_logit"
    with no_warnings(), opened(model, X, output="regression") as gnn:
        assert gnn.kind_of_output == "regression"
        assert gnn.targets.tolist() == [0] * 4
        (batch,) = gnn.batches()
        torch.testing.assert_close(gnn.scores(batch), gnn.reference[:, 0])
        assert gnn.prediction_loss(batch).abs().max() < 1e-10


@pytest.mark.parametrize("output", ["regression", "multilabel"])
def test_several_columns_without_a_prediction_ask_for_a_target(output):
    X = Instances.from_graphs([random_graph(0)])
    model = seeded(lambda: Headed(2, nn.Identity()))
    with opened(model, X, output=output) as gnn, pytest.raises(ValueError, match=f"'target' must be given.*{output}"):
        _ = gnn.targets
    with opened(model, X.with_target(1), output=output) as gnn:
        assert gnn.targets.tolist() == [1]


def test_targets_out_of_range_name_their_index():
    X = Instances.from_graphs([random_graph(0), random_graph(1)], target=[1, 3])
    with (
        opened(seeded(lambda: Headed(3, nn.Identity())), X) as gnn,
        pytest.raises(ValueError, match=r"in \[0, 3\) for Headed. Got 3 at index 1"),
    ):
        _ = gnn.targets


@pytest.mark.parametrize(
    ("columns", "output"), [(2, "binary_logit"), (3, "binary_prob"), (1, "logits"), (1, "probs"), (1, "log_probs")]
)
def test_an_output_that_cannot_be(columns, output):
    X = Instances.from_graphs([random_graph(0)])
    with (
        opened(seeded(lambda: Headed(columns, nn.Identity())), X, output=output) as gnn,
        pytest.raises(ValueError, match=f"output='{output}' needs .* column"),
    ):
        _ = gnn.kind_of_output


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_the_threshold_decides_about_class_1(threshold):
    X = Instances.from_graphs([random_graph(seed) for seed in range(8)])
    model = seeded(lambda: Headed(1, torch.sigmoid))
    with opened(model, X, threshold=threshold) as gnn:
        assert gnn.targets.tolist() == (gnn.reference[:, 0] >= threshold).long().tolist()
        assert gnn.num_targets == 2


def test_ties_go_to_the_lowest_class():
    output = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0 + 1e-6, 0.0], [0.0, 0.0, 0.0], [-2.0, -1.0, -1.0 + 1e-7]])
    assert heads.predicted("logits", output, 0.5).tolist() == [0, 0, 0, 1]


@given(st.sampled_from(heads.OUTPUTS[1:]), st.lists(st.floats(-30, 30), min_size=1, max_size=4))
def test_log_probabilities_are_the_logarithm_of_probabilities(kind, values):
    raw = torch.tensor([values[:1] if kind.startswith("binary") else values], dtype=torch.float64)
    if kind == "regression":
        return
    if kind == "log_probs":
        raw = raw.log_softmax(1)
    elif kind == "probs":
        raw = raw.softmax(1)
    elif kind == "binary_prob":
        raw = raw.sigmoid()
    probabilities = heads.probabilities(kind, raw)
    np.testing.assert_allclose(heads.log_probabilities(kind, raw).exp(), probabilities, rtol=1e-9, atol=1e-12)
    if kind != "multilabel":
        assert probabilities.sum().item() == pytest.approx(1)
    scores = heads.scores(kind, raw)
    assert scores.shape == probabilities.shape
    if not kind.startswith("multi") and probabilities.shape[1] > 1:
        gap = (scores[0, 0] - scores[0, -1]).item()
        real = math.log(max(probabilities[0, 0].item(), 1e-30)) - math.log(max(probabilities[0, -1].item(), 1e-30))
        # Of a binary output both scores are logits, twice as far apart.
        assert gap / (2 if kind.startswith("binary") else 1) == pytest.approx(real, abs=1e-3, rel=1e-3)


@pytest.mark.parametrize("kind", ["functional log-softmax", "softmax, then view", "sigmoid", "none"])
def test_gradients_are_those_of_the_pre_softmax_score(kind):
    model, X, _, _ = case(kind)
    with opened(model, X) as gnn:
        (batch,) = gnn.batches()
        gradient = gnn.forward_pass(batch, "x").gradient(batch.targets)
        x = batch.x.clone().requires_grad_()
        logits = model.logits(x, batch.edge_index, batch.node_instance)
        pre = torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits
        (expected,) = torch.autograd.grad(pre.gather(1, batch.targets.view(-1, 1)).sum(), x)
    torch.testing.assert_close(gradient, expected)
