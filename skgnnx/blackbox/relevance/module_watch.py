"""Knowing which module runs, and what it does with what goes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from skgnnx.blackbox.hooks import mapped
from skgnnx.blackbox.relevance.bias_shares import BiasShares
from skgnnx.blackbox.relevance.diagnosis import Entered, Seen
from skgnnx.blackbox.relevance.function_rules import dependent
from skgnnx.blackbox.relevance.layout import Layout


class ModuleWatch:
    """What is known of the modules that run in a forward pass.

    Parameters
    ----------
    model_name : str
    layout : Layout
        Calls of modules are noted until it is complete.
    shares : BiasShares
        Of the run.

    Attributes
    ----------
    seen : list of Seen
        Calls of modules.
    exponentials : set of str
        Modules that take exponentials.
    rules : list of str
        How relevance passes each layer and linear function.
    is_still : bool
        True while something runs whose gradients nobody looks at.
    """

    def __init__(self, model_name: str, layout: Layout, shares: BiasShares) -> None:
        self.model_name = model_name
        self.layout = layout
        self.shares = shares
        self.seen: list[Seen] = []
        self.exponentials: set[str] = set()
        self.rules: list[str] = []
        self.is_still = False
        self._path: list[str] = []
        self._views: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def paused(self) -> bool:
        """True while functions and layers are to be left as they are."""
        return self.is_still

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Leave functions and layers as they are for what runs inside."""
        was, self.is_still = self.is_still, True
        try:
            yield
        finally:
            self.is_still = was

    def watch(self, stack: ExitStack, name: str, module: nn.Module) -> None:
        """Know which module is running, for messages; and note what modules do in the run that shows the layout."""
        before: list[Entered] = []

        def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
            self._path.append(name)
            if self.layout.is_complete:
                return None
            args, kwargs = self._told_apart(args, kwargs)
            before.append(Entered(dependent([args, kwargs]), len(self.shares.factors)))
            return args, kwargs

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._path.pop()
            if self.layout.is_complete:
                return
            entered = before.pop()
            if not self.paused and dependent(output):
                with self.quiet():
                    self.seen.append(entered.left(name, module, output, self.shares.factors))

        stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(module.register_forward_hook(leave).remove)

    def _told_apart(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return arguments of which none depends on another, in the run that shows what each module does with them."""
        given = dependent([args, kwargs])
        if self.paused or len(given) < 2:
            return args, kwargs
        others = {id(u): u.view_as(u) for u in given}
        self._views |= {id(view): (view, u) for u, view in zip(given, others.values(), strict=True)}

        def other(value: Any) -> Any:
            return others.get(id(value), value)

        return mapped(other, args), {key: mapped(other, value) for key, value in kwargs.items()}

    def note_exponential(self) -> None:
        """Remember that the modules that run now take exponentials, as attention does."""
        self.exponentials |= set(self._path)

    @property
    def path(self) -> str:
        """Name of the module that runs now."""
        return repr(self._path[-1]) if self._path and self._path[-1] else self.model_name

    def note_rule(self, said: Any) -> None:
        """Note how relevance passes a function that the module calls which runs now."""
        self.rules.append(f"{self._path[-1] if self._path and self._path[-1] else self.model_name}: {said}")
