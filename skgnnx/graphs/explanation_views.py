"""What can be made of explanations: selections, other kinds, parts of graphs, tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skgnnx.graphs.conversion import convert, symmetrised
from skgnnx.graphs.cutting import keep_above, keep_share, keep_top
from skgnnx.graphs.explanation_array import ExplanationArray
from skgnnx.graphs.frame import as_frame
from skgnnx.graphs.parts import cut_out

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch_geometric.data import Data

    from skgnnx.graphs.explanations import Explanations


class ExplanationViews(ExplanationArray):
    """Everything that is made of scores without asking the model; see `Explanations`."""

    def top_k(self, k: int) -> Explanations:
        """Return 0/1 scores that keep the `k` best units of every instance.

        An undirected edge is one unit, kept or left whole; ties go to the lower ids. Every mask is cut on its own.

        Parameters
        ----------
        k : int
            At least 0; an instance with fewer units keeps them all.

        Returns
        -------
        Explanations
        """
        return keep_top(self, k)

    def at_sparsity(self, sparsity: float) -> Explanations:
        """Return 0/1 scores that leave out a share of the units of every instance.

        Of n units, max(1, floor((1 - sparsity) n + 0.5)) stay, none when `sparsity` is 1.

        Parameters
        ----------
        sparsity : float
            In [0, 1]; recorded as the `sparsity` of the result.

        Returns
        -------
        Explanations
        """
        return keep_share(self, sparsity)

    def threshold(self, threshold: float) -> Explanations:
        """Return 0/1 scores that keep the units with a score above `threshold`.

        Parameters
        ----------
        threshold : float
            A unit whose score equals it is left out.

        Returns
        -------
        Explanations
        """
        return keep_above(self, threshold)

    def to_kind(self, kind: str, how: str = "max") -> Explanations:
        """Return scores of nodes made of edge scores, or the reverse.

        A mask of that kind that the method gave itself is taken as it is. Otherwise a node gets the maximum, mean or
        sum over its edges, an edge that over its two ends, and a node scored per feature that over its features.

        Parameters
        ----------
        kind : {"node", "edge"}
            What shall be scored.
        how : {"max", "mean", "sum"}, default="max"
            How several scores become one.

        Returns
        -------
        Explanations
            With this mask only.

        Raises
        ------
        ValueError
            If there are only feature scores: they belong to no node.
        """
        return convert(self, kind, how)

    def undirected(self, how: str = "mean") -> Explanations:
        """Return edge scores in which both directions of an undirected edge have one score.

        Parameters
        ----------
        how : {"max", "mean", "sum"}, default="mean"
            How the directions that have a score become one. Directed graphs stay as they are.

        Returns
        -------
        Explanations
        """
        return symmetrised(self, how)

    def subgraphs(self, sparsity: float = 0.7) -> list[Data | None]:
        """Return the selected part of every graph.

        Edge scores keep the selected edges and their ends, node scores the selected nodes and the edges among them; the
        explained node or link is always kept. Hard scores are taken as they are.

        Parameters
        ----------
        sparsity : float, default=0.7
            Share of the units left out, in [0, 1]; the default is that of the explainers.

        Returns
        -------
        list of Data
            With ``orig_node_id``, ``orig_edge_id``, ``target``, ``element`` (the explained node or link, numbered
            within the part) and the user's ``node_ids`` where given. None for an instance that failed.
        """
        return cut_out(self, sparsity)

    def to_frame(self, k: int | None = None, by: str | None = None) -> DataFrame:
        """Return a long table, one row per unit, the best first.

        Parameters
        ----------
        k : int, default=None
            Rows per instance; None means all units.
        by : {None, "edge", "node"}, default=None
            What a row is; None means the kind. "node" leaves the explained node out.

        Returns
        -------
        DataFrame
            Columns instance, target, rank (from 1), value, and what the row is about: edge, source_node,
            target_node; or node; or feature; or node and feature. An undirected edge is one row, numbered as its
            direction from the lower to the higher node. Failed instances have no rows.

        Raises
        ------
        ImportError
            If pandas is missing.
        """
        return as_frame(self, k, by)
