"""Molecules: which one belongs to an instance, and how it is drawn."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from skgnnx.graphs import Instances
from skgnnx.inspection.colours import INK, TRUTH
from skgnnx.inspection.optional import load
from skgnnx.inspection.scene import Scene

PIXELS_PER_ANGSTROM = 60
BOND = 1.5 * PIXELS_PER_ANGSTROM  # RDKit draws a bond 1.5 long
ATOM_RADIUS, BOND_RADIUS, OUTLINE = 0.32 * BOND, 0.2 * BOND, 0.05 * BOND
STAR_RADIUS = 0.62 * BOND
SMALLEST_VIEW = (9.5 * BOND, 6 * BOND)  # small molecules are not blown up beyond this
BOND_TYPES = {1.0: "SINGLE", 1.5: "AROMATIC", 2.0: "DOUBLE", 3.0: "TRIPLE"}


def find_molecule(X: Instances, i: int, mol: Any = None, *, name: int | None = None) -> Any:
    """Return the molecule of an instance.

    Looked for in this order: what the caller gives, ``data.mol``, ``data.smiles``, atomic numbers ``data.z`` (with
    ``data.bond_order`` where there is one).

    Parameters
    ----------
    X : Instances
        What was explained.
    i : int
        Position of the instance.
    mol : RDKit molecule, SMILES, False or None, default=None
        False means that the graph is no molecule, None that the graph says what it is.
    name : int, default=None
        How errors call the instance; its position by default.

    Returns
    -------
    Mol or None
        With atoms in the order of the nodes; None if the graph is no molecule.

    Raises
    ------
    ImportError
        If rdkit is missing.
    ValueError
        If atoms or bonds do not match nodes and edges; the message names the instance.
    """
    if mol is False:
        return None
    store, graph = X.store, int(X.graph_index[i])
    name = i if name is None else name
    for key in ("mol", "smiles"):
        if mol is None and key in store.objects:
            mol = store.objects[key][graph]
    if mol is None:
        return _from_atom_labels(X, i)
    chem = load("rdkit.Chem", "chem", "Pictures of molecules")
    if isinstance(mol, str):
        mol = _parsed(chem, mol, name)
    nodes = store.num_nodes(graph)
    if mol.GetNumAtoms() != nodes:  # graphs with hydrogens come from SMILES without
        with_hydrogens = chem.AddHs(mol)
        mol = with_hydrogens if with_hydrogens.GetNumAtoms() == nodes else mol
    _check_matches(mol, X, i, name)
    return mol


def draw_molecule(ax: Any, mol: Any, scene: Scene, scale: Any, labels: Any = None) -> np.ndarray:
    """Draw a molecule: scores as colour behind atoms or bonds, true atoms and bonds inside an outline.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    mol : Mol
        From `find_molecule`.
    scene : Scene
        What is shown.
    scale : ScalarMappable
        Colours of the scores.
    labels : sequence of str, optional
        Written at the atoms instead of their elements.

    Returns
    -------
    ndarray of shape (num_atoms, 2)
        Where the atoms are.
    """
    image, place = _depiction(mol, labels)
    paint = _Paint(ax, place)
    bonds = scene.edges[:, scene.true_edges]
    atoms = scene.nodes[scene.true_nodes]
    radius = BOND_RADIUS if scene.node_scores is None else ATOM_RADIUS
    paint.area(atoms, bonds, radius + 2 * OUTLINE, 1, TRUTH, "true")
    paint.area(atoms, bonds, radius + OUTLINE, 1.1, "white", "inside of true")
    # what is not true goes below the outline: a pale bond that leaves a true ring must not cut it open
    for name, rows, zorder in (("true", True, 1.2), ("other", False, 0.9)):
        if scene.edge_scores is not None:
            order = np.argsort(np.abs(scene.edge_scores), kind="stable")
            order = order[scene.true_edges[order] == rows]
            colours = scale.to_rgba(scene.edge_scores[order])
            paint.bonds(scene.edges[:, order], BOND_RADIUS, zorder, colours, f"scored {name} bonds")
        if scene.node_scores is not None:
            mine = scene.true_nodes == rows
            paint.atoms(
                scene.nodes[mine], ATOM_RADIUS, zorder, scale.to_rgba(scene.node_scores[mine]), f"scored {name} atoms"
            )
    paint.stars(scene.explained, 1.3)
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), zorder=2, interpolation="antialiased")
    centre = (place.min(axis=0) + place.max(axis=0)) / 2
    half = np.maximum(np.ptp(place, axis=0) / 2 + 0.7 * BOND, np.array(SMALLEST_VIEW) / 2)
    ax.set_xlim(*(centre[0] + half[0] * np.array([-1, 1])), auto=True)  # auto: equal aspect may widen them
    ax.set_ylim(*(centre[1] + half[1] * np.array([1, -1])), auto=True)
    return place


class _Paint:
    """Shapes around atoms and bonds, in the pixels of the depiction."""

    def __init__(self, ax: Any, place: np.ndarray) -> None:
        self.ax, self.place = ax, place
        self.collections = load("matplotlib.collections", "viz", "Pictures")

    def area(self, atoms: np.ndarray, bonds: np.ndarray, radius: float, zorder: float, colour: str, name: str) -> None:
        """Fill the union of discs and tubes; a second, smaller union on top leaves one outline of both."""
        self.bonds(bonds, radius, zorder, colour, f"{name} bonds")
        self.atoms(atoms, radius, zorder, colour, f"{name} atoms")

    def atoms(self, atoms: np.ndarray, radius: float, zorder: float, colours: Any, name: str) -> None:
        angles = np.linspace(0, 2 * np.pi, 49)[:-1]
        circle = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._add(self.place[atoms][:, None] + circle, zorder, colours, name)

    def bonds(self, bonds: np.ndarray, radius: float, zorder: float, colours: Any, name: str) -> None:
        start, end = self.place[bonds[0]], self.place[bonds[1]]
        along = end - start
        heading = np.arctan2(along[:, 1], along[:, 0])[:, None]
        half_turn = np.linspace(-np.pi / 2, np.pi / 2, 25)
        caps = []
        for centre, turn in ((end, 0), (start, np.pi)):
            angles = heading + turn + half_turn
            caps.append(centre[:, None] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=2))
        self._add(np.concatenate(caps, axis=1), zorder, colours, name)

    def stars(self, atoms: np.ndarray, zorder: float) -> None:
        angles = np.linspace(0, 2 * np.pi, 11)[:-1] - np.pi / 2
        reach = np.tile([STAR_RADIUS, 0.45 * STAR_RADIUS], 5)[:, None]
        star = reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._add(self.place[atoms][:, None] + star, zorder, "none", "explained", edgecolors=INK, linewidths=1.2)

    def _add(self, outlines: np.ndarray, zorder: float, colours: Any, name: str, **style: Any) -> None:
        if len(outlines):
            style = {"facecolors": colours, "linewidths": 0, "zorder": zorder, "gid": name} | style
            self.ax.add_collection(self.collections.PolyCollection(outlines, **style), autolim=False)


def _depiction(mol: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return RDKit's drawing with a clear background, and the pixel of every atom."""
    chem = load("rdkit.Chem", "chem", "Pictures of molecules")
    drawing = load("rdkit.Chem.Draw.rdMolDraw2D", "chem", "Pictures of molecules")
    mol = chem.Mol(mol)
    try:
        mol = drawing.PrepareMolForDrawing(mol, addChiralHs=False)
    except (ValueError, RuntimeError):  # bare atom labels lack the charges and hydrogens that preparing needs
        mol = chem.Mol(mol)
    if not mol.GetNumConformers() or mol.GetConformer().Is3D():
        load("rdkit.Chem.rdDepictor", "chem", "Pictures of molecules").Compute2DCoords(mol)
    for atom, label in zip(mol.GetAtoms(), [] if labels is None else labels):
        atom.SetProp("_displayLabel", str(label))
    drawer = drawing.MolDraw2DCairo(-1, -1)
    options = drawer.drawOptions()
    options.clearBackground = False
    options.prepareMolsBeforeDrawing = False
    options.scalingFactor = PIXELS_PER_ANGSTROM
    options.bondLineWidth = 3
    options.useBWAtomPalette()
    drawer.DrawMolecule(mol)
    drawer.FinishDrawing()
    image = load("matplotlib.image", "viz", "Pictures").imread(io.BytesIO(drawer.GetDrawingText()))
    points = [drawer.GetDrawCoords(atom) for atom in range(mol.GetNumAtoms())]
    return image, np.array([(point.x, point.y) for point in points]).reshape(-1, 2)


def _from_atom_labels(X: Instances, i: int) -> Any:
    """Make a molecule of atomic numbers; charges are not known, so nothing is checked or completed."""
    store, graph = X.store, int(X.graph_index[i])
    column = store.columns.get("z")
    if column is None or column.slot != "node" or column.values.ndim != 1 or column.values.dtype.kind not in "iu":
        return None
    numbers = column.of(graph)
    if not ((numbers >= 1) & (numbers <= 118)).all():
        return None
    chem = load("rdkit.Chem", "chem", "Pictures of molecules")
    bond_order = store.columns.get("bond_order")
    orders = np.ones(store.num_edges(graph)) if bond_order is None else bond_order.of(graph).ravel()
    mol = chem.RWMol()
    for number in numbers.tolist():
        atom = chem.Atom(number)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    for source, target, order in zip(*store.edges(graph).tolist(), orders.tolist()):
        if source != target and mol.GetBondBetweenAtoms(source, target) is None:
            mol.AddBond(source, target, getattr(chem.BondType, BOND_TYPES.get(order, "SINGLE")))
    mol = mol.GetMol()
    for bond in mol.GetBonds():
        bond.SetIsAromatic(bond.GetBondType() == chem.BondType.AROMATIC)
    mol.UpdatePropertyCache(strict=False)
    chem.FastFindRings(mol)
    return mol


def _parsed(chem: Any, smiles: str, name: int) -> Any:
    mol = chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(
            f"The SMILES of instance {name} must be readable. Got {smiles!r}; give the molecule as mol=, or "
            "mol=False to draw a plain graph."
        )
    return mol


def _check_matches(mol: Any, X: Instances, i: int, name: int) -> None:
    store, graph = X.store, int(X.graph_index[i])
    nodes = store.num_nodes(graph)
    repair = "give mol= with atoms in the order of the nodes, or mol=False to draw a plain graph"
    if mol.GetNumAtoms() != nodes:
        raise ValueError(
            f"The molecule of instance {name} must have one atom per node ({nodes}). Got {mol.GetNumAtoms()} atoms; "
            f"{repair}."
        )
    pairs = {(min(pair), max(pair)) for pair in store.edges(graph).T.tolist() if pair[0] != pair[1]}
    bonds = {tuple(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))) for bond in mol.GetBonds()}
    if pairs != bonds:
        odd = min(pairs ^ bonds)
        what = "an edge without a bond" if odd in pairs else "a bond without an edge"
        raise ValueError(
            f"The molecule of instance {name} must have one bond per edge ({len(pairs)}). Got {len(bonds)} bonds, and "
            f"{what} between {odd[0]} and {odd[1]}; {repair}."
        )
