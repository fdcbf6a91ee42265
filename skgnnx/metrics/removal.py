"""What a model says of graphs with a part taken out: the ground that fidelity-like metrics stand on.

One model is opened once, every batch of computation graphs is cut out once, and all parts to be taken out of it run one
after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgnnx.blackbox import BlackBox, OpenBox
from skgnnx.blackbox.resolving import resolve_model
from skgnnx.graphs import Entries, Explanations
from skgnnx.graphs.batch import GraphBatch
from skgnnx.metrics.outputs import Outputs

REMOVALS = {
    "edge": ("drop", "weight"),
    "node": ("zero", "induced"),
    "feature": ("zero",),
    "node_feature": ("zero",),
}
SHORTENING = ("drop", "induced")
OUT_OF_REACH, NOT_LISTED = -1, -2


def outputs_of_parts(
    E: Explanations,
    weights: Sequence[np.ndarray],
    *,
    unlisted: Sequence[float] | None = None,
    removal: str | None = None,
    model: Any = None,
) -> Outputs:
    """Return what the model says of every instance, whole and with parts taken out.

    What cannot be among the entries of an explanation stays as it is: loops, edges that are there only for the degrees
    of the outermost nodes, and everything out of reach.

    Parameters
    ----------
    E : Explanations
        The instances, and the entries of its kind that weights are about.
    weights : sequence of ndarray, each shaped like ``E.stored().values``
        How much of every entry is there, from 0 (removed) to 1 (as it is). "drop" and "induced" keep what is above 0.
    unlisted : sequence of float, default=None
        For each of the weights, how much is there of what reaches a prediction and is not among the entries, because
        its neighbours were sampled (``max_edges``); None means all of it.
    removal : str, default=None
        How entries are taken out; None means the first of these.

        - edges: "drop" shortens the edge list, so that degrees are computed afresh; "weight" multiplies messages, while
          normalisation and the layers' own self loops stay those of the whole graph.
        - nodes: "zero" multiplies their features, their edges stay; "induced" takes nodes out with their edges, except
          for the explained node or the ends of the explained link. A graph that loses every node keeps them without
          edges and with zero features, because a model needs a node to answer.
        - features, features of nodes: "zero" multiplies them.
    model : Module, default=None
        None means the model that was explained.

    Returns
    -------
    Outputs

    Raises
    ------
    ValueError
        If there is no model, or `removal` does not fit the kind of scores.
    TypeError
        If the model has no messages to weigh, or features are not floating-point.
    """
    remove = _Removal(E, checked_removal(E.kind, removal))
    ok = np.flatnonzero(E.ok)
    if not len(ok):
        return Outputs.undefined(len(E), len(weights))
    explained = E if len(ok) == len(E) else E[ok]
    model = _model_of(E, model)
    settings = {key: E.box[key] for key in ("output", "threshold", "forward") if key in E.box}
    box = BlackBox(model, outputs_only=True, **settings)
    with box.open(explained.instances.with_target(explained.targets)) as gnn, torch.no_grad():
        full = gnn.reference.detach().cpu()
        parts = [torch.empty_like(full) for _ in weights]
        for batch in gnn.batches(removal=remove.how in SHORTENING):
            place = remove.places(batch, ok)
            for part, weight, rest in zip(parts, weights, [1.0] * len(parts) if unlisted is None else unlisted):
                part[torch.from_numpy(batch.positions)] = remove.output(gnn, batch, place, weight, rest, full)
        kind = gnn.kind_of_output
    return Outputs(full, parts, kind, box.threshold, explained.targets).spread(ok, len(E))


def checked_removal(kind: str, removal: str | None) -> str:
    """Return how entries of a kind are taken out, after checking that it can be done so."""
    if removal is None:
        return REMOVALS[kind][0]
    if removal not in REMOVALS[kind]:
        raise ValueError(f"The 'removal' parameter must be one of {REMOVALS[kind]} for {kind} scores. Got {removal!r}.")
    return removal


class _Removal:
    """Takes entries of one kind out of batches."""

    def __init__(self, E: Explanations, how: str) -> None:
        self.how = how
        self.kind = E.kind
        self.entries: Entries = E.stored()
        if self.entries.ptr is not None:
            self.width = int(self.entries.ids.max(initial=0)) + 1
            key = self.entries.rows * self.width + self.entries.ids
            self.order = np.argsort(key, kind="stable")
            self.key = key[self.order]

    def places(self, batch: GraphBatch, rows: np.ndarray) -> np.ndarray:
        """Return for every edge, node or instance of a batch its row among the entries, or why it has none."""
        instance = rows[batch.positions]
        if self.entries.ptr is None:
            return instance
        of_edges = self.kind == "edge"
        owner = instance[(batch.edge_instance if of_edges else batch.node_instance).cpu().numpy()]
        ids = batch.edge_id if of_edges else batch.node_id
        wanted = owner * self.width + ids
        reach = (batch.edge_reach & (batch.edge_index[0] != batch.edge_index[1])) if of_edges else batch.node_reach
        missing = np.where(reach.cpu().numpy(), NOT_LISTED, OUT_OF_REACH)
        if not len(self.key):
            return missing
        place = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
        known = (self.key[place] == wanted) & (ids < self.width)
        return np.where(known, self.order[place], missing)

    def output(
        self, gnn: OpenBox, batch: GraphBatch, place: np.ndarray, weight: np.ndarray, unlisted: float, full: Tensor
    ) -> Tensor:
        """Return the raw output (B, C) of a batch with a part taken out; exactly the whole one's where nothing is."""
        weight = weight[np.maximum(place, 0)] if len(weight) else np.ones(len(place))
        weight[place == OUT_OF_REACH] = 1
        weight[place == NOT_LISTED] = unlisted
        whole = full[torch.from_numpy(batch.positions)]
        changed = self._changed(batch, weight)
        if not changed.any():
            return whole
        run: Callable[[OpenBox, GraphBatch, np.ndarray], Tensor] = getattr(self, f"_{self.how}")
        return torch.where(torch.from_numpy(changed)[:, None], run(gnn, batch, weight).cpu(), whole)

    def _changed(self, batch: GraphBatch, weight: np.ndarray) -> np.ndarray:
        touched = weight != 1
        touched = touched if touched.ndim == 1 else touched.any(axis=1)
        if self.kind == "feature":
            return touched
        owner = batch.edge_instance if self.kind == "edge" else batch.node_instance
        return np.bincount(owner.cpu().numpy()[touched], minlength=len(batch)) > 0

    def _drop(self, gnn: OpenBox, batch: GraphBatch, weight: np.ndarray) -> Tensor:
        return gnn.forward(batch.keep_edges(weight > 0))

    def _weight(self, gnn: OpenBox, batch: GraphBatch, weight: np.ndarray) -> Tensor:
        return gnn.forward(batch, edge_mask=torch.from_numpy(weight).to(batch.device, gnn.dtype))

    def _zero(self, gnn: OpenBox, batch: GraphBatch, weight: np.ndarray) -> Tensor:
        if self.kind == "node" and (batch.x is None or not batch.x.is_floating_point()):
            got = "none" if batch.x is None else f"{batch.x.dtype}"
            raise TypeError(f"removal='zero' needs floating-point node features. Got {got}; use removal='induced'.")
        x = gnn.float_features(batch)
        factor = torch.from_numpy(weight).to(x.device, x.dtype)
        factor = factor.index_select(0, batch.node_instance) if self.kind == "feature" else factor
        return gnn.forward(batch, x=x * (factor[:, None] if factor.dim() == 1 else factor))

    def _induced(self, gnn: OpenBox, batch: GraphBatch, weight: np.ndarray) -> Tensor:
        keep = weight > 0
        owner = batch.node_instance.cpu().numpy()
        emptied = np.bincount(owner[keep], minlength=len(batch)) == 0
        if batch.X.level != "graph" or not emptied.any():
            return gnn.forward(batch.keep_nodes(keep))
        smaller = batch.keep_nodes(keep | emptied[owner])
        smaller = smaller.keep_edges(~emptied[smaller.edge_instance.cpu().numpy()])
        x = smaller.x
        if x is not None and x.is_floating_point():
            lost = torch.from_numpy(emptied).to(x.device)[smaller.node_instance]
            x = x.masked_fill(lost.view(-1, *(1,) * (x.dim() - 1)), 0)
        return gnn.forward(smaller, x=x)


def _model_of(E: Explanations, model: Any) -> Any:
    """Return the model to ask, after a warning if it is not the one that was explained."""
    given = E.model if model is None else model
    if given is None:
        raise ValueError(
            "Metrics that remove something must have the model. Got explanations without one (a file or a pickle holds "
            "none); pass model=, or use E.with_model(model)."
        )
    E.with_model(resolve_model(given, outputs_only=True))
    return given
