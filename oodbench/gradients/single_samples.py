"""The slow and sure way for what no rule covers: one backward pass for each sample."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oodbench.gradients.forms import Vector
from oodbench.gradients.statistics import Sums, Workspace, sums_of


def sums_by_single_samples(
    model: nn.Module, inputs: Tensor, unit: Tensor, parameters: Sequence[nn.Parameter], workspace: Workspace
) -> dict[int, Sums]:
    """Sums over the gradient of each parameter, by its id; one sample's gradients are in memory at a time.

    Args:
        model: A prepared model.
        inputs: (N, …).
        unit: Derivative of each sample's loss by its logits, (N, C).
        parameters: Whose gradients.
        workspace: Memory.
    """
    rows: dict[int, list[Sums]] = {id(parameter): [] for parameter in parameters}
    with torch.inference_mode(False), torch.enable_grad():
        for i in range(len(inputs)):
            logits = model(inputs[i : i + 1].clone())
            gradients = torch.autograd.grad(logits, list(parameters), unit[i : i + 1], allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                rows[id(parameter)].append(_sums_of_one(parameter, gradient, workspace))
    return {key: Sums.of_samples(of_samples) for key, of_samples in rows.items()}


def _sums_of_one(parameter: nn.Parameter, gradient: Tensor | None, workspace: Workspace) -> Sums:
    if gradient is None:
        return Sums.of_zeros(1, parameter.numel(), parameter)
    flat = (gradient.to_dense() if gradient.is_sparse else gradient).reshape(1, -1)
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    # Powers of a tiny float32 would be 0.
    peak = flat.abs().amax(dim=1)
    return sums_of(Vector(flat / peak.where(peak > 0, 1)[:, None]), workspace).scaled(peak.double())
