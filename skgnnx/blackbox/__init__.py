"""The model: the only code that calls it or looks inside."""

from skgnnx.blackbox.blackbox import BlackBox, OpenBox

__all__ = ["BlackBox", "OpenBox"]
