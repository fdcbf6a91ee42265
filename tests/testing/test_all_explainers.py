"""Every public check over every explainer, and some over explainers with other parameters than their defaults."""

import pytest

from skgnnx import GNNExplainer, SensitivityAnalysis
from skgnnx.testing import all_explainers, checks
from skgnnx.testing.checks import SLOW

PAIRS = "check_explainers_leave_each_other_alone"  # of all with all; in every run, all are paired with one of them


def marks_of(name, check_name):
    is_slow = check_name in SLOW or (check_name == PAIRS and name != "GNNExplainer")
    return [pytest.mark.slow] if is_slow else []


CASES = [
    pytest.param(cls, check, id=f"{name}-{check_name}", marks=marks_of(name, check_name))
    for name, cls in all_explainers()
    for check_name, check in checks().items()
]
STEPS = {"epochs": 3, "lr": 0.1, "init_mean": 0.0}
VARIANTS = {
    "l2": lambda model: SensitivityAnalysis(model, norm="l2"),
    "pyg": lambda model: GNNExplainer(model, preset="pyg", feature_mask="feature", n_init=2, **STEPS),
    "paper": lambda model: GNNExplainer(model, preset="paper", feature_mask="node_feature", tol=0.01, **STEPS),
    "untied": lambda model: GNNExplainer(model, tie_directions=False, feature_mask="node", **STEPS),
}
OF_VARIANTS = ["check_right_entries", "check_batch_size", "check_shapes", "check_nothing_touched"]


@pytest.mark.parametrize(("cls", "check"), CASES)
def test_explainer_keeps_the_law(cls, check):
    check(cls)


@pytest.mark.parametrize("name", OF_VARIANTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_keeps_the_law(variant, name):
    checks()[name](VARIANTS[variant])
