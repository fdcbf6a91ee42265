"""Law 6, second part: shapes and types of scores, and hard masks that count units."""

from __future__ import annotations

from collections import Counter

import numpy as np
from torch import nn

from skgnnx.graphs import Explanations, Instances
from skgnnx.testing.running import Factory, build, explained, for_all, masks_of, require, tags_of, with_mask


def check_shapes(factory: Factory) -> None:
    """Every kind of mask has the length of the user's graph, is float32 and finite, and soft masks lie in [0, 1].

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    soft = tags_of(factory).mask != "none"

    def body(model: nn.Module, X: Instances, choice: int) -> None:
        explainer = build(factory, model)
        kinds = masks_of(explainer)
        kind = kinds[choice % len(kinds)]
        E = explained(with_mask(explainer, kind), X)
        require(len(E) == len(X) and E.kind == kind, explainer, f"'{kind}' scores were asked for.", repr(E))
        require(bool(E.ok.all()) and E.errors == [None] * len(X), explainer, "Nothing failed.", repr(E.errors))
        for i in range(len(X)):
            values, shape = E[i], _shape(X, i, kind)
            require(values.shape == shape, explainer, f"'{kind}' scores must have shape {shape}.", f"{values.shape}")
            require(values.dtype == np.float32, explainer, "Scores must be float32.", f"{values.dtype}")
            require(bool(np.isfinite(values).all()), explainer, "Scores must be finite.")
            require(not values[~E.explained[i]].any(), explainer, "What is not explained must be scored 0.")
            if soft:
                require(bool(((values >= 0) & (values <= 1)).all()), explainer, "Masks must lie in [0, 1].")

    for_all(factory, body, range(4))


def _shape(X: Instances, i: int, kind: str) -> tuple[int, ...]:
    if kind == "node_feature":
        return (X.num_units("node", i), X.num_units("feature", i))
    return (X.num_units(kind, i),)


def check_hard_masks(factory: Factory) -> None:
    """``top_k`` and ``at_sparsity`` give 0/1 masks of the right number of units, and larger ones hold smaller ones.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances, k: int, sparsity: float) -> None:
        explainer = build(factory, model)
        E = explained(explainer, X)
        top, more, share = E.top_k(k), E.top_k(k + 1), E.at_sparsity(sparsity)
        for i in range(len(X)):
            n = _num_units(E, i, None)
            for hard in (top, share):
                require(bool(np.isin(hard[i], (0, 1)).all()), explainer, "Hard masks must be 0 or 1.")
            law = f"top_k({k}) must keep min({k}, {n}) units."
            require(_num_units(top, i, 1) == min(k, n), explainer, law, f"{_num_units(top, i, 1)}")
            kept = 0 if sparsity == 1 else min(n, max(1, int(np.floor((1 - sparsity) * n + 0.5))))
            law = f"at_sparsity({sparsity}) must keep {kept} of {n} units."
            require(_num_units(share, i, 1) == kept, explainer, law, f"{_num_units(share, i, 1)}")
            require(bool((top[i] <= more[i]).all()), explainer, "top_k(k + 1) must hold what top_k(k) holds.")
            _check_best(explainer, E[i], top[i], E, i)

    for_all(factory, body, range(7), [0.0, 0.3, 0.5, 0.7, 1.0])


def _num_units(E: Explanations, i: int, value: int | None) -> int:
    """Count units, or those with a given value: both directions of an undirected edge are one, loops are none."""
    if E.kind == "feature":
        return len(E[i]) if value is None else int((E[i] == value).sum())
    ids, values = E.entries(i)
    if E.kind != "edge":
        return values.size if value is None else int((values == value).sum())
    X = E.instances
    ends = X.store.edges(X.graph_index[i])
    pairs = Counter(map(tuple, ends.T.tolist()))
    undirected = all(count == pairs[t, s] for (s, t), count in pairs.items() if s != t)
    chosen = [tuple(ends[:, e].tolist()) for e, v in zip(ids, values) if value is None or v == value]
    counts = Counter(pair for pair in chosen if pair[0] != pair[1])
    if not undirected:
        return sum(counts.values())
    # an outermost edge of a computation graph may be there in one direction only
    return sum(max(counts[s, t], counts[t, s]) for s, t in {tuple(sorted(pair)) for pair in counts})


def _check_best(explainer: object, scores: np.ndarray, hard: np.ndarray, E: Explanations, i: int) -> None:
    """Nothing that was left out may be clearly better than everything that was kept, directions averaged."""
    if E.kind == "edge":
        mean = E.undirected("mean")
        scores = mean[i]
        ends = E.instances.store.edges(E.instances.graph_index[i])
        counted = E.explained[i] & (ends[0] != ends[1])
    else:
        counted = E.explained[i]
    kept, left = scores[(hard == 1) & counted], scores[(hard == 0) & counted]
    if kept.size and left.size:
        slack = 1e-4 * max(1.0, float(np.abs(scores).max()))
        require(bool(kept.min() >= left.max() - slack), explainer, "top_k must keep the best units.")
