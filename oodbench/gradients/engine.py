"""One forward pass that remembers the inputs of all layers, and backward passes that collect their output gradients."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import count
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.errors import UsageError
from oodbench.gradients.losses import Loss, logit_gradient
from oodbench.gradients.rules import Form, Vector, rule_for, zero_form
from oodbench.gradients.statistics import Sums, metrics_of, squares_of, sums_of

logger = logging.getLogger(__name__)


@dataclass
class Call:
    """One call of a module in a forward pass, and what the last backward pass brought it."""

    input: Tensor
    position: int
    output_gradient: Tensor | None = None


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
        for calls in self.calls.values():
            for call in calls:
                call.output_gradient = None
        torch.autograd.grad(self.logits, self.inputs, unit, retain_graph=True, allow_unused=True)
        slow = self._without_rule()
        forms = {name: self._forms(name, module) for name, module in owners(self.model).items() if name not in slow}
        return forms | _by_single_samples(self.model, self.inputs.detach(), unit, slow), scale

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
        """Modules whose gradient no rule factorises: of unknown type, called twice, or sharing a parameter."""
        uses: dict[int, int] = {}
        for module in owners(self.model).values():
            for parameter in module.parameters(recurse=False):
                uses[id(parameter)] = uses.get(id(parameter), 0) + 1
        return {
            name: module
            for name, module in owners(self.model).items()
            if len(self.calls[name]) > 1
            or (self.calls[name] and rule_for(module) is None)
            or any(uses[id(parameter)] > 1 for parameter in module.parameters(recurse=False))
        }

    def _forms(self, name: str, module: nn.Module) -> list[Form]:
        calls = self.calls[name]
        rule = rule_for(module)
        if rule is None or not calls or calls[0].output_gradient is None:
            return [zero_form(parameter, len(self.inputs)) for parameter in module.parameters(recurse=False)]
        with torch.no_grad():
            return rule(module, calls[0].input, calls[0].output_gradient)


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
        inputs: (N, …), floating point.

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
            parameter.requires_grad_(False)
        with torch.enable_grad():
            leaf = inputs.detach().requires_grad_()
            logits = model(leaf)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(inputs):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UsageError(
                f"the model returned {shape} for {len(inputs)} inputs; expected logits ({len(inputs)}, C)."
            )
        yield Pass(model, leaf, logits, calls)
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
        inputs: (N, …), floating point, on the model's device.
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
        call = Call(args[0].detach() if args and isinstance(args[0], Tensor) else torch.empty(0), next(positions))
        calls.append(call)
        if isinstance(output, Tensor) and output.grad_fn is not None:
            # A hook of the graph's node, not of the tensor: later in-place operations do not change what it sees.
            position = output.output_nr

            def keep(gradients: tuple[Tensor | None, ...]) -> None:
                call.output_gradient = gradients[position]

            output.grad_fn.register_prehook(keep)

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
    for parameter in distinct:
        parameter.requires_grad_()
    try:
        with torch.enable_grad():
            for position in range(len(inputs)):
                logits = model(inputs[position : position + 1])
                gradients = torch.autograd.grad(logits, distinct, unit[position : position + 1], allow_unused=True)
                rows.append([
                    torch.zeros_like(parameter) if gradient is None else gradient
                    for parameter, gradient in zip(distinct, gradients, strict=True)
                ])  # fmt: skip
    finally:
        for parameter in distinct:
            parameter.requires_grad_(False)
    stacked = {
        id(parameter): Vector(torch.stack([row[column].flatten() for row in rows]))
        for column, parameter in enumerate(distinct)
    }
    return {
        name: [stacked[id(parameter)] for parameter in module.parameters(recurse=False)]
        for name, module in modules.items()
    }
