"""Every public check over every explainer."""

import pytest

from skgnnx.testing import all_explainers, checks
from skgnnx.testing.checks import SLOW

CASES = [
    pytest.param(cls, check, id=f"{name}-{check_name}", marks=[pytest.mark.slow] if check_name in SLOW else [])
    for name, cls in all_explainers()
    for check_name, check in checks().items()
]


@pytest.mark.parametrize(("cls", "check"), CASES)
def test_explainer_keeps_the_law(cls, check):
    check(cls)
