"""What is known of a model is forgotten as soon as anything that it depends on changes, or might."""

import copy
import gc
import os
import threading
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from blackbox_cases import opened, random_graph, seeded
from torch import nn
from torch.overrides import TorchFunctionMode
from torch_geometric import nn as layers
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.conv import gcn_conv

from skgnnx import Instances, SensitivityAnalysis
from skgnnx.blackbox import known_facts, receptive_field
from skgnnx.blackbox.frozen import frozen
from skgnnx.blackbox.known_facts import facts_of
from skgnnx.testing.networks import CONVS, EDGE_WIDTH, Network

FACTOR = 1.0
TABLE = {"slope": 0.1}
COUNTED = {"runs": 0}


class Numbers(list):
    """Holds more than its attributes."""


class Slots:
    __slots__ = ("scale",)


def helper(x):
    return FACTOR * x


@dataclass
class Config:
    scale: float = 1.0


class Net(nn.Module):
    """Keeps what it needs wherever one can keep something."""

    bias = 0.0

    def __init__(self, bonus=0.0):
        super().__init__()
        self.first, self.second = layers.GCNConv(3, 3), layers.SGConv(3, 3, K=2)
        self.last = layers.GraphConv(3, 2)
        self.options, self.sizes, self.config = {"steps": {"more": 1}}, [1, 2], Config()
        self.act, self.bonus = (lambda x: x.relu() + bonus), np.zeros(1)
        self.register_buffer("shift", torch.zeros(3))

    def forward(self, x, edge_index, scale=1.0):
        x = helper(self.act(self.first(x, edge_index))) + self.shift + TABLE["slope"] + self.bias
        return self.last(self.second(x, edge_index), edge_index) * self.config.scale * scale


def bias_by_hand(model, patch):
    model.last.lin_rel.bias.data.add_(1)


def weights(model, patch):
    with torch.no_grad():
        model.first.lin.weight.mul_(-1)


CHANGES = {
    "a layer": lambda model, patch: setattr(model, "first", layers.GraphConv(3, 3)),
    "a direction": lambda model, patch: setattr(model.last, "flow", "target_to_source"),
    "a number of hops": lambda model, patch: setattr(model.second, "K", 1),
    "loops": lambda model, patch: setattr(model.first, "add_self_loops", False),
    "weights": weights,
    "weights behind their back": bias_by_hand,
    "another parameter": lambda model, patch: setattr(model.last.lin_rel, "bias", nn.Parameter(torch.ones(2))),
    "a buffer": lambda model, patch: model.shift.add_(1),
    "precision": lambda model, patch: model.double(),
    "a new attribute": lambda model, patch: setattr(model, "extra", 1),
    "a kind": lambda model, patch: setattr(model.first, "add_self_loops", 1),
    "an inner entry": lambda model, patch: model.options["steps"].update(more=2),
    "a list": lambda model, patch: model.sizes.append(3),
    "an array": lambda model, patch: model.bonus.__setitem__(0, 1.0),
    "an object of the user's": lambda model, patch: setattr(model.config, "scale", 2.0),
    "forward of an instance": lambda model, patch: setattr(model, "forward", lambda x, edge_index: x),
    "forward of a class": lambda model, patch: patch.setattr(Net, "forward", lambda self, x, edge_index: x),
    "a class of a package": lambda model, patch: patch.setattr(layers.SGConv, "message", lambda self, x_j: x_j),
    "a base of a package": lambda model, patch: patch.setattr(MessagePassing, "update", lambda self, inputs: -inputs),
    "a function of a package": lambda model, patch: patch.setattr(torch.nn.functional, "relu", torch.tanh),
    "a class attribute": lambda model, patch: patch.setattr(Net, "bias", 1.0),
    "a default": lambda model, patch: patch.setattr(Net.forward, "__defaults__", (2.0,)),
    "a global": lambda model, patch: patch.setitem(globals(), "FACTOR", 2.0),
    "a function that is called": lambda model, patch: patch.setitem(globals(), "helper", lambda x: -x),
    "an entry of a global": lambda model, patch: patch.setitem(TABLE, "slope", 0.2),
    "a closure": lambda model, patch: setattr(model, "act", Net(bonus=1.0).act),
    "a hook": lambda model, patch: model.first.register_forward_hook(lambda *_: None),
    "a hook on messages": lambda model, patch: model.first.register_message_forward_hook(lambda *_: None),
    "an unknown object": lambda model, patch: setattr(model, "lock", threading.Lock()),
    "a kind of list": lambda model, patch: setattr(model, "sizes", Numbers([1, 2])),
    "slots": lambda model, patch: setattr(model, "config", Slots()),
    "a generator": lambda model, patch: setattr(model, "random", torch.Generator()),
    "a function beside a class": lambda model, patch: patch.setattr(gcn_conv, "gcn_norm", gcn_conv.gcn_norm.__call__),
}


def nodes(**columns):
    data = random_graph()
    for key, value in columns.items():
        data[key] = value
    return Instances.from_nodes(data, [0, 3, 5])


def facts(model, X, forward=None):
    with frozen(model):
        return facts_of(model, forward, X)


def note(model, X):
    """Know something of a model, and see that it stays known."""
    facts(model, X)["seen"] = True
    assert facts(model, X)["seen"]


def test_what_has_not_changed_is_known():
    model, X = seeded(Net), nodes()
    note(model, X)
    model.train()
    SensitivityAnalysis(model, output="logits").explain(X)
    SensitivityAnalysis(model, output="logits").explain(X[1:])
    assert facts(model, X)["seen"]
    assert facts(model, nodes())["seen"]


@pytest.mark.parametrize("kind", CHANGES)
def test_what_has_changed_is_forgotten(kind, monkeypatch):
    model, X = seeded(Net), nodes()
    note(model, X)
    CHANGES[kind](model, monkeypatch)
    assert facts(model, X) == {}


@pytest.mark.parametrize("kind", ["a layer", "a direction", "a number of hops", "loops", "weights", "a closure"])
def test_explanations_after_a_change_are_those_of_a_new_model(kind, monkeypatch):
    model, X = seeded(Net), nodes()
    SensitivityAnalysis(model, output="logits").explain(X)
    CHANGES[kind](model, monkeypatch)
    again, new = (SensitivityAnalysis(m, output="logits").explain(X) for m in (model.eval(), copy.deepcopy(model)))
    assert again.extras["path"] == new.extras["path"]
    for i in range(len(X)):
        np.testing.assert_array_equal(again[i], new[i])


def test_the_way_to_call_and_the_graphs_count():
    model, X = seeded(Net), nodes()
    others = [
        nodes(edge_attr=torch.zeros(random_graph().num_edges, 1)),
        nodes(x=random_graph().x.double()),
        nodes(x=random_graph().x + 1),
        nodes(x=torch.zeros(12, 4)),
        nodes(u=torch.zeros(1, 2)),
        Instances.from_graphs([random_graph()]),
    ]
    for other in others:
        note(model, X)
        assert facts(model, other) == {}
    for forward in (lambda model, batch: model(batch.x, batch.edge_index), lambda model, batch: os.getpid()):
        note(model, X)
        assert facts(model, X, forward) == {}


def test_code_that_may_read_anything_is_asked_every_time():
    class Reads(Net):
        def forward(self, x, edge_index):
            return super().forward(x, edge_index) * float(os.environ.get("SCALE", "1"))

    class Evaluates(Net):
        def forward(self, x, edge_index):
            return super().forward(x, edge_index) * eval("FACTOR")

    class Imports(Net):
        def forward(self, x, edge_index):
            import math

            return super().forward(x, edge_index) * math.pi

    for kind in (Reads, Evaluates, Imports):
        model = seeded(kind)
        facts(model, nodes())["seen"] = True
        assert facts(model, nodes()) == {}


def test_code_that_stays_is_known_again(monkeypatch):
    model, X = seeded(Net), nodes()
    note(model, X)
    monkeypatch.setitem(TABLE, "slope", 0.3)
    assert facts(model, X) == {}
    note(model, X)


def test_a_counter_is_never_known():
    class Counts(Net):
        def forward(self, x, edge_index):
            COUNTED["runs"] += 1
            return super().forward(x, edge_index)

    model, X = seeded(Counts), nodes()
    for _ in range(3):
        found = facts(model, X)
        assert found == {}
        found["seen"] = True
        SensitivityAnalysis(model, output="logits").explain(X)


def test_nothing_is_known_while_operations_are_intercepted():
    class Other(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    model, X = seeded(Net), nodes()
    note(model, X)
    with Other():
        assert facts(model, X) == {}


def test_the_default_type_counts():
    model, X = seeded(Net), nodes()
    note(model, X)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert facts(model, X) == {}
    finally:
        torch.set_default_dtype(usual)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_message_forward_hook"])
def test_models_with_hooks_are_asked_every_time(register):
    model, X = seeded(Net), nodes()
    getattr(model.first, register)(lambda *_: None)
    facts(model, X)["seen"] = True
    assert facts(model, X) == {}


@pytest.mark.parametrize("value", [Numbers([1]), Slots(), threading.Lock(), torch.Generator(), object(), {object()}])
def test_models_that_hold_what_cannot_be_compared_are_asked_every_time(value):
    model, X = seeded(Net), nodes()
    model.value = value
    facts(model, X)["seen"] = True
    assert facts(model, X) == {}


def test_large_models_are_asked_every_time(monkeypatch):
    model, X = seeded(Net), nodes()
    note(model, X)
    monkeypatch.setattr(known_facts, "MOST_BYTES", 100)
    assert facts(model, X) == {}


def test_models_of_unusual_equality_are_asked_every_time():
    class Equal(Net):
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 0

    model = seeded(Equal)
    facts(model, nodes())["seen"] = True
    assert facts(model, nodes()) == {}


@pytest.mark.parametrize("kind", CONVS)
def test_networks_of_every_kind_are_traced_once(kind, monkeypatch):
    counted, measured = [], receptive_field._measured
    monkeypatch.setattr(receptive_field, "_measured", lambda *given: counted.append(1) or measured(*given))
    model = seeded(lambda: Network(kind, "node"))
    graph = random_graph()
    graph.edge_attr, graph.edge_weight = torch.ones(graph.num_edges, EDGE_WIDTH), torch.ones(graph.num_edges)
    graph.edge_type = torch.zeros(graph.num_edges, dtype=torch.long)
    found = []
    for _ in range(3):
        with opened(model, Instances.from_nodes(graph, [0, 3]), output="logits") as gnn:
            found.append((gnn.trace, gnn._setup.fusions))
    assert len(counted) == 1
    assert found[0] == found[1] == found[2]


def test_models_are_not_kept_alive():
    model = seeded(Net)
    SensitivityAnalysis(model, output="logits").explain(nodes())
    assert facts(model, nodes())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
