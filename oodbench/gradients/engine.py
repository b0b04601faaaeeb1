"""One forward pass that remembers the inputs of all layers, and backward passes that collect their output gradients."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import count
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from oodbench.errors import UsageError
from oodbench.gradients.losses import Loss, logit_gradient
from oodbench.gradients.rules import Form, Vector, rule_for, zero_form
from oodbench.gradients.statistics import Sums, metrics_of, squares_of, sums_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One call of a module in a forward pass.

    Attributes:
        input: Its first argument; empty if that is no tensor.
        position: How many calls of modules came before.
        output: Where its output stands in the graph, whatever is done to it in place later; None if it is no tensor
            or has no graph.
    """

    input: Tensor
    position: int
    output: GradientEdge | None


@dataclass(frozen=True)
class Pass:
    """What one forward pass of a batch left behind.

    Attributes:
        model: The model.
        inputs: (N, …).
        logits: (N, C), with its graph.
        calls: Of each module that owns parameters, its calls, in order.
    """

    model: nn.Module
    inputs: Tensor
    logits: Tensor
    calls: dict[str, list[Call]]

    def layers(self, loss: Loss) -> tuple[dict[str, list[Form]], Tensor]:
        """The factorised gradients of a loss by module, divided by a scale of each sample.

        Gradients are linear in the logit gradient, so that is brought to largest entry 1 first: no power of a
        confident sample's tiny gradient leaves the range of float32.

        Returns:
            By module one form for each of its parameters, in their order; and the scale, float64 (N,).
        """
        d = logit_gradient(loss, self.logits)
        scale = d.abs().amax(dim=1)
        unit = (d / torch.where(scale > 0, scale, 1)[:, None]).to(self.logits.dtype)
        slow = self._without_rule()
        fast = {name: module for name, module in owners(self.model).items() if name not in slow}
        edges = {name: call.output for name in fast for call in self.calls[name] if call.output is not None}
        gradients: dict[str, Tensor | None] = dict.fromkeys(fast)
        if edges and self.logits.grad_fn is not None:
            found = torch.autograd.grad(self.logits, list(edges.values()), unit, retain_graph=True, allow_unused=True)
            gradients |= dict(zip(edges, found, strict=True))
        forms = {name: self._forms(name, module, gradients[name]) for name, module in fast.items()}
        return forms | _by_single_samples(self.model, self.inputs, unit, slow), scale

    def last_linear(self) -> Call:
        """The call of the Linear layer that made the logits; its input are the penultimate features.

        Raises:
            UsageError: No Linear layer has as many outputs as there are classes.
        """
        heads = [
            call
            for name, module in owners(self.model).items()
            if isinstance(module, nn.Linear) and module.out_features == self.logits.shape[1]
            for call in self.calls[name]
        ]
        if not heads:
            raise UsageError(
                f"the classifier has no Linear layer with {self.logits.shape[1]} outputs, so its penultimate features "
                "cannot be found; end it in one."
            )
        return max(heads, key=lambda call: call.position)

    def _without_rule(self) -> dict[str, nn.Module]:
        """Modules whose gradient no rule factorises: of unknown type, or with parameters that are used elsewhere too.

        The graph tells how often a parameter is used: a weight that is shared, called twice or passed to a function
        has more uses than its module has calls.
        """
        uses = _uses(self.logits)
        slow = {}
        for name, module in owners(self.model).items():
            most = max(uses[parameter] for parameter in module.parameters(recurse=False))
            by_rule = rule_for(module) is not None and len(self.calls[name]) == 1 and most == 1
            if most > 0 and not (by_rule and self.calls[name][0].output is not None):
                slow[name] = module
        return slow

    def _forms(self, name: str, module: nn.Module, output_gradient: Tensor | None) -> list[Form]:
        rule = rule_for(module)
        if rule is None or output_gradient is None:
            return [zero_form(parameter, len(self.inputs)) for parameter in module.parameters(recurse=False)]
        with torch.no_grad():
            return rule(module, self.calls[name][0].input, output_gradient)


def _uses(logits: Tensor) -> Counter[Tensor]:
    """How often each parameter is used on the way to the logits."""
    uses: Counter[Tensor] = Counter()
    seen: set[Any] = {None}
    waiting = [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in seen or node is None:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None:
                uses[variable] += 1
            else:
                waiting.append(following)
    return uses


def owners(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that own parameters themselves, by name; the model itself is ``(root)``."""
    return {
        name or "(root)": module
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }


@contextmanager
def forward(model: nn.Module, inputs: Tensor) -> Iterator[Pass]:
    """Run the model in eval mode and remember what the gradients of all layers need.

    The model is left as it was found, also when it raises.

    Args:
        model: Maps inputs to logits (N, C).
        inputs: (N, …).

    Raises:
        UsageError: The model's output is no matrix of logits.
    """
    modes = {module: module.training for module in model.modules()}
    frozen = {parameter: parameter.requires_grad for parameter in model.parameters()}
    calls: dict[str, list[Call]] = {name: [] for name in owners(model)}
    positions = count()
    handles = [
        module.register_forward_hook(_remember(calls[name], positions)) for name, module in owners(model).items()
    ]
    try:
        model.eval()
        for parameter in frozen:
            parameter.requires_grad_()
        with torch.inference_mode(False), torch.enable_grad():
            given = inputs.clone() if inputs.is_inference() else inputs.detach()
            logits = model(given)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(inputs):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UsageError(
                f"the model returned {shape} for {len(inputs)} inputs; expected logits ({len(inputs)}, C)."
            )
        yield Pass(model, given, logits, calls)
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in frozen.items():
            parameter.requires_grad_(flag)
        for module, training in modes.items():
            module.training = training


def gradient_metrics(
    model: nn.Module, inputs: Tensor, *, loss: Loss = "predicted", per_layer: bool = True
) -> dict[str, Tensor]:
    """Seven statistics of each sample's weight gradient (Oberdiek, Rottmann, Gottschalk 2018, section 2).

    Linear and Conv2d layers cost one batched backward pass for all samples; other layers that own parameters, and
    shared parameters, cost one backward pass for each sample.

    Args:
        model: A classifier that maps inputs to logits (N, C). It is run in eval mode and left as it was found.
        inputs: (N, …), on the model's device.
        loss: Whose gradient; see ``oodbench.gradients.losses.logit_gradient``.
        per_layer: Whether each module that owns parameters gets its own statistics as well.

    Returns:
        ``l1``, ``l2``, ``min``, ``max``, ``mean``, ``std``, ``skewness`` over all parameters, and ``l1@conv1`` and so
        on over those of each module, float32 (N,) each. ``std`` is the population standard deviation, ``skewness``
        the third standardised moment; all are 0 where the gradient is 0.

    Raises:
        UsageError: The model has no parameters, or does not return logits.
    """
    if not owners(model):
        raise UsageError("the model has no parameters, so there is no weight gradient.")
    with forward(model, inputs) as run:
        return metrics_by_layer(run, loss, per_layer=per_layer)


def metrics_by_layer(run: Pass, loss: Loss, *, per_layer: bool = True) -> dict[str, Tensor]:
    """The metrics of ``gradient_metrics`` from a forward pass that is already made."""
    layers, scale = run.layers(loss)
    total: list[Sums] = []
    counted: set[int] = set()
    by_layer: dict[str, Tensor] = {}
    for name, module in owners(run.model).items():
        sums = [sums_of(form) for form in layers[name]]
        if per_layer:
            values = metrics_of(reduce(add, sums), scale)
            by_layer |= {f"{metric}@{name}": value for metric, value in values.items()}
        # A parameter that two modules share is part of both, and counts once in the whole.
        for parameter, of_parameter in zip(module.parameters(recurse=False), sums, strict=True):
            if id(parameter) not in counted:
                counted.add(id(parameter))
                total.append(of_parameter)
    return metrics_of(reduce(add, total), scale) | by_layer


def squared_norm(run: Pass, loss: Loss) -> Tensor:
    """Σg² over all parameters, float64 (N,)."""
    layers, scale = run.layers(loss)
    squares = {
        id(parameter): squares_of(form)
        for name, module in owners(run.model).items()
        for parameter, form in zip(module.parameters(recurse=False), layers[name], strict=True)
    }
    return reduce(add, squares.values()) * scale**2


def _remember(calls: list[Call], positions: Iterator[int]) -> Any:  # noqa: ANN401
    def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        first = args[0].detach() if args and isinstance(args[0], Tensor) else torch.empty(0)
        has_graph = isinstance(output, Tensor) and output.grad_fn is not None
        calls.append(Call(first, next(positions), get_gradient_edge(output) if has_graph else None))

    return hook


def _by_single_samples(
    model: nn.Module, inputs: Tensor, unit: Tensor, modules: dict[str, nn.Module]
) -> dict[str, list[Form]]:
    """The gradients of modules without a rule, exactly, by one backward pass for each sample."""
    if not modules:
        return {}
    logger.info("one backward pass for each sample, for want of a rule: %s", ", ".join(modules))
    parameters = [parameter for module in modules.values() for parameter in module.parameters(recurse=False)]
    distinct = list({id(parameter): parameter for parameter in parameters}.values())
    rows: list[list[Tensor]] = []
    with torch.inference_mode(False), torch.enable_grad():
        for position in range(len(inputs)):
            logits = model(inputs[position : position + 1])
            gradients = torch.autograd.grad(logits, distinct, unit[position : position + 1], allow_unused=True)
            rows.append([
                    torch.zeros_like(parameter) if gradient is None else gradient
                    for parameter, gradient in zip(distinct, gradients, strict=True)
                ])  # fmt: skip
    stacked = {
        id(parameter): Vector(torch.stack([row[column].flatten() for row in rows]))
        for column, parameter in enumerate(distinct)
    }
    return {
        name: [stacked[id(parameter)] for parameter in module.parameters(recurse=False)]
        for name, module in modules.items()
    }
