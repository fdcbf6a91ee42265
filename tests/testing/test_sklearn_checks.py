"""scikit-learn's own checks, on explainers directly and on explainers of tables."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skgnnx import GNNExplainer, InputXGradient, SensitivityAnalysis
from skgnnx.testing import ArrayAdapter, all_explainers
from skgnnx.testing.networks import Network

# One network explains every row, so nothing else varies than what scikit-learn's checks vary.
EXPLAINERS = [(name, cls(**cls.check_params_)) for name, cls in all_explainers({"level": "instance", "tasks": "graph"})]
DETERMINISTIC = [explainer for _, explainer in EXPLAINERS if explainer.taxonomy.deterministic]
OTHERS = [explainer for _, explainer in EXPLAINERS if not explainer.taxonomy.deterministic]
WITHOUT_DATA = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_mixin_order,
]


@parametrize_with_checks([ArrayAdapter(explainer) for explainer in DETERMINISTIC])
def test_adapted_explainer_is_a_transformer(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([ArrayAdapter(explainer) for explainer in OTHERS])
def test_adapted_random_explainer_is_a_transformer(estimator, check):
    check(estimator)


REASONS = {
    "check_estimators_overwrite_params": "joblib, which compares parameters here, cannot hash the NoneType that PyG's "
    "layers hold; clones and fit leave the model alone, see check_clone_and_pickle and check_nothing_touched"
}


@parametrize_with_checks(
    [ArrayAdapter(SensitivityAnalysis(Network(num_features=1).double().eval()))],
    expected_failed_checks=lambda _: REASONS,
)
def test_adapted_explainer_of_a_network_is_a_transformer(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("name", "explainer"), EXPLAINERS)
def test_explainer_is_an_estimator(name, explainer):
    """What scikit-learn checks of an estimator that takes no tables: names of parameters, repr, clone, tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        found = list(estimator_checks_generator(explainer, legacy=True))
    assert found
    for estimator, check in found:
        check(estimator)


@pytest.mark.parametrize("check", WITHOUT_DATA)
@pytest.mark.parametrize(("name", "explainer"), EXPLAINERS)
def test_explainer_passes_the_checks_that_need_no_table(name, explainer, check):
    check(name, explainer)


def test_rows_become_paths_and_masks_become_columns():
    X = np.random.RandomState(0).randn(5, 4)
    assert ArrayAdapter(InputXGradient(mask="node")).fit_transform(X).shape == (5, 4)
    assert ArrayAdapter(InputXGradient(mask="edge")).fit_transform(X).shape == (5, 6)
    assert ArrayAdapter(InputXGradient(mask="feature")).fit_transform(X).shape == (5, 1)
    assert ArrayAdapter(GNNExplainer(mask="node_feature", epochs=2)).fit_transform(X).shape == (5, 4)


def test_rows_are_explained_one_by_one():
    X = np.random.RandomState(0).randn(5, 4)
    adapter = ArrayAdapter(InputXGradient()).fit(X)
    np.testing.assert_allclose(adapter.transform(X)[::-1], adapter.transform(X[::-1]), atol=1e-6)
