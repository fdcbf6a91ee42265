"""Reading what users give as X."""

from __future__ import annotations

from typing import Any

from torch_geometric.data import Batch, Data, Dataset

from skgnnx.graphs.arguments import ONE_DATA, check_not_empty
from skgnnx.graphs.instances import Instance, Instances
from skgnnx.graphs.joining import gather_instances


def check_instances(X: Any) -> Instances:
    """Return `X` as `Instances`.

    Parameters
    ----------
    X : Instances, or list, tuple, Series, object array, Dataset or Batch of Data, or list of Instance
        Graph-level instances are made of bare graphs.

    Returns
    -------
    Instances

    Raises
    ------
    TypeError
        If `X` is a single `Data`, or holds something else than graphs and instances.
    ValueError
        If `X` is empty, or mixes levels.

    Examples
    --------
    >>> import torch
    >>> from torch_geometric.data import Data
    >>> from skgnnx import check_instances
    >>> check_instances([Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]))])
    Instances(n=1, level='graph', num_graphs=1)
    """
    if isinstance(X, Instances):
        check_not_empty(len(X))
        return X
    if isinstance(X, Data) and not isinstance(X, Batch):
        raise TypeError(ONE_DATA)
    if isinstance(X, Instance):
        X = [X]
    if isinstance(X, (Batch, Dataset)):
        return Instances.from_graphs(X)
    if isinstance(X, (str, bytes, dict)) or not hasattr(X, "__iter__"):
        raise TypeError(f"X must be Instances or a sequence of graphs. Got {type(X).__name__}.")
    items = list(X)
    check_not_empty(len(items))
    if not any(isinstance(item, Instance) for item in items):
        return Instances.from_graphs(items)
    return gather_instances(items)
