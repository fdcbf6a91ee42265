"""Relevance on an untouched model: a forward pass with the values of the model, and gradients that share them out."""

from skgnnx.blackbox.relevance.rules import Rule
from skgnnx.blackbox.relevance.surrogate import Relevances, RelevancePass, Surrogate

__all__ = ["Relevances", "RelevancePass", "Rule", "Surrogate"]
