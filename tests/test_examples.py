"""The examples run at a toy size, and leave what they promise."""

import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from skgnnx import Explanations

EXAMPLES = Path(__file__).parent.parent / "examples"


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_quickstart(tmp_path, capsys):
    table = load_example("quickstart").main(["--toy", "--seeds", "2", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    names = ["random", "SensitivityAnalysis", "GNNExplainer, paper preset", "GNNExplainer", "GNNExplainer, tuned"]
    assert table["explainer"].tolist() == names * 2
    assert table["seed"].tolist() == [0] * 5 + [1] * 5
    assert all(f"| {name} " in printed for name in names)
    assert np.isfinite(table.drop(columns="explainer")).all(axis=None)
    assert table["atom ROC-AUC"].between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), table)
    for seed in (0, 1):
        folder = tmp_path / f"seed_{seed}"
        for file in ("random", "GNNExplainer_paper_preset", "GNNExplainer_tuned", "fidelity"):
            assert (folder / f"{file}.png").stat().st_size > 10_000
        E = Explanations.load(folder / "GNNExplainer_tuned.npz")
        assert (E.kind, E.explainer) == ("edge", "GNNExplainer")
        assert E.instances.truth["node"][0] is not None
    assert plt.get_fignums() == []


@pytest.mark.filterwarnings("ignore:The scores of")  # that IntegratedGradients need more steps is up to the network
def test_benzene_atoms(tmp_path, capsys):
    example = load_example("benzene_atoms")
    table = example.main(["--toy", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    means = example.over_seeds(pd.concat([table, table.assign(**{"atom ROC-AUC": 0.0})]))
    assert np.allclose(means[["smallest", "atom ROC-AUC", "largest"]].T, np.outer([0, 0.5, 1], table["atom ROC-AUC"]))
    assert table["network"].unique().tolist() == list(example.NETWORKS) == ["bond types", "no bond types"]
    names = list(example.explainers(None))
    by_network = table.groupby("network")["explainer"].apply(list)
    assert by_network["no bond types"] == names
    assert by_network["bond types"] == [name for name in names if "ExcitationBP" not in name]
    assert printed.count("left out, ExcitationBP") == 2
    assert all(f"| {name} " in printed for name in table["explainer"])
    assert np.isfinite(table.drop(columns=["network", "explainer"])).all(axis=None)
    assert table["atom ROC-AUC"].between(0, 1).all()
    sees_bonds = table[table["network"] == "bond types"].set_index("explainer")["atom ROC-AUC"]
    assert sees_bonds["CAM"] > sees_bonds["random"] + 0.2
    assert sees_bonds["LRP"] == pytest.approx(sees_bonds["GNNLRP, first atoms"], abs=1e-3)  # walks by their first node
    assert sees_bonds["CAM"] == pytest.approx(sees_bonds["GradCAM, hirescam"], abs=1e-3)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), table)
    for network in ("bond_types", "no_bond_types"):
        assert (tmp_path / f"atoms_{network}.png").stat().st_size > 10_000
        assert (tmp_path / f"walks_{network}.png").stat().st_size > 5_000
    assert plt.get_fignums() == []
