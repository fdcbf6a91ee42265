"""Scorers in scikit-learn: one explain call per fold, never a stale one, nothing kept alive."""

import gc
import pickle
import weakref

import numpy as np
import pytest
import sklearn
import torch
from metric_cases import Network, random_instances
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline

from skgnnx import GNNExplainer, Instances, RandomExplainer
from skgnnx.metrics import (
    ExplanationScorer,
    Score,
    characterization,
    fidelity_minus,
    fidelity_plus,
    get_scorer,
    get_scorer_names,
    make_explanation_scorer,
    roc_auc,
    sparsity,
)

CALLS = []


class Counting(RandomExplainer):
    """Notes every explain call; counts in this process only."""

    def explain(self, X):
        CALLS.append(len(X))
        return super().explain(X)


class Top(TransformerMixin, BaseEstimator):
    def __init__(self, k=2):
        self.k = k

    def fit(self, E, y=None):
        return self

    def transform(self, E):
        return E.top_k(self.k)

    def __sklearn_is_fitted__(self):
        return True


@pytest.fixture
def explainer():
    CALLS.clear()
    return Counting(Network(), output="logits")


@pytest.fixture
def X():
    return random_instances(8, "graph", 12, undirected=True)


def all_scorers(*names):
    return {name: get_scorer(name) for name in names or ["fidelity_plus", "neg_fidelity_minus", "sparsity"]}


def test_names_are_all_there_and_lower_is_better_is_negated(explainer, X):
    names = get_scorer_names()
    assert names == sorted(names)
    wanted = {"fidelity_plus", "neg_fidelity_minus", "characterization", "sparsity", "roc_auc", "precision_at_k"}
    assert wanted <= set(names)
    E = RandomExplainer(explainer.model, output="logits").explain(X)
    assert get_scorer("neg_fidelity_minus")(explainer, X) == -fidelity_minus(E)
    assert get_scorer("fidelity_plus", sparsity=0.2)(explainer, X) == fidelity_plus(E, sparsity=0.2)
    assert get_scorer("sparsity")(explainer, X) == sparsity(E)
    with pytest.raises(
        ValueError, match="Got 'fidelity_minus'; use 'neg_fidelity_minus', because scorers are maximised"
    ):
        get_scorer("fidelity_minus")
    with pytest.raises(ValueError, match="must be one of .* Got 'speed'"):
        get_scorer("speed")


def test_a_metric_of_ones_own(explainer, X):
    scorer = make_explanation_scorer(
        lambda E, y=None, power=1: float(len(E)) ** power, greater_is_better=False, power=2
    )
    assert scorer(explainer, X) == -144
    with pytest.raises(TypeError, match="'metric' must be callable. Got str; for a name use get_scorer"):
        make_explanation_scorer("fidelity_plus")


def test_one_explain_call_per_fold(explainer, X):
    grid = GridSearchCV(explainer, {"random_state": [0, 1]}, scoring=all_scorers(), refit=False, cv=3).fit(X)
    assert CALLS == [4] * 6
    assert np.isfinite([grid.cv_results_[f"mean_test_{name}"] for name in all_scorers()]).all()
    CALLS.clear()
    cross_validate(explainer, X, scoring=all_scorers(), cv=4, return_train_score=True)
    assert sorted(CALLS) == [3] * 4 + [9] * 4


def test_scores_equal_those_of_scorers_alone(explainer, X):
    together = cross_validate(explainer, X, scoring=all_scorers(), cv=3)
    for name, scorer in all_scorers().items():
        np.testing.assert_array_equal(together[f"test_{name}"], cross_val_score(explainer, X, scoring=scorer, cv=3))


def test_pipelines_share_as_well(explainer, X):
    pipe = Pipeline([("explain", explainer), ("top", Top())])
    grid = GridSearchCV(pipe, {"top__k": [1, 3]}, scoring=all_scorers(), refit="sparsity", cv=2).fit(X)
    assert CALLS == [6] * 4  # training folds are never looked at
    assert grid.best_params_ == {"top__k": 1}
    E = grid.transform(X)
    assert E.hard
    assert get_scorer("sparsity")(grid, X) == pytest.approx(sparsity(E))


def test_a_size_penalty_moves_every_score(X):
    plain = {
        "n_init": 1,
        "init_mean": 4.0,
        "init_scale": 1.0,
        "average_steps": False,
        "size_growth": 1.0,
        "size_unit": "loss",
    }
    explainer = GNNExplainer(Network(), output="logits", epochs=30, sparsity=0.5, **plain)
    scoring = all_scorers("fidelity_plus", "neg_fidelity_minus", "characterization", "sparsity")
    results = (
        GridSearchCV(explainer, {"edge_size": [0, 0.05, 0.5]}, scoring=scoring, refit=False, cv=2).fit(X).cv_results_
    )
    for name in scoring:
        assert len(set(results[f"mean_test_{name}"])) > 1, name
    assert results["mean_test_sparsity"][-1] > results["mean_test_sparsity"][0]


@pytest.mark.slow
def test_two_processes(X):
    explainer = RandomExplainer(Network(), output="logits")
    results = [
        GridSearchCV(explainer, {"random_state": [0, 1]}, scoring=all_scorers(), refit=False, cv=2, n_jobs=n).fit(X)
        for n in (1, 2)
    ]
    for name in all_scorers():
        first, second = (result.cv_results_[f"mean_test_{name}"] for result in results)
        np.testing.assert_allclose(first, second, atol=1e-6)


class TestTruthInY:
    def masks(self, X):
        rng = np.random.default_rng(0)
        return [rng.random(X.num_units("edge", i)) < 0.5 for i in range(len(X))]

    def test_masks_are_split_by_folds(self, explainer, X):
        masks = self.masks(X)
        E = RandomExplainer(explainer.model, output="logits").explain(X)
        expected = roc_auc(E, masks, reduce=None)
        for y in (masks, np.array([*masks, None], dtype=object)[:-1]):
            scores = cross_val_score(explainer, X, y, scoring=get_scorer("roc_auc"), cv=3)
            np.testing.assert_allclose(scores, [np.nanmean(part) for part in np.split(expected, 3)])

    def test_labels_leave_truth_to_the_instances(self, explainer, X):
        graphs = [X.store.graph(i) for i in range(len(X))]
        with_truth = Instances.from_graphs(graphs, truth={"edge": self.masks(X)})
        labels = np.arange(12) % 2
        by_labels = cross_val_score(explainer, with_truth, labels, scoring=get_scorer("roc_auc"), cv=3)
        by_nothing = cross_val_score(explainer, with_truth, scoring=get_scorer("roc_auc"), cv=3)
        assert np.isfinite([by_labels, by_nothing]).all()

    def test_a_scorer_that_fails_leaves_the_others(self, explainer, X):
        scoring = all_scorers("roc_auc", "sparsity")  # there is no truth
        with pytest.warns(UserWarning, match="Scoring failed"):
            results = cross_validate(explainer, X, scoring=scoring, cv=2)
        assert np.isnan(results["test_roc_auc"]).all()
        assert np.isfinite(results["test_sparsity"]).all()


class TestShared:
    """When explanations are used again, and when not."""

    def test_each_scorer_is_served_once(self, explainer, X):
        first, second = get_scorer("sparsity"), get_scorer("sparsity")
        first(explainer, X), second(explainer, X)
        assert len(CALLS) == 1
        first(explainer, X)
        assert len(CALLS) == 2

    def test_another_x_is_another_call(self, explainer, X):
        get_scorer("sparsity")(explainer, X)
        get_scorer("sparsity")(explainer, X[:])
        assert len(CALLS) == 2

    def test_another_estimator_is_another_call(self, explainer, X):
        get_scorer("sparsity")(explainer, X)
        get_scorer("sparsity")(clone(explainer), X)
        assert len(CALLS) == 2

    @pytest.mark.parametrize(
        "change",
        [
            lambda explainer: explainer.set_params(random_state=3),
            lambda explainer: explainer.set_params(model=Network(seed=1)),
            lambda explainer: torch.nn.init.zeros_(explainer.model.last.bias),
            lambda explainer: explainer.model.load_state_dict(Network(seed=1).state_dict()),
            lambda explainer: torch.optim.SGD(explainer.model.parameters(), lr=0.1).step(),
        ],
    )
    def test_a_change_is_another_call(self, explainer, X, change):
        get_scorer("sparsity")(explainer, X)
        for parameter in explainer.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        change(explainer)
        get_scorer("sparsity")(explainer, X)
        assert len(CALLS) == 2

    def test_a_change_deep_in_a_pipeline_is_another_call(self, explainer, X):
        pipe = make_pipeline(explainer, Top()).fit(X)
        for k in (2, 2, 3):
            pipe.set_params(top__k=k)
            get_scorer("sparsity")(pipe, X)
        assert len(CALLS) == 2

    def test_scoring_itself_changes_nothing(self, explainer, X):
        for name in get_scorer_names():
            if name not in ("roc_auc", "average_precision", "precision_at_k", "jaccard"):
                get_scorer(name)(explainer, X)
        assert len(CALLS) == 1

    def test_nothing_is_kept_alive(self, explainer, X):
        mortal = clone(explainer)
        gone = weakref.ref(mortal)
        get_scorer("sparsity")(mortal, X)
        del mortal
        gc.collect()
        assert gone() is None

    def test_an_exception_is_not_kept_either(self, X):
        mortal = RandomExplainer(None)
        gone = weakref.ref(mortal)
        for _ in range(2):
            with pytest.raises(TypeError, match="'model' must be"):
                get_scorer("sparsity")(mortal, X)
        del mortal
        gc.collect()
        assert gone() is None

    def test_an_estimator_that_cannot_be_remembered_is_asked_every_time(self, X):
        class Unhashable(Counting):
            __hash__ = None

        CALLS.clear()
        explainer = Unhashable(Network(), output="logits")
        for _ in range(2):
            assert np.isfinite(get_scorer("sparsity")(explainer, X))
        assert len(CALLS) == 2


def test_what_gives_no_explanations(X):
    class Table(TransformerMixin, BaseEstimator):
        def transform(self, X):
            return np.zeros((len(X), 2))

    with pytest.raises(TypeError, match="Got ndarray from Table; leave out the steps that make tables"):
        get_scorer("sparsity")(Table(), X)
    with pytest.raises(TypeError, match="Got BaseEstimator, which has neither explain nor transform"):
        get_scorer("sparsity")(BaseEstimator(), X)


def test_scorers_are_estimators():
    scorer = get_scorer("fidelity_plus", sparsity=0.5)
    assert isinstance(scorer, ExplanationScorer)
    assert clone(scorer).get_params() == scorer.get_params()
    assert pickle.loads(pickle.dumps(scorer)).metric_params == {"sparsity": 0.5}
    assert "fidelity_plus" in repr(scorer)


def test_weights_are_routed_on_request(explainer, X):
    weight = np.arange(12.0)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = get_scorer("sparsity").set_score_request(sample_weight=True)
        scores = cross_val_score(explainer, X, scoring=scorer, cv=2, params={"sample_weight": weight})
        both = {"weighed": scorer, "plain": get_scorer("sparsity").set_score_request(sample_weight=False)}
        results = cross_validate(explainer, X, scoring=both, cv=2, params={"sample_weight": weight})
    E = RandomExplainer(explainer.model, output="logits").explain(X)
    expected = [sparsity(E[part], sample_weight=weight[part]) for part in (slice(6), slice(6, None))]
    np.testing.assert_allclose(scores, expected)
    np.testing.assert_allclose(results["test_weighed"], expected)
    assert (results["test_plain"] != results["test_weighed"]).all()


def test_the_score_of_an_explainer_is_its_characterization(X):
    explainer = RandomExplainer(Network(), output="logits")
    E = explainer.explain(X)
    assert explainer.score(X) == pytest.approx(characterization(E))
    assert 0 <= explainer.score(X) <= 1


def test_a_score_is_a_float_that_remembers():
    score = Score(0.25, n=3, n_skipped=1, removal="drop")
    assert score == 0.25
    assert repr(score) == "0.25"
    copy = pickle.loads(pickle.dumps(score))
    assert (copy, copy.n, copy.n_skipped, copy.n_degenerate, copy.removal) == (0.25, 3, 1, 0, "drop")
    assert np.array([score, score]).dtype == np.float64
