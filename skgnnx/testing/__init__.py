"""Checks that any explainer can be run through, and small models and graphs to run them on."""

from skgnnx.testing.array_adapter import ArrayAdapter
from skgnnx.testing.checks import check_explainer, checks
from skgnnx.testing.examples import example
from skgnnx.testing.registry import all_explainers, explainers_table
from skgnnx.testing.strategies import gnns, graphs, instances

__all__ = [
    "ArrayAdapter",
    "all_explainers",
    "check_explainer",
    "checks",
    "example",
    "explainers_table",
    "gnns",
    "graphs",
    "instances",
]
