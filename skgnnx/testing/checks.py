"""The list of public checks, and one call that runs them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from skgnnx.testing import batching, conventions, failing, planted, predictions, repeating, shapes, sums, untouched
from skgnnx.testing.running import Factory
from skgnnx.testing.strategies import require_hypothesis

Check = Callable[[Factory], None]
CHECKS: tuple[Check, ...] = (
    untouched.check_nothing_touched,
    untouched.check_nothing_touched_after_error,
    untouched.check_explainers_leave_each_other_alone,
    batching.check_batch_size,
    batching.check_order,
    batching.check_subsets,
    batching.check_containers,
    batching.check_n_jobs,
    predictions.check_targets,
    predictions.check_prediction_survives,
    planted.check_right_entries,
    failing.check_one_bad_instance,
    failing.check_loops_are_named,
    failing.check_bad_parameters,
    failing.check_bad_input,
    repeating.check_same_seed,
    repeating.check_relabelling,
    repeating.check_outside,
    shapes.check_shapes,
    shapes.check_hard_masks,
    sums.check_sums,
    conventions.check_tasks,
    conventions.check_black_box,
    conventions.check_randomness,
    conventions.check_learning,
    conventions.check_clone_and_pickle,
    conventions.check_callers,
    conventions.check_trained_models,
)
SLOW = frozenset({"check_n_jobs"})


def checks() -> dict[str, Check]:
    """Return all public checks by name; each is a function of a factory that raises AssertionError.

    Returns
    -------
    dict of str to callable
        In the order in which `check_explainer` runs them.

    Examples
    --------
    >>> from skgnnx.testing import checks
    >>> "check_batch_size" in checks()
    True
    """
    return {check.__name__: check for check in CHECKS}


def check_explainer(factory: Factory, *, skip: Iterable[str] = ()) -> None:
    """Run every public check on an explainer: the laws that all methods keep.

    Models and graphs are made by the checks, many of them at random by hypothesis, as often as its active profile says.

    Parameters
    ----------
    factory : callable
        ``factory(model) -> explainer``. A class of explainers will do; its attribute ``check_params_``, a dict of
        parameters, is then set to keep the checks fast.
    skip : iterable of str, default=()
        Names of checks to leave out, see `checks`. ``"check_n_jobs"`` starts two processes, which takes seconds.

    Raises
    ------
    AssertionError
        At the first law that is broken; the message says which, and what came instead.
    ValueError
        If a name in `skip` is no check.
    ImportError
        If hypothesis is missing.

    Examples
    --------
    >>> from skgnnx import SensitivityAnalysis
    >>> from skgnnx.testing import check_explainer, checks
    >>> check_explainer(SensitivityAnalysis, skip=set(checks()) - {"check_callers"})
    """
    require_hypothesis()
    known, left_out = checks(), set(skip)
    for name in sorted(left_out - set(known)):
        raise ValueError(f"The names in 'skip' must be among {list(known)}. Got {name!r}.")
    for name, check in known.items():
        if name not in left_out:
            check(factory)
