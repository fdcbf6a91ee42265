"""Node features that are categories: gradients start at the outputs of the embeddings that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skgnnx.blackbox.calling import ModelCall
from skgnnx.blackbox.hooks import replaced
from skgnnx.graphs.batch import GraphBatch

EMBEDDED = ("embedded",)


class FeatureReaders(TorchFunctionMode):
    """Follows whole-number node features through a forward pass, to whatever is made of them.

    Parameters
    ----------
    x : Tensor
        The features.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._made = {id(x): x}  # holding them keeps their ids from being used again

    def __contains__(self, value: Any) -> bool:
        return id(value) in self._made

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(value in self for value in (*args, *(kwargs or {}).values())):
            for part in result if isinstance(result, (tuple, list)) else [result]:
                if torch.is_tensor(part) and not part.is_floating_point():
                    self._made[id(part)] = part
        return result


class NodeEmbeddings:
    """The calls of ``nn.Embedding`` that read node features.

    Parameters
    ----------
    call : ModelCall
        The frozen model.
    batch : GraphBatch
        Any, to see which calls these are.

    Raises
    ------
    TypeError
        If there are none.
    """

    def __init__(self, call: ModelCall, batch: GraphBatch) -> None:
        self._call = call
        self._parts = [(name, part) for name, part in call.model.named_modules() if isinstance(part, nn.Embedding)]
        self._reads: list[bool] = []
        self._shapes: list[torch.Size] = []
        x = batch.attribute("x")

        def look(name: str, part: nn.Module, original: Any, /, *args: Any, **given: Any) -> Any:
            self._reads.append((args[0] if args else given["input"]) in readers)
            return original(*args, **given)

        with torch.no_grad(), replaced(self._parts, "forward", look), FeatureReaders(x) as readers:
            call(batch, x)
        if not any(self._reads):
            raise TypeError(
                f"Scoring nodes needs floating-point node features, or an nn.Embedding that reads them. Got {x.dtype} "
                f"and no such embedding in {type(call.model).__name__}; use mask='edge'."
            )

    def values(self, batch: GraphBatch) -> Tensor:
        """Return what the embeddings make of the nodes of a batch, side by side (N, D)."""
        if EMBEDDED not in batch.memo:
            batch.memo[EMBEDDED] = self._made_of(batch)
        return batch.memo[EMBEDDED]

    def _made_of(self, batch: GraphBatch) -> Tensor:
        made: list[Tensor] = []
        calls = iter(self._reads)

        def keep(name: str, part: nn.Module, original: Any, /, *args: Any, **given: Any) -> Any:
            output = original(*args, **given)
            if next(calls):
                made.append(output)
                self._check_rows(name, output, batch.num_nodes)
            return output

        with torch.no_grad(), replaced(self._parts, "forward", keep):
            self._call(batch)
        self._shapes = [output.shape[1:] for output in made]
        return torch.cat([output.flatten(1) for output in made], dim=1)

    def _check_rows(self, name: str, output: Tensor, num_nodes: int) -> None:
        if output.dim() < 2 or len(output) != num_nodes:
            raise TypeError(
                f"Scoring nodes needs embeddings with one row per node ({num_nodes} here). Got shape "
                f"{tuple(output.shape)} from {name}; use mask='edge'."
            )

    @contextmanager
    def returning(self, values: Tensor, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Let the embeddings return other values (N, D), or the first rows of them, for one forward pass.

        Passes that run inside of it while `unless` is true are left as they are.
        """
        widths = [shape.numel() for shape in self._shapes]
        columns = iter(zip(values.split(widths, dim=1), self._shapes, strict=True))
        calls = iter(self._reads)

        def give(name: str, part: nn.Module, original: Any, /, *args: Any, **given: Any) -> Any:
            if unless() or not next(calls):
                return original(*args, **given)
            value, shape = next(columns)
            index = args[0] if args else given["input"]
            return value[: len(index)].reshape(len(index), *shape)

        with replaced(self._parts, "forward", give):
            yield


@dataclass
class Embedded:
    """Values that the embeddings of node features are to return, instead of features.

    Parameters
    ----------
    embeddings : NodeEmbeddings
    values : Tensor of shape (N, D)
        In the order of the batch, as `NodeEmbeddings.values`.
    """

    embeddings: NodeEmbeddings
    values: Tensor

    def take(self, order: Tensor) -> Embedded:
        """Return the values of nodes in another order."""
        return Embedded(self.embeddings, self.values.index_select(0, order))
