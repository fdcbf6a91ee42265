"""Nothing is touched and the prediction survives, kind of layer by kind of layer."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from skgnnx import (
    GNNLRP,
    LRP,
    GNNExplainer,
    GuidedBackprop,
    InputXGradient,
    Instances,
    IntegratedGradients,
    RandomExplainer,
    SensitivityAnalysis,
)
from skgnnx.testing.networks import CONVS, EDGE_WIDTH, NUM_RELATIONS, Network
from skgnnx.testing.predictions import require_prediction_survives
from skgnnx.testing.running import explained, plain_outputs
from skgnnx.testing.snapshots import differences, snapshot
from skgnnx.testing.untouched import CallCounter, require_untouched, used_model

# the graphs have loops that some layers replace, and one network mixes all nodes
pytestmark = [
    pytest.mark.filterwarnings("ignore:Self loops cannot be explained:UserWarning"),
    pytest.mark.filterwarnings("ignore:Network mixes:UserWarning"),
]

EXPLAINERS = [
    lambda model: SensitivityAnalysis(model),
    lambda model: InputXGradient(model, mask="node_feature"),
    lambda model: GuidedBackprop(model, mask="node"),
    lambda model: IntegratedGradients(model, n_steps=3, max_steps=3, tol=1e9),
    lambda model: LRP(model, mask="edge"),
    lambda model: GNNLRP(model),
    lambda model: GNNExplainer(model, epochs=3, feature_mask="feature"),
    lambda model: RandomExplainer(model),
]
REQUIRED = {"gcn", "graph", "sage", "gin", "gat", "gatv2", "sg", "appnp", "reused", "rgcn"}


def awkward_graph(seed: int = 0) -> Data:
    """Thirty nodes: two components, loops in first, middle and last place, repeated and one-way edges, a lone node."""
    random = np.random.RandomState(seed)
    one, two = random.randint(0, 18, (2, 30)), random.randint(18, 29, (2, 14))
    both_ways = np.concatenate([one, one[::-1]], axis=1)
    loop = np.full((2, 1), 4)
    edges = np.concatenate([loop, both_ways, loop + 1, two, two[:, :2], loop + 16], axis=1)
    generator = torch.Generator().manual_seed(seed)
    num_edges = edges.shape[1]
    return Data(
        x=torch.randn(30, 3, generator=generator),
        edge_index=torch.from_numpy(edges),
        edge_attr=torch.randn(num_edges, EDGE_WIDTH, generator=generator),
        edge_type=torch.randint(NUM_RELATIONS, (num_edges,), generator=generator),
        edge_weight=torch.rand(num_edges, generator=generator) + 0.5,
        num_nodes=30,
    )


def instances_of(level: str) -> Instances:
    if level == "graph":
        return Instances.from_graphs([awkward_graph(seed) for seed in range(3)])
    if level == "node":
        return Instances.from_nodes(awkward_graph(), [0, 4, 5, 20, 29])
    return Instances.from_edges(awkward_graph(), [[0, 4, 20, 29], [3, 4, 2, 19]])


def network_of(conv: str, level: str, **options) -> Network:
    return Network(conv, level, norm=True, **options)


def test_matrix_holds_what_was_promised():
    assert set(CONVS) >= REQUIRED


@pytest.mark.parametrize("level", ["graph", "node", "edge"])
@pytest.mark.parametrize("conv", CONVS)
def test_nothing_is_touched(conv, level):
    for make in EXPLAINERS:
        model = used_model(network_of(conv, level))
        require_untouched(make(model), model, instances_of(level))


@pytest.mark.filterwarnings("ignore:Network (takes|mixes):UserWarning")
@pytest.mark.parametrize("level", ["graph", "node"])
@pytest.mark.parametrize("conv", CONVS)
def test_nothing_is_touched_when_the_model_raises(conv, level):
    X = instances_of(level)
    counter = CallCounter()
    explained(EXPLAINERS[0](used_model(network_of(conv, level), counter)), X)
    raised = []
    for raise_at in range(1, counter.calls + 1):
        model = used_model(network_of(conv, level), CallCounter(raise_at))
        before = snapshot(model, X)
        try:
            EXPLAINERS[0](model).explain(X)  # which may do without what failed
        except RuntimeError as error:
            raised.append(str(error))
        assert differences(before, snapshot(model, X)) == []
    assert raised
    assert all("on purpose" in message for message in raised)


@pytest.mark.parametrize("log_softmax", [False, True])
@pytest.mark.parametrize("level", ["graph", "node", "edge"])
@pytest.mark.parametrize("conv", CONVS)
def test_prediction_survives(conv, level, log_softmax):
    model, X = network_of(conv, level, log_softmax=log_softmax), instances_of(level)
    explainer = SensitivityAnalysis(model)
    require_prediction_survives(explainer, model, X)
    assert explainer.explain(X).targets.tolist() == plain_outputs(model, X).argmax(dim=1).tolist()


@pytest.mark.parametrize("conv", sorted(set(CONVS) - {"mixing"}))
def test_computation_graphs_are_smaller_than_the_graph(conv):
    """Or the law above would hold for no reason."""
    X = instances_of("node")
    E = SensitivityAnalysis(network_of(conv, "node")).explain(X)
    sizes = [len(E.entries(i)[0]) for i in range(len(X))]
    assert max(sizes) < X.num_units("edge", 0)
    assert sizes[-1] == 0


def test_a_filled_cache_is_set_aside_and_restored():
    X = instances_of("node")
    model = network_of("gcn", "node")
    plain = GNNExplainer(model, epochs=3).explain(X)
    layers = [module for module in model.modules() if isinstance(module, GCNConv)]
    for layer in layers:
        layer.cached = True
    model.eval()
    model(X[0].graph.x, X[0].graph.edge_index)
    caches = [layer._cached_edge_index for layer in layers]
    E = GNNExplainer(model, epochs=3).explain(X)
    assert all(layer._cached_edge_index is cache for layer, cache in zip(layers, caches, strict=True))
    for i in range(len(X)):
        np.testing.assert_array_equal(E[i], plain[i])
