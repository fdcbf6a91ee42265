"""One forward pass with the values of the model, whose gradients share relevance out among what went in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from skgnnx.blackbox.hooks import Nodes, around_propagate, replaced
from skgnnx.blackbox.open_box import OpenBox
from skgnnx.blackbox.plan import Plan, Setup
from skgnnx.blackbox.pyg_compat import ends_of_call
from skgnnx.blackbox.relevance.bias_shares import BiasShares
from skgnnx.blackbox.relevance.boundaries import Boundaries
from skgnnx.blackbox.relevance.conv_blocks import ConvCall
from skgnnx.blackbox.relevance.function_rules import FunctionRules, depends
from skgnnx.blackbox.relevance.gated_run import GatedRun
from skgnnx.blackbox.relevance.layout import Layout, Place
from skgnnx.blackbox.relevance.module_watch import ModuleWatch
from skgnnx.blackbox.relevance.rules import Contributions, Rule
from skgnnx.blackbox.trimming import Trim
from skgnnx.graphs.batch import GraphBatch


class SurrogateRun(ModuleWatch):
    """A forward pass of a batch.

    Parameters
    ----------
    gnn : OpenBox
    batch : GraphBatch
    layout : Layout
        Which layers are linear blocks; filled by the run where it is not complete.
    choice : callable
        Returns the `Rule` of a block, given its `Place`.
    gates : sequence of Tensor of shape (E + N,), optional
        Factors on the messages of each propagate call, see `GatedRun`.
    boundaries : Boundaries, optional
        What is done between graph convolutions.
    """

    def __init__(
        self,
        gnn: OpenBox,
        batch: GraphBatch,
        layout: Layout,
        choice: Callable[[Place], Rule],
        gates: Any = None,
        boundaries: Boundaries | None = None,
    ) -> None:
        super().__init__(gnn.name, layout, BiasShares(batch))
        self.gnn = gnn
        self.choice = choice
        self.boundaries = Boundaries() if boundaries is None else boundaries
        self.convs = 0  # layers entered so far
        self.blocks = 0  # linear blocks passed so far
        self.bypassed: list[Tensor] = []  # outputs of blocks from which what follows was folded into the block
        self.conv_names: list[str] = []
        self.links: list[dict[int, Tensor]] = []  # ends of the messages of each graph convolution, call by call
        self._inside = 0
        self._ends: list[Tensor] = []
        self._last: tuple[Tensor, int, Contributions, Rule] | None = None
        self._run = GatedRun(Plan(plain_setup(gnn.setup), batch, Trim.NONE), gates)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the raw output of the model, given what `OpenBox.node_inputs` returns."""
        layers = self.gnn.setup.layers
        with ExitStack() as stack:
            for name, module in self.gnn.box.model.named_modules():
                self.watch(stack, name, module)
            for _, layer in layers:
                stack.callback(layer.register_edge_update_forward_hook(self._attention).remove)
                stack.callback(layer.register_message_forward_pre_hook(self._before_messages).remove)
                stack.callback(layer.register_message_forward_hook(self._after_messages).remove)
            stack.enter_context(around_propagate(layers, self._start, self._end))
            stack.enter_context(replaced(layers, "forward", self._conv))
            stack.enter_context(FunctionRules(self))
            return self._run(self.gnn.as_input(x))

    @property
    def paused(self) -> bool:
        """True while functions and layers are to be left as they are."""
        return self.is_still or self._run.is_scaling or self._run.plan.edges.resolving

    def _start(self, name: str, layer: MessagePassing, edge_index: Tensor, nodes: Nodes) -> None:
        ends = ends_of_call(edge_index, layer)
        self._ends.append(ends[1])
        if self.links:
            self.links[-1][self._run.calls] = ends

    def _end(self) -> None:
        self._ends.pop()

    def _before_messages(self, layer: MessagePassing, inputs: Any) -> None:
        self.shares.enter_messages(self._ends[-1])

    def _after_messages(self, layer: MessagePassing, inputs: Any, output: Any) -> None:
        self.shares.leave_messages()

    def _attention(self, layer: MessagePassing, inputs: Any, output: Any) -> Any:
        return output.detach() if torch.is_tensor(output) and not self.paused else output

    def _conv(self, name: str, layer: MessagePassing, original: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self.paused:
            return original(*args, **kwargs)
        call = ConvCall(layer, original, args, kwargs, self._again(self._run.calls))
        inputs = call.inputs()
        if self._inside or not inputs:
            return self._block_or_parts(name, call, inputs)
        self.convs += 1
        self.conv_names.append(name)
        self.links.append({})
        state = inputs[0]
        with self.quiet():
            crossed = self.boundaries.enter(state)
        call = call.with_input(state, crossed)
        output = self._block_or_parts(name, call, call.inputs())
        return self._left(output) if torch.is_tensor(output) else output

    def _left(self, output: Tensor) -> Tensor:
        """Cross the last boundary: the one behind the last convolution, or so it may be."""
        if self.layout.is_complete and self.convs < self.layout.num_convs:
            return output
        with self.quiet():
            crossed = self.boundaries.leave(output)
        if self._last is not None and self._last[0] is output:
            self._last = (crossed, crossed._version, *self._last[2:])
        return crossed

    def _block_or_parts(self, name: str, call: ConvCall, inputs: list[Tensor]) -> Any:
        if name not in self.layout.blocks and not self.layout.is_complete:
            self.layout.blocks[name] = call.biases()
        biases = self.layout.blocks.get(name)
        if biases is None or not inputs:
            self.rules.append(f"{name}: its parts")
            return self._parts(call)
        rule = self.rule_here(is_layer=True)
        self.rules.append(f"{name}: as a whole, {rule}")
        if rule.needs_signs:
            check_weights(self.shares.batch)
        value = call.value()
        for u in inputs:
            self.check_input(u)
        return self.passed(value, call.contributions(biases, rule.needs_signs), rule)

    def _parts(self, call: ConvCall) -> Any:
        """Run a layer that is no block; its parts may be."""
        args, kwargs = call.given
        self._inside += 1
        try:
            return call.original(*args, **kwargs)
        finally:
            self._inside -= 1

    def _again(self, calls: int) -> Callable[[], Any]:
        """Return a context in which a layer runs with its own functions, as the same propagate calls."""

        @contextmanager
        def again() -> Iterator[None]:
            self._run.calls = calls
            with self.quiet():
                yield

        return again

    def rule_here(self, *, is_layer: bool = False) -> Rule:
        """Return the rule of the block that comes now: a whole graph convolution, a part of one, or what is between."""
        return self.choice(self.layout.place(self.convs, self.blocks, is_layer or bool(self._inside)))

    def check_input(self, u: Tensor) -> None:
        """Look at what goes into a linear block."""

    def check_terms(self, terms: Sequence[Any], *, subtracted: bool) -> None:
        """Look at two values that are added, or of which one is subtracted from the other."""

    def passed(self, value: Tensor, given: Contributions, rule: Rule) -> Tensor:
        """Return the output of a linear block, and remember where it came from."""
        with self.quiet():
            output = rule.passed(value, given, self.shares)
        self.blocks += 1
        self._last = (output, output._version, given, rule)
        return output

    def folded(self, u: Tensor, value: Tensor, factor: Tensor, shift: Tensor) -> Tensor | None:
        """Return the output of the block that ran last, scaled and shifted, if `u` is its output as it left it."""
        u = self._views.get(id(u), (u, u))[1]
        if self._last is None or self._last[0] is not u or self._last[1] != u._version:
            return None
        _, _, given, rule = self._last
        self.note_rule("folded into the block before")
        self.bypassed.append(u)
        self.blocks -= 1  # what is folded into a block is one with it
        output = self.passed(value, given.scaled(factor, shift), rule)
        if not self.boundaries.is_last(u):
            return output
        with self.quiet():
            crossed = self.boundaries.replace_last(output)
        self._last = (crossed, crossed._version, *self._last[2:])
        return crossed

    def is_last_output(self, output: Tensor) -> bool:
        """Return True if a tensor is the output of the last block, perhaps in another shape or copied."""
        made = None if self._last is None else self._last[0]
        if made is None or output is made or output._base is made:
            return made is not None
        if not output.requires_grad or not torch.equal(output.detach().flatten(), made.detach().flatten()):
            return False
        (slope,) = torch.autograd.grad(output.sum(), made, retain_graph=True, allow_unused=True)
        return slope is not None and bool((slope == 1).all())

    def counted(self, value: Any, like: Any) -> Any:
        """Return a constant that is added as something that gets a share; anything else as it is."""
        if depends(value) or not torch.is_tensor(like):
            return value
        if isinstance(value, (int, float)) and value != 0:
            value = like.new_tensor(float(value))
        if not (torch.is_tensor(value) and value.is_floating_point()):
            return value
        return self.shares.counted(value, like)

    def refuse(self, reason: str) -> NoReturn:
        """Raise RefusalError for the module that runs now."""
        raise RefusalError(
            f"Relevance must be able to pass every layer. Got {self.path} of {self.gnn.name}, which {reason}"
        )


class RefusalError(Exception):
    """Relevance cannot pass a module. No TypeError: torch takes that for an operand that it does not know."""


def check_weights(batch: GraphBatch) -> None:
    """Raise ValueError, naming the instance, if there are negative edge weights, whose sign no rule can tell apart."""
    if "edge_weight" not in batch.X.store.columns:
        return
    lowest = batch.attribute("edge_weight").flatten()
    if bool((lowest < 0).any()):
        edge = int((lowest < 0).nonzero()[0])
        raise ValueError(
            "Rules that treat positive and negative contributions apart need edge weights that are not negative. Got "
            f"{float(lowest[edge]):.3g} at index {batch.positions[int(batch.edge_instance[edge])]}; use rule='zero' or "
            "rule='epsilon'."
        )


def plain_setup(setup: Setup) -> Setup:
    """Return how batches run when layers compute every message themselves, and nothing is left out or remembered."""
    plain = copy.copy(setup)
    plain.fusions, plain.foldable = [], []
    return plain
