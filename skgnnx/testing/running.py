"""How checks make explainers, draw cases, and compare explanations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from skgnnx.graphs import Explanations, Instance, Instances
from skgnnx.taxonomy import Taxonomy
from skgnnx.testing.drawing import Seeded, Source, choice, draw_instances
from skgnnx.testing.examples import example
from skgnnx.testing.strategies import require_hypothesis, strategy_of

Factory = Callable[[nn.Module], Any]
Case = tuple[nn.Module, Instances]
TOLERANCE = 1e-6
KINDS = range(4)  # choices of a kind of mask


def build(factory: Factory, model: Any, **params: Any) -> Any:
    """Return an explainer of a model; a class is given its `check_params_`, which keep checks fast."""
    given = getattr(factory, "check_params_", {}) if isinstance(factory, type) else {}
    explainer = factory(model, **given) if given else factory(model)
    return explainer.set_params(**params) if params else explainer


def tags_of(factory: Factory) -> Taxonomy:
    """Return the tags of the explainers that a factory makes, from one made for a tiny model."""
    return getattr(build(factory, example("graph")[0]), "taxonomy", Taxonomy())


def masks_of(explainer: Any) -> tuple[str, ...]:
    """Return the kinds of masks that an explainer can be asked for, the default first."""
    kinds = tuple(getattr(explainer, "masks_", ("edge",)))
    return kinds if "mask" in explainer.get_params(deep=False) else kinds[:1]


def with_mask(explainer: Any, kind: str) -> Any:
    """Ask an explainer for one kind of mask; one that knows a single kind is returned as it is."""
    return explainer.set_params(mask=kind) if "mask" in explainer.get_params(deep=False) else explainer


class RefusedError(AssertionError):
    """A method cannot explain a kind of model; checks over many models pass such a case over."""


def build_for(factory: Factory, model: Any, number: int, **params: Any) -> Any:
    """Return an explainer of a model that is asked for one of its kinds of masks, by number."""
    explainer = build(factory, model, **params)
    kinds = masks_of(explainer)
    return with_mask(explainer, kinds[number % len(kinds)])


def attempted(explainer: Any, X: Any, learn_from: Any = None) -> Explanations:
    """Return explanations, after fitting a method that learns; warnings about the model are left out.

    Parameters
    ----------
    explainer : BaseExplainer
        Fitted here if it learns.
    X : Instances, or whatever explainers take
        What to explain.
    learn_from : Instances, optional
        What a method that learns is fitted on, `X` by default.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if tags_of_estimator(explainer).learned:
            explainer.fit(X if learn_from is None else learn_from)
        return explainer.explain(X)


def explained(explainer: Any, X: Any, learn_from: Any = None) -> Explanations:
    """Return explanations as `attempted` does, where there is no reason to fail.

    Raises
    ------
    RefusedError
        If the explainer raises TypeError, which is how a method refuses a kind of model.
    AssertionError
        If it raises anything else.
    """
    try:
        return attempted(explainer, X, learn_from)
    except TypeError as error:
        raise RefusedError(f"{name_of(explainer)} must explain {X}. Got TypeError: {error}") from error
    except Exception as error:
        law = f"{name_of(explainer)} must explain {X}, or refuse the model by TypeError."
        raise AssertionError(f"{law} Got {type(error).__name__}: {error}") from error


def tags_of_estimator(explainer: Any) -> Taxonomy:
    """Return the tags of one explainer, the default ones where it declares none."""
    return getattr(explainer, "taxonomy", Taxonomy())


def for_all(factory: Factory, body: Callable[..., None], *more: Sequence[Any], **options: Any) -> None:
    """Run ``body(model, X, *chosen)`` on cases of every level that the explainers claim.

    A method that learns is fitted in every case, and so gets a third of the cases.

    Parameters
    ----------
    factory : callable
        Makes explainers.
    body : callable
        Raises AssertionError where a law is broken.
    *more : sequence
        Options of which one each is chosen in addition.
    **options
        Passed to `draw_instances`.
    """
    tags = tags_of(factory)

    def draw(source: Source) -> tuple[Any, ...]:
        chosen = [choice(source, options) for options in more]
        return (*draw_instances(source, choice(source, tags.tasks), **options), *chosen)

    for_all_of(draw, body, share=1 / 3 if tags.learned else 1.0)


def for_all_of(draw: Callable[[Source], tuple[Any, ...]], body: Callable[..., None], share: float = 1.0) -> None:
    """Run a body on seeded cases, a share of what the active hypothesis profile says, and half as many of hypothesis.

    Those of a seed are spread evenly over all that can be drawn; those of hypothesis keep close to the simplest
    ones, and are made smaller where they break a law.
    """
    hypothesis = require_hypothesis()
    examples, ignored = round(share * hypothesis.settings.default.max_examples), list(hypothesis.HealthCheck)
    for seed in range(examples):
        case = draw(Seeded(seed))
        try:
            _unless_refused(body, case)
        except Exception as error:
            error.add_note(f"in the case of seed {seed}: {case}")
            raise

    @hypothesis.settings(max_examples=examples // 2 + 1, deadline=None, suppress_health_check=ignored)
    @hypothesis.given(strategy_of(draw))
    def run(case: tuple[Any, ...]) -> None:
        _unless_refused(body, case)

    run()


def _unless_refused(body: Callable[..., None], case: tuple[Any, ...]) -> None:
    with suppress(RefusedError):
        body(*case)


def name_of(explainer: Any) -> str:
    """Return the name of an explainer that messages of checks begin with."""
    return type(explainer).__name__


def error_of(use: Callable[[], Any]) -> Exception | None:
    """Return the error that a call raises, None if it raises none; its warnings are not what is looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            use()
        except Exception as error:
            return error
    return None


def require(holds: bool, explainer: Any, law: str, got: str = "") -> None:
    """Raise AssertionError, with the law and what came instead, unless it holds."""
    if not holds:
        raise AssertionError(f"{name_of(explainer)}: {law}{f' Got {got}.' if got else ''}")


def require_same(
    explainer: Any, first: Explanations, second: Explanations, law: str, tolerance: float = TOLERANCE
) -> None:
    """Raise AssertionError unless two explanations have the same targets and scores.

    The tolerance is relative to the largest score of the instance where that is above 1; 0 asks for equal bits.
    """
    require(len(first) == len(second), explainer, law, f"{len(first)} and {len(second)} instances")
    require(np.array_equal(first.targets, second.targets), explainer, law, f"{first.targets} and {second.targets}")
    for kind in first.masks:
        for i in range(len(first)):
            a, b = first.stored(kind), second.stored(kind)
            left, right = _dense(first, kind, i), _dense(second, kind, i)
            require(left.shape == right.shape, explainer, law, f"shapes {left.shape} and {right.shape} at instance {i}")
            require(a.width == b.width, explainer, law, f"widths {a.width} and {b.width}")
            scale = max(1.0, float(np.abs(left).max(initial=0)))
            gap = float(np.abs(left - right).max(initial=0))
            require(gap <= tolerance * scale, explainer, law, f"{kind} scores that differ by {gap:.2g} at instance {i}")


def _dense(E: Explanations, kind: str, i: int) -> np.ndarray:
    ids, values = E.entries(i, kind)
    length = len(values) if kind == "feature" else E.instances.num_units("edge" if kind == "edge" else "node", i)
    if kind == "feature":
        return np.asarray(values)
    dense = np.zeros((length, *values.shape[1:]))
    dense[ids] = values
    return dense


def _with_link_excluded(X: Instances, instance: Instance) -> Data:
    """Return the graph of an instance, without the edges between its two ends where they are left out."""
    data = instance.graph
    if not X.exclude_link:
        return data
    ends = torch.tensor(instance.element)
    between = (data.edge_index == ends[:, None]).all(0) | (data.edge_index == ends.flip(0)[:, None]).all(0)
    for key in ("edge_attr", "edge_type", "edge_weight"):
        if key in data:
            data[key] = data[key][~between]
    data.edge_index = data.edge_index[:, ~between]
    return data


def plain_outputs(model: nn.Module, X: Instances) -> Tensor:
    """Return what a network says of each instance (n, classes): called by hand, on the whole graph, one at a time."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    outputs = []
    with torch.no_grad():
        for instance in X:
            data = _with_link_excluded(X, instance)
            given = {key: data[key] for key in ("edge_attr", "edge_type", "edge_weight") if key in data}
            if instance.level == "graph":
                given["batch"] = torch.zeros(data.num_nodes, dtype=torch.long)
            if instance.level == "edge":
                given["edge_label_index"] = torch.tensor(instance.element).reshape(2, 1)
            output = model(data.x, data.edge_index, **given)
            outputs.append(output[instance.element if instance.level == "node" else 0])
    for module, training in modes:
        module.training = training
    return torch.stack(outputs)
