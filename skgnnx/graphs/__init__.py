"""The data that flows: instances, computation graphs, batches and explanations. No model in here."""

from skgnnx.graphs.checking import check_instances
from skgnnx.graphs.columns import Column
from skgnnx.graphs.digest import instances_digest, model_digest
from skgnnx.graphs.entries import Entries
from skgnnx.graphs.explanations import Explanations
from skgnnx.graphs.instances import Instance, Instances
from skgnnx.graphs.ranking import n_kept, select_top
from skgnnx.graphs.selection import Units, units
from skgnnx.graphs.smiles import graphs_from_smiles
from skgnnx.graphs.store import GraphStore

__all__ = [
    "Column",
    "Entries",
    "Explanations",
    "GraphStore",
    "Instance",
    "Instances",
    "Units",
    "check_instances",
    "graphs_from_smiles",
    "instances_digest",
    "model_digest",
    "n_kept",
    "select_top",
    "units",
]
