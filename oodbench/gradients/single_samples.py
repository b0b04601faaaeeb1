"""Fallback for parameters that no rule covers: a backward pass for each sample."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oodbench.gradients.entries import read_once
from oodbench.gradients.statistics import Sums


def sums_by_single_samples(
    model: nn.Module, inputs: Tensor, unit: Tensor, parameters: Sequence[nn.Parameter]
) -> dict[int, Sums]:
    """Sums over the gradient of each parameter, by its id. Only the gradients of a single sample are in memory.

    Args:
        model: A model that was ``prepared``.
        inputs: (N, …).
        unit: Derivative of each sample's loss by its logits, scaled, (N, C).
        parameters: The parameters.
    """
    rows: dict[int, list[Sums]] = {id(parameter): [] for parameter in parameters}
    with torch.inference_mode(False), torch.enable_grad():
        for i in range(len(inputs)):
            logits = model(inputs[i : i + 1].clone())
            gradients = torch.autograd.grad(logits, list(parameters), unit[i : i + 1], allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                rows[id(parameter)].append(_sums_of_sample(parameter, gradient))
    return {key: Sums.of_samples(of_samples) for key, of_samples in rows.items()}


def _sums_of_sample(parameter: nn.Parameter, gradient: Tensor | None) -> Sums:
    if gradient is None:
        return Sums.of_zeros(1, parameter.numel(), parameter)
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    # In float64, since powers of a tiny float32 would be 0.
    return Sums(parameter.numel(), read_once(dense.reshape(1, -1).double()))
