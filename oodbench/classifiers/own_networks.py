"""Makes a user's network one that can be worked on: without wrappers, in float32, from inputs to logits."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from oodbench.classifiers.outputs import Logits, logits_in
from oodbench.errors import UsageError, described, one_line
from oodbench.gradients.copying import copied

_WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel)


def as_usable(network: nn.Module, inputs: Tensor, outputs: int) -> tuple[nn.Module, list[str]]:
    """Make a network one that maps inputs to logits (N, C), in float32 on the CPU, without wrappers.

    Names of its modules and weights stay as they are, but for those of wrappers that are taken off.

    Args:
        network: Any network; it is not changed.
        inputs: Inputs for it, float32 (N, …), of which the first and the last are tried.
        outputs: Number of logits that is expected; for two classes the network may have one.

    Returns:
        The network itself or, where anything had to be changed, a copy; and what was changed, in phrases for the user.

    Raises:
        UsageError: It does not return logits, or cannot be converted; the sentence begins with "it".
    """
    plain, changes = unwrapped(network)
    pair = inputs[[0, -1]]
    try:
        found = logits_in(_evaluated(plain, pair), _evaluated(plain, pair[:1]), outputs)
    except RuntimeError as cause:
        if not changes:
            raise
        raise UsageError(
            f"it raised {described(cause)} after it was changed ({'; '.join(changes)}); give it in float32, on the CPU "
            "and without wrappers."
        ) from cause
    if found == Logits(None, None):
        return plain, changes
    if isinstance(plain, torch.jit.ScriptModule):
        raise UsageError("it is a ScriptModule that does not return logits (N, C) alone; wrap it in one that does.")
    converted = copied(plain) if plain is network else plain
    # A hook, so that names and the module itself stay those of the user.
    converted.register_forward_hook(found)
    return converted, [*changes, *found.said]


def unwrapped(network: nn.Module) -> tuple[nn.Module, list[str]]:
    """Take off wrappers and compilation, and convert weights to float32 on the CPU.

    Returns:
        The network itself, the one inside its wrappers, or a copy where weights or modules in it had to be changed; and
        what was changed, in phrases for the user.

    Raises:
        UsageError: Its weights have no values, or cannot be moved.
    """
    changes: list[str] = []
    inner = network
    while (inside := _inside(inner)) is not None:
        changes.append(f"the wrapper {type(inner).__name__} was taken off")
        inner = inside
    if not isinstance(inner, torch.jit.ScriptModule) and any(_is_compiled(module) for module in inner.modules()):
        inner = copied(inner)
        _take_off_compilation(inner)
        changes.append("compiled modules run as they were before torch.compile")
    tensors = [*inner.parameters(), *inner.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise UsageError("it has weights on the meta device, which have no values; give it with its weights.")
    devices = sorted({str(tensor.device) for tensor in tensors if tensor.device.type != "cpu"})
    kinds = sorted({str(tensor.dtype) for tensor in tensors if _is_other_float(tensor)})
    if devices or kinds:
        inner = _converted(copied(inner))
        changes += [f"its weights were moved from {', '.join(devices)} to the CPU"] if devices else []
        n = sum(_is_other_float(tensor) for tensor in tensors)
        shown = ", ".join(kind.removeprefix("torch.") for kind in kinds)
        changes += [f"{n} of its tensors were converted from {shown} to float32"] if kinds else []
    return inner, changes


def _inside(network: nn.Module) -> nn.Module | None:
    """The network inside a wrapper; None if it is no wrapper."""
    inside = vars(network).get("_modules", {}).get("_orig_mod" if _is_optimized(network) else "module")
    return inside if _is_optimized(network) or isinstance(network, _WRAPPERS) else None


def _is_optimized(module: nn.Module) -> bool:
    """Whether it is what ``torch.compile`` returns, whose class is not public."""
    return type(module).__name__ == "OptimizedModule" and "_orig_mod" in vars(module).get("_modules", {})


def _is_compiled(module: nn.Module) -> bool:
    return (
        _is_optimized(module)
        or getattr(module, "_compiled_call_impl", None) is not None
        or _before_compilation(module.forward) is not None
    )


def _before_compilation(forward: Any) -> Any:  # noqa: ANN401
    """The function that was compiled; None if this one is not."""
    return getattr(forward, "_torchdynamo_orig_callable", None)


def _take_off_compilation(network: nn.Module) -> None:
    """Take compilation off the modules of a copy, which has none that was made in place by ``compile()``."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if _is_optimized(child):
                setattr(module, name, child._orig_mod)
    for module in network.modules():
        original = _before_compilation(module.forward)
        if original is not None:
            function = getattr(original, "__func__", original)
            if vars(module).pop("forward", None) is None or function is not type(module).forward:
                vars(module)["forward"] = MethodType(function, module)


def _is_other_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float32


def _converted(network: nn.Module) -> nn.Module:
    try:
        return network.to(device="cpu", dtype=torch.float32)
    except Exception as cause:  # devices and dtypes that torch cannot convert
        raise UsageError(f"its weights cannot be converted to float32 on the CPU: {one_line(cause)}.") from cause


def _evaluated(network: nn.Module, inputs: Tensor) -> Any:  # noqa: ANN401
    """What the network returns in eval mode; its mode is restored."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return network(inputs.clone())
    finally:
        for module, training in modes.items():
            module.training = training
