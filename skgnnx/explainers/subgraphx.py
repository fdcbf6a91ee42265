"""SubgraphX: a connected set of nodes of large Shapley value, found by Monte Carlo tree search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy.special import ndtr

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.coalitions import CoalitionValues
from skgnnx.blackbox.gathering import Masks
from skgnnx.blackbox.shapley import Arrivals, SetValues
from skgnnx.blackbox.tree_search import ConnectedSearch, FoundSets, SearchSettings
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.connected_sets import Connections
from skgnnx.graphs.ranking import n_kept
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import NonNegativeFloat, PositiveInt

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"rollouts": 20, "min_atoms": 5, "expand_atoms": 12, "c_puct": 10.0, "n_samples": 16, "hops": 4},
    "paper": {"rollouts": 20, "min_atoms": 5, "expand_atoms": 12, "c_puct": 5.0, "n_samples": 100, "hops": 4},
}
MOST_SUBSETS = 100


@explainer
class SubgraphX(BaseExplainer):
    r"""The connected set of nodes whose members together contribute most to the prediction.

    A set :math:`S` is scored by its Shapley value as one player beside the single nodes within `hops` edges of it,

    .. math:: \sum_{P} \frac{|P|! \, (p - |P|)!}{(p + 1)!} \bigl( f(P \cup S) - f(P) \bigr),

    where :math:`P` runs over the coalitions of the :math:`p` other players, :math:`f` is the probability of the target
    (its value in a regression) when only a coalition takes part, and nodes farther away always do. Sets are searched
    from the whole computation graph downwards: a child of a set lacks one node and what that cuts off. Each rollout
    goes down by

    .. math:: \arg\max_{a} \; \frac{W_a}{N_a} + c \, R_a \, \frac{\sqrt{\max(1, \sum_b N_b)}}{1 + N_a}

    with visits :math:`N`, sums :math:`W` of the values of leaves found behind a child, and the child's own Shapley
    value :math:`R`, to a set of at most `min_atoms` nodes. The result is the set of largest value among all that were
    looked at and have at most `max_nodes` nodes; of several, the smallest.

    The explained node or both ends of the explained link are always inside, and what is not connected to them is cut
    off, so that every component of the result has one. For graphs the largest component stays; where the whole graph is
    not connected, its components are the children of the root.

    Parameters
    ----------
    mask : {"node", "edge"}, default="node"
        The primary mask: nodes of the set, or edges between them; 0 or 1, taken by metrics as they are. Both are there.
    removal : {"zero", "split"}, default="zero"
        What becomes of nodes in no coalition: features of zero while edges stay, or no edges (degrees computed afresh)
        while features stay. Graphs without floating-point features need "split".
    max_nodes : int >= 1, optional
        Most nodes of the result; at least 2 for links. None takes what `sparsity` leaves of the nodes of the
        computation graph, but at least one besides the explained node or the ends of the link.
    preset : {"default", "paper"}, default="default"
        Values of the parameters below that are None. "paper" are those of the authors' code and paper.
    rollouts : int >= 1, optional
        How often the search goes down the tree; 20.
    min_atoms : int >= 1, optional
        Size at which it stops, or `max_nodes` where that is smaller; 5.
    expand_atoms : int >= 1, optional
        Most children of a set; 12.
    order : {"low2high", "high2low"}, default="low2high"
        Whether nodes with the fewest neighbours in the set are removed first, or those with the most.
    c_puct : float >= 0, optional
        Weight of exploration, :math:`c`; 10 ("default") or 5 ("paper").
    n_samples : int >= 1, optional
        Draws of permutations for a Shapley value, the same for all sets of an instance; 16 ("default") or 100
        ("paper"). Where there are no more coalitions than that, all of them are taken and the value is exact.
    hops : int >= 1, optional
        How far other players are from a set; 4. The paper takes the number of layers.
    max_evals : int >= 1 or None, default=30000
        Most coalitions of an instance that the model is asked about, each counted once. The search stops before the
        children of a set would need more. Coming down once takes up to ``2 * n_samples * expand_atoms`` of them for
        each node that is removed: for graphs of hundreds of nodes raise it, or lower these.

    Raises
    ------
    TypeError
        If ``removal="zero"`` and node features are not floating-point.
    ValueError
        If the children of the root alone need more than `max_evals` coalitions, or `max_nodes` is 1 for a link; the
        message names the instance and says how many, before the model is asked.

    Notes
    -----
    Yuan, Yu, Wang, Li & Ji, "On Explainability of Graph Neural Networks via Subgraph Explorations", ICML 2021.
    ``E.shapley`` is the value of each result, ``E.subsets`` holds the node ids of the best 100 sets of allowed size
    that were looked at, ``E.subset_scores`` their values. ``E.evaluations`` counts coalitions,
    ``E.evaluations_bound`` says how many there could have been, and ``E.exhausted`` is True where `max_evals` stopped
    the search; if no set of allowed size was found by then, nodes are removed in `order` without asking. Coalitions are
    remembered for all sets, rollouts and targets. Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import SubgraphX
    >>> from skgnnx.testing import example
    >>> model, X = example("node")
    >>> E = SubgraphX(model, max_nodes=3, rollouts=5).explain(X)
    >>> [int(E[i].sum()) for i in range(5)]
    [3, 3, 3, 3, 3]
    >>> bool(E[0][X[0].element] == 1)
    True
    """

    mask: Literal["node", "edge"] = "node"
    removal: Literal["zero", "split"] = "zero"
    max_nodes: PositiveInt | None = None
    preset: Literal["default", "paper"] = "default"
    rollouts: PositiveInt | None = None
    min_atoms: PositiveInt | None = None
    expand_atoms: PositiveInt | None = None
    order: Literal["low2high", "high2low"] = "low2high"
    c_puct: NonNegativeFloat | None = None
    n_samples: PositiveInt | None = None
    hops: PositiveInt | None = None
    max_evals: PositiveInt | None = 30_000

    masks_: ClassVar[tuple[str, ...]] = ("node",)  # edges are not searched: they are those between chosen nodes
    taxonomy: ClassVar[Taxonomy] = Taxonomy(
        family="perturbation", black_box=True, flow="forward", mask="discrete", deterministic=False
    )
    chooses: ClassVar[bool] = True
    check_params_: ClassVar[dict[str, Any]] = {"rollouts": 2, "n_samples": 1, "max_nodes": 3}

    @property
    def removes_edges(self) -> bool:  # type: ignore[override]
        """Whether degrees are computed without some edges."""
        return self.removal == "split"

    def setting(self, name: str) -> Any:
        """Return a parameter, or what the preset says where it is None."""
        value = getattr(self, name)
        return PRESETS[self.preset][name] if value is None else value

    def coalition_values(self, gnn: OpenBox, batch: GraphBatch) -> CoalitionValues:
        """Return what the model says of coalitions of the nodes of a batch."""
        return CoalitionValues(gnn, batch, self.removal)

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        return self._explain_each(gnn, batch, seed, [batch])[0]

    def _explain_each(self, gnn: OpenBox, batch: GraphBatch, seed: int, asked: Sequence[GraphBatch]) -> list[Masks]:
        values = self.coalition_values(gnn, batch)
        masks = []
        for one in asked:
            searches = [search.run() for search in self._searches(one, values, seed)]
            masks.append(self._masks(one, values.side_by_side(searches)))
        return masks

    def _searches(self, batch: GraphBatch, values: CoalitionValues, seed: int) -> list[ConnectedSearch]:
        """Return one search for each instance, after checking that each may begin."""
        draws = self.setting("n_samples")
        moments = [ndtr(batch.noise(seed, of, (draws + 1) // 2).cpu().numpy()) for of in ("node", "instance")]
        graphs, rows = batch.graphs, np.atleast_2d(batch.rows.cpu().numpy())
        searches = []
        for i, coalitions in enumerate(values.of):
            nodes, edges = (slice(ptr[i], ptr[i + 1]) for ptr in (graphs.node_ptr, graphs.edge_ptr))
            ends = graphs.ends[:, edges][:, graphs.edge_reach[edges]]
            connections, reached = Connections(ends, coalitions.num_nodes), graphs.node_reach[nodes]
            arrivals = Arrivals(moments[0][nodes], moments[1][i], draws)
            target = int(batch.targets[i])  # type: ignore[index]
            scores = SetValues(coalitions, target, connections, reached, arrivals, self.setting("hops"))
            fixed = np.unique(rows[:, i] - nodes.start) if batch.X.level != "graph" else np.zeros(0, dtype=np.int64)
            settings = self._search_settings(int(reached.sum()), len(fixed), int(batch.positions[i]))
            search = ConnectedSearch(scores, fixed, settings)
            search.check(int(batch.positions[i]))
            searches.append(search)
        return searches

    def _search_settings(self, num_nodes: int, num_fixed: int, index: int) -> SearchSettings:
        most = self.max_nodes or max(int(n_kept(num_nodes, self.sparsity)), num_fixed + 1)
        if most < num_fixed:
            raise ValueError(
                f"'max_nodes' must be at least {num_fixed} for a link, whose ends stay, at index {index}. Got {most}."
            )
        names = ("rollouts", "min_atoms", "expand_atoms", "c_puct")
        given = {name: self.setting(name) for name in names}
        return SearchSettings(max_nodes=most, max_evals=self.max_evals, few_first=self.order == "low2high", **given)

    def _masks(self, batch: GraphBatch, found: Sequence[FoundSets]) -> Masks:
        chosen = np.concatenate([result.ranking[0].inside for result in found])
        node = torch.from_numpy(chosen).to(batch.device)
        source, target = batch.edge_index
        ids = np.split(batch.node_id, batch.graphs.node_ptr[1:-1])
        best = [result.ranking[:MOST_SUBSETS] for result in found]
        extras: dict[str, list[Any]] = {
            "shapley": [states[0].score for states in best],
            "subsets": [[own[s.inside] for s in states] for own, states in zip(ids, best, strict=True)],
            "subset_scores": [np.array([s.score for s in states]) for states in best],
            "evaluations": [result.evaluations for result in found],
            "evaluations_bound": [result.bound for result in found],
            "exhausted": [result.exhausted for result in found],
        }
        return Masks(node=node.float(), edge=(node[source] & node[target]).float(), extras=extras)
