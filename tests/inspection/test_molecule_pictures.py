"""Molecules: what is found, what is refused, what is drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from picture_cases import RING_ATOMS, RING_BONDS, artist, artists, both_ways, explain, toluene, warmth
from rdkit import Chem
from torch_geometric.data import Data
from torch_geometric.utils import from_smiles

from skgnnx.datasets import load_benzene
from skgnnx.graphs import Instances
from skgnnx.inspection import ExplanationDisplay
from skgnnx.inspection.molecules import find_molecule


def bonds(mol):
    return {tuple(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))) for bond in mol.GetBonds()}


def test_atom_labels_make_the_molecule():
    X = Instances.from_graphs([toluene(z=torch.tensor([6, 7, 6, 6, 6, 6, 17]))])
    mol = find_molecule(X, 0)
    assert [atom.GetSymbol() for atom in mol.GetAtoms()] == ["C", "N", "C", "C", "C", "C", "Cl"]
    assert bonds(mol) == {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5), (0, 6)}
    assert sorted(bond.GetIsAromatic() for bond in mol.GetBonds()) == [False] + [True] * 6


def test_every_benzene_molecule_is_found():
    X = load_benzene().data[::25]
    for i in range(len(X)):
        mol = find_molecule(X, i)
        graph = X[i].graph
        assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == graph.z.tolist()
        assert bonds(mol) == {tuple(sorted(pair)) for pair in graph.edge_index.T.tolist()}


def test_molecule_smiles_and_hydrogens_of_the_graph_are_used():
    ethanol = from_smiles("CCO")
    with_hydrogens = from_smiles("CCO", with_hydrogen=True)
    own = from_smiles("CCO")
    own.mol, own.smiles = Chem.MolFromSmiles("CCN"), None
    for graph, symbols in ((ethanol, "CCO"), (with_hydrogens, "CCOHHHHHH"), (own, "CCN")):
        mol = find_molecule(Instances.from_graphs([graph]), 0)
        assert "".join(atom.GetSymbol() for atom in mol.GetAtoms()) == symbols


def test_what_is_given_wins():
    X = Instances.from_graphs([from_smiles("CCO")])
    assert find_molecule(X, 0, "CCS").GetAtomWithIdx(2).GetSymbol() == "S"
    assert find_molecule(X, 0, Chem.MolFromSmiles("CCN")).GetAtomWithIdx(2).GetSymbol() == "N"
    assert find_molecule(X, 0, False) is None


@pytest.mark.parametrize("z", [None, torch.zeros(7, dtype=torch.long), torch.rand(7), torch.ones(7, 2).long()])
def test_other_graphs_are_no_molecules(z):
    assert find_molecule(Instances.from_graphs([toluene(z=z)]), 0) is None


@pytest.mark.parametrize(
    ("mol", "message"),
    [
        ("CC", r"instance 1 must have one atom per node \(3\). Got 2 atoms.*mol=False"),
        ("COC", None),
        (
            "C1CC1",
            r"instance 1 must have one bond per edge \(2\). Got 3 bonds, and a bond without an edge between 0 and 2",
        ),
        ("C(C)O", r"Got 2 bonds, and a bond without an edge between 0 and 2"),
        ("C.CO", r"Got 1 bonds, and an edge without a bond between 0 and 1"),
        ("not smiles", r"SMILES of instance 1 must be readable. Got 'not smiles'"),
    ],
)
def test_mismatch_names_the_instance(mol, message, capfd):
    X = Instances.from_graphs([from_smiles("CCCC"), from_smiles("CCO")])
    E = explain(X, "node", np.zeros(4), np.zeros(3))
    display = ExplanationDisplay.from_explanations(E, 1, mol=mol)
    if message is None:
        display.plot()
    else:
        with pytest.raises(ValueError, match=message):
            display.plot()
        assert plt.get_fignums() == []


def test_atoms_are_coloured_by_score_and_true_ones_outlined():
    truth = {"node": [RING_ATOMS], "edge": [RING_BONDS]}
    scores = np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    ax = ExplanationDisplay.from_explanations(
        explain(Instances.from_graphs([toluene()], truth=truth), "node", scores)
    ).ax_
    ring, rest = artist(ax, "scored true atoms"), artist(ax, "scored other atoms")
    assert (len(ring.get_paths()), len(rest.get_paths())) == (6, 1)
    assert (np.diff(warmth(ring.get_facecolor())) < 0).all()
    assert warmth(rest.get_facecolor()) == 0
    outline, inside = artist(ax, "true atoms"), artist(ax, "inside of true atoms")
    centres = [path.vertices[:-1].mean(axis=0) for path in ring.get_paths()]
    np.testing.assert_allclose([path.vertices[:-1].mean(axis=0) for path in outline.get_paths()], centres)
    assert np.ptp(outline.get_paths()[0].vertices) > np.ptp(inside.get_paths()[0].vertices)
    assert outline.zorder < inside.zorder < ring.zorder
    assert len(artist(ax, "true bonds").get_paths()) == 6
    assert ax.get_legend().get_texts()[0].get_text() == "known reason"


def test_bonds_are_coloured_once_by_the_mean_of_their_directions():
    scores = np.concatenate([np.arange(7), np.arange(7) + 2])
    truth = {"edge": [RING_BONDS]}
    ax = ExplanationDisplay.from_explanations(
        explain(Instances.from_graphs([toluene()], truth=truth), "edge", scores)
    ).ax_
    ring, rest = artist(ax, "scored true bonds"), artist(ax, "scored other bonds")
    assert (len(ring.get_paths()), len(rest.get_paths())) == (6, 1)
    assert (np.diff(warmth(ring.get_facecolor())) > 0).all()  # weaker ones are drawn first
    assert warmth(rest.get_facecolor())[0] > warmth(ring.get_facecolor()).max()
    assert not artists(ax, "true atoms")
    assert not artists(ax, "scored true atoms")
    assert rest.zorder < artist(ax, "true bonds").zorder


def test_an_atom_lies_under_its_letters():
    graph = toluene(z=torch.tensor([6, 6, 6, 6, 6, 6, 17]))
    scores = np.eye(7)[6]
    display = ExplanationDisplay.from_explanations(explain(Instances.from_graphs([graph]), "node", scores))
    (picture,) = display.ax_.images
    ink = picture.get_array()[..., 3] > 0
    discs = artist(display.ax_, "scored other atoms").get_paths()
    places = [disc.vertices[:-1].mean(axis=0).round().astype(int) for disc in discs]
    assert all(ink[y - 3 : y + 4, x - 3 : x + 4].any() for x, y in places[:6])  # bonds meet in the middle of a disc
    x, y = places[6]
    assert ink[y - 25 : y + 25, x - 25 : x + 25].mean() > 0.1  # Cl
    assert not ink[:, :3].any()
    assert not ink[:3].any()  # nothing is cut off


def test_labels_replace_elements():
    X = Instances.from_graphs([toluene()])
    E = explain(X, "node", np.zeros(7))
    plain = ExplanationDisplay.from_explanations(E).ax_.images[0].get_array()
    named = ExplanationDisplay.from_explanations(E, labels=list("abcdefg")).ax_.images[0].get_array()
    assert (named[..., 3] > 0).sum() > (plain[..., 3] > 0).sum() + 500


def test_explained_atom_is_starred_and_the_whole_molecule_drawn():
    X = Instances.from_nodes(toluene(), [6])
    E = explain(X, "node", [0.1, 0.9])  # the computation graph is atoms 0 and 1
    ax = ExplanationDisplay.from_explanations(E).ax_
    star, discs = artist(ax, "explained").get_paths(), artist(ax, "scored other atoms").get_paths()
    assert len(discs) == 3  # the computation graph: scored ones and the explained one
    assert len(star) == 1
    np.testing.assert_allclose(star[0].vertices[:-1].mean(axis=0), discs[2].vertices[:-1].mean(axis=0))


def test_user_coordinates_are_kept():
    mol = Chem.MolFromSmiles("CCO")
    conformer = Chem.Conformer(3)
    for atom, x in enumerate((0.0, 5.0, 1.5)):
        conformer.SetAtomPosition(atom, (x, 0.0, 0.0))
    conformer.Set3D(False)
    mol.AddConformer(conformer)
    E = explain(Instances.from_graphs([from_smiles("CCO")]), "node", [0, 0, 1])
    ax = ExplanationDisplay.from_explanations(E, mol=mol).ax_
    x = [path.vertices[:-1, 0].mean() for path in artist(ax, "scored other atoms").get_paths()]
    np.testing.assert_allclose(np.diff(x) / (x[1] - x[0]), [1, -0.7], atol=0.02)


def test_lone_atom():
    E = explain(
        Instances.from_graphs(
            [Data(x=torch.ones(1, 1), edge_index=both_ways(np.zeros((0, 2), int)), z=torch.tensor([8]))]
        ),
        "node",
        [1],
    )
    ax = ExplanationDisplay.from_explanations(E).plot().ax_
    assert len(artist(ax, "scored other atoms").get_paths()) == 1
