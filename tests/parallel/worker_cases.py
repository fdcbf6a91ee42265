"""Models and explainers that tell what happened to them in worker processes."""

import os
import signal
from pathlib import Path

import numpy as np
import torch
from torch import nn

from skgnnx import Explanations, RandomExplainer
from skgnnx.blackbox.gathering import Masks
from skgnnx.explainers.base import BaseExplainer, explainer


class Counted(nn.Module):
    """A network that notes in a file which process unpickled it."""

    def __init__(self, network: nn.Module, path: Path) -> None:
        super().__init__()
        self.network = network
        self.path = path

    def forward(self, x, edge_index, batch=None):
        return self.network(x, edge_index, batch)

    def __setstate__(self, state):
        super().__setstate__(state)
        with self.path.open("a") as file:
            file.write(f"{os.getpid()}\n")


@explainer
class DiesOnce(RandomExplainer):
    """Scores like its parent, but the first process to explain the instance with the given id is killed."""

    instance: int = 0
    flag: str = ""

    def _explain_batch(self, gnn, batch, seed):
        flag = Path(self.flag)
        if self.instance in batch.X.ids and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._explain_batch(gnn, batch, seed)


@explainer
class ThreadCount(BaseExplainer):
    """Scores every edge by the number of threads that torch uses."""

    def _explain_batch(self, gnn, batch, seed):
        return Masks(edge=torch.full((batch.num_edges,), float(torch.get_num_threads())))


def require_equal(E: Explanations, F: Explanations) -> None:
    """Raise AssertionError unless all scores are the same to the last bit."""
    assert E.ids.tolist() == F.ids.tolist()
    for i in range(len(E)):
        np.testing.assert_array_equal(E[i], F[i], strict=True)
