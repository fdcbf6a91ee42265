"""GNNClassifier against hand-written training, and as a scikit-learn estimator."""

import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from model_cases import as_instances, planted_graphs, planted_nodes
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv, TAGConv, global_mean_pool

from skgnnx import Instances, SensitivityAnalysis
from skgnnx.datasets import load_benzene
from skgnnx.models import ExplainedEstimator, GNNClassifier, GNNRegressor
from skgnnx.models.networks import build_network
from skgnnx.models.training import own_random_state

CONVS = ["gin", "gine", "gcn", "sage", "gat", "graphconv"]
SMALL = {"hidden": 8, "layers": 2, "epochs": 3}


def weights_of(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.module_.parameters()])


def same_weights(a, b, atol=1e-6):
    return torch.allclose(weights_of(a), weights_of(b), atol=atol, rtol=0)


def trained_by_hand(data, labels, rows, *, pool, steps, lr=0.01, weights=None):
    """The same network and seed, trained by an explicit loop on PyG's own batch."""
    with own_random_state(3, torch.device("cpu")):
        net = build_network("gin", data.num_features, 0, 2, hidden=8, layers=2, pool=pool, norm=None, dropout=0.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    weights = torch.ones(len(rows)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    for _ in range(steps):
        logits = net(data.x, data.edge_index, getattr(data, "batch", None))[rows]
        losses = nn.functional.cross_entropy(logits, torch.as_tensor(labels)[rows], reduction="none")
        optimizer.zero_grad()
        ((losses * weights).sum() / weights.sum()).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


BY_HAND = {
    "hidden": 8, "layers": 2, "norm": None, "lr": 0.01, "schedule": "constant", "batch_size": 1000, "random_state": 3,
}  # fmt: skip


def test_training_equals_a_loop_written_by_hand():
    graphs, y = planted_graphs(12)
    expected = trained_by_hand(Batch.from_data_list(graphs), y, np.arange(12), pool="sum", steps=4)
    clf = GNNClassifier(epochs=4, **BY_HAND).fit(graphs, y)
    assert torch.allclose(weights_of(clf), expected, atol=1e-5)


def test_node_training_uses_the_whole_graph_and_the_given_labels():
    data, y = planted_nodes()
    rows = np.array([3, 5, 8, 20, 21])
    expected = trained_by_hand(data, y, rows, pool=None, steps=4)
    clf = GNNClassifier(epochs=4, **BY_HAND).fit(Instances.from_nodes(data, rows), y[rows])
    assert torch.allclose(weights_of(clf), expected, atol=1e-5)


def test_sample_and_class_weights_are_those_of_the_loss():
    graphs, y = planted_graphs(12)
    weight = np.linspace(0, 2, 12)
    expected = trained_by_hand(Batch.from_data_list(graphs), y, np.arange(12), pool="sum", steps=3, weights=weight)
    clf = GNNClassifier(epochs=3, **BY_HAND).fit(graphs, y, sample_weight=weight)
    assert torch.allclose(weights_of(clf), expected, atol=1e-5)
    y[:4] = 0
    balanced = len(y) / (2 * np.bincount(y)[y])
    clf = GNNClassifier(epochs=3, class_weight="balanced", **BY_HAND).fit(graphs, y)
    assert same_weights(clf, GNNClassifier(epochs=3, **BY_HAND).fit(graphs, y, sample_weight=balanced))
    assert not same_weights(clf, GNNClassifier(epochs=3, **BY_HAND).fit(graphs, y))


def test_mini_batches_see_every_graph_once_per_epoch(monkeypatch):
    from skgnnx.models import training

    X, y = as_instances(10)
    seen = []
    original = training.Training._outputs
    monkeypatch.setattr(training.Training, "_outputs", lambda self, rows: seen.append(rows) or original(self, rows))
    GNNClassifier(batch_size=4, **SMALL).fit(X, y)
    assert [len(rows) for rows in seen] == [4, 3, 3] * 3
    for epoch in range(3):
        assert sorted(np.concatenate(seen[3 * epoch : 3 * epoch + 3])) == list(range(10))
    assert not np.array_equal(seen[0], seen[3])


def test_learns_a_planted_reason_and_names_its_labels():
    X, y = as_instances(40)
    names = np.array(["without", "with"])[y]
    clf = GNNClassifier(hidden=16, layers=2, epochs=40, lr=0.02).fit(X[:30], names[:30])
    assert clf.score(X[30:], names[30:]) == 1.0
    assert clf.classes_.tolist() == ["with", "without"]
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (clf.classes_[proba.argmax(axis=1)] == clf.predict(X)).all()
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]


def test_benzene_rings_are_found_by_reading_bonds():
    data = load_benzene()
    clf = GNNClassifier(conv="gine", epochs=20).fit(data.data[data.train_index], data.target[data.train_index])
    assert clf.score(data.data[data.test_index], data.target[data.test_index]) >= 0.98


def test_nodes_transductive_inductive_and_over_several_graphs():
    first, y = planted_nodes(60, seed=0)
    second, z = planted_nodes(60, seed=1)
    X, Z = Instances.from_nodes(first), Instances.from_nodes(second)
    options = {"conv": "sage", "hidden": 16, "layers": 1, "epochs": 150, "lr": 0.03}
    clf = GNNClassifier(**options).fit(X[::2], y[::2])
    assert clf.score(X[1::2], y[1::2]) >= 0.95
    assert clf.score(Z, z) >= 0.95
    both = GNNClassifier(batch_size=1, **options).fit(Instances.concat([X, Z]), np.concatenate([y, z]))
    assert both.score(X, y) >= 0.95


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("level", ["graph", "node"])
def test_every_layer_trains_and_can_be_explained(conv, level):
    if level == "graph":
        X, y = as_instances(8, edge_attr=True)
    else:
        data, y = planted_nodes(12)
        data.edge_attr = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0))
        X = Instances.from_nodes(data)
    clf = GNNClassifier(conv=conv, **SMALL).fit(X, y)
    E = SensitivityAnalysis(clf).explain(X)
    assert (E.targets == clf.predict(X)).all()
    assert any(mask.any() for mask in E)


@pytest.mark.parametrize(("conv", "key", "reads"), [
    ("gine", "edge_attr", True), ("gat", "edge_attr", True), ("gin", "edge_attr", False),
    ("gcn", "edge_weight", True), ("graphconv", "edge_weight", True), ("sage", "edge_weight", False),
])  # fmt: skip
def test_which_layers_read_what_of_an_edge(conv, key, reads):
    graphs, y = planted_graphs(8, edge_attr=True)
    clf = GNNClassifier(conv=conv, **SMALL).fit(graphs, y)
    changed = [graph.clone() for graph in graphs]
    for graph in changed:
        graph[key] = graph[key] + 3
    assert np.allclose(clf.predict_proba(graphs), clf.predict_proba(changed), atol=1e-6) is not reads


@pytest.mark.parametrize("pool", ["sum", "mean", "max"])
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_predictions_are_those_of_the_plain_module(pool, norm):
    graphs, y = planted_graphs(8)
    clf = GNNClassifier(pool=pool, norm=norm, dropout=0.3, **SMALL).fit(graphs, y)
    batch = Batch.from_data_list(graphs)
    assert not clf.module_.training
    with torch.no_grad():
        expected = clf.module_(batch.x, batch.edge_index, batch.batch).softmax(dim=1)
    np.testing.assert_allclose(clf.predict_proba(graphs), expected, atol=1e-5)


def test_graphs_of_one_node_without_edges_and_columns_of_one_number():
    empty = torch.empty(2, 0, dtype=torch.long)
    graphs = [Data(x=torch.rand(n, 3), edge_index=empty, edge_attr=torch.empty(0)) for n in (1, 1, 2, 0)]
    for conv in ("gine", "gcn"):
        clf = GNNClassifier(conv=conv, **SMALL, batch_size=1).fit(graphs, [0, 1, 0, 1])
        assert np.isfinite(clf.predict_proba(graphs)).all()
    one_column = [Data(x=torch.arange(3), edge_index=torch.tensor([[0, 1], [1, 2]])) for _ in range(2)]
    assert GNNClassifier(**SMALL).fit(one_column, [0, 1]).predict(one_column).shape == (2,)


class MyNetwork(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = GCNConv(in_channels, out_channels)

    def forward(self, data):
        return global_mean_pool(self.conv(data.x, data.edge_index), data.batch)


def test_a_factory_makes_a_layer_or_a_whole_network():
    X, y = as_instances(8)
    stacked = GNNClassifier(conv=TAGConv, **SMALL).fit(X, y)
    assert [type(conv) for conv in stacked.module_.convs] == [TAGConv, TAGConv]
    whole = GNNClassifier(conv=MyNetwork, **SMALL).fit(X, y)
    assert type(whole.module_) is MyNetwork
    assert whole.predict_proba(X).shape == (8, 2)
    assert len(SensitivityAnalysis(whole).explain(X)) == 8


def test_same_seed_same_weights_and_nothing_global_is_touched():
    X, y = as_instances(8)
    torch.manual_seed(5)
    numpy_state = np.random.get_state
    before = torch.get_rng_state(), numpy_state()[1].copy(), random.getstate()
    options = {**SMALL, "batch_size": 3, "dropout": 0.2, "early_stopping": True, "validation_fraction": 0.25}
    a = GNNClassifier(**options).fit(X, y)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (numpy_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    torch.manual_seed(6)
    with torch.inference_mode():
        b = GNNClassifier(**options).fit(X, y)
    with torch.no_grad():
        c = GNNClassifier(random_state=1, **options).fit(X, y)
    assert same_weights(a, b, atol=0)
    assert not same_weights(a, c)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="one column per class"):
        GNNClassifier(conv=lambda a, b: MyNetwork(a, b + 1), **SMALL).fit(X, y)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_state_objects_and_none_draw_new_seeds():
    X, y = as_instances(8)
    state = np.random.RandomState(0)
    a, b = (GNNClassifier(random_state=state, **SMALL).fit(X, y) for _ in range(2))
    assert not same_weights(a, b)


def test_early_stopping_keeps_the_best_weights():
    X, y = as_instances(40)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(40) < 0.3, 1 - y, y)  # noise, so that the validation loss turns
    options = {"hidden": 16, "epochs": 200, "lr": 0.02, "early_stopping": True, "validation_fraction": 0.3}
    clf = GNNClassifier(n_iter_no_change=5, **options).fit(X, y)
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.validation_loss_curve_) < 200
    best = int(np.argmin(clf.validation_loss_curve_))
    assert clf.n_iter_ - best - 1 >= 5
    _, held_out = clf._split(40, y, 0)
    proba = clf.predict_proba(X[held_out])[np.arange(len(held_out)), y[held_out]]
    assert -np.log(proba).mean() == pytest.approx(min(clf.validation_loss_curve_), abs=1e-4)


def test_works_with_scikit_learn():
    X, y = as_instances(24)
    scale = FunctionTransformer(lambda X: X.map_graphs(lambda graph: graph))
    pipe = make_pipeline(scale, GNNClassifier(hidden=16, layers=2, epochs=30, lr=0.02))
    assert cross_val_score(pipe, X, y, cv=StratifiedKFold(3), scoring="roc_auc").min() > 0.9
    grid = GridSearchCV(GNNClassifier(**SMALL), {"hidden": [4, 8], "conv": ["gin", MyNetwork]}, cv=2).fit(X, y)
    assert grid.best_estimator_.module_ is not None
    assert grid.predict(X).shape == (24,)
    assert is_classifier(GNNClassifier())


def test_clone_and_pickle():
    X, y = as_instances(8)
    clf = GNNClassifier(conv="gcn", class_weight={0: 1.0, 1: 3.0}, **SMALL).fit(X, y)
    copy = clone(clf)
    assert copy.get_params() == clf.get_params()
    assert not hasattr(copy, "module_")
    restored = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(restored.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("form", [list, tuple, lambda g: pd.Series(g, dtype=object), Batch.from_data_list])
def test_every_form_of_graphs_trains_the_same_network(form):
    graphs, y = planted_graphs(8)
    assert same_weights(GNNClassifier(**SMALL).fit(form(graphs), y), GNNClassifier(**SMALL).fit(graphs, y), atol=0)


@pytest.mark.parametrize("check", [
    "check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed", "check_valid_tag_types",
    "check_no_attributes_set_in_init", "check_get_params_invariance", "check_set_params", "check_mixin_order",
])  # fmt: skip
@pytest.mark.parametrize(
    "estimator", [GNNClassifier(), GNNRegressor(), ExplainedEstimator(GNNClassifier(), SensitivityAnalysis())], ids=repr
)
def test_scikit_learn_checks_that_need_no_table(estimator, check):
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)


def small_fit(X=None, y=None, **params):
    graphs, labels = planted_graphs(6)
    return GNNClassifier(**{**SMALL, **params}).fit(graphs if X is None else X, labels if y is None else y)


@pytest.mark.parametrize(("call", "error", "sentence"), [
    (lambda: small_fit(epochs=0), ValueError, "The 'epochs' parameter of GNNClassifier must be an int in the range"),
    (lambda: small_fit(conv="gcnn"), ValueError, "The 'conv' parameter .* must be 'gin' or .* Got 'gcnn' instead"),
    (lambda: small_fit(dropout=1.0), ValueError, "The 'dropout' parameter"),
    (lambda: small_fit(device="tpu9"), ValueError, "The 'device' parameter of GNNClassifier must name a torch device"),
    (lambda: small_fit(conv="gine"), ValueError, "must find 'edge_attr' in the graphs"),
    (lambda: small_fit(conv=nn.Linear(1, 1)), TypeError, "must be a factory, because every fit trains a new network"),
    (lambda: small_fit(conv=lambda a, b: 3), TypeError, "must return an nn.Module. Got int"),
    (lambda: small_fit(conv=lambda a, b: MyNetwork(a, 7)), ValueError, r"one column per class \(2\). Got 7"),
    (lambda: small_fit(y=[0, 1]), ValueError, r"y must have one entry per instance \(6\). Got 2."),
    (lambda: small_fit(y=[0] * 6), ValueError, "y must hold at least 2 classes. Got only 0."),
    (lambda: small_fit(y=np.eye(6, dtype=int)), ValueError, r"one label per instance. Got shape \(6, 6\)"),
    (lambda: small_fit(y=np.linspace(0, 1, 6)), ValueError, "Unknown label type: continuous"),
    (lambda: GNNClassifier().fit(planted_graphs(4)[0], None), ValueError, "requires y to be passed"),
    (lambda: small_fit(X=planted_graphs(1)[0][0]), TypeError, "Got one Data; use Instances.from_nodes"),
    (lambda: small_fit(X=[Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)] * 6), ValueError, "features 'x'"),
    (lambda: small_fit(X=Instances.from_edges(planted_nodes()[0], [[0] * 6, [1] * 6])), ValueError, "Got links"),
    (lambda: GNNClassifier().predict(planted_graphs(2)[0]), NotFittedError, "is not fitted yet"),
    (lambda: small_fit().predict(Instances.from_nodes(planted_nodes()[0])), ValueError, "about graphs, as in fit"),
    (lambda: small_fit().predict([Data(x=torch.ones(2, 5), edge_index=torch.tensor([[0], [1]]))]), ValueError,
     "must have 3 columns in 'x', as in fit of GNNClassifier. Got 5"),
    (lambda: GNNClassifier(**SMALL).fit(*planted_graphs(6), sample_weight=[-1] * 6), ValueError, "none negative"),
    (lambda: small_fit(X=[Data(x=g.x * 3e38, edge_index=g.edge_index) for g in planted_graphs(6)[0]], norm=None),
     ValueError, "The loss must be finite"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    X, y = as_instances(24)
    state = torch.cuda.get_rng_state()
    clf = GNNClassifier(device="cuda", hidden=16, layers=2, epochs=30, lr=0.02).fit(X, y)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert next(clf.module_.parameters()).is_cuda
    assert clf.score(X, y) > 0.9
    assert len(SensitivityAnalysis(clf).explain(X)) == 24
