"""GuidedBackprop against guided gradients that are written out by hand, however the network writes its ReLUs."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GINEConv, GraphConv, global_add_pool

from skgnnx import GuidedBackprop, Instances, SensitivityAnalysis
from skgnnx.blackbox.guided import GuidedReLUs

RELUS = {
    "function": functional.relu,
    "method": lambda x: x.relu(),
    "torch": torch.relu,
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "function in place": lambda x: functional.relu(x, inplace=True),
    "method in place": lambda x: x.relu_(),
    "torch in place": torch.relu_,
    "in place, by the old name": lambda x: (x.relu_(), x)[1],
}


class Net(nn.Module):
    """Two convolutions and a linear layer, with any activation."""

    def __init__(self, relu, level="node", head=None):
        super().__init__()
        torch.manual_seed(3)
        self.convs = nn.ModuleList([GraphConv(3, 8), GraphConv(8, 8)])
        self.out = nn.Linear(8, 3)
        self.relu, self.level, self.head = relu, level, head

    def forward(self, x, edge_index, batch=None):
        for conv in self.convs:
            x = self.relu(conv(x, edge_index))
        x = self.out(global_add_pool(x, batch) if self.level == "graph" else x)
        return self.head(x) if self.head else x


def graph(seed, n=8, e=18):
    random = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, e), generator=random)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    return Data(x=torch.randn(n, 3, generator=random, dtype=torch.float64), edge_index=edge_index)


def instances(level):
    if level == "graph":
        return Instances.from_graphs([graph(seed) for seed in range(4)], target=1)
    return Instances.from_nodes(graph(0), [0, 3, 5, 6], target=1)


def by_hand(model, data, row, target, guided=True):
    """Guided gradients by features (n, 3) and by the gates of both layers (2, e), by matrices."""
    x, (source, to) = data.x.numpy(), data.edge_index.numpy()
    n, e = len(x), len(source)
    gather, scatter = np.eye(n)[source], np.eye(n)[to].T
    weights = [(c.lin_rel.weight.detach().numpy(), c.lin_rel.bias.detach().numpy(), c.lin_root.weight.detach().numpy())
               for c in model.convs]  # fmt: skip
    states, before = [x], []
    for rel, bias, root in weights:
        before.append(scatter @ gather @ states[-1] @ rel.T + bias + states[-1] @ root.T)
        states.append(np.maximum(before[-1], 0))
    rows = np.ones(n) if row is None else np.eye(n)[row]
    back = np.outer(rows, model.out.weight.detach().numpy()[target])
    gates = np.zeros((2, e))
    for layer in (1, 0):
        rel, _, root = weights[layer]
        back = back * (before[layer] > 0) * ((back > 0) if guided else 1)
        sums = back @ rel
        gates[layer] = (states[layer][source] * sums[to]).sum(1)
        back = gather.T @ scatter.T @ sums + back @ root
    return back, gates


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("how", RELUS)
def test_every_relu_gives_what_is_written_out_by_hand(level, how):
    model, X = Net(RELUS[how], level).double().eval(), instances(level)
    features = GuidedBackprop(model, mask="node_feature").explain(X)
    edges = GuidedBackprop(model, per_layer=True).explain(X)
    plain = 0
    for i in range(len(X)):
        data, row = X[i].graph, None if level == "graph" else int(X[i].element)
        by_feature, by_gate = by_hand(model, data, row, 1)
        np.testing.assert_allclose(features[i], by_feature, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(edges[i], by_gate.sum(0), rtol=1e-6, atol=1e-9)
        ids, values = edges.entries(i)
        np.testing.assert_allclose(edges.layer_masks[i], by_gate[:, ids], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(edges.layer_masks[i].sum(0), values, rtol=1e-5, atol=1e-7)
        plain += np.abs(by_hand(model, data, row, 1, guided=False)[0] - by_feature).max()
    assert plain > 0.1  # otherwise nothing would have been held back


@pytest.mark.parametrize("level", ["node", "graph"])
def test_sums_and_clipping_of_inputs(level):
    model, X = Net(functional.relu, level).double().eval(), instances(level)
    entries = GuidedBackprop(model, mask="node_feature").explain(X)
    gates = GuidedBackprop(model, per_layer=True).explain(X)
    for clip in (False, True):
        node, feature, edge = (
            GuidedBackprop(model, mask=m, clip_input=clip).explain(X) for m in ("node", "feature", "edge")
        )
        layered = GuidedBackprop(model, clip_input=clip, per_layer=True).explain(X)
        for i in range(len(X)):
            values = entries[i].clip(0) if clip else entries[i]
            np.testing.assert_allclose(node[i], values.sum(1), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(feature[i], values.sum(0), rtol=1e-5, atol=1e-6)
            layers = gates.layer_masks[i].clip(0) if clip else gates.layer_masks[i]
            np.testing.assert_allclose(layered.layer_masks[i], layers, rtol=1e-6)
            np.testing.assert_allclose(layered.entries(i)[1], layers.sum(0), rtol=1e-5, atol=1e-6)
            shared = layers.sum(0) if not clip else gates.entries(i)[1].clip(0)
            np.testing.assert_allclose(edge.entries(i)[1], shared, rtol=1e-5, atol=1e-6)
    assert min(entries[i].min() for i in range(len(X))) < 0  # not nonnegative by itself


def test_what_leaves_a_relu_backwards_is_nonnegative():
    """At the input of every ReLU, on the path that explanations take."""
    arriving = []

    def watched(x):
        x.register_hook(arriving.append) if x.requires_grad else None
        return functional.relu(x)

    GuidedBackprop(Net(watched, "graph").double().eval(), mask="node").explain(instances("graph"))
    assert len(arriving) == 2
    assert all((gradient >= 0).all() for gradient in arriving)
    arriving.clear()
    SensitivityAnalysis(Net(watched, "graph").double().eval(), mask="node").explain(instances("graph"))
    assert any((gradient < 0).any() for gradient in arriving)


def test_equals_the_gradient_where_no_weight_behind_is_negative():
    model, X = Net(functional.relu).double().eval(), instances("node")
    with torch.no_grad():
        for parameter in [*model.convs[1].parameters(), *model.out.parameters()]:
            parameter.abs_()
    guided = GuidedBackprop(model, mask="node_feature").explain(X)
    plain = SensitivityAnalysis(model, mask="node_feature", norm="absolute").explain(X)
    for i in range(len(X)):
        np.testing.assert_allclose(np.abs(guided[i]), plain[i], rtol=1e-6)
        assert (guided[i] < 0).any()


def test_nothing_outside_of_the_receptive_field():
    path = Data(x=torch.ones(6, 3).double(), edge_index=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]))
    model = Net(functional.relu).double().eval()
    E = GuidedBackprop(model, mask="node").explain(Instances.from_nodes(path, [5]))
    assert (E[0][:3] == 0).all()
    assert E.entries(0)[0].tolist() == [3, 4, 5]


@pytest.mark.parametrize("mask", GuidedBackprop.masks_)
def test_a_batch_gives_the_same_bits_as_single_graphs(mask):
    X = Instances.from_graphs([graph(seed, n=20, e=60) for seed in range(5)])
    for how in ("function", "method in place"):
        model = Net(RELUS[how], "graph").double().eval()
        together, alone = (GuidedBackprop(model, mask=mask, batch_size=size).explain(X) for size in ("auto", 1))
        assert all((together[i] == alone[i]).all() for i in range(len(X)))


def test_messages_with_a_relu_are_guided():
    class EdgeNet(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.out = GINEConv(nn.Linear(3, 6), edge_dim=3), nn.Linear(6, 2)

        def forward(self, x, edge_index, edge_attr):
            return self.out(self.conv(x, edge_index, edge_attr))

    model, data = EdgeNet().double().eval(), graph(1)
    data.edge_attr = torch.randn(data.num_edges, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    E = GuidedBackprop(model, mask="node_feature").explain(Instances.from_nodes(data, [2, 4], target=0))
    first, second = model.conv.nn.weight.detach().numpy(), model.out.weight.detach().numpy()
    for i, node in enumerate((2, 4)):
        expected, back = np.zeros((data.num_nodes, 3)), second[0] @ first
        expected[node] = back
        for e, (source, target) in enumerate(data.edge_index.T.tolist()):
            if target == node:
                expected[source] += back * (back > 0) * ((data.x[source] + data.edge_attr[e]).numpy() > 0)
        np.testing.assert_allclose(E[i], expected, rtol=1e-6, atol=1e-9)


def test_several_cotangents_go_back_at_once():
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with GuidedReLUs():
        out = (z.relu() @ torch.randn(3, 4, generator=torch.Generator().manual_seed(1))).sum(0)
    rows = [torch.autograd.grad(out[i], z, retain_graph=True)[0] for i in range(4)]
    (batched,) = torch.autograd.grad(out, z, torch.eye(4), is_grads_batched=True)
    assert torch.equal(batched, torch.stack(rows))


def explain_quietly(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GuidedBackprop(model).explain(X)


@pytest.mark.parametrize(("activation", "named"), [(functional.elu, "elu in forward"), (nn.GELU(), "gelu in relu"),
                                                   (torch.tanh, "tanh in forward"), (lambda x: x, ""),
                                                   (lambda x: x.clamp(min=0), "clamp in forward")])  # fmt: skip
def test_a_model_without_relus_is_refused(activation, named):
    reason = f"no ReLU was executed in Net{', only ' if named else ';'}.*{named}.*SensitivityAnalysis"
    with pytest.raises(TypeError, match=reason):
        GuidedBackprop(Net(activation).double()).explain(instances("node"))


def test_other_activations_are_named_once():
    class Mixed(Net):
        def __init__(self):
            super().__init__(functional.relu)
            self.convs[1] = GATConv(8, 8)

    X = Instances.from_nodes(graph(0), [0, 1, 2])
    with pytest.warns(UserWarning, match="Only ReLUs guide.*In Mixed.*: leaky_relu in convs.1;") as caught:
        GuidedBackprop(Mixed().double().eval(), batch_size=1).explain(X)
    assert len(caught) == 1


@pytest.mark.parametrize("head", [torch.sigmoid, nn.Sigmoid(), nn.LogSoftmax(dim=-1)])
def test_a_head_is_no_activation(head):
    X = Instances.from_nodes(graph(0), [0, 1], target=0)
    explain_quietly(Net(functional.relu, head=head).double().eval(), X)
    with pytest.warns(UserWarning, match="sigmoid in forward"):
        GuidedBackprop(Net(lambda x: x.relu() * x.sigmoid()).double().eval()).explain(X)


def test_a_relu_before_all_messages_counts_in_every_batch():
    """What is in front of all gates is remembered: the second batch does not run it again."""

    class Late(Net):
        def forward(self, x, edge_index):
            return self.out(self.convs[1](self.relu(self.lift(x)), edge_index))

    model = Late(nn.ReLU())
    model.lift = nn.Linear(3, 8)
    E = GuidedBackprop(model.double().eval(), batch_size=2).explain(instances("node"))
    plain = SensitivityAnalysis(model, norm="absolute").explain(instances("node"))
    for i in range(len(E)):
        np.testing.assert_allclose(np.abs(E[i]), plain[i], rtol=1e-6)  # no ReLU is between a gate and the score


def test_all_targets_of_one_pass():
    model, X = Net(RELUS["module in place"], "graph").double().eval(), instances("graph")
    for target, E in enumerate(GuidedBackprop(model, mask="node_feature").explain_targets(X)):
        for i in range(len(X)):
            np.testing.assert_allclose(E[i], by_hand(model, X[i].graph, None, target)[0], rtol=1e-6, atol=1e-9)


OTHER_WORDS = {
    "1 ReLUs inside of other operations": torch.ops.aten.relu,
    "maximum in the model": lambda z: torch.maximum(z, torch.zeros_like(z)),
    "max in the model": lambda z: torch.max(z, z.new_zeros(())),
}


@pytest.mark.parametrize("named", OTHER_WORDS)
def test_a_relu_in_other_words_is_named(named):
    """Beside others that guide, it would leave a map that is half of each method."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.convs, self.out = nn.ModuleList([GraphConv(3, 6), GraphConv(6, 6)]), nn.Linear(6, 2)

        def forward(self, x, edge_index):
            x = OTHER_WORDS[named](self.convs[0](x, edge_index))
            return self.out(self.convs[1](x, edge_index).relu())

    data = Data(x=torch.randn(4, 3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
    with pytest.warns(UserWarning, match=f"Only ReLUs guide.*In Half.*: {named.split(' in ')[0]}"):
        GuidedBackprop(Half().eval(), mask="node").explain(Instances.from_nodes(data, [3]))
