"""Law 2: batching changes nothing."""

from __future__ import annotations

import numpy as np
from torch import nn

from skgnnx.graphs import Instances
from skgnnx.testing.examples import example
from skgnnx.testing.running import KINDS, Factory, build, build_for, explained, for_all, require_same, tags_of


def check_batch_size(factory: Factory) -> None:
    """Results with ``batch_size=1`` equal those with many instances per batch.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances, size: int, kind: int) -> None:
        together = explained(build_for(factory, model, kind), X)
        explainer = build_for(factory, model, kind, batch_size=size)
        law = f"batch_size={size} must give what batch_size='auto' gives."
        require_same(explainer, explained(explainer, X), together, law)

    for_all(factory, body, [1, 1, 2], KINDS)


def check_order(factory: Factory) -> None:
    """Instances in another order get the same results, in that order.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances, seed: int, kind: int) -> None:
        order = np.random.RandomState(seed).permutation(len(X))
        explainer = build_for(factory, model, kind)
        straight, mixed = explained(explainer, X), explained(explainer, X[order], learn_from=X)
        require_same(explainer, straight[order], mixed, "The order of instances must not matter.")

    for_all(factory, body, range(100), KINDS)


def check_subsets(factory: Factory) -> None:
    """An instance gets the same result whichever other instances are present, also when it is there twice.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances, seed: int, kind: int) -> None:
        rows = np.random.RandomState(seed).randint(len(X), size=1 + seed % len(X))
        explainer = build_for(factory, model, kind)
        whole, some = explained(explainer, X), explained(explainer, X[rows], learn_from=X)
        require_same(explainer, whole[rows], some, "Other instances must not matter.")

    for_all(factory, body, range(100), KINDS)


def check_containers(factory: Factory) -> None:
    """A list of graphs, a list of instances, and `Instances` give the same results.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    for level in tags_of(factory).tasks:
        model, X = example(level)
        explainer = build(factory, model)
        E = explained(explainer, X)
        law = "A list must give what Instances give."
        require_same(explainer, E, explained(explainer, list(X), learn_from=X), law)
        if level == "graph":
            graphs = [instance.graph for instance in X]
            require_same(explainer, E, explained(explainer, graphs, learn_from=X), law)


def check_n_jobs(factory: Factory) -> None:
    """Two worker processes give what one gives; slow, because the workers have to start.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    for level in tags_of(factory).tasks:
        model, X = example(level)
        one, two = build(factory, model, n_jobs=1), build(factory, model, n_jobs=2)
        E = explained(two, X)
        require_same(two, explained(one, X), E, "n_jobs=2 must give what n_jobs=1 gives.")
        if E.model is not model:
            raise AssertionError("Explanations from worker processes must hold the caller's model. Got another one.")
