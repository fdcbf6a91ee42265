"""Packages that pictures need and the rest of the package does not."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def load(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package where it is used.

    Parameters
    ----------
    module : str
        What to import.
    extra : str
        The extra of this package that installs it.
    purpose : str
        What needs it, as the subject of a sentence in the plural.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is missing; the sentence names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(f"{purpose} need {name}, which is not installed: pip install 'skgnnx[{extra}]'.") from error
