"""README keeps its promises: two commands that exist, an example that runs, links that lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from torch_geometric.nn import GIN, global_add_pool

from skgnnx.datasets import make_ba_2motifs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_there_are_two_commands_of_one_line():
    quickstart, tests = blocks("sh")
    assert quickstart.count("\n") == tests.count("\n") == 1
    assert quickstart.rstrip().endswith(".venv/bin/python examples/quickstart.py")
    assert tests.rstrip().endswith(".venv/bin/python -m pytest")


@pytest.mark.parametrize("command", blocks("sh"))
def test_commands_install_known_extras_under_the_pins(command):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.search(r'-c constraints\.txt -e "\.\[([a-z,]+)\]"', command)
    assert set(named[1].split(",")) <= set(extras)


def test_pins_fit_the_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    for requirement in map(Requirement, wanted):
        if requirement.name in pins:
            assert requirement.specifier.contains(pins[requirement.name]), requirement
    core = [Requirement(line).name for line in project["dependencies"]]
    assert set(core) <= set(pins)


def test_example_runs():
    motifs = make_ba_2motifs(n_graphs=12, random_state=0)

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gnn = GIN(10, 8, num_layers=2, out_channels=2)

        def forward(self, x, edge_index, batch):
            return global_add_pool(self.gnn(x, edge_index), batch)

    torch.manual_seed(0)
    names = {"graphs": motifs.graphs, "model": Classifier()}
    exec("\n".join(blocks("python")), names)
    assert len(names["E"]) == len(names["best"]) == 12


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", README))
def test_links(target):
    assert (ROOT / target).exists()


def test_decisions_are_listed():
    folder = ROOT / "docs" / "decisions"
    listed = set(re.findall(r"\]\(([a-z-]+\.md)\)", (folder / "README.md").read_text()))
    assert listed == {path.name for path in folder.glob("*.md")} - {"README.md"}
