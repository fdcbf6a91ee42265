"""The result type: scores of many explained predictions, and what can be made of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skgnnx.graphs.digest import model_digest
from skgnnx.graphs.explanation_array import FIELDS
from skgnnx.graphs.explanation_views import ExplanationViews
from skgnnx.graphs.instances import Instances
from skgnnx.graphs.stripped import StrippedStore, same_shapes


class Explanations(ExplanationViews):
    """Importance scores of the predictions that were explained, as an array-like.

    ``E[i]`` is a float32 array over all edges, nodes or features of instance ``i``, in the user's order; a slice, an
    int array or a bool mask gives shorter `Explanations`. ``np.asarray(E)`` is an (n,) object array, or an
    (n, n_features) float array for feature scores. What lies outside of the computation graph is 0; an instance that
    failed is NaN and is skipped by selection and metrics. Method-specific results in `extras` can be read as
    attributes. A pickle holds no model: explain, explain_dataset and cross_val_explain attach it again in the parent,
    `with_model` does so anywhere.

    Parameters
    ----------
    instances : Instances
        What was explained.
    masks : dict of str to Entries
        Scores by kind: "edge", "node", "feature", "node_feature".
    kind : str
        The mask that ``E[i]`` shows and that metrics use.
    targets : array-like of int, shape (n,)
        Class or output column that was explained.
    errors : list of (str or None), default=None
        Why an instance failed; None where it did not.
    extras : dict of str to list, default=None
        One value per instance and key.
    sparsity : float, default=0.7
        Share left out where metrics have to cut soft scores, in [0, 1]; the default is that of the explainers.
    hard : bool, default=False
        True if the scores are 0/1 selections.
    model, model_digest, explainer, params, box
        What made the scores: the model and its digest, name and parameters of the explainer, how to call the model.

    Raises
    ------
    ValueError
        If sizes do not fit the instances, or a score is not finite; the message names the instance.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx.graphs import Entries, Explanations, Instances
    >>> graph = Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))
    >>> entries = Entries(np.array([0, 3]), np.arange(3), np.array([0.1, 0.7, 0.4]))
    >>> E = Explanations(Instances.from_graphs([graph]), {"edge": entries}, "edge", targets=[1])
    >>> E.top_k(1)[0]
    array([0., 1., 0.], dtype=float32)
    """

    @classmethod
    def deferred(
        cls, compute: Callable[[], Explanations], check: Callable[[], None] | None, instances: Instances
    ) -> Explanations:
        """Return explanations that are computed when they are first read.

        Parameters
        ----------
        compute : callable
            Returns the `Explanations`.
        check : callable or None
            Called just before; raises if what `compute` needs has changed in the meantime.
        instances : Instances
            What will be explained: length and ids are known without computing.

        Returns
        -------
        Explanations
        """
        from skgnnx.graphs.deferred import DeferredExplanations

        return DeferredExplanations(compute, check, instances)

    @staticmethod
    def concat(parts: Sequence[Explanations]) -> Explanations:
        """Join explanations of one kind; model, digest and parameters are kept where all parts agree.

        Parameters
        ----------
        parts : sequence of Explanations
            At least one. A part in which everything failed may lack masks.

        Returns
        -------
        Explanations

        Raises
        ------
        ValueError
            If kinds, masks or levels differ.
        """
        from skgnnx.graphs.assembly import join_explanations

        return join_explanations(list(parts))

    def with_model(self, model: Any) -> Explanations:
        """Return the same explanations with a model attached; one that differs from the explained one warns."""
        digest = model_digest(model)
        if self.model_digest is not None and digest != self.model_digest:
            warnings.warn(
                "The model must be the one that was explained, or metrics mean something else. Got one whose digest "
                f"{digest[:12]} differs from {self.model_digest[:12]}; explain again with it.",
                UserWarning,
                stacklevel=2,
            )
        return self._with(model=model, model_digest=self.model_digest or digest)

    def without_graphs(self) -> Explanations:
        """Return the same scores with only the sizes of the graphs, small to send; `with_instances` is the way back."""
        X = self.instances
        graphs, graph_index = np.unique(X.graph_index, return_inverse=True)
        store = StrippedStore(X.store.node_ptr, X.store.edge_ptr).select(graphs)
        sizes = Instances(store, graph_index, X.element, X.target, ids=X.ids, exclude_link=X.exclude_link)
        return self._with(instances=sizes)

    def with_instances(self, instances: Instances) -> Explanations:
        """Return the same scores over equal instances, for example those that a worker got a copy of.

        Parameters
        ----------
        instances : Instances
            The predictions that were explained, in their order.

        Returns
        -------
        Explanations

        Raises
        ------
        ValueError
            If their number, their elements or the sizes of their graphs differ.
        """
        if not same_shapes(instances, self.instances):
            raise ValueError(
                f"'instances' must be the {len(self)} predictions that were explained, in their order. Got "
                f"{len(instances)} others."
            )
        return self._with(instances=instances)

    def save(self, path: str | os.PathLike[str], graphs: str | bool = "used") -> None:
        """Write to one file without pickle, atomically.

        Parameters
        ----------
        path : path-like
            An npz archive is written under exactly this name.
        graphs : {"used", "all", False}, default="used"
            Which graphs go along. Without them, `load` needs ``instances=`` for all but reading scores.

        Raises
        ------
        TypeError
            If an extra or id is neither number, string, array nor a list or dict of these; the message names its key.
        """
        from skgnnx.graphs.storage import write

        write(self, path, graphs)

    @staticmethod
    def load(path: str | os.PathLike[str], model: Any = None, *, instances: Instances | None = None) -> Explanations:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like
            The file.
        model : Module, default=None
            Attached to the result; one that differs from the explained one warns.
        instances : Instances, default=None
            What was explained, for a file without graphs; must be the same predictions.

        Returns
        -------
        Explanations

        Raises
        ------
        ValueError
            If the file was not written by `save`, or `instances` are others.
        """
        from skgnnx.graphs.storage import read

        E = read(path, instances)
        return E if model is None else E.with_model(model)

    def _with(self, **changes: Any) -> Explanations:
        return Explanations(**{field: getattr(self, field) for field in FIELDS} | changes)

    def __copy__(self) -> Explanations:
        return self._with()

    def __deepcopy__(self, memo: dict[int, Any]) -> Explanations:
        return self._with()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ({field: getattr(self, field) for field in FIELDS if field != "model"},)

    def __repr__(self) -> str:
        made_by = f"{self.explainer}, " if self.explainer else ""
        form = "hard" if self.hard else "soft"
        failed = len(self) - int(self.ok.sum())
        return f"<Explanations: {made_by}{len(self)} instances, {form} {self.kind} scores, {failed} failed>"


def _restored(fields: dict[str, Any]) -> Explanations:
    return Explanations(**fields)
