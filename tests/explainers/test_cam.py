"""CAM against sums by hand, on every pool, layer and way of writing, and what it refuses."""

import numpy as np
import pytest
import torch
from pooled_networks import CONVS, FUNCTIONS, WIRINGS, Pooling, graphs, made
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, GraphConv, Set2Set, global_add_pool, global_max_pool, global_mean_pool

from skgnnx import CAM, Instances
from skgnnx.testing import example

X = Instances.from_graphs(graphs(), target=1)


def by_hand(model, data, target, pool, weight=None, states=None):
    """Each node's part of the target's score, node by node and feature by feature."""
    with torch.no_grad():
        h = (model.states(data.x, data.edge_index) if states is None else states).numpy()
        w = (model.head.weight[target] if weight is None else weight).numpy()
    scores = np.zeros(len(h))
    for k in range(h.shape[1]):
        if pool == "max":
            winners = [n for n in range(len(h)) if h[n, k] == max(h[:, k])]
            for n in winners:
                scores[n] += w[k] * h[n, k] / len(winners)
        else:
            for n in range(len(h)):
                scores[n] += w[k] * h[n, k] / (len(h) if pool == "mean" else 1)
    return scores


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("pool", FUNCTIONS)
@pytest.mark.parametrize("conv", CONVS)
def test_states_pool_and_head_are_found(conv, pool, wiring):
    model = made(lambda: Pooling(conv, pool, wiring))
    E = CAM(model).explain(X)
    for i, instance in enumerate(X):
        score = float(model(instance.graph.x, instance.graph.edge_index)[0, 1].detach())
        np.testing.assert_allclose(E[i], by_hand(model, instance.graph, 1, pool), rtol=1e-5, atol=1e-6)
        assert E.score[i] == pytest.approx(score, rel=1e-12)
        assert E.bias[i] == pytest.approx(float(model.head.bias[1].detach()), rel=1e-12)
        assert E.entries(i)[1].sum() == pytest.approx(score - E.bias[i], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("pool", FUNCTIONS)
def test_all_classes_equal_one_at_a_time_and_sum_to_each_score(pool):
    model = made(lambda: Pooling("gcn", pool, bias=False))
    for target, E in enumerate(CAM(model, batch_size=2).explain_targets(X)):
        for i, instance in enumerate(X):
            score = model(instance.graph.x, instance.graph.edge_index)[0, target].detach()
            assert E[i].sum() == pytest.approx(float(score), rel=1e-5, abs=1e-5)
            assert E.bias[i] == 0


def test_a_mean_is_a_sum_over_the_number_of_nodes():
    mean, add = (CAM(made(lambda pool=pool: Pooling("sage", pool))).explain(X) for pool in ("mean", "add"))
    unscaled = CAM(made(lambda: Pooling("sage", "mean")), paper_scale=True).explain(X)
    for i, instance in enumerate(X):
        np.testing.assert_allclose(mean[i] * instance.graph.num_nodes, add[i], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(unscaled[i], add[i], rtol=1e-5, atol=1e-7)


def test_paper_scale_leaves_sums_and_maxima_as_they_are():
    for pool in ("add", "max"):
        model = made(lambda pool=pool: Pooling("gin", pool))
        for plain, scaled in zip(CAM(model).explain(X), CAM(model, paper_scale=True).explain(X)):
            np.testing.assert_array_equal(plain, scaled)


def test_relu_keeps_what_speaks_for_the_class():
    model = made(Pooling)
    signed, positive = CAM(model).explain(X), CAM(model, relu=True).explain(X)
    assert any((signed[i] < 0).any() for i in range(len(X)))
    for i in range(len(X)):
        np.testing.assert_array_equal(positive[i], np.maximum(signed[i], 0))


def test_a_larger_weight_scales_the_scores():
    model = made(Pooling)
    small = CAM(model).explain(X)
    with torch.no_grad():
        model.head.weight.mul_(3)
    large = CAM(model).explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(large[i], 3 * small[i], rtol=1e-5)


@pytest.mark.parametrize("pool", FUNCTIONS)
def test_relabelled_nodes_have_relabelled_scores(pool):
    model, order = made(lambda: Pooling("gat", pool)), torch.tensor([3, 0, 2, 1])
    data = graphs(1)[0]
    moved = data.clone()
    moved.x, moved.edge_index = data.x[order], order.argsort()[data.edge_index]
    E = CAM(model).explain(Instances.from_graphs([data, moved], target=0))
    np.testing.assert_allclose(E[1], E[0][order.numpy()], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pool", FUNCTIONS)
def test_batches_give_what_single_graphs_give(pool):
    model = made(lambda: Pooling("gcn", pool))
    together, alone = CAM(model).explain(X), CAM(model, batch_size=1).explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(together[i], alone[i], rtol=1e-6, atol=1e-7)


def test_nodes_that_are_the_same_share_a_maximum():
    model = made(lambda: Pooling("gcn", "max"))
    data = graphs(1)[0]
    data.x, data.edge_index = data.x[:1].repeat(4, 1), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    data.x *= 1 + 1e-7 * torch.arange(4).view(-1, 1)  # no more than the rounding of another type
    with torch.no_grad():
        states = model.states(data.x, data.edge_index)
    assert (states != states[0]).any()
    E = CAM(model).explain(Instances.from_graphs([data], target=0))
    assert np.abs(E[0]).max() > 1e-3
    np.testing.assert_allclose(E[0], E[0].mean(), rtol=1e-4)


class Readout(Pooling):
    """A pooling network whose readout is given as a function of (network, states, layers, batch)."""

    def __init__(self, readout, head=None, columns=6, conv="gin"):
        super().__init__(conv)
        self.readout, self.head = readout, head or nn.Linear(columns, 3)

    def forward(self, x, edge_index, batch=None):
        layers = self.layers(x, edge_index)
        batch = torch.zeros(len(x), dtype=torch.long) if batch is None else batch
        return self.readout(self, layers, batch)


CONCATENATED = {
    "mean and max": (12, lambda net, layers, batch: net.head(
        torch.cat([global_mean_pool(layers[1], batch), global_max_pool(layers[1], batch)], dim=1))),
    "pools of all layers": (12, lambda net, layers, batch: net.head(
        torch.cat([global_add_pool(layers[0], batch), global_mean_pool(layers[1], batch)], dim=1))),
    "pool of all layers": (12, lambda net, layers, batch: net.head(global_add_pool(torch.cat(layers, dim=1), batch))),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONCATENATED)
def test_concatenated_pools_are_told_apart(kind):
    columns, readout = CONCATENATED[kind]
    model = made(lambda: Readout(readout, columns=columns))
    pools = {"mean and max": (1, "mean", 1, "max"), "pools of all layers": (0, "add", 1, "mean"),
             "pool of all layers": (0, "add", 1, "add")}[kind]  # fmt: skip
    E = CAM(model).explain(X)
    for i, instance in enumerate(X):
        layers, w = model.layers(instance.graph.x, instance.graph.edge_index), model.head.weight[1].detach()
        first = by_hand(model, instance.graph, 1, pools[1], w[:6], layers[pools[0]].detach())
        second = by_hand(model, instance.graph, 1, pools[3], w[6:], layers[pools[2]].detach())
        np.testing.assert_allclose(E[i], first + second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "end", [lambda z: z.log_softmax(-1), lambda z: z.softmax(-1), lambda z: z.view(-1, 3), lambda z: z * 1]
)
def test_scores_are_those_before_the_softmax(end):
    plain = made(lambda: Readout(lambda net, layers, batch: net.head(global_mean_pool(layers[1], batch))))
    ended = made(lambda: Readout(lambda net, layers, batch: end(net.head(global_mean_pool(layers[1], batch)))))
    for one, other in zip(CAM(plain).explain(X), CAM(ended).explain(X)):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_two_classes_of_one_logit_are_opposite():
    model = made(lambda: Pooling(classes=1))
    no, yes = CAM(model, output="binary_logit").explain_targets(X)
    for i in range(len(X)):
        np.testing.assert_array_equal(no[i], -yes[i])
        assert yes[i].sum() == pytest.approx(yes.score[i] - yes.bias[i], rel=1e-5, abs=1e-6)


def test_one_run_of_the_model_serves_a_batch_and_all_classes():
    model, calls = made(Pooling), []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    E = CAM(model).explain(X)
    one = len(calls)
    assert len(E) == len(E.path) == len(X)
    assert all("general path" in said for path in E.path for said in path)
    calls.clear()
    CAM(model).explain_targets(X)
    assert len(calls) == one


REFUSED = {
    "two maps": lambda net, layers, batch: net.head(net.relu(net.extra(global_mean_pool(layers[1], batch)))),
    "normed": lambda net, layers, batch: net.head(net.norms[0](global_mean_pool(layers[1], batch))),
    "no map": lambda net, layers, batch: global_add_pool(layers[1], batch)[:, :3],
    "activated in place": lambda net, layers, batch: net.head(global_add_pool(layers[1], batch)).relu_(),
    "activated": lambda net, layers, batch: net.head(global_add_pool(layers[1], batch)).tanh(),
    "matrix product": lambda net, layers, batch: global_add_pool(layers[1], batch) @ net.head.weight.T,
    "set2set": lambda net, layers, batch: net.wide(net.set2set(layers[1], batch)),
}


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("kind", REFUSED)
def test_other_readouts_are_refused(kind, single):
    model = made(lambda: Readout(REFUSED[kind]))
    model.extra, model.wide, model.set2set = nn.Linear(6, 6), nn.Linear(12, 3), Set2Set(6, 2)
    model.double()
    asked = X[[4]] if single else X  # a graph of one node is its own pool
    with pytest.raises(TypeError, match="no global pooling followed by one Linear found in Readout .*GradCAM, LRP"):
        CAM(model).explain(asked)


def test_probabilities_without_logits_are_refused():
    model = made(lambda: Readout(lambda net, layers, batch: net.head(global_add_pool(layers[1], batch)).softmax(1) + 0))
    with pytest.raises(TypeError, match="Readout looks like .log-.probabilities and the logits could not be located"):
        CAM(model).explain(X)


@pytest.mark.parametrize("level", ["node", "edge"])
def test_predictions_about_parts_of_a_graph_are_refused(level):
    model, parts = example(level)
    with pytest.raises(TypeError, match=f"leaves all of the score to the explained {level}.*variant='hirescam'"):
        CAM(model).explain(parts)


def test_categories_can_be_explained():
    class Categories(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.conv, self.head = nn.Embedding(5, 6), GraphConv(6, 6), nn.Linear(6, 2)

        def forward(self, x, edge_index, batch):
            return self.head(global_add_pool(self.conv(self.embedding(x.view(-1)), edge_index).relu(), batch))

    data = graphs()
    for one in data:
        one.x = torch.arange(one.num_nodes).view(-1, 1) % 5
    E = CAM(made(Categories)).explain(Instances.from_graphs(data))
    for i in range(len(data)):
        assert E[i].sum() == pytest.approx(E.score[i] - E.bias[i], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("conv", [GCNConv, GraphConv, GATConv], ids=lambda conv: conv.__name__)
def test_a_last_layer_that_gives_the_logits_is_shared_out_among_its_neighbours(conv):
    """By hand: gradient times input at the last layer, with attention kept; the rest is its bias."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = GraphConv(3, 4), conv(4, 2)

        def forward(self, x, edge_index):
            return self.last(self.first(x, edge_index).relu(), edge_index)

    torch.manual_seed(0)
    net = Net().double().eval()
    nn.init.normal_(net.last.bias if conv is not GraphConv else net.last.lin_rel.bias)
    edges = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 0]])
    data = Data(x=torch.rand(5, 3, dtype=torch.float64), edge_index=edges)
    E = CAM(net).explain(Instances.from_nodes(data, [2, 4], target=1))
    with torch.no_grad():
        hidden = net.first(data.x, edges).relu()
        bias = net.last(torch.zeros_like(hidden), edges)[:, 1]
        score = net.last(hidden, edges)[:, 1]
        for i, node in enumerate([2, 4]):
            np.testing.assert_allclose(E[i].sum(), score[node] - bias[node], atol=1e-6)
            np.testing.assert_allclose(E.bias[i], bias[node], atol=1e-6)
            assert set(np.flatnonzero(E[i])) <= {node, *edges[0][edges[1] == node].tolist()}
            for other in range(5):
                if conv is not GATConv:  # linear as it is: taking one node's state away takes its share away
                    alone = torch.zeros_like(hidden)
                    alone[other] = hidden[other]
                    expected = net.last(alone, edges)[node, 1] - bias[node]
                    np.testing.assert_allclose(E[i][other], expected, atol=1e-6)
