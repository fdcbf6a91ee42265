"""GNN-LRP: relevance of walks, one node per layer, and of edges, nodes and subgraphs as sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks, layer_masks, layer_nodes
from skgnnx.blackbox.relevance import (
    CutPass,
    NodeGates,
    RelevancePass,
    Relevances,
    Rules,
    Surrogate,
    Transitions,
    WalkSearch,
    all_walks,
    check_chain,
    check_gap,
    check_walks,
    num_walks,
    other_ways,
    shares,
    sum_of_walks,
    transitions,
)
from skgnnx.explainers.backward import BackwardExplainer
from skgnnx.explainers.base import explainer
from skgnnx.graphs import Explanations
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.explanation_array import result_method
from skgnnx.graphs.subsets import node_subsets
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import NonNegativeFloat, PositiveFloat, PositiveInt

LOST = 1e-3  # of what flows through the layers; walks that are missing miss by far more than rounding


@dataclass
class Passed:
    """One forward pass of the layers as a whole, and what walks are made of if they are wanted."""

    whole: RelevancePass
    node_gates: NodeGates | None
    cut: CutPass | None
    steps: list[Transitions]


@explainer
class GNNLRP(BackwardExplainer):
    r"""Relevance of walks: how much of the score goes along one node per layer.

    With the layer-wise rules of `LRP`, what reaches the features of node :math:`n_0` from the score along
    :math:`n_L, \dots, n_1` is

    .. math:: R(n_0 \dots n_L) = x_{n_0}^\top \, T_1[n_0 \to n_1] \cdots T_L[n_{L-1} \to n_L] \, g_{n_L}

    with the gradient :math:`g` of the score by what comes out of the last layer, and the walks sum to the score without
    the share of biases. Sums over all walks through an edge or a node come from two backward passes, exactly and
    without listing walks.

    Parameters
    ----------
    mask : {"edge", "node"}, default="edge"
        What is scored: an edge by the relevance of all walks that take it, counted as often as they do; a node by that
        of all walks that start there, which sums to the score without biases. A row of ``E.layer_masks`` (calls,
        entries of the edges) belongs to one propagate call; a row of ``E.layer_nodes`` (layers + 1, nodes) holds the
        relevance of walks that pass a node where they go into a layer or come out of the last.
    rule, gamma, epsilon, head
        As for `LRP`.
    walks : None, "all" or int >= 1, default=None
        Walks to list: none, all of them, or the largest, found by best-first search without looking at most others.
        ``E.walks`` are arrays (walks, layers + 1) of node ids, the first node first, ``E.walk_scores`` their relevance,
        the largest first. Walks of relevance 0 along a step that carries nothing are left out.
    rank_by : {"abs", "positive"}, default="abs"
        What is large: relevance of either sign, or positive relevance.
    max_walks : int >= 1, default=100000
        Most walks of an instance that ``walks="all"`` lists.
    max_expansions : int >= 1, default=100000
        Steps of a search before it is stopped; ``E.walks_exact`` says if the walks are those of largest relevance then,
        and ``E.walks_bound`` how large one that is not listed may be.

    Raises
    ------
    TypeError
        As `LRP`; and for nodes and walks if layers are no chain (residual connections, jumping knowledge) or nodes act
        on each other besides messages (graph normalisation).
    ValueError
        If an instance has more than `max_walks` walks.

    Notes
    -----
    Schnake et al., "Higher-Order Explanations of Graph Neural Networks via Relevant Walks", TPAMI 2022; subgraphs:
    Xiong et al., "Efficient Computation of Higher-Order Subgraph Attribution via Message Passing", ICML 2022; largest
    walks: Xiong et al., "Relevant Walk Search for Explaining Graph Neural Networks", ICML 2023. A step of a layer that
    looks farther than one hop (SGConv, TAGConv) jumps. Each instance has the extras of `LRP`.
    Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import GNNLRP
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = GNNLRP(model, walks=3).explain(X)
    >>> E.walks[0].shape
    (3, 3)
    >>> whole = E.subgraph_relevance([range(instance.graph.num_nodes) for instance in X])
    >>> bool(abs(whole[0] + E.bias_share[0] - E.score[0]) < 1e-5)
    True
    """

    mask: Literal["edge", "node"] = "edge"
    rule: Literal["gamma", "zero", "epsilon", "zplus"] = "gamma"
    gamma: NonNegativeFloat | list | tuple | np.ndarray | None = None
    epsilon: PositiveFloat = 0.01
    head: Literal["zero", "same"] = "zero"
    walks: PositiveInt | Literal["all"] | None = None
    rank_by: Literal["abs", "positive"] = "abs"
    max_walks: PositiveInt = 100_000
    max_expansions: PositiveInt = 100_000

    masks_: ClassVar[tuple[str, ...]] = ("edge", "node")
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="decomposition", remainder="bias_share")

    def _surrogate(self, gnn: OpenBox) -> Surrogate:
        return Surrogate(gnn, Rules(self.rule, self.gamma, self.epsilon, self.head))

    def _forward(self, gnn: OpenBox, batch: GraphBatch) -> Passed:
        surrogate = self._surrogate(gnn)
        cut = None if self.walks is None else CutPass(surrogate, batch)
        if cut is not None:
            check_chain(cut)
        elif self.mask == "node":
            check_walks(surrogate)
        gates = NodeGates() if self.mask == "node" else None
        whole = surrogate.pass_forward(batch, gated=self.mask == "edge", boundaries=gates)
        return Passed(whole, gates, cut, [] if cut is None else transitions(cut))

    def _backward(self, gnn: OpenBox, batch: GraphBatch, passed: Passed) -> Masks:
        found = passed.whole.relevances(batch.targets)
        check_gap(found, batch)
        extras = shares(found, passed.whole) | self._listed(gnn, batch, passed, found)
        node_gates = [] if passed.node_gates is None else passed.node_gates.gates
        edges, nodes = passed.whole.marginals(batch.targets, node_gates)
        if edges is None or self.mask == "node":
            boundaries = torch.stack(nodes)
            return Masks(node=boundaries[0], extras=extras | {"layer_nodes": layer_nodes(batch, boundaries)})
        edges = edges[:, : batch.num_edges]
        return Masks(edge=edges.sum(0), extras=extras | {"layer_masks": layer_masks(batch, edges)})

    def _listed(self, gnn: OpenBox, batch: GraphBatch, passed: Passed, found: Relevances) -> dict[str, list[Any]]:
        """Return the walks of each instance, as extras."""
        if passed.cut is None:
            return {}
        last = passed.cut.behind(batch.targets)
        missing = found.score - found.bias - batch.sum_nodes(sum_of_walks(passed.steps, last))
        if bool((missing.abs() > LOST * found.size.clamp(min=1)).any()):
            check_walks(self._surrogate(gnn))  # which knows where
            raise other_ways("between its layers")
        ends = (last != 0).flatten(1).any(1).cpu().numpy()
        parts = [np.arange(a, b)[ends[a:b]] for a, b in pairwise(batch.graphs.node_ptr)]
        if self.walks == "all":
            self._check_number(batch, num_walks(passed.steps, ends))
            walks = [all_walks(passed.steps, last, part).ranked(self.rank_by) for part in parts]
        else:
            search = WalkSearch(passed.steps)
            k = self.walks or 0
            listed = (search.largest(last, part, k, self.rank_by, self.max_expansions) for part in parts)
            walks = [each.ranked(self.rank_by, k) for each in listed]
        return {
            "walks": [batch.node_id[each.nodes] for each in walks],
            "walk_scores": [each.scores for each in walks],
            "walks_exact": [each.is_exact for each in walks],
            "walks_bound": [each.bound for each in walks],
        }

    def _check_number(self, batch: GraphBatch, number: np.ndarray) -> None:
        for i, (a, b) in enumerate(pairwise(batch.graphs.node_ptr)):
            total = int(number[a:b].sum())
            if total > self.max_walks:
                raise ValueError(
                    f"#walks = {total} exceeds max_walks = {self.max_walks} at index {batch.positions[i]}; ask for the "
                    "largest ones with walks=100, or raise max_walks."
                )

    def subgraph_relevance(self, X: Any, nodes: Sequence[Any], alpha: float = 0.0) -> list[np.ndarray]:
        r"""Return the relevance of subsets of nodes: of all walks that stay inside, in polynomial time.

        With `alpha`, walks that leave a subset count, too, where they touch it: each times :math:`\alpha` to the number
        of nodes outside that they visit.

        Parameters
        ----------
        X : Instances, or anything `check_instances` accepts
            The predictions.
        nodes : sequence of length n
            For each instance the ids of some nodes, a bool array (num_nodes,), or bools (K, num_nodes) for K subsets.
        alpha : float in [0, 1], default=0.0
            0 as Xiong et al. define subgraph relevance; they recommend small values.

        Returns
        -------
        list of ndarray of shape (K,)
            One relevance for each subset of an instance.

        Raises
        ------
        ValueError, TypeError
            If `nodes` or `alpha` are not usable, or as `explain` with walks.
        """
        X = self._checked(X)
        if not 0 <= alpha <= 1:
            raise ValueError(f"'alpha' must be a float in the range [0, 1]. Got {alpha!r} instead.")
        subsets = node_subsets(X, nodes)
        found: list[np.ndarray] = [np.zeros(0)] * len(X)
        with self._box().open(X) as gnn:
            surrogate = self._surrogate(gnn)
            check_walks(surrogate)
            for batch in gnn.batches(batch_size=self.batch_size, random_state=self._root_seed()):
                cut = CutPass(surrogate, batch)
                inside = _in_union(batch, [subsets[position] for position in batch.positions])
                relevance = _of_subsets(cut, torch.from_numpy(inside).to(batch.device), alpha)
                for i, position in enumerate(batch.positions):
                    found[position] = relevance[: len(subsets[position]), i]
        return found


def _in_union(batch: GraphBatch, subsets: list[np.ndarray]) -> np.ndarray:
    """Return for the k-th subset of every instance which nodes of the union are in it (K, N)."""
    inside = np.zeros((max(map(len, subsets)), batch.num_nodes), dtype=bool)
    for (a, b), subset in zip(pairwise(batch.graphs.node_ptr), subsets, strict=True):
        inside[: len(subset), a:b] = subset[:, batch.node_id[a:b]]
    return inside


def _of_subsets(cut: CutPass, inside: torch.Tensor, alpha: float) -> np.ndarray:
    inside = inside.to(cut.states[0].dtype)
    relevance = cut.of_subsets(cut.batch.targets, inside + alpha * (1 - inside))
    if alpha > 0:
        relevance = relevance - cut.of_subsets(cut.batch.targets, alpha * (1 - inside))
    return cut.batch.sum_nodes(relevance.T).T.cpu().numpy()


@result_method("GNNLRP", "subgraph_relevance")
def subgraph_relevance(E: Explanations, nodes: Sequence[Any], alpha: float = 0.0) -> list[np.ndarray]:
    """Return the relevance of subsets of nodes under the model and the rules of explanations.

    Parameters
    ----------
    E : Explanations
        Of `GNNLRP`, with their model.
    nodes, alpha
        As for `GNNLRP.subgraph_relevance`.

    Returns
    -------
    list of ndarray of shape (K,)
    """
    if E.model is None:
        raise ValueError("E.subgraph_relevance needs the model that was explained. Got none; use E.with_model(model).")
    rules = {name: E.params[name] for name in ("rule", "gamma", "epsilon", "head", "batch_size")}
    return GNNLRP(E.model, **rules, **E.box).subgraph_relevance(E.instances.with_target(E.targets), nodes, alpha)
