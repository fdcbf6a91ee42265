"""Saying which edges an explanation is not about."""

from __future__ import annotations

import warnings

import numpy as np

from skgnnx.graphs.explanations import Explanations


def name_unexplained(E: Explanations, stacklevel: int = 3) -> None:
    """Warn once if edges of computation graphs have no score: self loops that the layers replace by their own.

    Parameters
    ----------
    E : Explanations
        Of any kind; only edge scores can lack some.
    stacklevel : int, default=3
        Of the warning; the default points to the caller of the caller.
    """
    entries = E.masks.get("edge")
    if entries is None or entries.explained is None or entries.explained.all():
        return
    without = np.flatnonzero(~entries.explained & E.ok[entries.rows])
    if not len(without):
        return
    i = int(entries.rows[without[0]])
    edge = int(entries.ids[without[0]])
    source, target = E.instances.store.edges(E.instances.graph_index[i])[:, edge].tolist()
    warnings.warn(
        f"Self loops cannot be explained where the layers replace them by their own; they are scored 0 and False in "
        f"E.explained. Got {len(without)}, the first is edge {edge} ({source}, {target}) of instance {i}.",
        UserWarning,
        stacklevel=stacklevel,
    )


def name_sampled(E: Explanations, max_edges: int | None, stacklevel: int = 3) -> None:
    """Warn once if edges of computation graphs were left out by sampling neighbours.

    Parameters
    ----------
    E : Explanations
        With ``E.sampled`` if neighbours might be sampled.
    max_edges : int or None
        Most edges of an instance.
    stacklevel : int, default=3
        Of the warning; the default points to the caller of the caller.
    """
    thinned = {i: said for i, said in enumerate(E.extras.get("sampled", ())) if said is not None}
    if not thinned:
        return
    first, said = next(iter(thinned.items()))
    i, most = max(thinned.items(), key=lambda item: abs(item[1]["change"]))
    warnings.warn(
        f"Instances must have at most max_edges={max_edges} edges to be explained whole. Got more in "
        f"{len(thinned)} of {len(E)}, whose neighbours were sampled; the first is instance {first} ({said['kept']} of "
        f"{said['edges']} edges kept), and predictions change most at instance {i} (by {most['change']:+.2g}).",
        UserWarning,
        stacklevel=stacklevel,
    )
