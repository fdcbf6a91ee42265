"""A borrowed model: evaluation mode inside, every bit as before outside."""

import random
import threading
from collections import deque

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, random_graph, seeded
from torch import nn
from torch_geometric import nn as layers

from skgnnx import GNNExplainer, Instances, SensitivityAnalysis
from skgnnx.blackbox.frozen import frozen
from skgnnx.testing.snapshots import differences, snapshot


class Messy(nn.Module):
    """Leaves traces of every forward pass, everywhere it can."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GCNConv(3, 4, cached=True)
        self.norm = nn.BatchNorm1d(4)
        self.last = layers.SGConv(4, 2, K=2, cached=True)
        self.prop = layers.APPNP(2, 0.1, cached=True)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("replaced", torch.zeros(2))
        self.plain = torch.zeros(3)
        self.table = np.zeros(2)
        self.history = {"norms": [], "by": {"depth": deque([1], maxlen=4)}, "seen": set()}
        self.pair = (torch.zeros(1), [])
        self.last_hidden = None
        self.raises = False

    def forward(self, x, edge_index):
        h = self.drop(self.norm(self.conv(x, edge_index)).relu())
        self.count += 1
        self.replaced = self.replaced + 1
        self.plain += 1
        self.plain.data.mul_(2)
        self.table[0] += 1
        self.history["norms"].append(float(h.detach().norm()))
        self.history["by"]["depth"].append(len(x))
        self.history["seen"].add(len(x))
        self.history["new"] = h
        self.pair[0].add_(1)
        self.pair[1].append(h)
        self.last_hidden = h
        self.conv.extra = h
        with torch.no_grad():
            self.conv.bias.add_(1e-3).sub_(1e-3)
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        if self.raises:
            raise RuntimeError("on purpose")
        return self.prop(self.last(h, edge_index), edge_index)


def lived_in(seed=0):
    """A model in the middle of its life: mixed modes, gradients, frozen weights, hooks, filled caches."""
    torch.manual_seed(seed)
    model, data = Messy(), random_graph()
    model.eval()
    model(data.x, data.edge_index).sum().backward()
    model.train()
    model.norm.eval()
    model.drop.training = False
    model.conv.lin.weight.requires_grad_(False)
    model.last.register_forward_hook(lambda *_: None)
    model.norm.weight.register_hook(lambda gradient: gradient)
    return model, Instances.from_nodes(data, [0, 3])


USES = {
    "gradients": lambda model, X: SensitivityAnalysis(model).explain(X),
    "masks": lambda model, X: GNNExplainer(model, epochs=3).explain(X),
}


@pytest.mark.parametrize("use", ["gradients", "masks"])
@pytest.mark.filterwarnings("ignore:Messy")
def test_nothing_is_touched(use):
    model, X = lived_in()
    before = snapshot(model, X)
    try:
        USES[use](model, X)
    finally:
        assert differences(before, snapshot(model, X)) == []


@pytest.mark.parametrize("use", ["gradients", "masks"])
def test_nothing_is_touched_after_an_error(use):
    model, X = lived_in()
    model.raises = True
    before = snapshot(model, X)
    with pytest.raises(RuntimeError, match="The model Messy raised: on purpose"):
        USES[use](model, X)
    assert differences(before, snapshot(model, X)) == []


def test_inside_it_is_in_evaluation_mode_without_parameter_gradients():
    model, _ = lived_in()
    with frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert model.conv._cached_edge_index is None
        assert not model.conv.cached
        assert model.last._cached_x is None
        assert torch.is_grad_enabled()
        assert torch.get_num_threads() == 1


def use_and_raise(model):
    with frozen(model):
        model.conv.training = True
        model.extra = 1
        raise KeyError


def test_uses_may_be_nested():
    model, _ = lived_in()
    outside = snapshot(model)
    with frozen(model):
        inside = snapshot(model)
        with pytest.raises(KeyError):
            use_and_raise(model)
        assert differences(inside, snapshot(model)) == []
    assert differences(outside, snapshot(model)) == []


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_callers_without_gradients_get_the_same_maps(mode):
    model = seeded(lambda: Stack(layers.GCNConv(3, 4), layers.GCNConv(4, 2)))
    X = Instances.from_nodes(random_graph(), [0, 3])
    expected = SensitivityAnalysis(model).explain(X)
    with mode():
        enabled, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        E = SensitivityAnalysis(model).explain(X)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (enabled, inference)
    for i in range(2):
        assert np.array_equal(E[i], expected[i])
        assert E[i].any()


def test_autocast_around_the_call_does_not_change_what_is_explained():
    model = seeded(lambda: Stack(layers.GCNConv(3, 4), layers.GCNConv(4, 2)))
    X = Instances.from_nodes(random_graph(), [0, 3])
    expected = SensitivityAnalysis(model).explain(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        E = SensitivityAnalysis(model).explain(X)
        assert torch.is_autocast_enabled("cpu")
    assert all(np.array_equal(E[i], expected[i]) for i in range(2))


def test_inference_tensors_are_refused():
    with torch.inference_mode():
        model = Stack(layers.GCNConv(3, 2))
    with pytest.raises(ValueError, match="must be ordinary tensors. Got inference tensors"):
        SensitivityAnalysis(model).explain(Instances.from_nodes(random_graph(), [0]))


def test_the_number_of_threads_is_that_of_the_caller():
    torch.set_num_threads(2)
    try:
        with frozen(None):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_two_threads_take_turns():
    model = seeded(lambda: Stack(layers.GCNConv(3, 4), layers.GCNConv(4, 2))).train()
    X = Instances.from_nodes(random_graph(), [0, 3])
    expected = SensitivityAnalysis(model).explain(X)
    results = []

    def work():
        results.append(SensitivityAnalysis(model).explain(X))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(E[i], expected[i]) for E in results for i in range(2))
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_filled_cache_is_not_what_is_explained():
    data, other = random_graph(0), random_graph(1)
    cached = seeded(lambda: layers.GCNConv(3, 2, cached=True))
    plain = seeded(lambda: layers.GCNConv(3, 2))
    cached(other.x, other.edge_index)
    X = Instances.from_nodes(data, [0, 3])
    E, expected = SensitivityAnalysis(cached).explain(X), SensitivityAnalysis(plain).explain(X)
    assert all(np.array_equal(E[i], expected[i]) for i in range(2))


def test_a_model_compiled_in_place_is_run_layer_by_layer():
    plain = seeded(lambda: Stack(layers.GCNConv(3, 4), layers.GCNConv(4, 2)))
    compiled = seeded(lambda: Stack(layers.GCNConv(3, 4), layers.GCNConv(4, 2)))
    compiled.compile(backend="eager")
    implementation = compiled._compiled_call_impl
    X = Instances.from_nodes(random_graph(), [0, 3])
    E, expected = SensitivityAnalysis(compiled).explain(X), SensitivityAnalysis(plain).explain(X)
    assert all(np.array_equal(E[i], expected[i]) for i in range(2))
    assert compiled._compiled_call_impl is implementation
