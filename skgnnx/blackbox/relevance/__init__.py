"""Relevance on an untouched model: a forward pass with the values of the model, and gradients that share them out."""

from skgnnx.blackbox.relevance.choosing import Rules
from skgnnx.blackbox.relevance.rules import Rule
from skgnnx.blackbox.relevance.surrogate import RelevancePass, Relevances, Surrogate, check_gap, shares

__all__ = ["Relevances", "RelevancePass", "Rule", "Rules", "Surrogate", "check_gap", "shares"]
