"""Molecules from SMILES strings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch_geometric.data import Data
from torch_geometric.utils import from_smiles


def graphs_from_smiles(
    smiles: Iterable[str], featurizer: Callable[[str], Data] = from_smiles, on_error: str = "raise"
) -> list[Data]:
    """Make one graph per SMILES string.

    Parameters
    ----------
    smiles : iterable of str
        The molecules.
    featurizer : callable, default=torch_geometric.utils.from_smiles
        From one string to a `Data`; should be the one that the model was trained with.
    on_error : {"raise", "skip"}, default="raise"
        What a string that RDKit cannot read does: stop, or be left out with one warning that names the rows.

    Returns
    -------
    list of Data
        Each keeps its ``smiles`` and its ``row`` in the input.

    Raises
    ------
    ImportError
        If RDKit is missing.
    ValueError
        If a string is no molecule; the message names its row.

    Examples
    --------
    >>> from skgnnx import graphs_from_smiles
    >>> [graph.num_nodes for graph in graphs_from_smiles(["CCO", "c1ccccc1"])]
    [3, 6]
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"The 'on_error' parameter must be 'raise' or 'skip'. Got {on_error!r} instead.")
    graphs: list[Data] = []
    skipped: list[int] = []
    for row, text in enumerate(smiles):
        if not is_molecule(text):
            if on_error == "raise":
                raise ValueError(
                    f"Every SMILES string must be a molecule. Got {text!r} in row {row}; repair it, or skip with "
                    "on_error='skip'."
                )
            skipped.append(row)
            continue
        graph = featurizer(text)
        graph.smiles, graph.row = text, row
        graphs.append(graph)
    if skipped:
        warnings.warn(f"{len(skipped)} strings are no molecules and were left out: rows {skipped}.", stacklevel=2)
    return graphs


def is_molecule(text: Any) -> bool:
    """Return True if RDKit reads a string as a molecule with an atom."""
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise ImportError("Reading SMILES needs RDKit. Install it with: pip install 'skgnnx[chem]'") from error
    if not isinstance(text, str):
        return False
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(text)
    return molecule is not None and molecule.GetNumAtoms() > 0
