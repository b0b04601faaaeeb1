"""A forward pass that records what the gradients of all layers need, without changing the model."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from oodbench.errors import UsageError
from oodbench.gradients.attention import opened
from oodbench.gradients.rules import Rule, rule_for


@dataclass(frozen=True)
class Part:
    """The part of a layer's call that a rule applies to: the whole call, or a projection of an attention layer.

    Attributes:
        rule: Factorises the gradient.
        input: The input.
        version: Autograd version of the input, to notice later changes in place.
        output: Edge of the output in the autograd graph, which later changes in place do not affect.
        output_shape: Shape of the output.
    """

    rule: Rule
    input: Tensor
    version: int
    output: GradientEdge
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class Recording:
    """The record of a forward pass.

    Attributes:
        inputs: (N, …).
        logits: (N, C), with their autograd graph.
        calls: For each module that owns parameters, by name: the parts of each of its calls that a rule covers.
        features: The penultimate features: the input of the last call of the named layer, or else of a Linear layer
            with C outputs, or one for logits (0, z); None if there is no such call.
    """

    inputs: Tensor
    logits: Tensor
    calls: dict[str, list[list[Part]]]
    features: Tensor | None


def owners(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that own parameters themselves, by name; the model itself is ``(root)``."""
    return {
        name or "(root)": module
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }


def linear_layer(model: nn.Module, name: str) -> nn.Linear:
    """The Linear layer of that name.

    Raises:
        UsageError: The model has no such layer; the message lists its Linear layers.
    """
    named = dict(model.named_modules(remove_duplicate=False))
    layer = named.get(name)
    if isinstance(layer, nn.Linear):
        return layer
    linear = ", ".join(key for key, module in named.items() if isinstance(module, nn.Linear)) or "none"
    problem = "is no layer of it" if layer is None else f"is a {type(layer).__name__}"
    raise UsageError(f"its layer {name!r} before which features are read {problem}; expected a Linear layer: {linear}.")


def head_sizes(logits: Tensor) -> set[int]:
    """How many outputs a model's last Linear layer may have: C, or 1 where the logits may be (0, z) of one number z.

    Args:
        logits: (N, C).
    """
    classes = logits.shape[1]
    return {1, 2} if classes == 2 and not logits[:, 0].any() else {classes}


@contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode with gradients of all parameters, inside the context, and restore it afterwards."""
    modes = {module: module.training for module in model.modules()}
    frozen = {p: p.requires_grad for p in model.parameters() if p.is_floating_point() or p.is_complex()}
    try:
        model.eval()
        for parameter in frozen:
            parameter.requires_grad_()
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter, flag in frozen.items():
            parameter.requires_grad_(flag)
        for module, training in modes.items():
            module.training = training


def record(model: nn.Module, inputs: Tensor, last_layer: str | None = None) -> Recording:
    """Run a model that was ``prepared``, and record its layers' calls.

    Args:
        model: Maps inputs to logits (N, C).
        inputs: (N, …).
        last_layer: Name of the Linear layer whose input is the penultimate features; None finds the layer.

    Raises:
        UsageError: The output is not a matrix of finite logits, or there is no such layer.
    """
    named = None if last_layer is None else linear_layer(model, last_layer)
    names = {module: name for name, module in owners(model).items()}
    own = {module: dict(module.named_parameters(recurse=False)) for module in names}
    calls: dict[str, list[list[Part]]] = {name: [] for name in names.values()}
    heads: list[tuple[nn.Linear, Tensor]] = []

    def remember(module: nn.Module, parts: list[tuple[Rule, Tensor, Tensor]]) -> None:
        if all(output.grad_fn is not None for _, _, output in parts):
            calls[names[module]].append([_part(*part) for part in parts])

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:  # noqa: ANN401
        rule, layer_input = rule_for(module), args[0] if args else kwargs.get("input")
        if not (isinstance(layer_input, Tensor) and isinstance(output, Tensor)):
            return
        if isinstance(module, nn.Linear):
            heads.append((module, layer_input))
        # Under torch.func.functional_call, a layer computes with weights other than its own.
        if rule is not None and _same(module.named_parameters(recurse=False), own[module]):
            remember(module, [(rule, layer_input, output)])

    # Run before the user's hooks, which may return something else.
    handles = [
        module.register_forward_hook(hook, prepend=True, with_kwargs=True)
        for module in names
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        with opened(model, remember):
            # A copy, since the model may work on its input in place.
            logits = model(inputs.clone())
    _check_logits(logits, inputs)
    features = [
        layer_input.detach()
        for module, layer_input in heads
        if (module is named if named is not None else module.out_features in head_sizes(logits))
    ]
    return Recording(inputs, logits, calls, features[-1] if features else None)


def _same(named: Iterable[tuple[str, nn.Parameter]], before: Mapping[str, nn.Parameter]) -> bool:
    return all(before.get(name) is parameter for name, parameter in named)


def _part(rule: Rule, layer_input: Tensor, output: Tensor) -> Part:
    edge = get_gradient_edge(output)
    return Part(rule, layer_input.detach(), layer_input._version, edge, tuple(output.shape))


def _check_logits(logits: Any, inputs: Tensor) -> None:  # noqa: ANN401
    n = len(inputs)
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"the model returned {_described(logits)}; expected logits ({n}, C): wrap it in a module that returns "
            "them alone."
        )
    if logits.dim() != 2 or len(logits) != n:
        raise UsageError(f"the model returned {tuple(logits.shape)} for {n} inputs; expected logits ({n}, C).")
    if not logits.is_floating_point() or logits.grad_fn is None:
        raise UsageError(
            f"the model returned logits of {logits.dtype} that carry no gradient; expected floating-point numbers, "
            "computed without torch.no_grad() or detach() on the way."
        )
    strange = (~logits.detach().isfinite().all(dim=1)).nonzero().flatten().cpu().tolist()
    if strange:
        raise UsageError(
            f"the logits of {len(strange)} of {n} inputs are NaN or infinite, the first at index {strange[0]}; "
            "expected finite numbers."
        )


def _described(output: Any) -> str:  # noqa: ANN401
    kind = type(output).__name__
    if isinstance(output, dict):
        return f"a {kind} with the keys {', '.join(map(str, output))}"
    return f"a {kind} of {len(output)}" if isinstance(output, tuple | list) else f"a {kind}"
