"""The parts of the evidence that are collected for each sample, and what each is computed from."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from oodbench.classifiers.network_parts import NetworkParts
from oodbench.gradients.engine import Pass, forward

Values = Tensor | Mapping[str, Tensor]
"""A part for N samples: a tensor (N, …), or several (N,) by name."""

FORWARD = ("logits", "features")
BACKWARD = ("gradients", "confounding")
COLLECTED = (*FORWARD, *BACKWARD)
"""Parts that are collected in a pass over the samples: of the forward pass alone, and of backward passes."""

_FROM_PASS: Mapping[str, Callable[[Pass], Values]] = {
    "logits": lambda run: run.logits.float(),
    "features": lambda run: run.features.float(),
    "gradients": lambda run: run.metrics("predicted"),
    "confounding": lambda run: run.squared_norm("confounding"),
}


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
        with forward(network, inputs, last_layer=penultimate) as run:
            return {part: _FROM_PASS[part](run) for part in parts}
    with torch.no_grad():
        if "features" not in parts:
            return {"logits": network(inputs).float()}
        features, logits = NetworkParts(network, inputs[:1], penultimate).encoder.features_and_logits(inputs)
    found = {"logits": logits.float(), "features": features.float()}
    return {part: found[part] for part in parts}
