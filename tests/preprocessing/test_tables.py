"""MaskStats and FeatureMask: numbers by hand, names, frames, failures."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch_geometric.data import Data

from skgnnx import Instances, RandomExplainer, SensitivityAnalysis
from skgnnx.graphs import Entries, Explanations
from skgnnx.preprocessing import FeatureMask, MaskStats, TopK
from skgnnx.testing import example

NAMES = ["n_units", "mean", "std", "min", "max", "positive", "effective", "concentration"]


def explanations(values, errors=None, kind="node"):
    """A graph of four nodes for every list of scores; shorter lists leave nodes out."""
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    X = Instances.from_graphs([Data(x=torch.ones(4, 2), edge_index=edge_index) for _ in values])
    ids = np.concatenate([np.arange(len(row)) for row in values])
    flat = np.concatenate([np.asarray(row, dtype=float).reshape(len(row), -1) for row in values])
    flat = flat if kind == "node_feature" else flat[:, 0]
    entries = Entries(np.cumsum([0] + [len(row) for row in values]), ids, flat)
    return Explanations(X, {kind: entries}, kind, targets=[0] * len(values), errors=errors)


def test_statistics_by_hand():
    E = explanations([[1, -1, 2, 0], [1, 1, 1], [[0.0]] * 2, [5.0]])
    table = MaskStats().transform(E)
    share = np.array([0.25, 0.25, 0.5])
    effective = np.exp(-(share * np.log(share)).sum())
    assert table[0] == pytest.approx([4, 0.5, np.std([1, -1, 2, 0]), -1, 2, 0.5, effective, 1 - effective / 4])
    assert table[1] == pytest.approx([3, 1, 0, 1, 1, 1, 3, 0])
    assert table[2] == pytest.approx([2, 0, 0, 0, 0, 0, 2, 0])
    assert table[3] == pytest.approx([1, 5, 0, 5, 5, 1, 1, 0])


def test_instances_without_units_and_failed_ones():
    E = explanations([[3.0], [1, 2], [0.5]], errors=[None, "reason", None])
    empty = E.at_sparsity(0.5)[np.array([0])]
    table = MaskStats().transform(E)
    assert np.isnan(table[1]).all()
    assert np.isfinite(table[[0, 2]]).all()
    assert np.isfinite(MaskStats().transform(empty)).all()
    none = Explanations(E.instances, {"node": Entries(np.zeros(4), [], [])}, "node", targets=[0] * 3)
    assert (MaskStats().transform(none) == 0).all()


def test_both_directions_of_an_edge_are_one_unit():
    model, X = example("graph")
    table = MaskStats(["n_units"]).transform(RandomExplainer(model).explain(X))
    assert table[:, 0].tolist() == [instance.graph.num_edges / 2 for instance in X]


def test_names_and_frames():
    model, X = example("graph")
    pipe = make_pipeline(RandomExplainer(model), MaskStats()).set_output(transform="pandas")
    frame = pipe.fit_transform(X)
    assert list(frame.columns) == NAMES == MaskStats().get_feature_names_out().tolist()
    assert pipe.get_feature_names_out().tolist() == NAMES
    some = MaskStats(("max", "n_units")).transform(RandomExplainer(model).explain(X))
    np.testing.assert_allclose(some, frame[["max", "n_units"]])


@pytest.mark.parametrize("how", ["sum", "mean", "max"])
def test_features_over_nodes(how):
    scores = [[[1, 2], [3, -4]], [[0.5, 0.5]], [[1, 1], [1, 1], [4, 0]]]
    E = explanations(scores, errors=[None, "reason", None], kind="node_feature")
    table = FeatureMask(how).transform(E)
    assert table[0] == pytest.approx(getattr(np.array(scores[0]), how)(axis=0))
    assert np.isnan(table[1]).all()
    assert table[2] == pytest.approx(getattr(np.array(scores[2]), how)(axis=0))


def test_feature_scores_as_they_are():
    model, X = example("graph")
    E = SensitivityAnalysis(model, mask="feature").explain(X)
    np.testing.assert_allclose(FeatureMask().transform(E), np.asarray(E))
    summed = FeatureMask().transform(SensitivityAnalysis(model, mask="node_feature").explain(X))
    np.testing.assert_allclose(summed, np.asarray(E), rtol=1e-5)  # a sum of squares either way


def test_feature_names_come_from_the_user_or_are_counted():
    model, X = example("graph")
    pipe = make_pipeline(SensitivityAnalysis(model, mask="node_feature"), FeatureMask()).set_output(transform="pandas")
    assert list(pipe.fit_transform(X).columns) == ["x0", "x1", "x2", "x3"]
    assert pipe.get_feature_names_out(list("CNOS")).tolist() == ["C", "N", "O", "S"]


def test_tables_feed_scikit_learn():
    model, X = example("graph")
    pipe = make_pipeline(SensitivityAnalysis(model), MaskStats(), StandardScaler(), KMeans(2, n_init=1, random_state=0))
    assert set(pipe.fit_predict(X)) == {0, 1}


def test_features_must_be_scored():
    model, X = example("graph")
    E = RandomExplainer(model, mask="node").explain(X)
    with pytest.raises(ValueError, match="FeatureMask must get scores of features. Got node scores; let the explainer"):
        FeatureMask().fit(E).transform(E)
    with pytest.raises(TypeError, match="Got Instances"):
        TopK().fit(X)
