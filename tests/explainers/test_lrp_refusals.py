"""What relevance cannot pass is refused by name, and what explaining runs again is put back."""

import pytest
import torch
from relevance_networks import CONVS, Network, graphs, made
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import (
    GatedGraphConv,
    GATv2Conv,
    GraphConv,
    HeteroLinear,
    ResGatedGraphConv,
    SAGEConv,
    Set2Set,
    TransformerConv,
    global_add_pool,
)

from skgnnx import LRP, Instances

X = Instances.from_graphs(graphs(), target=1)
REFUSED = {
    "transformer": (TransformerConv, "attention that is computed inside message of 'convs.0' .TransformerConv"),
    "gates": (ResGatedGraphConv, "'convs.0.act' .Sigmoid"),
    "recurrent": (lambda i, o: GatedGraphConv(6, 2), "'convs.0.rnn' .GRUCell"),
    "softmax": (lambda i, o: SAGEConv(i, o, aggr="softmax"), "'convs.0.aggr_module' .SoftmaxAggregation"),
    "deviation": (lambda i, o: SAGEConv(i, o, aggr="std"), "'convs.0.aggr_module' .StdAggregation"),
}


class Wired(nn.Module):
    """A convolution, something in between, a pool and a head."""

    def __init__(self, between, **modules):
        super().__init__()
        self.between, self.conv, self.head = between, GraphConv(4, 6), nn.Linear(6, 3)
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x, edge_index, batch):
        return self.head(global_add_pool(self.between(self, self.conv(x, edge_index).relu(), x), batch))


@pytest.mark.parametrize("kind", REFUSED)
def test_layers_are_refused_by_path(kind, monkeypatch):
    make, text = REFUSED[kind]
    monkeypatch.setitem(CONVS, "refused", make)
    with pytest.raises(TypeError, match=f"{text}.*use InputXGradient or IntegratedGradients"):
        LRP(made("refused")).explain(X)


def test_pools_with_a_softmax_are_refused():
    class Pooled(Network):
        def __init__(self):
            super().__init__()
            self.set2set, self.head = Set2Set(6, 2), nn.Linear(12, 3)

        def forward(self, x, edge_index, batch):
            return self.head(self.set2set(self.states(x, edge_index, batch), batch))

    with pytest.raises(TypeError, match="'set2set.*neither; use InputXGradient"):
        LRP(Pooled().double().eval()).explain(X)


def test_probabilities_without_logits_are_refused():
    class Copied(Network):
        def forward(self, x, edge_index, batch):
            return super().forward(x, edge_index, batch).softmax(-1) + 0

    with pytest.raises(TypeError, match="looks like .log-.probabilities and the logits could not be located"):
        LRP(Copied().double().eval()).explain(X)


@pytest.mark.filterwarnings("ignore:.* mixes the graphs of a batch")  # as it does, which is not the matter here
def test_statistics_of_the_batch_are_refused():
    model = Wired(lambda net, h, x: net.norm(h), norm=nn.BatchNorm1d(6, track_running_stats=False)).double().eval()
    big = Instances.from_graphs(graphs()[:3], target=1)
    with pytest.raises(TypeError, match="'norm' of Wired, which normalises by statistics of the batch"):
        LRP(model, on_error="raise").explain(big)


def test_two_names_of_one_module_are_put_back(monkeypatch):
    """Torch puts the parameters of such a module back in the wrong order: the next batch would have other ones."""
    monkeypatch.setitem(CONVS, "shared", lambda i, o: GATv2Conv(i, o // 2, heads=2, share_weights=True))
    model = made("shared")
    together, alone = (LRP(model, mask="node", batch_size=size).explain(X) for size in (32, 1))
    assert together.bias_share == pytest.approx(alone.bias_share, rel=1e-10)


WIRINGS = {
    "categories of nodes": lambda net, h, x: net.hetero(h, (x[:, 0] > 0).long()),
    "accumulated": lambda net, h, x: torch.zeros_like(h).add_(h),
    "scaled in place": lambda net, h, x: net.linear(h).mul_(h),
    "named operands": lambda net, h, x: torch.add(input=h, other=net.bias),
    "turned around": lambda net, h, x: torch.rsub(h, 1.5),
    "gated by a rectifier": lambda net, h, x: h * net.linear(h).relu(),
    "matrix": lambda net, h, x: h @ net.linear.weight.T,
    "einsum": lambda net, h, x: torch.einsum("nd,de->ne", h, net.linear.weight),
    "unit length": lambda net, h, x: functional.normalize(input=h),
}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_functions_keep_values_and_sums(wiring):
    torch.manual_seed(0)
    modules = {"hetero": HeteroLinear(6, 6, 2), "linear": nn.Linear(6, 6), "bias": nn.Parameter(torch.randn(6))}
    model = Wired(WIRINGS[wiring], **modules).double().eval()
    for rule in ("gamma", "zero", "epsilon", "zplus"):
        E = LRP(model, rule=rule).explain(X)
        for i, instance in enumerate(X):
            data = instance.graph
            plain = model(data.x, data.edge_index, torch.zeros(data.num_nodes, dtype=torch.long))[0, 1]
            assert E.score[i] == pytest.approx(float(plain.detach()), rel=1e-12)
            assert E[i].sum() + E.bias_share[i] == pytest.approx(E.score[i], rel=1e-5, abs=1e-5)


def test_hooks_on_a_layer_act_once():
    torch.manual_seed(0)
    model = Wired(lambda net, h, x: h).double().eval()
    model.conv.register_forward_hook(lambda layer, args, output: 2 * output + 1)
    E = LRP(model).explain(X)
    assert max(map(abs, E.gap)) < 1e-12


@pytest.mark.parametrize("rule", ["gamma", "zplus", "zero", "epsilon"])
def test_negative_edge_weights(rule):
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = GraphConv(4, 6), nn.Linear(6, 3)

        def forward(self, x, edge_index, edge_weight, batch):
            return self.head(global_add_pool(self.conv(x, edge_index, edge_weight).relu(), batch))

    edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
    data = [
        Data(x=torch.rand(4, 4).double(), edge_index=edges, edge_weight=torch.tensor([1.0, weight, 1.0]).double())
        for weight in (2.0, -2.0)
    ]
    explainer, weighted = LRP(Weighted().double().eval(), rule=rule, gamma=1.0), Instances.from_graphs(data, target=0)
    if rule in ("zero", "epsilon"):
        assert max(map(abs, explainer.explain(weighted).gap)) < 1e-12
        return
    with pytest.raises(ValueError, match="edge weights that are not negative. Got -2 at index 1; use rule='zero'"):
        explainer.explain(weighted)
