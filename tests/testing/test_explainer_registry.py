"""The registry, its filters, and the table in the documentation."""

from pathlib import Path

import pytest

import skgnnx
import skgnnx.explainers
from skgnnx.testing import all_explainers, explainers_table

PAGE = Path(__file__).parents[2] / "docs" / "explainers.md"


def test_every_exported_explainer_is_listed():
    assert [name for name, _ in all_explainers()] == sorted(skgnnx.explainers.__all__)
    for name, cls in all_explainers():
        assert issubclass(cls, skgnnx.BaseExplainer)
        assert cls.__name__ == name
        assert getattr(skgnnx, name) is cls


def test_filters_select_by_tag():
    names = [name for name, _ in all_explainers({"family": "gradients"})]
    assert "SensitivityAnalysis" in names
    assert "GNNExplainer" not in names
    assert ("GNNExplainer", skgnnx.GNNExplainer) in all_explainers({"mask": "soft", "tasks": ("node", "graph")})
    assert all_explainers({"family": "gradients", "deterministic": False}) == []
    assert all_explainers({"tasks": "nothing"}) == []


def test_unknown_tag_is_named():
    with pytest.raises(ValueError, match="The keys of 'filter_tags' must be among .*'level'.*Got 'colour'"):
        all_explainers({"colour": "red"})


def test_table_in_the_documentation_is_up_to_date():
    assert explainers_table() in PAGE.read_text(), "run: python docs/make_explainers_table.py"


def test_table_has_a_row_for_every_explainer():
    table = explainers_table()
    assert all(f"| `{name}` |" in table for name in skgnnx.explainers.__all__)
    assert len({line.count("|") for line in table.splitlines()}) == 1
