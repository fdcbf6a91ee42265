"""The data that flows: instances, computation graphs, batches and explanations. No model in here."""

from skgnnx.graphs.instances import Instance, Instances, check_instances
from skgnnx.graphs.store import Column, GraphStore

__all__ = ["Column", "GraphStore", "Instance", "Instances", "check_instances"]
