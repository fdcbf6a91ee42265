"""Steps after an explainer in a pipeline: select, scale, cut out, or make a table."""

from skgnnx.preprocessing.normalize import Normalize
from skgnnx.preprocessing.selection import AtSparsity, Threshold, TopK
from skgnnx.preprocessing.subgraph import Subgraph
from skgnnx.preprocessing.tables import FeatureMask, MaskStats

__all__ = ["TopK", "AtSparsity", "Threshold", "Normalize", "Subgraph", "MaskStats", "FeatureMask"]
