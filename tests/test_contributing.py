"""The recipe for a new explainer works as it stands in the guide."""

import re
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.nn import GIN, global_add_pool

from skgnnx.datasets import make_ba_2motifs
from skgnnx.testing import check_explainer

GUIDE = (Path(__file__).parent.parent / "docs" / "contributing.md").read_text()


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gnn = GIN(10, 8, num_layers=2, out_channels=2)

    def forward(self, x, edge_index, batch):
        return global_add_pool(self.gnn(x, edge_index), batch)


@pytest.fixture
def my_method(monkeypatch):
    """The class of the guide, in a module of its own, so that it can be pickled."""
    (block,) = re.findall(r"^ *```python\n(.*?)^ *```", GUIDE, flags=re.MULTILINE | re.DOTALL)
    source = textwrap.dedent(block)
    assert source.count("\n") <= 40
    guide = types.ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", guide)
    exec(source, guide.__dict__)
    return guide.MyMethod


def test_example_of_the_guide_runs(my_method):
    torch.manual_seed(0)
    X = make_ba_2motifs(n_graphs=3, random_state=0).data
    explanations = my_method(Classifier()).explain(X)
    assert [len(explanations[i]) for i in range(3)] == [25, 25, 25]
    assert all(np.all(mask >= 0) and np.any(mask > 0) for mask in explanations)


def test_example_of_the_guide_keeps_the_laws(my_method):
    check_explainer(my_method, skip=["check_n_jobs"])  # worker processes cannot import it
