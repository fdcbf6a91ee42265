"""What scikit-learn users rely on: behaviour as tagged, clones, parameters, pickles, and any gradient mode."""

from __future__ import annotations

import functools
import pickle
from itertools import chain
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torch_geometric.data import Batch

from skgnnx.graphs import Explanations, Instances
from skgnnx.testing.drawing import Seeded, draw_instances
from skgnnx.testing.examples import example
from skgnnx.testing.running import (
    Factory,
    build,
    error_of,
    explained,
    masks_of,
    name_of,
    require,
    require_same,
    tags_of,
    with_mask,
)

SEEDS = (0, 1, 2)
MODELS = 10  # at most that are asked whether random_state matters


def check_tasks(factory: Factory) -> None:
    """Every level of instances that the tags claim is explained, with every kind of mask; no other level is.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    for level in ("graph", "node", "edge"):
        model, X = example(level)
        explainer = build(factory, model)
        if level not in explainer.taxonomy.tasks:
            refused = error_of(functools.partial(_use, explainer, X)) is not None
            require(refused, explainer, f"{level} instances are not among its tasks and must be refused.")
            continue
        for kind in masks_of(explainer):
            E = explained(with_mask(build(factory, model), kind), X)
            require(bool(E.ok.all()), explainer, f"{level} instances must be explained with mask={kind!r}.")


def check_black_box(factory: Factory) -> None:
    """Methods tagged black box explain a plain callable as they explain the network; others refuse it by TypeError.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    tags = tags_of(factory)
    if "graph" not in tags.tasks:
        return
    model, X = example("graph")

    def predict(graphs: list[Any]) -> np.ndarray:
        batch = Batch.from_data_list(graphs)
        with torch.no_grad():
            return model(batch.x, batch.edge_index, batch.batch).numpy()

    explainer = build(factory, predict)
    error = error_of(lambda: _use(explainer, X))
    if not tags.black_box:
        require(isinstance(error, TypeError), explainer, "A callable as model must raise TypeError.", repr(error))
        return
    require(error is None, explainer, "A method tagged black box must explain a callable.", repr(error))
    law = "A callable must be explained as the network behind it."
    require_same(explainer, explained(build(factory, model), X), explained(explainer, X), law)


def check_randomness(factory: Factory) -> None:
    """Methods tagged deterministic ignore `random_state`; others do not.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    tags = tags_of(factory)
    level = tags.tasks[0]
    model, X = example(level)
    explainer = build(factory, model)
    if tags.deterministic:
        runs = _with_seeds(factory, model, X)
        for other in runs[1:]:
            require_same(explainer, runs[0], other, "Tagged deterministic, random_state must not matter.", tolerance=0)
        return
    # Hard masks may well be the same for some models, so that others are asked, too.
    drawn = (draw_instances(Seeded(seed), level) for seed in range(MODELS))
    differ = any(_differ(_with_seeds(factory, *case)) for case in chain([(model, X)], drawn))
    require(differ, explainer, "Not tagged deterministic, so random_state must matter.")


def _with_seeds(factory: Factory, model: nn.Module, X: Instances) -> list[Explanations]:
    return [explained(build(factory, model, random_state=seed), X) for seed in SEEDS]


def _differ(runs: list[Explanations]) -> bool:
    return any(not np.array_equal(runs[0][i], other[i]) for other in runs[1:] for i in range(len(other)))


def check_learning(factory: Factory) -> None:
    """Methods tagged learned need `fit`; others explain without it, and fitting changes nothing.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    model, X = example(tags_of(factory).tasks[0])
    explainer = build(factory, model)
    if explainer.taxonomy.learned:
        error = error_of(lambda: explainer.explain(X))
        law = "A method that learns must raise NotFittedError before fit."
        require(isinstance(error, NotFittedError), explainer, law, repr(error))
        return
    before = explained(explainer, X)
    require(explainer.fit(X) is explainer, explainer, "fit must return self.")
    require_same(explainer, before, explained(explainer, X), "Nothing is learned, so fit must not matter.", tolerance=0)
    require_same(explainer, before, explainer.transform(X), "transform must give what explain gives.", tolerance=0)
    require_same(explainer, before, explainer.fit_transform(X), "fit_transform must give the same.", tolerance=0)


def check_clone_and_pickle(factory: Factory) -> None:
    """Clones share the model and keep every parameter, and a pickled explainer explains the same.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    model, X = example(tags_of(factory).tasks[0])
    explainer = build(factory, model, sparsity=0.25)
    copied = clone(explainer)
    require(copied is not explainer and copied.model is model, explainer, "Clones must share the model.")
    params, other = explainer.get_params(), copied.get_params()
    require(params == other, explainer, "Clones must keep every parameter.", f"{params} and {other}")
    require("sparsity" in params and params["sparsity"] == 0.25, explainer, "set_params must be seen in get_params.")
    require(not any("__" in name for name in params), explainer, "Parameters of the model must be hidden.")
    require(name_of(explainer) in repr(explainer), explainer, "repr must name the class.", repr(explainer))
    E = explained(explainer, X)
    restored = pickle.loads(pickle.dumps(explainer))
    require_same(explainer, E, explained(restored, X), "A pickled explainer must explain the same.", tolerance=0)
    require_same(explainer, E, pickle.loads(pickle.dumps(E)), "A pickle must hold the same scores.", tolerance=0)


def check_callers(factory: Factory) -> None:
    """Callers in no-grad or inference mode get the same scores.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    model, X = example(tags_of(factory).tasks[0])
    explainer = build(factory, model)
    E = explained(explainer, X)
    with torch.no_grad():
        inside = explained(explainer, X)
    require_same(explainer, E, inside, "torch.no_grad around the call must not matter.", tolerance=0)
    with torch.inference_mode():
        inside = explained(explainer, X)
    require_same(explainer, E, inside, "torch.inference_mode around the call must not matter.", tolerance=0)


def _use(explainer: Any, X: Instances) -> None:
    if explainer.taxonomy.learned:
        explainer.fit(X)
    explainer.explain(X)


def check_trained_models(factory: Factory) -> None:
    """A fitted estimator with ``module_`` is explained as the network inside.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    model, X = example(tags_of(factory).tasks[0])

    class Fitted:
        def __init__(self, module: nn.Module) -> None:
            self.module_ = module

    explainer = build(factory, Fitted(model))
    law = "A fitted estimator must be explained as its network."
    require_same(explainer, explained(build(factory, model), X), explained(explainer, X), law, tolerance=0)
