"""Causal Screening: edges added one after the other, each time the one with the largest effect on the prediction."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import ndtr

from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.edge_search import EdgeSearch
from skgnnx.blackbox.gathering import Masks
from skgnnx.explainers.base import BaseExplainer, explainer
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.edge_units import EdgeUnits, edge_units
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import Fraction, PositiveInt

STREAM = 1_000_003  # more than there are steps: no two steps of any two seeds share their noise


@explainer
class CausalScreening(BaseExplainer):
    r"""Edges ranked by greedy search: each step adds the one with the largest effect on the prediction.

    From the graph without edges, :math:`S_0 = \emptyset`, each step adds to the edges so far the one with the largest

    .. math:: A(e \mid S) = \log p_c(S \cup \{e\}) - \log p_c(S)

    where nodes stay, edges that are not in :math:`S` are removed (degrees are computed afresh), and :math:`c` is the
    explained class. The edge of step :math:`t = 0, 1, \ldots` of :math:`n` is scored :math:`(n - t) / n`, an edge that
    was never added 0. In a regression the effect is by how much the output comes closer to that of the whole graph,
    :math:`|y(S) - y(G)| - |y(S \cup \{e\}) - y(G)|`. Probabilities within 1e-5 relative are tied, ties go to the edge
    with the smallest (source, target, occurrence).

    Every probability is the model's own on the changed graph; all candidates of a step, of all instances, run as copies
    in as few forward passes as fit the memory. Exact search takes n (n + 1) / 2 evaluations.

    Parameters
    ----------
    candidates : int >= 1, optional
        How many edges are tried in each step, drawn without replacement in proportion to the prior; the authors' code
        has 10. None tries all.
    prior : {"gradient", "random"}, default="gradient"
        What candidates are drawn by: the absolute gradient of the score with respect to the messages over an edge of
        the whole graph, as in the authors' code, which needs a network; or equal chances.
    tie_directions : bool, default=True
        Whether the two directions of an edge of an undirected graph are added together.
    max_size : int >= 1, optional
        Most edges (undirected ones, where directions are tied) that are added; None adds all.
    level : float in [0, 1], optional
        Stop once the probability of the class is at least that; not in a regression.
    max_evals : int >= 1 or None, default=1_000_000
        Most evaluations of the model that an instance may need. None sets no limit.

    Raises
    ------
    ValueError
        If an instance needs more than `max_evals` evaluations, before its first one; the message says how many.
    TypeError
        If candidates are drawn by gradient for a callable or for a model that passes no messages.

    Notes
    -----
    Wang, Wu, Zhang, He & Chua, "Causal Screening to Interpret Graph Neural Networks", 2020. Its code compares few
    candidates by a linearised loss and explains the true class; here every candidate is evaluated, and the predicted
    class is explained.

    ``E.base`` is :math:`\log p_c` of each instance without edges (minus the distance, in a regression). From there on,
    ``E.trajectory`` holds the values after each step, ``E.order`` the ids of the edges as they were added, and
    ``E.n_evals`` the number of evaluations. ``E.effects`` has the effect of each edge, in the order of
    ``E.entries(i)``; the directions of a tied edge have half each, so that ``E.base[i] + E.effects[i].sum()`` is the
    value at the end: that of the whole graph, if all edges were added. Self loops that a layer replaces, and edges that
    are kept only for degrees, are never removed. Other parameters are those of `BaseExplainer`.

    Examples
    --------
    >>> from skgnnx import CausalScreening
    >>> from skgnnx.testing import example
    >>> model, X = example("graph")
    >>> E = CausalScreening(model).explain(X)
    >>> float(round(E.base[0] + E.effects[0].sum() - E.trajectory[0][-1], 9))
    0.0
    """

    candidates: PositiveInt | None = None
    prior: Literal["gradient", "random"] = "gradient"
    tie_directions: bool = True
    max_size: PositiveInt | None = None
    level: Fraction | None = None
    max_evals: PositiveInt | None = 1_000_000

    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="perturbation", black_box=True, flow="forward", mask="discrete")
    removes_edges: ClassVar[bool] = True
    check_params_: ClassVar[dict[str, Any]] = {"max_size": 2}

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        if self.level is not None and gnn.kind_of_output == "regression":
            raise ValueError(
                f"The 'level' parameter of CausalScreening must be None in a regression, which has no probabilities. "
                f"Got {self.level!r}; use max_size."
            )
        reached = batch.edge_reach.cpu().numpy() & gnn.explained_edges(batch)
        units = edge_units(batch, reached, tie_directions=self.tie_directions)
        self._check_evaluations(batch, np.diff(units.ptr))
        prior = None if self.candidates is None else self._prior(gnn, batch, units)
        search = EdgeSearch(gnn, batch, units)
        enough = np.inf if self.level is None else np.log(max(self.level, np.finfo(float).tiny))
        for step in range(self.max_size or len(units.instance)):
            tried = search.open_units(enough)
            if not len(tried):
                break
            if prior is not None:
                tried = self._drawn(batch, units, prior, tried, seed * STREAM + step)
            search.add_best(tried)
        return search.masks()

    def _check_evaluations(self, batch: GraphBatch, num_units: np.ndarray) -> None:
        needed = num_evaluations(num_units, self.candidates, self.max_size)
        if self.verbose:
            print(f"[CausalScreening] at most {needed.sum():,} evaluations for {len(batch)} instances")  # noqa: T201
        if self.max_evals is None or not (needed > self.max_evals).any():
            return
        i = int(np.argmax(needed > self.max_evals))
        raise ValueError(
            f"CausalScreening must not need more than max_evals={self.max_evals:,} evaluations. Got {needed[i]:,} for "
            f"the {num_units[i]:,} edges of instance {batch.positions[i]}; set candidates= or max_size=, or raise "
            "max_evals."
        )

    def _prior(self, gnn: OpenBox, batch: GraphBatch, units: EdgeUnits) -> np.ndarray:
        """Return the weight of each unit in the draws."""
        if self.prior == "random":
            return np.ones(units.ptr[-1])
        if not gnn.trace.names:
            raise TypeError(
                f"CausalScreening(prior='gradient') needs a network with PyG MessagePassing layers. Got {gnn.name}; "
                "set prior='random', or candidates=None."
            )
        gradient = gnn.forward_pass(batch, "edge").gradient(batch.targets).abs().double().cpu().numpy()
        inside = units.of_edge >= 0
        return np.bincount(units.of_edge[inside], weights=gradient[inside], minlength=units.ptr[-1])

    def _drawn(
        self, batch: GraphBatch, units: EdgeUnits, prior: np.ndarray, open_units: np.ndarray, seed: int
    ) -> np.ndarray:
        """Return `candidates` of the open units of each instance, in their order."""
        first = np.zeros(units.ptr[-1], dtype=np.int64)  # an edge whose draw is that of its unit
        inside = np.flatnonzero(units.of_edge >= 0)[::-1]
        first[units.of_edge[inside]] = inside
        draws = -np.log(ndtr(batch.noise(seed, "edge").cpu().numpy()[first[open_units]]))
        # The first arrivals of independent exponentials are a draw without replacement in proportion to their rates;
        # where rates are zero, all others come first.
        instance = units.instance[open_units]
        rate = prior[open_units]
        order = np.lexsort((draws / np.where(rate > 0, rate, 1), rate <= 0, instance))
        start = np.searchsorted(instance, instance)
        return open_units[np.sort(order[np.arange(len(order)) - start < self.candidates])]


def num_evaluations(num_units: np.ndarray, candidates: int | None, max_size: int | None) -> np.ndarray:
    """Return how many graphs are evaluated at most: one without edges, then in each step all that are tried.

    Parameters
    ----------
    num_units : ndarray of int
        How many edges each instance has, undirected ones where directions are tied.
    candidates, max_size : int or None
        Parameters of `CausalScreening`.
    """
    steps = num_units if max_size is None else np.minimum(num_units, max_size)
    tried = num_units if candidates is None else np.minimum(num_units, candidates)
    full = np.minimum(steps, num_units - tried + 1)  # steps in which there are as many to try
    last = steps - full
    return 1 + full * tried + last * (tried - 1) - last * (last - 1) // 2
