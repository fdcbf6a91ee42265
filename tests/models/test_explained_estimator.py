"""ExplainedEstimator: train, explain, and tune both at once."""

import pickle

import numpy as np
import pytest
from model_cases import as_instances, planted_graphs
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skgnnx import GNNExplainer, InputXGradient, RandomExplainer, SensitivityAnalysis
from skgnnx.metrics import get_scorer
from skgnnx.models import ExplainedEstimator, GNNClassifier, GNNRegressor
from skgnnx.preprocessing import TopK

CLASSIFIER = GNNClassifier(hidden=8, layers=2, epochs=3)


class Counting(SensitivityAnalysis):
    calls = 0

    def explain(self, X):
        Counting.calls += 1
        return super().explain(X)


def doubled(X):
    return X.map_graphs(lambda graph: graph.update({"x": 2 * graph.x}))


def same(E, F):
    return all(np.array_equal(a, b) for a, b in zip(E, F, strict=True))


def test_trains_a_clone_and_explains_its_network():
    X, y = as_instances(8)
    estimator, explainer = clone(CLASSIFIER), SensitivityAnalysis(mask="node")
    both = ExplainedEstimator(estimator, explainer).fit(X, y)
    assert not hasattr(estimator, "module_")
    assert explainer.model is None
    assert both.explainer_.model is both.estimator_
    alone = clone(CLASSIFIER).fit(X, y)
    assert np.array_equal(both.predict_proba(X), alone.predict_proba(X))
    assert np.array_equal(both.predict(X), alone.predict(X))
    assert both.score(X, y) == alone.score(X, y)
    assert both.classes_.tolist() == [0, 1]
    expected = SensitivityAnalysis(alone.module_, mask="node").explain(X)
    assert same(both.explain(X), expected)
    assert same(both.transform(X), expected)


def test_explains_the_graphs_that_reach_the_last_step_of_a_pipeline():
    X, y = as_instances(8)
    pipe = make_pipeline(FunctionTransformer(doubled), clone(CLASSIFIER))
    both = ExplainedEstimator(pipe, InputXGradient()).fit(X, y)
    alone = clone(pipe).fit(X, y)
    expected = InputXGradient(alone[-1].module_).explain(doubled(X))
    assert same(both.explain(X), expected)
    assert np.array_equal(both.predict_proba(X), alone.predict_proba(X))


def test_an_explainer_may_be_followed_by_steps():
    X, y = as_instances(8)
    both = ExplainedEstimator(clone(CLASSIFIER), make_pipeline(SensitivityAnalysis(), TopK(2))).fit(X, y)
    assert all(mask.sum() == 4 for mask in both.explain(X))  # both directions of two edges
    both.set_params(explainer__topk__k=1).fit(X, y)
    assert all(mask.sum() == 2 for mask in both.explain(X))


def test_a_frozen_estimator_is_not_trained_again():
    X, y = as_instances(8)
    trained = clone(CLASSIFIER).fit(X, y)
    both = ExplainedEstimator(FrozenEstimator(trained), SensitivityAnalysis())
    grid = GridSearchCV(both, {"explainer__norm": ["squared", "l2"]}, scoring=get_scorer("fidelity_plus"), cv=2)
    grid.fit(X, y)
    assert grid.best_estimator_.explainer_.network() is trained.module_
    assert same(grid.best_estimator_.explain(X), SensitivityAnalysis(trained, **norm_of(grid)).explain(X))


def norm_of(grid):
    return {"norm": grid.best_params_["explainer__norm"]}


def test_grid_over_both_scored_by_accuracy_and_fidelity():
    X, y = as_instances(24)
    both = ExplainedEstimator(GNNClassifier(layers=2, epochs=25, lr=0.02), GNNExplainer(epochs=5))
    scoring = {"acc": "accuracy", "auc": "roc_auc", "fid": get_scorer("fidelity_plus"), "sp": get_scorer("sparsity")}
    grid = GridSearchCV(
        both, {"estimator__hidden": [1, 16], "explainer__edge_size": [0.0, 1.0]}, scoring=scoring, refit="acc", cv=2
    )
    grid.fit(X, y)
    results = grid.cv_results_
    accuracy = dict(zip(map(str, results["params"]), results["mean_test_acc"], strict=True))
    for size in (0.0, 1.0):  # the explainer does not touch the network
        by_hidden = [v for p, v in accuracy.items() if f"edge_size': {size}" in p]
        assert len(set(by_hidden)) == 2
    assert len(set(accuracy.values())) == 2
    assert len(set(results["mean_test_sp"])) > 2
    assert grid.best_params_["estimator__hidden"] == 16
    assert len(grid.transform(X)) == 24


def test_scorers_of_explanations_share_one_call_per_fold():
    X, y = as_instances(9)
    Counting.calls = 0
    scoring = {"acc": "accuracy", **{name: get_scorer(name) for name in ("fidelity_plus", "sparsity")}}
    results = cross_validate(ExplainedEstimator(clone(CLASSIFIER), Counting()), X, y, scoring=scoring, cv=3)
    assert Counting.calls == 3
    assert np.isfinite(results["test_fidelity_plus"]).all()


def test_is_what_its_estimator_is():
    both = ExplainedEstimator(GNNClassifier(), SensitivityAnalysis())
    assert is_classifier(both)
    assert hasattr(both, "predict_proba")
    both = ExplainedEstimator(GNNRegressor(), SensitivityAnalysis())
    assert is_regressor(both)
    assert not hasattr(both, "predict_proba")


def test_clone_and_pickle():
    graphs, y = planted_graphs(6)
    both = ExplainedEstimator(clone(CLASSIFIER), RandomExplainer(mask="feature")).fit(graphs, y)
    restored = pickle.loads(pickle.dumps(both))
    assert np.array_equal(restored.predict_proba(graphs), both.predict_proba(graphs))
    np.testing.assert_allclose(restored.transform(graphs), both.transform(graphs))
    assert restored.explainer_.model is restored.estimator_
    copy = clone(both)
    assert not hasattr(copy, "estimator_")
    assert copy.explainer.model is None


def test_feature_masks_become_frames():
    X, y = as_instances(6)
    both = ExplainedEstimator(clone(CLASSIFIER), RandomExplainer(mask="feature")).set_output(transform="pandas")
    frame = both.fit(X, y).transform(X)
    assert frame.shape == (6, 3)
    assert list(frame.columns) == ["x0", "x1", "x2"]
    assert both.get_feature_names_out().tolist() == ["x0", "x1", "x2"]


@pytest.mark.parametrize("method", ["predict", "predict_proba", "explain", "transform", "get_feature_names_out"])
def test_must_be_fitted(method):
    both = ExplainedEstimator(GNNClassifier(), SensitivityAnalysis())
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        getattr(both, method)(as_instances(4)[0])
