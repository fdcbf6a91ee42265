"""One forward pass with the values of the model, whose gradients share relevance out among what went in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.hooks import replaced
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.blackbox.plan import Plan
from skgnnx.blackbox.relevance.bias_shares import BiasShares, UnknownRowsError
from skgnnx.blackbox.relevance.conv_blocks import ConvCall
from skgnnx.blackbox.relevance.function_rules import FunctionRules, depends
from skgnnx.blackbox.relevance.gated_run import GatedRun
from skgnnx.blackbox.relevance.rules import Contributions, Rule
from skgnnx.blackbox.trimming import Trim
from skgnnx.graphs.batch import GraphBatch
