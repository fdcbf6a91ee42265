"""The guide to gradients and decomposition runs as it is written, and says what the package says."""

import copy
import re
from pathlib import Path

import pytest
import torch

import skgnnx

DOCS = Path(__file__).parent.parent / "docs"
GUIDE = (DOCS / "gradients_and_decomposition.md").read_text()
ON_THE_PAGE = {"gradients", "decomposition"}
METHODS = re.search(r"^## Which method.*?(?=^Backward passes)", GUIDE, flags=re.MULTILINE | re.DOTALL)[0]


def test_guide():
    torch.manual_seed(0)
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert len(names["first"]) == len(names["second"]) == len(names["X"])
    assert names["E"].walks[0].shape == (10, 3)
    assert all(names["E"].walks_exact)
    quoted = " ".join(re.search(r"^> (Attention.*?)\n\n", GUIDE, flags=re.MULTILINE | re.DOTALL)[1].split("\n> "))
    assert names["refusal"] == quoted


def difference(model):
    """Return a network that scores class 0 rather than class 1, and class 1 rather than class 0."""
    model = copy.deepcopy(model)
    against = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    model.head.weight.data, model.head.bias.data = against @ model.head.weight.data, against @ model.head.bias.data
    return model


@pytest.mark.parametrize(
    ("name", "tasks", "linear"), re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\|([^|]*)\|[^|]*\|([^|]*)\|", METHODS, re.M)
)
def test_table_agrees_with_tags(name, tasks, linear):
    method = getattr(skgnnx, name)
    for task, word in (("graph", "graph"), ("node", "node"), ("edge", "link")):
        if word in tasks.split(";")[0]:
            assert task in method.taxonomy.tasks
    model, X = skgnnx.testing.example("graph")
    shifted = {"shift_input": True} if name == "ExcitationBP" else {}
    explainer = method(model, mask="node", **shifted)
    one, other = (E[0] for E in explainer.explain_targets(X[:1], [0, 1]))
    between = explainer.set_params(model=difference(model)).explain(X[:1].with_target(0))[0]
    if "no" not in linear:
        assert between == pytest.approx(one - other, abs=1e-4)
    elif "yes" not in linear:
        assert between != pytest.approx(one - other, abs=1e-4)


def test_table_names_all():
    known = {name for name, method in skgnnx.testing.all_explainers() if method.taxonomy.family in ON_THE_PAGE}
    assert set(re.findall(r"^\| `(\w+)` \|", METHODS, re.M)) == known


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", GUIDE))
def test_links(target):
    assert (DOCS / target).exists()
