"""The guide to perturbation methods runs as it is written, and names all of them."""

import re
from pathlib import Path

import pytest

from skgnnx.testing import all_explainers

DOCS = Path(__file__).parent.parent / "docs"
GUIDE = (DOCS / "perturbation.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\|[^|]*\|([^|]*)\|", GUIDE, flags=re.MULTILINE)
METHODS = dict(all_explainers({"family": "perturbation"}))


def test_guide():
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert abs(names["scaled"]) <= 1 >= abs(names["removed"])
    assert len(names["E"].fidelity) == len(names["X"])


def test_table_names_all():
    assert sorted(name for name, _ in ROWS) == sorted(METHODS)


@pytest.mark.parametrize(("name", "needs"), ROWS)
def test_table_agrees_with_tags(name, needs):
    assert METHODS[name].taxonomy.black_box == ("outputs only" in needs)
    assert METHODS[name].taxonomy.learned == ("`fit`" in needs)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", GUIDE))
def test_links(target):
    assert (DOCS / target).exists()
