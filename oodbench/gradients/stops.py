"""Stops: where a backward pass has to stop to take the gradients of all parameters.

Recordings of single samples (probes) show which dimension of a tensor holds the samples, and that they are in order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from oodbench.gradients.forms import Form, Vector
from oodbench.gradients.graph import Broadcast, Graph, Node
from oodbench.gradients.recording import Part, Recording, owners
from oodbench.gradients.rules import Rule, needs_samples_first

Probes = Mapping[int, Recording]
"""Recordings of single samples by their index; for a batch of a single sample, a recording of it taken twice."""


def probe_size(n: int) -> int:
    """Number of samples in a probe of a batch of n."""
    return 1 if n > 1 else 2


@dataclass(frozen=True)
class Stop:
    """A place where the backward pass stops to take the gradients of some parameters of a module.

    Attributes:
        module: The module.
        node: The operation whose output gradient is taken.
        output: Number of the output among those of the operation.
        rule: Factorises the gradients.
        arguments: Maps the output gradient to the arguments x and d of the rule, with samples in dimension 0.
    """

    module: nn.Module
    node: Node
    output: int
    rule: Rule
    arguments: Callable[[Tensor], tuple[Tensor, Tensor]]


def stops_of(model: nn.Module, recording: Recording, graph: Graph, probes: Probes) -> list[Stop]:
    """The stops for the parameters of all modules; parameters without a stop are left to ``single_samples``."""
    probed, n = Graph(next(iter(probes.values())).logits), len(recording.inputs)
    stops: list[Stop] = []
    for name, module in owners(model).items():
        own = dict(module.named_parameters(recurse=False))
        calls = [recording.calls[name], *(probe.calls[name] for probe in probes.values())]
        candidates: list[Stop | None] = [None]
        if all(len(module_calls) == 1 for module_calls in calls) and all(
            graph.uses(parameter) == 1 for parameter in own.values()
        ):
            by_part = zip(*(module_calls[0] for module_calls in calls), strict=True)
            candidates = [
                _stop_at_part(module, part, graph, dict(zip(probes, probe_parts, strict=True)), probed, n)
                for part, *probe_parts in by_part
            ]
        if None in candidates:
            candidates = [_stop_at_parameter(module, key, own[key], graph, probed, n) for key in own]
        stops += [stop for stop in candidates if stop is not None]
    return stops


def _stop_at_part(
    module: nn.Module, part: Part, graph: Graph, probe_parts: Mapping[int, Part], probed: Graph, n: int
) -> Stop | None:
    x, node, before = part.input, part.output.node, next(iter(probe_parts.values()))
    if part.version != x._version:
        return None
    x_axis = _sample_axis(x.shape, before.input.shape, n)
    d_axis = _sample_axis(part.output_shape, before.output_shape, n)
    if x_axis is not None and d_axis is not None:
        in_place = x_axis == d_axis == 0 or not needs_samples_first(part.rule)
        if not (in_place and (n == 1 or _in_order(x, x_axis, probe_parts))):
            return None
        return Stop(
            module, node, part.output.output_nr, part.rule, partial(_own_arguments, x.movedim(x_axis, 0), d_axis)
        )
    if x.shape != before.input.shape or part.output_shape != before.output_shape or needs_samples_first(part.rule):
        return None
    # A result that all samples share, such as a position embedding, gets a sample dimension where it is broadcast.
    use, axis = _broadcast(node, graph, before.output.node, probed, n)
    if use is None or axis is None or not use.in_order:
        return None
    shape = (n, *part.output_shape)
    return Stop(
        module,
        use.node,
        0,
        part.rule,
        lambda d: (x.expand(n, *x.shape), use.summed(d * use.factor(d), axis).reshape(shape)),
    )


def _in_order(x: Tensor, axis: int, probe_parts: Mapping[int, Part]) -> bool:
    """Whether a layer gets the samples in the order of the model's inputs."""
    return all(close(x.select(axis, i), probe_part.input.select(axis, 0)) for i, probe_part in probe_parts.items())


def close(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal up to rounding errors."""
    if not first.is_floating_point():
        return torch.equal(first, second)
    tolerance = 10 * torch.finfo(first.dtype).eps ** 0.5 * second.abs().amax().clamp_min(1e-3) if first.numel() else 0
    return first.shape == second.shape and bool(((first - second).abs() <= tolerance).all())


def _own_arguments(x: Tensor, axis: int, d: Tensor) -> tuple[Tensor, Tensor]:
    return x, d.movedim(axis, 0)


def _stop_at_parameter(
    module: nn.Module, name: str, parameter: nn.Parameter, graph: Graph, probed: Graph, n: int
) -> Stop | None:
    """The stop for a parameter that is only added to or multiplied with values of each sample, or expanded."""
    use, axis = _broadcast(graph.leaf(parameter), graph, probed.leaf(parameter), probed, n)
    if use is None or axis is None:
        return None
    left_out = parameter.numel() - prod(use.shape)

    def rule(_module: nn.Module, factor: Tensor, d: Tensor) -> Mapping[str, Form]:
        of_samples = use.summed((d * factor).movedim(0, axis), axis)
        return {name: Vector(of_samples.reshape(len(of_samples), -1), zeros=left_out)}

    def arguments(d: Tensor) -> tuple[Tensor, Tensor]:
        return use.factor(d).movedim(axis, 0), d.movedim(axis, 0)

    return Stop(module, use.node, 0, rule, arguments)


def _broadcast(
    node: Node | None, graph: Graph, before: Node | None, probed: Graph, n: int
) -> tuple[Broadcast | None, int | None]:
    """The broadcast of a tensor that all samples share, and the dimension of the samples in its result."""
    use = graph.broadcast(node) if node is not None else None
    probe_use = probed.broadcast(before) if before is not None else None
    if use is None or probe_use is None or use.shape != probe_use.shape:
        return None, None
    return use, _sample_axis(use.output_shape, probe_use.output_shape, n)


def _sample_axis(shape: Sequence[int], before: Sequence[int], n: int) -> int | None:
    """The dimension that holds the samples: the only size that differs between batch and probe; else None."""
    if len(shape) != len(before):
        return None
    changed = [axis for axis, (now, then) in enumerate(zip(shape, before, strict=True)) if now != then]
    return changed[0] if len(changed) == 1 and (shape[changed[0]], before[changed[0]]) == (n, probe_size(n)) else None
