"""Where a backward pass has to stop, so that the gradients of all parameters can be taken from it.

Recordings of single samples tell which dimension of a tensor is that of the samples, and that they are in order.
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
"""Recordings of single samples by their index; of a sole sample, the one of it taken twice."""


def probe_size(n: int) -> int:
    """How many samples a probe of a batch of n has."""
    return 1 if n > 1 else 2


@dataclass(frozen=True)
class Stop:
    """Where the backward pass stops to take the gradients of some parameters of one module.

    Attributes:
        module: The module.
        node: The operation at whose output gradient it stops.
        output: Which of the operation's outputs.
        rule: Factorises the gradients.
        arguments: From that output gradient to the rule's x and d, samples first.
    """

    module: nn.Module
    node: Node
    output: int
    rule: Rule
    arguments: Callable[[Tensor], tuple[Tensor, Tensor]]


def stops_of(model: nn.Module, recording: Recording, graph: Graph, probes: Probes) -> list[Stop]:
    """Where to stop for the parameters of all modules; those that are not covered are left to the slow way."""
    probed, n = Graph(next(iter(probes.values())).logits), len(recording.inputs)
    stops: list[Stop] = []
    for name, module in owners(model).items():
        own = dict(module.named_parameters(recurse=False))
        calls = [recording.calls[name], *(probe.calls[name] for probe in probes.values())]
        found: list[Stop | None] = [None]
        if all(len(each) == 1 for each in calls) and all(graph.uses(parameter) == 1 for parameter in own.values()):
            by_part = zip(*(each[0] for each in calls), strict=True)
            found = [_stop_at_part(module, part, graph, dict(zip(probes, others, strict=True)), probed, n)
                     for part, *others in by_part]  # fmt: skip
        if None in found:
            found = [_stop_at_parameter(module, key, own[key], graph, probed, n) for key in own]
        stops += [stop for stop in found if stop is not None]
    return stops


def _stop_at_part(
    module: nn.Module, part: Part, graph: Graph, others: Mapping[int, Part], probed: Graph, n: int
) -> Stop | None:
    x, node, before = part.input, part.output.node, next(iter(others.values()))
    if part.version != x._version:
        return None
    x_axis = _sample_axis(x.shape, before.input.shape, n)
    d_axis = _sample_axis(part.output_shape, before.output_shape, n)
    if x_axis is not None and d_axis is not None:
        in_place = x_axis == d_axis == 0 or not needs_samples_first(part.rule)
        if not (in_place and (n == 1 or _in_order(x, x_axis, others))):
            return None
        return Stop(
            module, node, part.output.output_nr, part.rule, partial(_own_arguments, x.movedim(x_axis, 0), d_axis)
        )
    if x.shape != before.input.shape or part.output_shape != before.output_shape or needs_samples_first(part.rule):
        return None
    # What all samples share, such as an embedding of positions, becomes each sample's own where it is broadcast.
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


def _in_order(x: Tensor, axis: int, others: Mapping[int, Part]) -> bool:
    """Whether a layer gets samples at the places at which the model does, and not sorted or picked out."""
    return all(close(x.select(axis, i), other.input.select(axis, 0)) for i, other in others.items())


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same but for rounding errors of the operations before them."""
    if not one.is_floating_point():
        return torch.equal(one, other)
    tolerance = 10 * torch.finfo(one.dtype).eps ** 0.5 * other.abs().amax().clamp_min(1e-3) if one.numel() else 0
    return one.shape == other.shape and bool(((one - other).abs() <= tolerance).all())


def _own_arguments(x: Tensor, axis: int, d: Tensor) -> tuple[Tensor, Tensor]:
    return x, d.movedim(axis, 0)


def _stop_at_parameter(
    module: nn.Module, name: str, parameter: nn.Parameter, graph: Graph, probed: Graph, n: int
) -> Stop | None:
    """For a parameter that is only added or multiplied to what is each sample's own, or expanded."""
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
    """Where what all samples share is broadcast, and the dimension of the samples there."""
    use = graph.broadcast(node) if node is not None else None
    other = probed.broadcast(before) if before is not None else None
    if use is None or other is None or use.shape != other.shape:
        return None, None
    return use, _sample_axis(use.output_shape, other.output_shape, n)


def _sample_axis(shape: Sequence[int], before: Sequence[int], n: int) -> int | None:
    """The one dimension that has the number of samples, now and before."""
    if len(shape) != len(before):
        return None
    changed = [axis for axis, (now, then) in enumerate(zip(shape, before, strict=True)) if now != then]
    return changed[0] if len(changed) == 1 and (shape[changed[0]], before[changed[0]]) == (n, probe_size(n)) else None
