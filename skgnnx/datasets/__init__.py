"""Data sets with known reasons: generators that plant them, and small real sets that come with the package.

Each returns a Bunch with ``data`` (Instances that hold their truth), ``target`` (labels), the truth as arrays, and a
description, ``DESCR``.
"""

from skgnnx.datasets.graph_motifs import make_ba_2motifs
from skgnnx.datasets.molecules import load_benzene, load_mutag
from skgnnx.datasets.node_motifs import make_ba_shapes
from skgnnx.datasets.star_graphs import make_star_graphs
from skgnnx.datasets.tree_motifs import make_tree_cycles

__all__ = ["load_benzene", "load_mutag", "make_ba_2motifs", "make_ba_shapes", "make_star_graphs", "make_tree_cycles"]
