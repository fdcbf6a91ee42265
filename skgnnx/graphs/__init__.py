"""The data that flows: instances, computation graphs, batches and explanations. No model in here."""

from skgnnx.graphs.digest import instances_digest, model_digest
from skgnnx.graphs.entries import Entries
from skgnnx.graphs.explanations import Explanations
from skgnnx.graphs.instances import Instance, Instances, check_instances
from skgnnx.graphs.ranking import n_kept, select_top
from skgnnx.graphs.selection import Units, units
from skgnnx.graphs.store import Column, GraphStore

__all__ = [
    "Column",
    "Entries",
    "Explanations",
    "GraphStore",
    "Instance",
    "Instances",
    "Units",
    "check_instances",
    "instances_digest",
    "model_digest",
    "n_kept",
    "select_top",
    "units",
]
