"""Several targets at once, and methods that need one forward pass for them."""

import numpy as np
import pytest
import torch

import skgnnx
from skgnnx.explainers.backward import BackwardExplainer
from skgnnx.testing import all_explainers, example

BACKWARD = [cls for _, cls in all_explainers() if issubclass(cls, BackwardExplainer)]


def explainer_of(cls, model):
    return cls(model, **cls.check_params_)


@pytest.mark.parametrize("cls", [cls for _, cls in all_explainers()], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("level", ["graph", "node"])
def test_several_targets_equal_one_at_a_time(cls, level):
    if level not in cls.taxonomy.tasks or cls.taxonomy.learned:
        pytest.skip("another kind of method")
    model, X = example(level)
    found = explainer_of(cls, model).explain_targets(X)
    assert len(found) == 2
    for target, E in enumerate(found):
        alone = explainer_of(cls, model).explain(X.with_target(target))
        assert E.targets.tolist() == [target] * len(X) == alone.targets.tolist()
        for i in range(len(X)):
            np.testing.assert_allclose(E[i], alone[i], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cls", BACKWARD, ids=lambda cls: cls.__name__)
def test_another_target_takes_no_forward_pass(cls):
    calls = []

    class Counted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = example("graph")[0]

        def forward(self, x, edge_index, batch=None):
            calls.append(1)
            return self.network(x, edge_index, batch)

    X, needed = example("graph")[1], []
    for targets in ([1], [0, 1], [0, 1, 0, 1, 0]):
        calls.clear()
        explainer_of(cls, Counted()).explain_targets(X, targets)
        needed.append(len(calls))
    assert needed[0] == needed[1] == needed[2]


def test_targets_must_exist():
    model, X = example("graph")
    with pytest.raises(ValueError, match="'targets' must be in .0, 2. for TinyNetwork. Got 2"):
        skgnnx.SensitivityAnalysis(model).explain_targets(X, [0, 2])


@pytest.mark.parametrize("targets", [1, [0.5], "01", ["a"], [None], [[0]], [True]])
def test_targets_are_whole_numbers(targets):
    model, X = example("graph")
    with pytest.raises((TypeError, ValueError), match="'targets' must"):
        skgnnx.SensitivityAnalysis(model).explain_targets(X, targets)


def test_failures_are_those_of_every_target():
    model, X = example("graph")

    class Picky(skgnnx.SensitivityAnalysis):
        def _explain_batch(self, gnn, batch, seed):
            raise AssertionError

        def _backward(self, gnn, batch, passed):
            if 1 in batch.positions:
                raise ValueError("not this one")
            return super()._backward(gnn, batch, passed)

    found = Picky(model, on_error="nan").explain_targets(X)
    assert [E.ok.tolist() for E in found] == [[True, False, True, True, True]] * 2
    with pytest.raises(ValueError, match="not this one"):
        Picky(model).explain_targets(X)
