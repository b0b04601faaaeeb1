"""Evidence as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """What is read off the classifier for N samples.

    Attributes:
        logits: float32 (N, C).
        features: float32 (N, D), the input of the last Linear layer.
        gradients: The metrics of ``oodbench.gradients.gradient_metrics`` at the predicted label, float32 (N,) each:
            ``l1``, …, ``skewness`` over all weights and ``l1@conv1``, … of each layer.
        confounding: float64 (N,), squared L2 norm of the weight gradient at the confounding (all-ones) label.
    """

    logits: Tensor
    features: Tensor
    gradients: Mapping[str, Tensor]
    confounding: Tensor

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def predictions(self) -> Tensor:
        """int64 (N,): the predicted classes."""
        return self.logits.argmax(dim=1)

    def wrong(self, labels: Tensor) -> Tensor:
        """Bool (N,): whether the prediction is not the label; always so for unknown samples, whose label is −1."""
        return self.predictions != labels

    def copy(self) -> "Evidence":
        """The same evidence in memory of its own."""
        return Evidence.concatenate([self])

    @staticmethod
    def concatenate(parts: Sequence["Evidence"]) -> "Evidence":
        """The samples of all parts, in their order."""
        return Evidence(
            torch.cat([part.logits for part in parts]),
            torch.cat([part.features for part in parts]),
            {name: torch.cat([part.gradients[name] for part in parts]) for name in parts[0].gradients},
            torch.cat([part.confounding for part in parts]),
        )
