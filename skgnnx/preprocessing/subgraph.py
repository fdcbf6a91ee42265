"""From explanations to graphs: the selected part of every graph, as instances that can be explained again."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch_geometric.data import Data

from skgnnx.graphs import Explanations, GraphStore, Instances
from skgnnx.preprocessing.steps import RaggedStep, step
from skgnnx.validation import Fraction, NonNegativeInt


@step
class Subgraph(RaggedStep):
    """Turns explanations into the parts of the graphs that they select.

    The result is `Instances`, one for every explanation, with the explained class as target and the ids kept, so that
    a model can predict the parts and a next explainer can explain them. Edge scores keep the selected edges and their
    ends, node scores the selected nodes and the edges among them; the explained node or link always stays. An instance
    that failed keeps its whole graph, and one warning counts them.

    Parameters
    ----------
    k : int >= 0, optional
        Units that stay, as in `TopK`.
    sparsity : float in [0, 1], optional
        Share that is left out, as in `AtSparsity`. If both are None, hard explanations are taken as they are, and soft
        ones are cut at the sparsity recorded in them.
    keep_nodes : bool, default=False
        Whether all nodes stay and only edges are taken out, for explanations of edges.

    Raises
    ------
    ValueError
        If both `k` and `sparsity` are given, or the scores are of features, which select no part of a graph.

    See Also
    --------
    skgnnx.Explanations.subgraphs : The same as a list of Data.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.preprocessing import Subgraph
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> parts = make_pipeline(SensitivityAnalysis(model), Subgraph(k=1)).transform(X)
    >>> parts.shape, parts[0].graph.num_nodes
    ((5,), 2)
    """

    k: NonNegativeInt | None = None
    sparsity: Fraction | None = None
    keep_nodes: bool = False

    def _transform(self, E: Explanations) -> Instances:
        graphs = self._cut(E).subgraphs(E.sparsity)
        failed = sum(graph is None for graph in graphs)
        if failed:
            warnings.warn(
                f"{failed} of {len(E)} instances failed and keep their whole graph; see E.errors.",
                UserWarning,
                stacklevel=2,
            )
        X = E.instances
        parts = [graph if graph is not None else _whole(X, i) for i, graph in enumerate(graphs)]
        if self.keep_nodes:
            parts = [_with_all_nodes(X, i, part) for i, part in enumerate(parts)]
        return _as_instances(E, parts)

    def _cut(self, E: Explanations) -> Explanations:
        if self.k is not None and self.sparsity is not None:
            raise ValueError("Only one of 'k' and 'sparsity' of Subgraph must be given. Got both.")
        if self.keep_nodes and E.kind != "edge":
            raise ValueError(
                f"keep_nodes=True of Subgraph must get edge scores. Got {E.kind} scores; use E.to_kind('edge')."
            )
        if E.kind == "node_feature":
            E = E.to_kind("node")
        if self.k is not None:
            return E.top_k(self.k)
        return E if self.sparsity is None else E.at_sparsity(self.sparsity)


def _whole(X: Instances, i: int) -> Data:
    """Return the graph of an instance in the form that `Explanations.subgraphs` gives."""
    data = X.store.graph(X.graph_index[i])
    data.orig_node_id = torch.arange(data.num_nodes)
    data.orig_edge_id = torch.arange(data.num_edges)
    if len(X.element[i]):
        data.element = torch.from_numpy(X.element[i].copy())
    return data


def _with_all_nodes(X: Instances, i: int, part: Data) -> Data:
    whole = _whole(X, i)
    kept = part.orig_edge_id
    for key in [key for key, _ in whole if key != "edge_index" and whole.is_edge_attr(key)]:
        whole[key] = whole[key][kept]
    whole.edge_index = whole.edge_index[:, kept]
    return whole


def _as_instances(E: Explanations, parts: list[Data]) -> Instances:
    X = E.instances
    element = np.stack([part.element.numpy() for part in parts]) if X.level != "graph" else X.element
    node_ids = None
    if X.node_ids is not None:
        node_ids = [np.asarray(X.node_ids[g])[part.orig_node_id] for g, part in zip(X.graph_index, parts)]
    for part in parts:
        for key in ("element", "target", "node_ids"):
            part.pop(key, None)
    store = GraphStore.from_graphs(parts)
    # links that were explained without their own edge have already lost it
    return Instances(store, np.arange(len(parts)), element, E.targets.copy(), ids=X.ids, node_ids=node_ids)
