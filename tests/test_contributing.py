"""The recipe for a new explainer works as it stands in the guide."""

import re
import textwrap
from pathlib import Path

import numpy as np
import torch
from torch_geometric.nn import GIN, global_add_pool

from skgnnx.datasets import make_ba_2motifs

GUIDE = (Path(__file__).parent.parent / "docs" / "contributing.md").read_text()


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gnn = GIN(10, 8, num_layers=2, out_channels=2)

    def forward(self, x, edge_index, batch):
        return global_add_pool(self.gnn(x, edge_index), batch)


def test_example_of_the_guide_is_short_and_runs():
    (block,) = re.findall(r"^ *```python\n(.*?)^ *```", GUIDE, flags=re.MULTILINE | re.DOTALL)
    source = textwrap.dedent(block)
    assert source.count("\n") <= 40
    torch.manual_seed(0)
    names = {"__name__": "guide"}
    exec(source, names)
    X = make_ba_2motifs(n_graphs=3, random_state=0).data
    explanations = names["MyMethod"](Classifier()).explain(X)
    assert [len(explanations[i]) for i in range(3)] == [25, 25, 25]
    assert all(np.all(mask >= 0) and np.any(mask > 0) for mask in explanations)
