"""Small sets of real molecules that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from itertools import combinations
from typing import Any

import numpy as np
import torch
from sklearn.utils import Bunch
from torch_geometric.data import Data

from skgnnx.datasets.arguments import check_arguments
from skgnnx.graphs import Instances

ATOMIC_NUMBER = {"B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "P": 15, "S": 16, "Cl": 17, "Br": 35, "I": 53}
BOND_ORDER = {"single": 1.0, "double": 2.0, "triple": 3.0, "aromatic": 1.5}


def load_benzene(*, return_X_y: bool = False) -> Bunch | tuple[Instances, np.ndarray]:
    """Load 1,500 molecules, half of which contain a benzene ring.

    The label is 1 if there is a ring, and the true explanations are the rings: every union of the rings of a molecule
    is a valid one. A fixed subset of the 12,000 molecules of [1]_, with their split.

    Parameters
    ----------
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch
        ``data`` : Instances, with truth of kinds "node" and "edge", a list of alternatives for each molecule with a
        ring, None for the others; ids are ZINC identifiers.
        ``target`` : labels of shape (1500,).
        ``graphs`` : list of Data with one-hot ``x`` and ``edge_attr``, atomic numbers ``z`` and ``bond_order``.
        ``node_truth``, ``edge_truth`` : per molecule a bool array, true in any ring. ``feature_truth`` is None.
        ``rings`` : per molecule an int array of shape (n_rings, 6), the atoms of each ring.
        ``train_index`` (1,200), ``test_index`` (300) : the split of [1]_.
        ``evaluation_index`` : ``{"all_motif": molecules with a ring}``.
        ``atoms``, ``bonds`` : names of the columns of ``x`` and ``edge_attr``.
        ``upstream_row`` : rows of the molecules in the full set.
        ``DESCR`` : description and notice.

    References
    ----------
    .. [1] Sanchez-Lengeling et al., Evaluating attribution for graph neural networks, NeurIPS 2020.

    Examples
    --------
    >>> from skgnnx.datasets import load_benzene
    >>> benzene = load_benzene()
    >>> benzene.data.shape, int(benzene.target.sum())
    ((1500,), 750)
    """
    table = _read_table("benzene")
    graphs = _as_graphs(table)
    rings = np.split(table["match_nodes"].astype(np.int64), table["match_ptr"][1:-1].astype(np.int64))
    truth = [_ring_truth(graph, found) for graph, found in zip(graphs, rings)]
    alternatives: dict[str, Sequence[Any]] = {
        "node": [_unions(nodes) for nodes, _ in truth],
        "edge": [_unions(edges) for _, edges in truth],
    }
    data = Instances.from_graphs(graphs, truth=alternatives, ids=table["name"].astype(str).tolist())
    target = table["y"].astype(np.int64)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        target_names=np.array(["no benzene ring", "benzene ring"]),
        graphs=graphs,
        node_truth=[nodes.any(axis=0) for nodes, _ in truth],
        edge_truth=[edges.any(axis=0) for _, edges in truth],
        feature_truth=None,
        rings=rings,
        train_index=np.flatnonzero(table["is_test"] == 0),
        test_index=np.flatnonzero(table["is_test"]),
        evaluation_index={"all_motif": np.flatnonzero(target)},
        atoms=_names(table["atoms"]),
        bonds=_names(table["bonds"]),
        upstream_row=table["upstream_row"].astype(np.int64),
        DESCR=_read_description("benzene"),
    )


def load_mutag(*, truth: str | None = None, return_X_y: bool = False) -> Bunch | tuple[Instances, np.ndarray]:
    """Load MUTAG: 188 nitroaromatic compounds, 125 of them mutagenic.

    There is no usable ground truth: nitro groups, often taken for it, are in every one of the molecules.

    Parameters
    ----------
    truth : {None, "no2", "nh2"}, default=None
        What to mark as the truth all the same: the N-O bonds of nitro groups, or the C-N bonds of terminal amines
        (in 15 molecules). Molecules without such a group have no truth.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    Bunch
        ``data`` : Instances; ``target`` : labels of shape (188,), 1 for mutagenic.
        ``graphs`` : list of Data with one-hot ``x`` and ``edge_attr``, atomic numbers ``z`` and ``bond_order``.
        ``node_truth``, ``edge_truth`` : per molecule a bool array, or None if `truth` is None.
        ``feature_truth`` is None.
        ``evaluation_index`` : ``{"all_motif": molecules with truth}``.
        ``atoms``, ``bonds`` : names of the columns of ``x`` and ``edge_attr``. ``DESCR`` : description.

    Raises
    ------
    ValueError
        If `truth` is something else.

    References
    ----------
    Debnath et al., J. Med. Chem. 34 (1991), 786-797.

    Examples
    --------
    >>> from skgnnx.datasets import load_mutag
    >>> X, y = load_mutag(return_X_y=True)
    >>> X.shape, int(y.sum())
    ((188,), 125)
    """
    check_arguments("load_mutag", truth=(truth, (None, "no2", "nh2")))
    table = _read_table("mutag")
    graphs = _as_graphs(table)
    edge_truth = node_truth = None
    masks: dict[str, Sequence[Any]] | None = None
    if truth is not None:
        edge_truth = _split_rows(table[f"edge_gt_{truth}"] == 1, table["edge_ptr"])
        node_truth = [_touched(graph, mask) for graph, mask in zip(graphs, edge_truth)]
        masks = {"node": list(map(_none_if_empty, node_truth)), "edge": list(map(_none_if_empty, edge_truth))}
    data = Instances.from_graphs(graphs, truth=masks)
    target = table["y"].astype(np.int64)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        target_names=np.array(["not mutagenic", "mutagenic"]),
        graphs=graphs,
        node_truth=node_truth,
        edge_truth=edge_truth,
        feature_truth=None,
        evaluation_index={"all_motif": np.flatnonzero([mask.any() for mask in edge_truth or []])},
        atoms=_names(table["atoms"]),
        bonds=_names(table["bonds"]),
        DESCR=_read_description("mutag"),
    )


def _read_table(name: str) -> dict[str, np.ndarray]:
    with (files("skgnnx.datasets") / "data" / f"{name}.npz").open("rb") as file:
        table = np.load(file, allow_pickle=False)
        return {key: table[key] for key in table.files}


def _read_description(name: str) -> str:
    return (files("skgnnx.datasets") / "data" / f"{name}.md").read_text(encoding="utf-8")


def _names(codes: np.ndarray) -> list[str]:
    return codes.astype(str).tolist()


def _split_rows(values: np.ndarray, ptr: np.ndarray) -> list[np.ndarray]:
    return np.split(values, ptr[1:-1].astype(np.int64))


def _as_graphs(table: dict[str, np.ndarray]) -> list[Data]:
    atoms, bonds = _names(table["atoms"]), _names(table["bonds"])
    node_label, edge_label = table["node_label"], table["edge_label"]
    columns: dict[str, Any] = {
        "x": (np.eye(len(atoms), dtype=np.float32)[node_label], table["node_ptr"]),
        "z": (np.array([ATOMIC_NUMBER[atom] for atom in atoms])[node_label], table["node_ptr"]),
        "edge_index": (table["edge_index"].T.astype(np.int64), table["edge_ptr"]),
        "edge_attr": (np.eye(len(bonds), dtype=np.float32)[edge_label], table["edge_ptr"]),
        "bond_order": (np.array([BOND_ORDER[bond] for bond in bonds], dtype=np.float32)[edge_label], table["edge_ptr"]),
        "y": (table["y"].astype(np.int64), np.arange(len(table["y"]) + 1)),
    }
    parts = {key: _split_rows(values, ptr) for key, (values, ptr) in columns.items()}
    parts["edge_index"] = [np.ascontiguousarray(pairs.T) for pairs in parts["edge_index"]]
    rows = zip(*parts.values())
    return [Data(**{key: torch.from_numpy(value.copy()) for key, value in zip(parts, row)}) for row in rows]


def _ring_truth(graph: Data, rings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the atoms and the bonds of each ring, as bool arrays with one row per ring."""
    atoms = np.zeros((len(rings), graph.num_nodes), dtype=bool)
    np.put_along_axis(atoms, rings, True, axis=1)
    source, target = graph.edge_index.numpy()
    return atoms, atoms[:, source] & atoms[:, target]


def _unions(masks: np.ndarray) -> list[np.ndarray] | None:
    """Return every union of rows, fewest first; None if there are no rows."""
    chosen = [rows for size in range(1, len(masks) + 1) for rows in combinations(range(len(masks)), size)]
    return [np.logical_or.reduce(masks[list(rows)], axis=0) for rows in chosen] or None


def _touched(graph: Data, edge_mask: np.ndarray) -> np.ndarray:
    nodes = np.zeros(graph.num_nodes, dtype=bool)
    nodes[graph.edge_index.numpy()[:, edge_mask].ravel()] = True
    return nodes


def _none_if_empty(mask: np.ndarray) -> np.ndarray | None:
    return mask if mask.any() else None
