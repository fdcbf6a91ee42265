"""Molecules from SMILES strings: rows kept, bad ones named."""

import pytest
import torch
from torch_geometric.data import Data

from skgnnx import Instances, graphs_from_smiles


def test_strings_and_rows_are_kept():
    graphs = graphs_from_smiles(["CCO", "c1ccccc1"])
    assert [graph.smiles for graph in graphs] == ["CCO", "c1ccccc1"]
    assert [graph.row for graph in graphs] == [0, 1]
    X = Instances.from_graphs(graphs)
    assert X[1].graph.smiles == "c1ccccc1"
    assert X[1].graph.num_edges == 12


@pytest.mark.parametrize("bad", ["C1CC", "", None, float("nan")])
def test_a_bad_string_names_its_row(bad):
    with pytest.raises(ValueError, match="in row 1"):
        graphs_from_smiles(["CC", bad, "CO"])
    with pytest.warns(UserWarning, match=r"rows \[1\]"):
        graphs = graphs_from_smiles(["CC", bad, "CO"], on_error="skip")
    assert [graph.row for graph in graphs] == [0, 2]


def test_own_featurizer():
    def count(text):
        return Data(x=torch.ones(len(text), 1), edge_index=torch.zeros(2, 0, dtype=torch.long))

    assert [graph.num_nodes for graph in graphs_from_smiles(iter(["CCO", "C"]), featurizer=count)] == [3, 1]


def test_unknown_on_error():
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        graphs_from_smiles(["C"], on_error="ignore")
