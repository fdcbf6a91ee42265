"""Our masks as the network's own type has them, which `Explanations`, in single precision, do not keep."""

from __future__ import annotations

import numpy as np
import torch

from side_by_side.tasks import Task
from skgnnx.blackbox import OpenBox
from skgnnx.blackbox.gathering import Masks
from skgnnx.explainers.base import BaseExplainer
from skgnnx.graphs.batch import GraphBatch

Scored = dict[str, tuple[np.ndarray | None, np.ndarray]]
Whole = dict[str, np.ndarray]


def scored_entries(explainer: BaseExplainer, task: Task) -> list[Scored]:
    """Return, per instance and kind of mask, the ids of the entries in the computation graph and their values."""
    found: list[Scored] = [{} for _ in range(len(task))]
    explain_batch = explainer._explain_batch

    def recorded(gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        masks = explain_batch(gnn, batch, seed)
        for kind in ("edge", "node", "feature", "node_feature"):
            values = getattr(masks, kind)
            if values is not None:
                ids = _ids(batch, kind)
                for b, part in enumerate(batch.split(values, kind)):
                    found[batch.positions[b]][kind] = (None if ids is None else ids[b], part)
        return masks

    explainer._explain_batch = recorded
    explainer.explain(task.instances())
    return found


def _ids(batch: GraphBatch, kind: str) -> list[np.ndarray] | None:
    if kind == "feature":
        return None
    ids, slot = (batch.edge_id, "edge") if kind == "edge" else (batch.node_id, "node")
    return batch.split(torch.from_numpy(ids), slot)


def spread_out(scored: Scored, task: Task, i: int, elsewhere: float) -> Whole:
    """Return masks over the whole graph of an instance, with the same value everywhere else."""
    graph = task.graph(i)
    shapes = {"edge": (graph.num_edges,), "node": (graph.num_nodes,), "node_feature": tuple(graph.x.shape)}
    found = {}
    for kind, (ids, values) in scored.items():
        if ids is not None:
            found[kind] = np.full(shapes[kind], elsewhere, dtype=values.dtype)
            found[kind][ids] = values
        else:
            found[kind] = values
    return found


def largest_difference(ours: list[Whole], theirs: list[Whole]) -> float:
    """Return the largest difference of any entry of any mask, as a share of the largest entry."""
    pairs = [(a[kind], b[kind]) for a, b in zip(ours, theirs, strict=True) for kind in b]
    if any(not np.isfinite(a).all() for pair in pairs for a in pair):
        return float("nan")
    largest = max(float(np.abs(b).max(initial=0.0)) for _, b in pairs)
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs) / (largest or 1.0)
