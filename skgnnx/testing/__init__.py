"""Checks that any explainer can be run through, and small models and graphs to run them on."""

from skgnnx.testing.examples import example

__all__ = ["example"]
