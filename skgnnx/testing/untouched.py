"""Law 1: nothing is touched."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from skgnnx.graphs import Instances
from skgnnx.testing.examples import example
from skgnnx.testing.registry import all_explainers
from skgnnx.testing.running import (
    KINDS,
    Factory,
    RefusedError,
    attempted,
    build,
    build_for,
    explained,
    for_all,
    name_of,
    require,
    require_same,
    tags_of,
)
from skgnnx.testing.snapshots import differences, snapshot

DEEPEST_CALL = 12


class CallCounter:
    """Counts forward passes of a model through one of its hooks, and can raise in one of them.

    Parameters
    ----------
    raise_at : int or None, default=None
        Number of the forward pass, from 1, from which on every one raises.
    """

    def __init__(self, raise_at: int | None = None) -> None:
        self.calls = 0
        self.raise_at = raise_at

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Count, and raise if it is time."""
        self.calls += 1
        if self.raise_at is not None and self.calls >= self.raise_at:
            raise RuntimeError("raised on purpose by a check of skgnnx")


def used_model(model: nn.Module, counter: CallCounter | None = None) -> nn.Module:
    """Give a model the traces of a life before: gradients, frozen weights, mixed modes, a hook, own attributes."""
    parameters = list(model.parameters())
    parameters[0].grad = torch.full_like(parameters[0], 0.5)
    parameters[-1].requires_grad_(False)
    modules = list(model.modules())
    for number, module in enumerate(modules[1:]):
        module.training = number % 2 == 0
    modules[-1].register_forward_hook(counter or CallCounter())
    model.history = {"loss": [1.0, 0.5], "best": {"epoch": 3}}  # type: ignore[assignment]
    model.last_output = torch.ones(2)
    for module in modules:
        if isinstance(module, GCNConv):
            module.cached = True
            module._cached_edge_index = (torch.zeros(2, 1, dtype=torch.long), torch.ones(1))
    return model


def check_nothing_touched(factory: Factory) -> None:
    """Model, inputs, random states and thread count are bit-identical after explaining.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances, kind: int) -> None:
        require_untouched(build_for(factory, used_model(model), kind), model, X)

    for_all(factory, body, KINDS)


def require_untouched(explainer: Any, model: nn.Module, X: Instances) -> None:
    """Explain, and raise AssertionError if anything differs afterwards.

    Parameters
    ----------
    explainer : BaseExplainer
        Explains `model`.
    model : nn.Module
        The model.
    X : Instances
        What to explain.
    """
    before = snapshot(model, X)
    explained(explainer, X)
    changed = differences(before, snapshot(model, X))
    require(not changed, explainer, "Explaining must leave everything as it was.", f"other {', '.join(changed[:5])}")


def check_nothing_touched_after_error(factory: Factory) -> None:
    """The same if the model raises half-way; and the error reaches the caller.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """

    def body(model: nn.Module, X: Instances, raise_at: int, kind: int) -> None:
        counter = CallCounter(raise_at)
        explainer = build_for(factory, used_model(model, counter), kind)
        before, raised = snapshot(model, X), False
        try:
            attempted(explainer, X)
        except TypeError as error:
            raise RefusedError(str(error)) from error
        except Exception:
            raised = True
        changed = differences(before, snapshot(model, X))
        law = "A model that raises must be left as it was."
        require(not changed, explainer, law, f"other {', '.join(changed[:5])}")
        require(raised or counter.calls < raise_at, explainer, "An error of the model must reach the caller.")

    for_all(factory, body, range(1, DEEPEST_CALL + 1), KINDS)


def check_explainers_leave_each_other_alone(factory: Factory) -> None:
    """Other explainers on the same model, before or after, change no result.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``.
    """
    level = tags_of(factory).tasks[0]
    model, X = example(level)
    others = {name: build(cls, model) for name, cls in all_explainers({"level": "instance", "tasks": level})}
    before = {name: explained(other, X) for name, other in others.items()}
    alone = explained(build(factory, copy.deepcopy(model)), X)
    for name, other in others.items():
        after = explained(other, X)
        explainer = build(factory, model)
        law = f"{name} must give after {name_of(explainer)} what it gave before."
        require_same(explainer, before[name], after, law, tolerance=0)
        law = f"Explaining after {name} must give what it gives alone."
        require_same(explainer, alone, explained(explainer, X), law, tolerance=0)
