"""Output heads: what the columns of a model's output mean, and the scores and probabilities they stand for."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

OUTPUTS = ("auto", "logits", "log_probs", "probs", "binary_logit", "binary_prob", "multilabel", "regression")
_SOFTMAX = {
    functional.log_softmax: "log_probs",
    torch.log_softmax: "log_probs",
    Tensor.log_softmax: "log_probs",
    functional.softmax: "probs",
    torch.softmax: "probs",
    Tensor.softmax: "probs",
    torch.sigmoid: "sigmoid",
    Tensor.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid",
}


class HeadRecorder(TorchFunctionMode):
    """Remembers the argument of every softmax, log-softmax and sigmoid, to find the one that made the output."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, str]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = _SOFTMAX.get(func)
        if kind is not None and args and torch.is_tensor(args[0]):
            dim = (kwargs or {}).get("dim", args[1] if len(args) > 1 and kind != "sigmoid" else -1)
            if kind == "sigmoid" or dim in (-1, result.dim() - 1):
                self.calls.append((result, args[0], kind))
        return result

    def head_of(self, output: Tensor) -> tuple[Tensor, str] | None:
        """Return the argument and the kind of the head whose result is the output itself."""
        for result, argument, kind in reversed(self.calls):
            if result is output:
                return argument, kind
            if torch.is_tensor(output) and _is_view(output, result):
                return argument.reshape(output.shape), kind
        return None


def _is_view(output: Tensor, result: Tensor) -> bool:
    """Return True if an output is all of a result in another shape."""
    same_place = output.numel() == result.numel() > 0 and output.data_ptr() == result.data_ptr()
    return same_place and output.is_contiguous() and result.is_contiguous()


def recognise(output: Tensor, kind: str | None, *, regression: bool, given: str, name: str) -> str:
    """Return which of `OUTPUTS` the model's raw output is.

    Parameters
    ----------
    output : Tensor of shape (rows, columns)
        Raw output.
    kind : str or None
        The head found by `HeadRecorder`.
    regression : bool
        True if the estimator around the model says so.
    given : str
        The user's `output` parameter.
    name : str
        Name of the model, for messages.
    """
    if given != "auto":
        _check_columns(given, output.shape[1], name)
        return given
    if regression:
        return "regression"
    single = output.shape[1] == 1
    if kind == "sigmoid":
        return "binary_prob" if single else "multilabel_prob"
    if kind is not None and not single:
        return kind
    if not single:
        return _by_value(output, name)
    warnings.warn(
        f"{name} has one output column, read as the logit of a binary classifier; say output='binary_logit', "
        "'binary_prob' or 'regression'.",
        UserWarning,
        stacklevel=2,
    )
    return "binary_logit"


def _check_columns(given: str, columns: int, name: str) -> None:
    if given.startswith("binary") and columns != 1:
        raise ValueError(f"output={given!r} needs a model with one output column. Got {columns} from {name}.")
    if given in ("logits", "log_probs", "probs") and columns == 1:
        raise ValueError(f"output={given!r} needs at least two output columns. Got 1 from {name}; see 'binary_logit'.")


def _by_value(output: Tensor, name: str) -> str:
    """Tell probabilities by their sums, where no softmax was seen (a view or a copy came after it)."""
    values = output.detach().double()
    ones = torch.ones(len(values), dtype=values.dtype, device=values.device)
    if bool((values <= 1e-6).all()) and torch.allclose(values.exp().sum(1), ones, atol=1e-4):
        return "log_probs"
    if bool((values >= 0).all()) and torch.allclose(values.sum(1), ones, atol=1e-4):
        return "probs"
    return "logits"


def num_targets(kind: str, columns: int) -> int:
    """Return how many targets an output with this many columns offers."""
    return 2 if kind.startswith("binary") else columns


def needs_target(kind: str, columns: int) -> bool:
    """Return True if no target can be predicted: several regression columns or labels."""
    return columns > 1 and (kind.startswith("multilabel") or kind == "regression")


def predicted(kind: str, output: Tensor, threshold: float) -> Tensor:
    """Return the predicted class of each row (column 0 for a one-column regression).

    Scores within 1e-5 relative are tied, and the lowest class wins, so that rounding cannot change the target.
    """
    if kind.startswith("binary"):
        return (probabilities(kind, output)[:, 1] >= threshold).long()
    if kind == "regression" or output.shape[1] == 1:
        return torch.zeros(len(output), dtype=torch.long, device=output.device)
    best = output.max(dim=1, keepdim=True).values
    return (output >= best - 1e-5 * best.abs()).long().argmax(dim=1)


def probabilities(kind: str, output: Tensor) -> Tensor:
    """Return what the model says of each target: class probabilities, or the values of a regression."""
    if kind == "logits":
        return output.softmax(dim=1)
    if kind == "log_probs":
        return output.exp()
    if kind == "multilabel":
        return output.sigmoid()
    if kind.startswith("binary"):
        positive = output.sigmoid() if kind == "binary_logit" else output
        return torch.cat([1 - positive, positive], dim=1)
    return output


def log_probabilities(kind: str, output: Tensor) -> Tensor:
    """Return log-probabilities of each target; not defined for regression."""
    if kind == "logits":
        return output.log_softmax(dim=1)
    if kind == "log_probs":
        return output
    if kind == "multilabel":
        return functional.logsigmoid(output)
    if kind == "binary_logit":
        return torch.cat([functional.logsigmoid(-output), functional.logsigmoid(output)], dim=1)
    return probabilities(kind, output).clamp_min(1e-30).log()


def log_probability(kind: str, output: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of each row's target (B,), of logits also where it rounds to zero.

    Of a very sure prediction, a logarithm of a softmax keeps no digits, and no gradient.
    """
    column = targets.view(-1, 1)
    if kind != "logits":
        return log_probabilities(kind, output).gather(1, column).squeeze(1)
    others = output.scatter(1, column, float("-inf")).logsumexp(dim=1)
    return functional.logsigmoid(output.gather(1, column).squeeze(1) - others)


def _logit(probability: Tensor) -> Tensor:
    """Return log(p / (1 - p)), as far out as the floating-point type can tell p from 0 and 1."""
    return probability.logit(eps=torch.finfo(probability.dtype).eps)


def scores(kind: str, output: Tensor) -> Tensor:
    """Return pre-softmax scores of each target, from an output or from its head's argument.

    Only differences between scores matter to a softmax; for ``log_probs`` and ``probs`` whose head was not seen,
    log-probabilities are the scores.
    """
    if kind == "binary_logit":
        return torch.cat([-output, output], dim=1)
    if kind == "binary_prob":
        logit = _logit(output)
        return torch.cat([-logit, logit], dim=1)
    if kind == "multilabel_prob":
        return _logit(output)
    if kind == "probs":
        return output.clamp_min(1e-30).log()
    return output


ARGUMENT_KIND = {
    "log_probs": "logits",
    "probs": "logits",
    "binary_prob": "binary_logit",
    "multilabel_prob": "multilabel",
}
