"""One bad instance, alone in its chunk or not, loses neither the others nor what is known of the model."""

import numpy as np
import pytest

from skgnnx import Explanations, SensitivityAnalysis, explain_dataset
from skgnnx.metrics import fidelity_plus
from skgnnx.testing import example
from skgnnx.testing.failing import BAD, BreaksAt


@pytest.fixture
def case():
    network, X = example("graph")
    return BreaksAt(network, X.num_units("node", BAD), "raise"), X


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_what_is_known_of_the_model_survives_a_bad_chunk(case, chunk_size):
    model, X = case
    explainer = SensitivityAnalysis(model, on_error="nan", sparsity=0.4)
    E = explain_dataset(explainer, X, chunk_size=chunk_size)
    assert E.ok.tolist() == [True, True, False, True, True]
    assert "IndexError: The model BreaksAt raised: a category" in E.errors[BAD]
    assert E.box == {"output": "logits", "threshold": 0.5, "forward": None}
    assert (E.explainer, E.sparsity, E.model) == ("SensitivityAnalysis", 0.4, model)
    scores = fidelity_plus(E, reduce=None)
    assert np.isnan(scores).tolist() == (~E.ok).tolist()


def test_a_bad_part_may_come_first(case):
    model, X = case
    explainer = SensitivityAnalysis(model, on_error="nan")
    parts = [explainer.explain(X[rows]) for rows in ([BAD], [0, 1])]
    E = Explanations.concat(parts)
    assert E.params == parts[1].params
    assert E.model_digest == parts[1].model_digest


def test_all_bad_is_said_once(case):
    model, X = case
    with pytest.warns(UserWarning, match="All 2 instances failed. The first says: IndexError"):
        E = SensitivityAnalysis(model, on_error="nan").explain(X[[BAD, BAD]])
    assert not E.ok.any()
    assert np.isnan(E[0]).all()
    assert len(E[0]) == X.num_units("edge", BAD)


@pytest.mark.parametrize("mask", ["edge", "node", "feature", "node_feature"])
def test_the_only_instance_may_fail(case, mask):
    model, X = case
    E = SensitivityAnalysis(model, on_error="nan", mask=mask).explain(X[[BAD]])
    assert np.isnan(E[0]).all()
    assert E[0].shape == SensitivityAnalysis(model.network, mask=mask).explain(X[[BAD]])[0].shape
