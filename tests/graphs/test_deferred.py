"""Deferred explanations: nothing is computed before it is read, and then once."""

import pickle

import numpy as np
import pytest
from explanation_cases import random_explanations
from test_explanations import assert_equal

from skgnnx.graphs import Explanations


class Calls:
    def __init__(self, result):
        self.result, self.log = result, []

    def check(self):
        self.log.append("check")

    def compute(self):
        self.log.append("compute")
        return self.result


@pytest.fixture
def calls():
    return Calls(random_explanations(0))


def deferred(calls):
    return Explanations.deferred(calls.compute, calls.check, calls.result.instances)


def test_length_and_ids_cost_nothing(calls):
    E = deferred(calls)
    assert isinstance(E, Explanations)
    assert len(E) == 4
    assert list(E.ids) == list(calls.result.ids)
    assert E.instances is calls.result.instances
    assert not hasattr(E, "__array_interface__")
    assert calls.log == []


@pytest.mark.parametrize(
    "read",
    [
        *(lambda E: E[0], lambda E: E[1:], lambda E: E.edge_mask[0], lambda E: np.asarray(E), lambda E: E.top_k(1)),
        *(lambda E: E.ok, lambda E: E.walks, lambda E: E.kind, lambda E: E.shape, pickle.dumps, repr),
    ],
)
def test_reading_checks_first_and_computes_once(calls, read):
    E = deferred(calls)
    read(E)
    read(E)
    assert calls.log == ["check", "compute"]
    assert_equal(E, calls.result)


def test_pickled_and_joined_like_any_other(calls):
    assert_equal(pickle.loads(pickle.dumps(deferred(calls))), calls.result)
    joined = Explanations.concat([deferred(calls), deferred(calls)])
    assert_equal(joined[:4], calls.result)


def test_a_changed_model_is_an_error_at_every_reading(calls):
    def check():
        raise RuntimeError("the model has changed")

    E = Explanations.deferred(calls.compute, check, calls.result.instances)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the model has changed"):
            E[0]
    assert calls.log == []


def test_an_attribute_error_inside_is_not_taken_for_a_missing_attribute(calls):
    def compute():
        calls.compute()
        raise AttributeError("'Net' object has no attribute 'conv3'")

    E = Explanations.deferred(compute, None, calls.result.instances)
    with pytest.raises(RuntimeError, match="conv3"):
        E.ok  # noqa: B018
    assert calls.log == ["compute"]


def test_what_is_unknown_stays_unknown(calls):
    with pytest.raises(AttributeError, match="paths"):
        deferred(calls).paths  # noqa: B018
