"""Explainers, steps and trained networks inside scikit-learn's own machinery."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (makes the next import possible)
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
    learning_curve,
    train_test_split,
    validation_curve,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.fixes import parse_version
from torch_geometric.data import Batch, InMemoryDataset

from skgnnx import GNNExplainer, InputXGradient, Instances, RandomExplainer, SensitivityAnalysis
from skgnnx.datasets import load_benzene, make_ba_shapes
from skgnnx.metrics import get_scorer
from skgnnx.models import GNNClassifier
from skgnnx.preprocessing import AtSparsity, FeatureMask, MaskStats, Subgraph, TopK
from skgnnx.testing import example

SCORING = {name: get_scorer(name) for name in ("fidelity_plus", "neg_fidelity_minus", "characterization", "sparsity")}

# earlier releases kept the index of a frame, but not of a single column
KEEPS_INDEX = parse_version(sklearn.__version__) >= parse_version("1.8")


class Counting(SensitivityAnalysis):
    """Notes how many instances every explain call gets."""

    calls = []  # noqa: RUF012 (shared by clones, so that they can be counted)

    def explain(self, X):
        self.calls.append(len(X))
        return super().explain(X)


@pytest.fixture
def calls():
    Counting.calls.clear()
    return Counting.calls


@pytest.fixture(scope="module")
def trained():
    data = load_benzene()
    return GNNClassifier(conv="gine", hidden=16, layers=2, epochs=15).fit(data.data[:300], data.target[:300])


@pytest.fixture(scope="module")
def benzene(trained):
    """Eighteen molecules with a ring that the network sees."""
    data = load_benzene()
    positive = np.flatnonzero((data.target[300:400] == 1) & (trained.predict(data.data[300:400]) == 1)) + 300
    return data.data[positive[:18]]


@pytest.fixture(scope="module")
def net(trained):
    return trained.module_


def same(E, F, atol=0.0):
    return len(E) == len(F) and all(np.allclose(a, b, rtol=0, atol=atol) for a, b in zip(E, F, strict=True))


def test_a_grid_over_the_size_penalty_moves_every_scorer(net, benzene):
    grid = GridSearchCV(
        GNNExplainer(net, epochs=40), {"edge_size": [0.0, 0.03, 0.3]}, scoring=SCORING, refit="fidelity_plus", cv=3
    ).fit(benzene)
    for name in SCORING:
        assert len(set(np.round(grid.cv_results_[f"mean_test_{name}"], 6))) > 1, name
    assert (np.diff(grid.cv_results_["mean_test_sparsity"]) > 0).all()
    assert grid.best_estimator_.model is net
    assert same(grid.transform(benzene), grid.best_estimator_.explain(benzene))


def test_refit_by_trading_one_score_against_another(net, benzene):
    def pick(results):
        return int(np.argmax(results["mean_test_fidelity_plus"] + 0.2 * results["mean_test_sparsity"]))

    grid = GridSearchCV(SensitivityAnalysis(net), {"norm": ["l2", "squared"]}, scoring=SCORING, refit=pick, cv=2)
    assert grid.fit(benzene).best_index_ == pick(grid.cv_results_)


def test_halving_spends_epochs_on_the_better_candidates(net, benzene):
    search = HalvingGridSearchCV(
        GNNExplainer(net), {"edge_size": [0.0, 0.01, 0.1, 1.0]}, resource="epochs", min_resources=5, max_resources=20,
        factor=2, scoring=get_scorer("fidelity_plus"), cv=2, random_state=0,
    ).fit(benzene)  # fmt: skip
    assert search.n_resources_ == [5, 10, 20]
    assert search.best_estimator_.epochs == 20


def test_two_processes_give_the_same_grid(net, benzene):
    def search(n_jobs):
        grid = GridSearchCV(
            GNNExplainer(net, epochs=3), {"edge_size": [0.0, 1.0]}, scoring=SCORING, refit=False, cv=2, n_jobs=n_jobs
        ).fit(benzene)
        return [grid.cv_results_[f"mean_test_{name}"] for name in SCORING]

    np.testing.assert_allclose(search(2), search(None), atol=1e-6)


def test_scorers_of_a_fold_share_one_explain_call(net, benzene, calls):
    results = cross_validate(Counting(net), benzene, scoring=SCORING, cv=3)
    assert calls == [6, 6, 6]
    alone = {name: cross_val_score(SensitivityAnalysis(net), benzene, scoring=s, cv=3) for name, s in SCORING.items()}
    for name in SCORING:
        np.testing.assert_allclose(results[f"test_{name}"], alone[name], atol=1e-6)


def test_truth_can_be_y_or_travel_inside_of_X(net, benzene):
    explainer, scorer = SensitivityAnalysis(net), get_scorer("roc_auc")
    inside = cross_val_score(explainer, benzene, scoring=scorer, cv=3)
    bare = Instances.from_graphs([instance.graph for instance in benzene])
    masks = [alternatives[-1] for alternatives in benzene.truth["edge"]]  # all rings of a molecule
    assert cross_val_score(explainer, bare, masks, scoring=scorer, cv=3) == pytest.approx(
        cross_val_score(
            explainer, Instances.from_graphs(bare_graphs(bare), truth={"edge": masks}), scoring=scorer, cv=3
        )
    )
    assert (inside > 0.7).all()


def bare_graphs(X):
    return [instance.graph for instance in X]


def test_a_pipeline_explains_each_test_fold_and_no_training_fold(net, benzene, calls):
    pipe = Pipeline([("explain", Counting(net)), ("top", TopK(10))])
    grid = GridSearchCV(pipe, {"top__k": [2, 5, 10]}, scoring=SCORING, refit="fidelity_plus", cv=3).fit(benzene)
    assert calls == [6] * 9
    assert (np.diff(grid.cv_results_["mean_test_sparsity"]) < 0).all()
    calls.clear()
    masks = pipe.fit_transform(benzene)
    assert calls == []
    assert [mask.sum() for mask in masks] == [20] * 18
    assert calls == [18]
    assert same(masks, pipe.transform(benzene))


def test_a_grid_chooses_among_explainers(net, benzene):
    pipe = Pipeline([("explain", RandomExplainer(net)), ("cut", AtSparsity(0.8))])
    candidates = [RandomExplainer(net), SensitivityAnalysis(net), InputXGradient(net)]
    scorer = get_scorer("characterization")
    grid = GridSearchCV(pipe, {"explain": candidates}, scoring=scorer, cv=2).fit(benzene)
    alone = [cross_val_score(make_pipeline(one, AtSparsity(0.8)), benzene, scoring=scorer, cv=2) for one in candidates]
    np.testing.assert_allclose(grid.cv_results_["mean_test_score"], np.mean(alone, axis=1), atol=1e-6)
    assert type(grid.best_estimator_[0]) is type(candidates[grid.best_index_])


def test_explain_cut_out_explain_again(net, benzene):
    pipe = make_pipeline(SensitivityAnalysis(net), Subgraph(sparsity=0.5), InputXGradient(net), MaskStats())
    table = pipe.set_output(transform="pandas").fit_transform(benzene)
    assert table.shape == (18, 8)
    whole = make_pipeline(InputXGradient(net), MaskStats()).fit_transform(benzene)
    assert (table["n_units"] < whole[:, 0]).all()


def test_column_transformer_beside_numbers(net, benzene):
    graphs = pd.Series(bare_graphs(benzene), dtype=object)
    frame = pd.DataFrame({"graph": graphs, "age": np.arange(18.0)})
    if KEEPS_INDEX:
        frame.index = [f"m{i}" for i in range(18)][::-1]
    explainer = SensitivityAnalysis(net, mask="feature")
    columns = ColumnTransformer([("why", explainer, "graph"), ("num", StandardScaler(), ["age"])])
    table = columns.fit_transform(frame)
    why = np.asarray(explainer.explain(benzene))
    np.testing.assert_allclose(table[:, :-1], why, atol=1e-6)
    np.testing.assert_allclose(columns.transform(frame), table, atol=1e-6)
    named = columns.set_output(transform="pandas").fit_transform(frame)
    assert named.index.tolist() == frame.index.tolist()
    assert named.columns[0] == "why__x0"
    assert named.columns[-1] == "num__age"


def test_feature_masks_feed_unions_scalers_pca_and_clusters(net, benzene):
    explainers = [(norm, SensitivityAnalysis(net, mask="feature", norm=norm)) for norm in ("l2", "absolute")]
    tables = [np.asarray(explainer.explain(benzene)) for _, explainer in explainers]
    np.testing.assert_allclose(FeatureUnion(explainers).fit_transform(benzene), np.hstack(tables), atol=1e-6)
    scaled = make_pipeline(explainers[0][1], StandardScaler()).fit_transform(benzene)
    np.testing.assert_allclose(scaled, StandardScaler().fit_transform(tables[0]), atol=1e-5)
    assert make_pipeline(explainers[0][1], StandardScaler(), PCA(2)).fit_transform(benzene).shape == (18, 2)
    clusters = make_pipeline(explainers[0][1], StandardScaler(), KMeans(3, n_init=1, random_state=0))
    assert set(clusters.fit_predict(benzene)) == {0, 1, 2}


def test_feature_masks_as_frames(net, benzene):
    explainer = SensitivityAnalysis(net, mask="feature").set_output(transform="pandas")
    frame = explainer.fit(benzene).transform(benzene)
    table = np.asarray(SensitivityAnalysis(net, mask="feature").explain(benzene))
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == [f"x{i}" for i in range(table.shape[1])]
    np.testing.assert_allclose(frame, table)
    series = pd.Series(bare_graphs(benzene), index=[f"m{i}" for i in range(18)], dtype=object)
    assert not KEEPS_INDEX or explainer.transform(series).index.tolist() == series.index.tolist()
    assert isinstance(explainer.fit_transform(series), pd.DataFrame)
    names = list("abcdefghi")
    assert explainer.get_feature_names_out(names).tolist() == names
    with pytest.raises(ValueError, match="must hold 9 names, one per node feature. Got 2."):
        explainer.get_feature_names_out(["a", "b"])
    with pytest.raises(NotFittedError, match="must be fitted to know the number of features; call fit first"):
        clone(explainer).get_feature_names_out()
    unnamed = make_pipeline(SensitivityAnalysis(net, mask="node_feature"), FeatureMask())
    np.testing.assert_allclose(unnamed.set_output(transform="pandas").fit_transform(benzene), table, rtol=1e-4)
    edges = SensitivityAnalysis(net).set_output(transform="pandas")
    assert same(edges.transform(benzene), SensitivityAnalysis(net).explain(benzene))  # no table, so as it is


def test_clones_share_the_model_and_nothing_else(trained, net):
    for model in (net, trained, FrozenEstimator(trained)):
        explainer = GNNExplainer(model, epochs=7, random_state=np.random.RandomState(0))
        copy = clone(explainer)
        assert copy.model is explainer.model is model
        assert copy.random_state is not explainer.random_state
        assert copy.epochs == 7
        pipe = clone(make_pipeline(explainer, TopK()))
        assert pipe[0].model is model


def test_the_model_may_be_an_estimator(trained, net, benzene):
    expected = SensitivityAnalysis(net).explain(benzene)
    for model in (trained, FrozenEstimator(trained)):
        assert same(SensitivityAnalysis(model).explain(benzene), expected)


def test_parameters_of_the_model_are_hidden_and_refused(trained, benzene):
    explainer = GNNExplainer(trained)
    assert not [name for name in explainer.get_params(deep=True) if name.startswith("model__")]
    with pytest.raises(ValueError, match="'model__epochs' for GNNExplainer; .* ExplainedEstimator"):
        explainer.set_params(model__epochs=1)
    grid = GridSearchCV(explainer, {"model__epochs": [1]}, scoring=get_scorer("sparsity"), cv=2, error_score="raise")
    with pytest.raises(ValueError, match="must be set before it is trained"):
        grid.fit(benzene)
    assert trained.epochs == 15
    assert explainer.set_params(model=None).model is None


def test_pickle(net, benzene):
    explainer = make_pipeline(GNNExplainer(net, epochs=3), TopK(3)).fit(benzene)
    restored = pickle.loads(pickle.dumps(explainer))
    assert same(restored.transform(benzene), explainer.transform(benzene))


def test_scaled_graphs_reach_the_network_and_its_explainer():
    data = load_benzene()
    X, y = data.data[:60], data.target[:60]
    scale = FunctionTransformer(tripled)
    clf = make_pipeline(scale, GNNClassifier(hidden=8, layers=2, epochs=2)).fit(X, y)
    assert np.array_equal(clf.predict_proba(X), clf[-1].predict_proba(tripled(X)))
    E = InputXGradient(clf[-1]).explain(clf[:-1].transform(X))
    assert (E.targets == clf.predict(X)).all()
    assert not same(E, InputXGradient(clf[-1]).explain(X))
    with pytest.raises(TypeError, match=r"not a pipeline.* use model=pipe\[-1\] and explain\(pipe\[:-1\]"):
        InputXGradient(clf).explain(X)


def tripled(X):
    return X.map_graphs(lambda graph: graph.update({"x": 3 * graph.x}))


class Molecules(InMemoryDataset):
    def __init__(self, graphs):
        super().__init__()
        self.data, self.slices = self.collate(graphs)


@pytest.mark.parametrize("form", [
    list, tuple, lambda graphs: pd.Series(graphs, dtype=object), Batch.from_data_list, Molecules,
    lambda graphs: list(Instances.from_graphs(graphs)), lambda graphs: np.array(Instances.from_graphs(graphs)),
    lambda graphs: Instances.concat([Instances.from_graphs(graphs[:5]), Instances.from_graphs(graphs[5:])]),
])  # fmt: skip
def test_every_form_of_X_gives_the_same(net, benzene, form):
    graphs = bare_graphs(benzene)
    for explainer in (SensitivityAnalysis(net), GNNExplainer(net, epochs=2)):
        expected = explainer.explain(benzene)
        assert same(explainer.explain(form(graphs)), expected)
        assert same(explainer.fit_transform(form(graphs)), expected)
    if not isinstance(form(graphs), Batch):
        scores = cross_val_score(SensitivityAnalysis(net), form(graphs), scoring=get_scorer("fidelity_plus"), cv=3)
        np.testing.assert_allclose(
            scores,
            cross_val_score(SensitivityAnalysis(net), benzene, scoring=get_scorer("fidelity_plus"), cv=3),
            atol=1e-6,
        )


def test_curves_over_training_size_and_over_a_parameter(net, benzene):
    options = {"scoring": get_scorer("sparsity"), "cv": 3}
    sizes, _, test = learning_curve(SensitivityAnalysis(net), benzene, None, train_sizes=[0.5, 1.0], **options)
    assert sizes.tolist() == [6, 12]
    assert np.allclose(test[0], test[1])  # nothing is learned, so more to learn from changes nothing
    _, test = validation_curve(
        GNNExplainer(net, epochs=30), benzene, None, param_name="edge_size", param_range=[0.0, 1.0], **options
    )
    assert test.mean(axis=1)[0] < test.mean(axis=1)[1]


def test_nodes_in_groups_and_shuffled_folds():
    data = make_ba_shapes(n_base=40, n_motifs=6, random_state=0)
    clf = GNNClassifier(conv="sage", hidden=8, layers=2, epochs=5).fit(data.data, data.target)
    X = data.data[data.target > 0]
    groups = np.arange(len(X)) // 5
    scores = cross_val_score(
        SensitivityAnalysis(clf), X, groups=groups, cv=GroupKFold(3), scoring=get_scorer("fidelity_plus")
    )
    assert np.isfinite(scores).all()
    folds = GroupKFold(3).split(X, groups=groups)
    whole = SensitivityAnalysis(clf).explain(X)
    for _, test in folds:
        assert same(SensitivityAnalysis(clf).explain(X[test]), whole[test], atol=1e-6)
    train, test = train_test_split(X, test_size=0.2, random_state=0)
    assert isinstance(train, Instances)
    assert len(train) + len(test) == len(X)
    assert test.store is X.store
    accuracy = cross_val_score(clone(clf), data.data, data.target, cv=StratifiedKFold(3))
    assert accuracy.shape == (3,)


def test_one_split_is_enough_where_nothing_is_learned(net, benzene, calls):
    every = np.arange(len(benzene))
    grid = GridSearchCV(
        Counting(net),
        {"norm": ["l2", "squared"]},
        cv=[(every, every)],
        scoring=get_scorer("fidelity_plus"),
        refit=False,
    ).fit(benzene)
    assert calls == [18, 18]
    for norm, score in zip(["l2", "squared"], grid.cv_results_["mean_test_score"], strict=True):
        E = SensitivityAnalysis(net, norm=norm).explain(benzene)
        assert score == pytest.approx(get_scorer("fidelity_plus").metric(E))


def test_score_without_scoring_is_the_characterization(net, benzene):
    grid = GridSearchCV(SensitivityAnalysis(net), {"sparsity": [0.5, 0.9]}, cv=[(np.arange(18), np.arange(18))])
    grid.fit(benzene)
    for sparsity, score in zip([0.5, 0.9], grid.cv_results_["mean_test_score"], strict=True):
        E = SensitivityAnalysis(net, sparsity=sparsity).explain(benzene)
        assert score == pytest.approx(get_scorer("characterization").metric(E), abs=1e-6)


def test_reading_a_deferred_result_after_training_on_is_an_error():
    model, X = example("graph")
    masks = make_pipeline(SensitivityAnalysis(model), TopK(2)).fit_transform(X)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="must not change between fit_transform and reading its result"):
        masks[0]
