"""The graphs of these tests have self loops, which GCN layers replace; that this is said is tested elsewhere."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Self loops cannot be explained:UserWarning"))
