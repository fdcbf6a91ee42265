"""What all explainers share: parameters, cloning, batching, errors, and the scikit-learn methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, Self, dataclass_transform

import numpy as np
from joblib import effective_n_jobs
from joblib import hash as joblib_hash
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, check_random_state

from skgnnx.blackbox import BlackBox, OpenBox
from skgnnx.blackbox.attempting import attempts
from skgnnx.blackbox.gathering import Gathered, Masks, add_to_all
from skgnnx.graphs import Explanations, Instances, check_instances
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.digest import model_digest
from skgnnx.graphs.naming import feature_names_out, width_of
from skgnnx.graphs.unexplained import name_sampled, name_unexplained
from skgnnx.metrics import characterization
from skgnnx.parallel import explain_chunks, explain_survivors
from skgnnx.shared_model import SharedModelMixin, plain_params, shallow_copy
from skgnnx.taxonomy import Taxonomy
from skgnnx.validation import BatchSize, Fraction, NonNegativeInt, PositiveInt, check_parameters


@dataclass_transform(kw_only_default=True)
def explainer(cls: type) -> type:
    """Make a class an explainer whose annotated fields are its keyword-only parameters."""
    return dataclass(eq=False, repr=False, kw_only=True)(cls)


@dataclass(eq=False, repr=False)
class BaseExplainer(SharedModelMixin, TransformerMixin, BaseEstimator):
    """Base of all explainers; a subclass writes its fields and `_explain_batch`.

    Parameters
    ----------
    model : nn.Module or fitted estimator with ``module_``
        The trained model; shared by clones and never changed. Black-box methods also take a callable
        ``predict(graphs) -> array``. None is allowed here and refused by `fit` and `explain`.
    batch_size : int >= 1 or "auto", default="auto"
        Most instances per forward pass; "auto" fills the memory budget of `config_context`. Never changes a result.
    n_jobs : int or None, default=None
        Worker processes; None is 1 outside of a `joblib.parallel_config`. Never changes a result.
    max_edges : int >= 1 or None, default=None
        Most edges of an instance. Where more reach a prediction, each node keeps as many of the edges that lead to it
        as fit, drawn by `random_state`, and what is left is explained, with a warning: degrees stay those of the
        whole graph where layers keep normalised edges. None leaves nothing out.
    sparsity : float in [0, 1], default=0.7
        Share of the units that a hard explanation leaves out, recorded in the result; the middle of the survey's
        0.5 to 0.9.
    output : str, default="auto"
        What the model's columns are: "logits", "log_probs", "probs", "binary_logit", "binary_prob", "multilabel" or
        "regression"; "auto" looks at the model's last operation and reads one column as a binary logit, with a warning.
    threshold : float in [0, 1], default=0.5
        Probability from which a binary head predicts class 1.
    forward : callable, optional
        ``forward(model, batch) -> Tensor`` for a model that cannot be filled by name; `batch` is a PyG `Batch`.
    on_error : {"raise", "nan"}, default="raise"
        What an instance that cannot be explained does: stop the call, or become NaN with its message in `E.errors`.
    random_state : int, RandomState or None, default=0
        Root seed; 0 by default because explanations should repeat. None draws one from numpy's global state.
    verbose : int >= 0, default=0
        1 prints progress per batch.
    """

    model: Any = None
    _: KW_ONLY
    batch_size: BatchSize = "auto"
    n_jobs: int | None = None
    max_edges: PositiveInt | None = None
    sparsity: Fraction = 0.7
    output: Literal[
        "auto", "logits", "log_probs", "probs", "binary_logit", "binary_prob", "multilabel", "regression"
    ] = "auto"
    threshold: Fraction = 0.5
    forward: Callable | None = None
    on_error: Literal["raise", "nan"] = "raise"
    random_state: int | np.random.RandomState | None = 0
    verbose: NonNegativeInt = 0

    masks_: ClassVar[tuple[str, ...]] = ("edge",)
    taxonomy: ClassVar[Taxonomy] = Taxonomy()
    removes_edges: ClassVar[bool] = False  # whether batches hold what degrees without some edges are computed from
    chooses: ClassVar[bool] = False  # whether masks are a choice of units, 0 or 1, that is not cut at a sparsity
    check_params_: ClassVar[dict[str, Any]] = {}  # what keeps the public checks fast

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the instances, and train what the method learns.

        Parameters
        ----------
        X : Instances, or anything `check_instances` accepts
            What will be explained, or what a learned method learns from.
        y : ignored
            Labels, for scikit-learn's sake.

        Returns
        -------
        self
        """
        self._fit(self._checked(X, reset=True))
        return self

    def _fit(self, X: Instances) -> None:
        """Learn from instances; methods that learn nothing leave this as it is."""

    def explain(self, X: Any) -> Explanations:
        """Explain every instance.

        Parameters
        ----------
        X : Instances, or anything `check_instances` accepts
            What to explain. Targets travel inside of it.

        Returns
        -------
        Explanations
            Of length n, in the order of `X`. ``E.path`` says for each instance how every propagate call of the model
            ran: fused or not and why, and what was left out. With `max_edges`, ``E.sampled`` holds None for each
            instance, or where edges were left out a dict: how many "edges" reach the prediction, how many were "kept",
            and the "change" of the target's probability (of its value in a regression) by that.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an instance is not usable; the message says which and how to repair it.
        """
        E = self.explain_part(X)
        self.name_left_out(E)
        return E

    def name_left_out(self, E: Explanations, stacklevel: int = 4) -> None:
        """Warn once of edges that have no score, and once of neighbours that were sampled."""
        name_unexplained(E, stacklevel)
        name_sampled(E, self.max_edges, stacklevel)

    def explain_part(self, X: Any) -> Explanations:
        """Explain in as many processes as asked for, without a word on what is left out."""
        X = self._checked(X)
        workers = min(effective_n_jobs(self.n_jobs), len(X))
        if workers > 1:
            return explain_chunks(self.for_workers(X), X, n_jobs=workers).with_model(self.network())
        seed = self._root_seed()
        if self.on_error == "nan":
            return explain_survivors(lambda part: self._explain_here(part, seed)[0], X, self._kind())
        return self._explain_here(X, seed)[0]

    def explain_targets(self, X: Any, targets: Sequence[int] | None = None) -> list[Explanations]:
        """Explain every instance for several targets; methods that go backward need one forward pass for all of them.

        The model is opened and graphs are cut once, in this process.

        Parameters
        ----------
        X : Instances, or anything `check_instances` accepts
            What to explain; targets of its own do not matter.
        targets : sequence of int, default=None
            Classes or output columns; None takes all that the model has.

        Returns
        -------
        list of Explanations
            One for each target, the same as ``explain(X.with_target(target))``.

        Raises
        ------
        ValueError, TypeError
            If a target, a parameter or an instance is not usable; the message says which and how to repair it.
        """
        found = self._explain_here(self._checked(X).with_target(0), self._root_seed(), targets, several=True)
        self.name_left_out(found[0], stacklevel=3)
        return found

    def transform(self, X: Any) -> Explanations:
        """Explain every instance; the same as `explain`, under the name that pipelines call."""
        return self.explain(X)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Explanations:
        """Fit, and explain the same instances when the result is first read.

        Pipelines call this while fitting and usually throw the result away, so computing it is put off; reading it
        after the model has changed is an error.
        """
        X = check_instances(X)
        self.fit(X, y, **fit_params)
        frozen_self, digest = shallow_copy(self), model_digest(self.network())

        def check() -> None:
            if model_digest(frozen_self.network()) != digest:
                raise RuntimeError(
                    "The model must not change between fit_transform and reading its result. Got another one; call "
                    "explain(X) after training."
                )

        return Explanations.deferred(lambda: frozen_self.explain(X), check, X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the characterization score of the explanations at `sparsity`, in [0, 1]; higher is better."""
        return float(characterization(self.explain(X)))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of feature masks: the given ones, or ``x0``, ``x1``, ..."""
        return feature_names_out(self, input_features)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Set the container of `transform`; only feature masks are tables, other kinds are returned as they are."""
        return super().set_output(transform=transform) if self._kind() == "feature" else self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = False
        tags.requires_fit = self.taxonomy.learned
        return tags

    def _kind(self) -> str:
        """Return the primary mask."""
        return getattr(self, "mask", None) or self.masks_[0]

    def _checked(self, X: Any, reset: bool = False) -> Instances:
        check_parameters(self)
        self._box()
        X = check_instances(X)
        got = X.num_units("feature", 0)
        if reset:
            self.n_features_in_, self.n_edge_features_in_ = got, width_of(X, "edge_attr")
        elif got != getattr(self, "n_features_in_", got):
            raise ValueError(
                f"X must have {self.n_features_in_} node features, as in fit. Got {got}; apply the same preprocessing "
                "to both."
            )
        return X

    def _box(self) -> BlackBox:
        return BlackBox(
            self.model,
            output=self.output,
            threshold=self.threshold,
            forward=self.forward,
            outputs_only=self.taxonomy.black_box,
        )

    def network(self) -> Any:
        """Return what runs when the model is called: the module behind an estimator, or the model itself."""
        return self._box().model

    def for_workers(self, X: Instances, on_error: str | None = None) -> Self:
        """Return a copy that explains parts of `X` in one process, with the seed that this one would use now."""
        given = {"n_jobs": 1, "random_state": self._root_seed(), "on_error": on_error or self.on_error}
        return shallow_copy(self).set_params(**given)

    def fingerprint(self) -> str:
        """Return a digest of what, besides the model and the instances, decides the result."""
        free = {"model", "batch_size", "n_jobs", "verbose", "on_error", "forward"}
        params = {name: value for name, value in plain_params(self).items() if name not in free}
        learned = {name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("_")}
        modules = [model_digest(learned.pop(name)) for name in list(learned) if hasattr(learned[name], "state_dict")]
        return joblib_hash([type(self).__name__, params, learned, modules])

    def _root_seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _explain_here(
        self, X: Instances, seed: int, targets: Sequence[int] | None = None, *, several: bool = False
    ) -> list[Explanations]:
        """Explain in this process, batch by batch: the targets of `X`, or several for every instance."""
        box = self._box()
        with box.open(X) as gnn:
            asked = gnn.checked_targets(targets) if several else None

            def explain_batch(batch: GraphBatch) -> list[Masks]:
                if asked is None:
                    return [self._explain_batch(gnn, batch, seed)]
                return self._explain_each(gnn, batch, seed, [batch.for_target(target) for target in asked])

            gathered = [Gathered(self._kind()) for _ in asked or [0]]
            cut: dict[str, Any] = {"removal": self.removes_edges, "max_edges": self.max_edges, "random_state": seed}
            for batch in gnn.batches(batch_size=self.batch_size, **cut):
                for part, masks, error in attempts(explain_batch, batch, keep_going=self.on_error == "nan"):
                    add_to_all(gathered, gnn, part, masks, error)
                if self.verbose:
                    print(f"[{type(self).__name__}] explained {len(gathered[0])} of {len(X)}")  # noqa: T201 (verbose)
            if asked is None:
                return [self._explanations(gnn, X, gathered[0], gnn.targets)]
            return [
                self._explanations(gnn, X.with_target(target), column, np.full(len(X), target))
                for target, column in zip(asked, gathered, strict=True)
            ]

    def _explanations(self, gnn: OpenBox, X: Instances, gathered: Gathered, targets: np.ndarray) -> Explanations:
        return Explanations(
            X,
            gathered.entries(),
            self._kind(),
            targets=targets,
            errors=gathered.errors(),
            extras=gathered.extras() | ({} if self.max_edges is None else {"sampled": gnn.sampled()}),
            sparsity=self.sparsity,
            hard=self.chooses,
            model=gnn.box.model,
            model_digest=model_digest(gnn.box.model),
            explainer=type(self).__name__,
            params=plain_params(self),
            box={"output": gnn.box_output, "threshold": self.threshold, "forward": self.forward},
        )

    def _explain_each(self, gnn: OpenBox, batch: GraphBatch, seed: int, asked: Sequence[GraphBatch]) -> list[Masks]:
        """Return the masks of a batch for several targets; each of `asked` is the batch with one of them."""
        return [self._explain_batch(gnn, one, seed) for one in asked]

    def _explain_batch(self, gnn: OpenBox, batch: GraphBatch, seed: int) -> Masks:
        """Return the masks of one batch of independent instances."""
        raise NotImplementedError(f"{type(self).__name__} must define _explain_batch(gnn, batch, seed) -> Masks.")
