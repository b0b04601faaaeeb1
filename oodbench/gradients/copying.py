"""Copies of networks that ``copy.deepcopy`` refuses, or copies wrongly."""

import copy
import io
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def copied(network: Module) -> Module:
    """A deep copy of a network, also of one that keeps computed tensors or has scripted modules.

    Pruned, weight-normed and spectral-normed layers keep the weight that they computed last, with its autograd graph.
    In the copy such a tensor is detached, until the next forward pass computes it again. The network is not changed.
    """
    copies: dict[int, Any] = {}
    for module in network.modules():
        if isinstance(module, torch.jit.ScriptModule):
            if id(module) not in copies:
                # Weights in a deep copy of a scripted module would still depend on the original's.
                copies |= {id(inner): inner for inner in module.modules()} | {id(module): _reloaded(module)}
        else:
            computed = (tensor for tensor in _tensors(vars(module)) if tensor.grad_fn is not None)
            copies |= {id(tensor): tensor.detach().clone() for tensor in computed}
    return copy.deepcopy(network, copies)


def _reloaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    stream = io.BytesIO()
    torch.jit.save(module, stream)
    stream.seek(0)
    return torch.jit.load(stream)  # type: ignore[no-any-return, no-untyped-call]


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401
    """The tensors in an object's attributes, and in the lists, tuples and mappings among them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)
