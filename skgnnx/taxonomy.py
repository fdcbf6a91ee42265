"""The survey's columns: what kind of method an explainer is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Taxonomy:
    """What kind of method an explainer is, in the columns of the survey literature.

    Parameters
    ----------
    level : {"instance", "model"}
        Explains one prediction, or a whole class.
    family : str
        "gradients", "perturbation", "decomposition", "surrogate", "generation" or "baseline".
    learned : bool
        True if `fit` trains something that `explain` uses on other instances.
    tasks : tuple of str
        Levels of instances it explains: "node", "graph", "edge".
    black_box : bool
        True if outputs of the model are enough.
    flow : {"forward", "backward"}
        Direction in which the model is used.
    mask : {"soft", "discrete", "approximated", "none"}
        Kind of mask that the method optimises, "none" where it optimises no mask.
    deterministic : bool
        True if the result does not depend on `random_state`.
    states : bool
        True if nodes are scored by their states inside of the model, which also hold their neighbours, and not by what
        goes in.
    remainder : str
        Name of the extra that holds, for each instance, what the scores of its nodes and ``E.score``, which is the
        model's own, differ by; "" where the scores are not shares of it.

    Notes
    -----
    Yuan, Yu, Gui & Ji, "Explainability in Graph Neural Networks: A Taxonomic Survey", TPAMI 2023, Table 1.
    """

    level: str = "instance"
    family: str = "baseline"
    learned: bool = False
    tasks: tuple[str, ...] = ("node", "graph", "edge")
    black_box: bool = False
    flow: str = "backward"
    mask: str = "none"
    deterministic: bool = True
    states: bool = False
    remainder: str = ""
