"""Where a backward pass has to stop, so that the gradients of all parameters can be taken from it.

A second recording, of another number of samples, tells which dimension of a tensor is that of the samples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from torch import Tensor, nn

from oodbench.gradients.forms import Form, Vector
from oodbench.gradients.graph import Broadcast, Graph, Node
from oodbench.gradients.recording import Part, Recording, owners
from oodbench.gradients.rules import Rule


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


def stops_of(model: nn.Module, recording: Recording, graph: Graph, probe: Recording) -> list[Stop]:
    """Where to stop for the parameters of all modules; those that are not covered are left to the slow way."""
    probed, n = Graph(probe.logits), len(recording.inputs)
    stops: list[Stop] = []
    for name, module in owners(model).items():
        own = dict(module.named_parameters(recurse=False))
        calls, before = recording.calls[name], probe.calls[name]
        found: list[Stop | None] = [None]
        if len(calls) == len(before) == 1 and all(graph.uses(parameter) == 1 for parameter in own.values()):
            pairs = zip(calls[0], before[0], strict=True)
            found = [_stop_at_part(module, part, graph, other, probed, n) for part, other in pairs]
        if None in found:
            found = [_stop_at_parameter(module, key, own[key], graph, probed, n) for key in own]
        stops += [stop for stop in found if stop is not None]
    return stops


def _stop_at_part(module: nn.Module, part: Part, graph: Graph, before: Part, probed: Graph, n: int) -> Stop | None:
    if part.version != part.input._version:
        return None
    x, node = part.input, part.output.node
    x_axis = _sample_axis(x.shape, before.input.shape, n)
    d_axis = _sample_axis(part.output_shape, before.output_shape, n)
    if x_axis is not None and d_axis is not None:
        arguments = partial(_own_arguments, x.movedim(x_axis, 0), d_axis)
        return Stop(module, node, part.output.output_nr, part.rule, arguments)
    if x.shape != before.input.shape or part.output_shape != before.output_shape:
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
        return {name: Vector(of_samples.flatten(1), zeros=left_out)}

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
    """The one dimension that grew with the number of samples."""
    if len(shape) != len(before):
        return None
    grown = [axis for axis, (now, then) in enumerate(zip(shape, before, strict=True)) if now != then]
    return grown[0] if len(grown) == 1 and shape[grown[0]] == n else None
