"""The parts of the evidence that are collected for each sample, and what each is computed from."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from oodbench.classifiers.network_parts import NetworkParts
from oodbench.gradients import forward

Values = Tensor | Mapping[str, Tensor]
"""A part for N samples: a tensor (N, …), or several (N,) by name."""

FORWARD = ("logits", "features")
BACKWARD = ("gradients", "confounding")
COLLECTED = (*FORWARD, *BACKWARD)
"""Parts that are collected in a pass over the samples: of the forward pass alone, and of backward passes."""


def parts_of_batch(
    network: nn.Module, inputs: Tensor, penultimate: str | None, parts: Sequence[str]
) -> dict[str, Values]:
    """Some parts of the evidence of a batch, from a single forward pass and as many backward passes as they need.

    Args:
        network: The trained classifier.
        inputs: (N, C, H, W).
        penultimate: Name of the Linear layer whose input is the penultimate features; None finds the layer.
        parts: Names out of ``COLLECTED``; features only where the network has some.
    """
    if any(part in BACKWARD for part in parts):
        return _with_backward(network, inputs, penultimate, parts)
    with torch.no_grad():
        if "features" not in parts:
            return {"logits": network(inputs).float()}
        features, logits = NetworkParts(network, inputs[:1], penultimate).encoder.features_and_logits(inputs)
    found = {"logits": logits.float(), "features": features.float()}
    return {part: found[part] for part in parts}


def _with_backward(
    network: nn.Module, inputs: Tensor, penultimate: str | None, parts: Sequence[str]
) -> dict[str, Values]:
    found: dict[str, Values] = {}
    with forward(network, inputs, last_layer=penultimate) as run:
        if "logits" in parts:
            found["logits"] = run.logits.float()
        if "features" in parts:
            found["features"] = run.features.float()
        if "gradients" in parts:
            found["gradients"] = run.metrics("predicted")
        if "confounding" in parts:
            found["confounding"] = run.squared_norm("confounding")
    return found
