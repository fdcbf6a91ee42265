"""Explanations as an array-like: dense against stored, slices, joins, pickles, scikit-learn."""

import copy
import pickle

import numpy as np
import pytest
import torch
from explanation_cases import explanations, random_explanations
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import FeatureUnion
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples
from torch_geometric.data import Data

from skgnnx.graphs import Entries, Explanations, Instances

DENSE = {"edge": "edge_mask", "node": "node_mask", "feature": "feature_mask", "node_feature": "node_feature_mask"}


def assert_equal(E, F):
    assert (E.kind, E.hard, E.sparsity, E.explainer, E.params, E.box) == (
        *(F.kind, F.hard, F.sparsity),
        *(F.explainer, F.params, F.box),
    )
    assert (E.errors, E.model_digest, list(E.ids)) == (F.errors, F.model_digest, list(F.ids))
    np.testing.assert_array_equal(E.targets, F.targets)
    assert E.masks.keys() == F.masks.keys()
    for kind in E.masks:
        for i in range(len(E)):
            np.testing.assert_array_equal(getattr(E, DENSE[kind])[i], getattr(F, DENSE[kind])[i])
            for a, b in zip(E.entries(i, kind), F.entries(i, kind), strict=True):
                np.testing.assert_array_equal(a, b)
    for i in range(len(E)):
        np.testing.assert_array_equal(E.explained[i], F.explained[i])
    assert_same_extras(E.extras, F.extras)


def assert_same_extras(a, b):
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_extras(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same_extras(x, y)
    else:
        assert a == b


@given(E=explanations())
def test_dense_arrays_hold_the_entries_and_zeros(E):
    for kind in E.masks:
        for i, dense in enumerate(getattr(E, DENSE[kind])):
            assert dense.dtype == np.float32
            assert len(dense) == E.lengths(kind)[i]
            if not E.ok[i]:
                assert np.isnan(dense).all()
                assert not E.explained[i].any()
                continue
            ids, values = E.entries(i, kind)
            np.testing.assert_array_equal(dense[ids], values)
            assert not np.delete(dense, ids, axis=0).any()


@given(E=explanations())
def test_indexing_reading_and_iterating_agree(E):
    arrays = list(E)
    assert len(arrays) == len(E) == E.shape[0]
    for i in range(len(E)):
        np.testing.assert_array_equal(E[i], arrays[i])
        np.testing.assert_array_equal(E[i - len(E)], arrays[i])
        np.testing.assert_array_equal(np.asarray(E)[i], arrays[i])
        np.testing.assert_array_equal(getattr(E, DENSE[E.kind])[i], arrays[i])
        assert E.explained[i].shape == E[i].shape
    with pytest.raises(IndexError):
        E[len(E)]


@given(E=explanations(), data=st.data())
def test_slices_int_arrays_and_masks_choose_the_same_rows(E, data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(E), max_size=len(E))))
    for part in (E[mask], E[np.flatnonzero(mask)], E[mask.tolist(), ...], E[np.flatnonzero(mask).tolist()]):
        assert isinstance(part, Explanations)
        for i, row in enumerate(np.flatnonzero(mask)):
            assert_equal(part[i : i + 1], E[[row]])
    assert_equal(E[::-1][::-1], E)


@given(E=explanations(), cut=st.integers(0, 5))
def test_parts_join_to_the_whole(E, cut):
    parts = [part for part in (E[:cut], E[cut:]) if len(part)]
    assert_equal(Explanations.concat(parts), E)


@given(E=explanations())
def test_pickle_and_copy_keep_everything_but_the_model(E):
    E = E._with(model=torch.nn.Linear(1, 1))
    restored = pickle.loads(pickle.dumps(E))
    assert_equal(restored, E)
    assert restored.model is None
    assert copy.copy(E).model is E.model
    assert copy.deepcopy(E).model is E.model


@given(E=explanations())
def test_scores_travel_without_graphs_and_return_to_them(E):
    E = E[::-1]
    sent = pickle.loads(pickle.dumps(E.without_graphs()))
    assert_equal(sent, E)
    back = sent.with_instances(E.instances)
    assert_equal(back, E)
    assert back.instances is E.instances
    assert_equal(back.top_k(2), E.top_k(2))


def test_joined_parts_over_one_store_keep_it():
    E = random_explanations(0, n=5)
    parts = [E[rows].without_graphs().with_instances(E.instances[rows]) for rows in ([0, 3], [1, 2, 4])]
    assert Explanations.concat(parts).instances.store is E.instances.store


def test_scores_of_other_instances_are_refused():
    E = random_explanations(0, level="node")
    X = E.instances
    assert len(np.unique(X.element)) > 1
    for other in (X[:2], X[::-1], random_explanations(3, level="node").instances):
        with pytest.raises(ValueError, match="in their order"):
            E.with_instances(other)


def test_a_pickle_does_not_grow_with_the_model():
    E = random_explanations(0)
    large = E._with(model=torch.nn.Linear(1000, 1000))
    assert len(pickle.dumps(large)) == len(pickle.dumps(E))


def test_equal_sizes_do_not_become_a_table():
    E = random_explanations(3, level="node", failed=False)
    array = np.asarray(E)
    assert array.shape == (len(E),)
    assert array.dtype == object
    assert np.array(E, dtype=object, copy=True).shape == (len(E),)
    with pytest.raises(ValueError, match="dtype object"):
        np.asarray(E, dtype=float)
    with pytest.raises(ValueError, match="copy=False"):
        np.asarray(E, copy=False)


def test_feature_scores_are_a_table_with_nan_rows_for_failed_instances():
    E = random_explanations(1, kinds=("feature",), n=6)
    table = np.asarray(E, dtype=np.float64)
    assert table.dtype == np.float64
    assert E.shape == table.shape == (6, 3)
    assert E.dtype == np.asarray(E).dtype == np.float32
    assert not E.ok.all()
    np.testing.assert_array_equal(np.isnan(table).all(axis=1), ~E.ok)


def test_an_array_beyond_a_gigabyte_is_refused():
    ring = torch.arange(1000)
    data = Data(x=torch.ones(1000, 1), edge_index=torch.stack([ring, ring.roll(1)]))
    X = Instances.from_nodes(data, np.zeros(251_000, dtype=int))
    empty = Entries(np.zeros(len(X) + 1), np.zeros(0), np.zeros(0))
    E = Explanations(X, {"edge": empty}, "edge", targets=np.zeros(len(X)))
    with pytest.raises(MemoryError, match=r"E\.entries"):
        np.asarray(E)


def test_absent_masks_are_none_and_present_ones_read_only():
    E = random_explanations(0, kinds=("edge", "feature"), failed=False)
    assert E.node_mask is None
    assert E.node_feature_mask is None
    assert len(E.edge_mask) == len(E.feature_mask) == len(E)
    with pytest.raises(ValueError, match="read-only"):
        E.edge_mask[0][:] = 1
    with pytest.raises(ValueError, match="read-only"):
        E.explained[0][:] = True
    np.testing.assert_array_equal(E.edge_mask[1:][0], E.edge_mask[1])
    assert np.asarray(E.edge_mask).shape == (len(E),)


def test_a_loop_that_was_not_explained_is_zero_and_said_so():
    graph = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1, 1, 2], [1, 1, 0, 2]]))
    entries = Entries(np.array([0, 3]), np.array([0, 1, 2]), np.array([0.5, 0, 0.25]), np.array([True, False, True]))
    E = Explanations(Instances.from_graphs([graph]), {"edge": entries}, "edge", targets=[0])
    assert E[0].tolist() == [0.5, 0, 0.25, 0]
    assert E.explained[0].tolist() == [True, False, True, False]


def test_extras_are_attributes():
    E = random_explanations(0)
    assert E.walks is E.extras["walks"]
    assert E[1:].count == E.extras["count"][1:]
    with pytest.raises(AttributeError, match="walks, spread, count"):
        E.paths  # noqa: B018


def test_joining_parts_that_differ_says_how():
    E = random_explanations(0, kinds=("edge", "node"))
    with pytest.raises(ValueError, match="hard edge scores at position 1"):
        Explanations.concat([E, E.top_k(1)])
    with pytest.raises(ValueError, match="none of kind 'node' at position 1"):
        Explanations.concat([E, E._with(masks={"edge": E.masks["edge"]})])
    with pytest.raises(ValueError, match="at least one"):
        Explanations.concat([])


def test_joining_keeps_what_all_parts_agree_on():
    E = random_explanations(0)
    model = torch.nn.Linear(1, 1)
    joined = Explanations.concat([E._with(model=model, extras={}), E._with(model=model, model_digest="other")])
    assert joined.model is model
    assert joined.model_digest is None
    assert joined.params == E.params
    assert joined.spread == [None] * len(E) + E.spread


def test_a_part_that_failed_altogether_joins():
    E = random_explanations(0, kinds=("edge", "node"), failed=False)
    n = len(E)
    empty = Entries.empty(n, E.masks["edge"])
    failed = Explanations(E.instances, {"edge": empty}, "edge", targets=[0] * n, errors=["no"] * n)
    joined = Explanations.concat([failed, E])
    assert joined.ok.tolist() == [False] * n + [True] * n
    np.testing.assert_array_equal(joined.node_mask[n], E.node_mask[0])


def valid(**changes):
    graph = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0, 1], [1, 0]]))
    fields = {
        "instances": Instances.from_graphs([graph, graph]),
        "masks": {"edge": Entries(np.array([0, 1, 3]), np.array([1, 0, 1]), np.array([0.1, 0.2, 0.3]))},
        "kind": "edge",
        "targets": [0, 1],
    }
    return Explanations(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "node"}, "'kind' must be one of the masks"),
        ({"masks": {"arc": None}}, "keys of 'masks'"),
        ({"targets": [0]}, r"targets must have one entry per instance \(2\). Got 1"),
        ({"errors": ["a"]}, "errors must have one entry"),
        ({"extras": {"walks": [1]}}, r"extras\['walks'\] must have one entry"),
        ({"masks": {"edge": Entries(np.array([0, 1]), np.array([0]), np.array([1]))}}, r"masks\['edge'\]"),
        (
            {"masks": {"edge": Entries(np.array([0, 0, 1]), np.array([0]), np.array([np.nan]))}},
            "infinity at instance 1",
        ),
        ({"masks": {"edge": Entries(np.array([0, 0, 1]), np.array([2]), np.array([1]))}}, "Got 2 at instance 1"),
        ({"masks": {"edge": Entries(np.array([0, 0, 1]), np.array([1]), np.ones((1, 2)))}}, "shape"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    assert len(valid()) == 2
    with pytest.raises(ValueError, match=message):
        valid(**changes)


def test_scores_of_a_failed_instance_may_be_anything():
    entries = Entries(np.array([0, 0, 1]), np.array([1]), np.array([np.nan]))
    assert valid(masks={"edge": entries}, errors=[None, "diverged"]).ok.tolist() == [True, False]


@pytest.mark.parametrize("kind", ["edge", "feature"])
def test_scikit_learn_splits_explanations(kind):
    E = random_explanations(2, kinds=(kind,), n=8, failed=False)
    assert _num_samples(E) == 8
    for key in (np.array([3, 1]), [3, 1], np.arange(8) == 3, slice(2, 5)):
        assert isinstance(_safe_indexing(E, key), Explanations)
    train, test = train_test_split(E, test_size=0.25, random_state=0)
    assert (len(train), len(test)) == (6, 2)


class GivesExplanations(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X

    def get_feature_names_out(self, input_features=None):
        return ["a", "b", "c"]


def test_scikit_learn_steps_take_feature_scores():
    E = random_explanations(2, kinds=("feature",), n=8, failed=False)
    table = np.asarray(E)
    np.testing.assert_array_equal(StandardScaler().fit_transform(E), StandardScaler().fit_transform(table))
    with pytest.raises(ValueError, match="MaskStats"):
        StandardScaler().fit(random_explanations(2))
    union = FeatureUnion([("same", FunctionTransformer()), ("pca", PCA(2))])
    assert union.fit_transform(E).shape == (8, 5)
    frame = GivesExplanations().set_output(transform="pandas").fit_transform(E)
    assert list(frame.columns) == ["a", "b", "c"]
    np.testing.assert_array_equal(frame.to_numpy(), table)


def test_attaching_another_model_warns():
    model = torch.nn.Linear(2, 1)
    E = random_explanations(0)._with(model_digest=None).with_model(model)
    assert E.model is model
    assert E.with_model(copy.deepcopy(model)).model is not model
    with pytest.warns(UserWarning, match="explain again"):
        other = E.with_model(torch.nn.Linear(2, 1))
    assert other.model_digest == E.model_digest


def test_repr_says_what_it_is():
    E = random_explanations(1, n=6)
    failed = (~E.ok).sum()
    assert repr(E) == f"<Explanations: SomeExplainer, 6 instances, soft edge scores, {failed} failed>"
