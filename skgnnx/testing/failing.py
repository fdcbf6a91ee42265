"""Law 5: fail clearly or not at all."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from skgnnx.graphs import Instances
from skgnnx.testing.examples import example
from skgnnx.testing.networks import Network
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

BAD = 2
NOT_A_VALUE = object()
FREE_PARAMETERS = ("model",)


class BreaksAt(nn.Module):
    """A network that gives NaN, or raises, for one of its inputs.

    Parameters
    ----------
    network : nn.Module
        What it is otherwise.
    size : int
        Number of nodes of the graph that breaks it.
    how : {"nan", "raise"}
        What it does then.
    """

    def __init__(self, network: nn.Module, size: int, how: str) -> None:
        super().__init__()
        self.network, self.size, self.how = network, size, how

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Return the network's output, spoilt where a graph has the fatal size."""
        output = self.network(x, edge_index, batch)
        bad = torch.bincount(batch, minlength=len(output)) == self.size
        if self.how == "raise" and bool(bad.any()):
            raise IndexError("a category that was not in the training data")
        return torch.where(bad.unsqueeze(1), torch.nan, output)


def check_one_bad_instance(factory: Factory) -> None:
    """With ``on_error="nan"`` one bad instance becomes NaN with its reason, and the others are explained as ever.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    if "graph" not in tags_of(factory).tasks:
        return
    network, X = example("graph")
    good = np.flatnonzero(np.arange(len(X)) != BAD)
    for how in ("nan", "raise"):
        model = BreaksAt(network, X.num_units("node", BAD), how)
        explainer = build(factory, model, on_error="nan")
        law = f"One instance for which the model gives {how} must not lose the others."
        error = error_of(lambda: _use(explainer, X, X[good]))  # noqa: B023 - called at once
        require(error is None, explainer, law, repr(error))
        E = explained(explainer, X, learn_from=X[good])
        require(np.array_equal(E.ok, np.arange(len(X)) != BAD), explainer, law, f"ok {E.ok.tolist()}")
        require(bool(E.errors[BAD]), explainer, "A failed instance must say why.")
        require(bool(np.isnan(E[BAD]).all()), explainer, "A failed instance must be NaN.")
        require_same(explainer, explained(explainer, X[good]), E[good], law)
        strict = build(factory, model, on_error="raise")
        _must_raise(strict, X, (ValueError, RuntimeError, IndexError), "on_error='raise'")


def check_loops_are_named(factory: Factory) -> None:
    """Self loops that the layers replace by their own are scored 0, not explained, and named in one warning.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    explainer = build(factory, Network("gcn", "graph"))
    if "edge" not in masks_of(explainer) or "graph" not in explainer.taxonomy.tasks:
        return
    edge_index = torch.tensor([[0, 1, 1], [1, 1, 0]])
    X = Instances.from_graphs([Data(x=torch.eye(3)[:2], edge_index=edge_index)] * 2, target=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _use(with_mask(explainer, "edge"), X, X)
    named = [warning for warning in caught if "elf loop" in str(warning.message)]
    require(
        len(named) == 1, explainer, "Self loops that cannot be explained must be named once.", f"{len(named)} warnings"
    )
    E = explained(explainer, X)
    done = [E.explained[i].tolist() for i in range(len(X))]
    require(done == [[True, False, True]] * 2, explainer, "Only self loops are not explained.", f"{done}")


def check_bad_parameters(factory: Factory) -> None:
    """A value that makes no sense is refused when it is used, in a sentence that names the parameter and the class.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    model, X = example(tags_of(factory).tasks[0])
    explainer = build(factory, model)
    for name in explainer.get_params(deep=False):
        if name not in FREE_PARAMETERS:
            broken = build(factory, model).set_params(**{name: NOT_A_VALUE})
            message = _must_raise(broken, X, (ValueError, TypeError), f"{name}={NOT_A_VALUE!r}")
            require(repr(name) in message, explainer, f"A bad {name!r} must be named.", message)
            require(name_of(explainer) in message, explainer, "The message must name the class.", message)


def check_bad_input(factory: Factory) -> None:
    """What is no set of instances is refused: one graph, nothing, other features than in fit, no model.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    level = tags_of(factory).tasks[0]
    model, X = example(level)
    explainer = build(factory, model)
    _must_raise(explainer, X[0].graph, (TypeError,), "one Data", needs="Instances.from_")
    _must_raise(explainer, [], (ValueError,), "an empty list", needs="0 sample")
    _must_raise(explainer, "graphs", (TypeError,), "a string")
    _must_raise(build(factory, None), X, (TypeError,), "model=None", needs="model")
    _must_raise(build(factory, "network"), X, (TypeError,), "a string as model", needs="model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what a method has to say about a model is not looked at
        explainer.fit(X)
    explained(explainer, X)
    wider = X.map_graphs(lambda data: _with_wider_x(data))
    _must_raise(explainer, wider, (ValueError,), "another number of features", needs="features", fit=False)
    outside = X.with_target(99)
    _must_raise(explainer, outside, (ValueError,), "target=99", needs="target", fit=False)


def _with_wider_x(data: Any) -> Any:
    wider = copy.copy(data)
    wider.x = torch.cat([data.x, data.x[:, :1]], dim=1)
    return wider


def _must_raise(
    explainer: Any, X: Any, errors: tuple[type[Exception], ...], what: str, needs: str = "", fit: bool = True
) -> str:
    """Return the message of the error, or raise AssertionError if there is none of these."""
    error = error_of(lambda: _use(explainer, X, X if fit else None))
    law = f"{what} must raise {' or '.join(cls.__name__ for cls in errors)}."
    require(isinstance(error, errors), explainer, law, f"{type(error).__name__}: {error}")
    require(needs in str(error), explainer, f"The error about {what} must name {needs!r}.", str(error))
    return str(error)


def _use(explainer: Any, X: Any, learn_from: Any) -> None:
    if learn_from is not None and explainer.taxonomy.learned:
        explainer.fit(learn_from)
    explainer.explain(X)
