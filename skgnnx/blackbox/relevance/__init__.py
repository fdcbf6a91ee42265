"""Relevance on an untouched model: a forward pass with the values of the model, and gradients that share them out."""

from skgnnx.blackbox.relevance.boundaries import NodeGates
from skgnnx.blackbox.relevance.choosing import Rules
from skgnnx.blackbox.relevance.cut_pass import CutPass, check_chain, check_walks, other_ways
from skgnnx.blackbox.relevance.rules import Rule
from skgnnx.blackbox.relevance.surrogate import RelevancePass, Relevances, Surrogate, check_gap, shares
from skgnnx.blackbox.relevance.transitions import Transitions, transitions
from skgnnx.blackbox.relevance.walks import Walks, WalkSearch, all_walks, num_walks, sum_of_walks

__all__ = [
    "CutPass",
    "NodeGates",
    "RelevancePass",
    "Relevances",
    "Rule",
    "Rules",
    "Surrogate",
    "Transitions",
    "WalkSearch",
    "Walks",
    "all_walks",
    "check_chain",
    "check_gap",
    "check_walks",
    "num_walks",
    "other_ways",
    "shares",
    "sum_of_walks",
    "transitions",
]
