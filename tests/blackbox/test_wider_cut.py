"""What cuts are compared with, where the whole graph fits: a part of it that shows as much."""

import warnings

import numpy as np
import pytest
import torch
from blackbox_cases import Stack, opened, seeded
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data

from skgnnx import Instances
from skgnnx.blackbox.batching import Cut

NODES = np.arange(0, 4000, 400)


def linked(joined):
    """Pairs of nodes that are all alike, or chains of ten and links between these, in both directions."""
    first = np.arange(4000)[np.arange(4000) % 10 != 9] if joined else np.arange(0, 4000, 2)
    edges = np.stack([first, first + 1])
    if joined:
        random = np.random.default_rng(0)
        edges = np.concatenate([edges, random.integers(4000, size=(2, 2000))], axis=1)
        edges = edges[:, edges[0] != edges[1]]
    return Data(x=torch.ones(4000, 3), edge_index=torch.from_numpy(np.concatenate([edges, edges[::-1]], axis=1)))


class Centred(nn.Module):
    """Takes from each node what is common to all that are not NaN, which does not show where all are alike."""

    def __init__(self):
        super().__init__()
        self.conv = layers.GINConv(nn.Linear(3, 2))

    def forward(self, x, edge_index):
        return self.conv(x - x.nan_to_num().mean(dim=0), edge_index)


def least(model, X, monkeypatch):
    """The smallest cut that is used, and the sizes of what cuts are compared with."""
    with opened(model, X) as gnn:
        sizes = []
        elsewhere = gnn._runs.outputs_elsewhere
        monkeypatch.setattr(
            gnn._runs, "outputs_elsewhere", lambda batches: sizes.append(batches[-1].num_nodes) or elsewhere(batches)
        )
        for batch in gnn.batches():
            with torch.no_grad():
                outputs = gnn.forward(batch)
            torch.testing.assert_close(outputs, gnn.reference[torch.from_numpy(batch.positions)])
        return gnn._batcher._least, sizes


@pytest.mark.parametrize("joined", [False, True])
def test_a_model_that_mixes_all_nodes_shows_without_the_whole_graph(joined, monkeypatch):
    X = Instances.from_nodes(linked(joined), NODES)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found, sizes = least(seeded(Centred), X, monkeypatch)
    assert found == Cut.WHOLE
    assert any("mixes nodes of the whole graph" in str(warning.message) for warning in said)
    assert max(sizes) < 2000


@pytest.mark.parametrize(
    ("conv", "cut"), [(layers.GCNConv, Cut.NORMALISED), (layers.ARMAConv, Cut.RING), (layers.SAGEConv, Cut.HOPS)]
)
def test_degrees_that_a_cut_changes_show_without_the_whole_graph(conv, cut, monkeypatch):
    X = Instances.from_nodes(linked(joined=True), NODES)
    found, sizes = least(seeded(lambda: Stack(conv(3, 4), conv(4, 2))), X, monkeypatch)
    assert found == cut
    assert max(sizes) < 2000
