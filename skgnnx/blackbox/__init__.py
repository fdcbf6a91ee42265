"""The model: the only code that calls it or looks inside."""

from skgnnx.blackbox.blackbox import BlackBox
from skgnnx.blackbox.open_box import OpenBox

__all__ = ["BlackBox", "OpenBox"]
