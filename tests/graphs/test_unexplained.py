"""Loops that a layer replaces by its own are 0, not explained, and named in one warning."""

import warnings

import pytest
import torch
from torch_geometric.data import Data

from skgnnx import RandomExplainer, SensitivityAnalysis
from skgnnx.testing.networks import Network

WITH_LOOP = Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0, 1, 2], [1, 1, 0]]))
WITHOUT = Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0, 1], [1, 0]]))


def test_replaced_loops_are_named_in_one_warning():
    with pytest.warns(
        UserWarning, match=r"Self loops cannot .* Got 2, the first is edge 1 \(1, 1\) of instance 1"
    ) as seen:
        E = SensitivityAnalysis(Network("gcn")).explain([WITHOUT, WITH_LOOP, WITH_LOOP])
    assert len(seen) == 1
    assert E.explained[1].tolist() == [True, False, True]
    assert E[1][1] == 0
    assert seen[0].filename == __file__


@pytest.mark.parametrize(
    ("conv", "graph", "mask"), [("gcn", WITHOUT, "edge"), ("sage", WITH_LOOP, "edge"), ("gcn", WITH_LOOP, "node")]
)
def test_nothing_is_said_where_everything_is_explained(conv, graph, mask):
    E = SensitivityAnalysis(Network(conv), mask=mask).explain([graph])
    assert E.explained[0].all()


def test_a_callable_replaces_no_loops():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        E = RandomExplainer(lambda graphs: torch.zeros(len(graphs), 2)).explain([WITH_LOOP])
    assert E.explained[0].all()
