"""Held-out explanations: each instance once, by an explainer that has not seen it."""

import numpy as np
import pytest
from sklearn.model_selection import KFold, ShuffleSplit

from skgnnx import RandomExplainer, cross_val_explain
from skgnnx.testing import example


class Remembering(RandomExplainer):
    """Notes which instances it was fitted on, and scores with their number."""

    def _fit(self, X):
        self.seen_ = set(X.ids.tolist())

    def explain(self, X):
        assert not self.seen_ & set(X.ids.tolist())
        return super().explain(X)


def test_every_instance_is_held_out_once_and_in_order():
    model, X = example("graph")
    E = cross_val_explain(Remembering(model), X, cv=KFold(3, shuffle=True, random_state=0))
    whole = RandomExplainer(model).explain(X)
    assert E.ids.tolist() == X.ids.tolist()
    for i in range(len(X)):
        np.testing.assert_array_equal(E[i], whole[i])
    assert E.model is model


def test_folds_must_be_a_partition():
    model, X = example("graph")
    with pytest.raises(ValueError, match="exactly once"):
        cross_val_explain(RandomExplainer(model), X, cv=ShuffleSplit(2, random_state=0))
