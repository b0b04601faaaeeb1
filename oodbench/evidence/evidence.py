"""Evidence as plain data, in parts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.classifiers.pieces import PIECES
from oodbench.errors import OodbenchError

# Parts that one forward and backward pass over the classifier leaves behind.
OF_ONE_PASS = ("logits", "features", "gradients", "confounding")
PARTS = (*OF_ONE_PASS, "feature_maps", "inputs", "scores", *PIECES)


class UndeclaredPartError(OodbenchError, AttributeError):
    """A part that was asked for and is not there, since the detector did not declare it."""


class Evidence:
    """What is read off the classifier for N samples, and the classifier itself; only the parts that are declared.

    Attributes:
        logits: float32 (N, C).
        features: float32 (N, D), the input of the last Linear layer.
        gradients: The metrics of ``oodbench.gradients.gradient_metrics`` at the predicted label, float32 (N,) each:
            ``l1``, …, ``skewness`` over all weights and ``l1@conv1``, … of each layer.
        confounding: float64 (N,), squared L2 norm of the weight gradient at the confounding (all-ones) label.
        feature_maps: float32 (N, K, H, W), the output of the last stage.
        inputs: float32 (N, C, H, W), what the classifier is given.
        scores: The scores of other detectors by name, (N,) each, for meta classifiers.
        classifier: The trained network in eval mode: inputs to logits.
        encoder: Inputs to features.
        last_layer: Features to logits.
        stages: One after the other, inputs to feature maps; each ends where the resolution changes.
        head: Feature maps to logits.
    """

    logits: Tensor
    features: Tensor
    gradients: Mapping[str, Tensor]
    confounding: Tensor
    feature_maps: Tensor
    inputs: Tensor
    scores: Mapping[str, Tensor]
    classifier: nn.Module
    encoder: nn.Module
    last_layer: nn.Linear
    stages: Sequence[nn.Module]
    head: nn.Module

    def __init__(
        self,
        logits: Tensor,
        features: Tensor | None = None,
        gradients: Mapping[str, Tensor] | None = None,
        confounding: Tensor | None = None,
        **others: Any,  # noqa: ANN401
    ) -> None:
        given = {"logits": logits, "features": features, "gradients": gradients, "confounding": confounding} | others
        strange = [name for name in given if name not in PARTS]
        if strange:
            raise TypeError(f"{strange[0]!r} is no part of the evidence; expected some of: {', '.join(PARTS)}")
        self.__dict__.update((name, part) for name, part in given.items() if part is not None)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name not in PARTS:
            raise AttributeError(f"evidence has no part {name!r}; expected one of: {', '.join(PARTS)}")
        raise UndeclaredPartError(f"it reads {name!r}, which it does not declare: add it to `needs` of its decorator")

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def parts(self) -> dict[str, Any]:
        """The parts that are there, by name."""
        return dict(self.__dict__)

    @property
    def predictions(self) -> Tensor:
        """int64 (N,): the predicted classes."""
        return self.logits.argmax(dim=1)

    def wrong(self, labels: Tensor) -> Tensor:
        """Bool (N,): whether the prediction is not the label; always so for unknown samples, whose label is −1."""
        return self.predictions != labels

    def __getitem__(self, samples: Any) -> "Evidence":  # noqa: ANN401
        """The evidence of some samples, by a slice or positions."""
        return self._each(lambda tensor: tensor[samples])

    def copy(self) -> "Evidence":
        """The same evidence in memory of its own; pieces of the classifier are shared."""
        return self._each(torch.clone)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Evidence":
        return Evidence(**{name: _changed(part, change) for name, part in self.parts.items()})

    @staticmethod
    def concatenate(parts: Sequence["Evidence"]) -> "Evidence":
        """The samples of all parts, in their order, with what all of them have."""

        def joined(name: str) -> Any:  # noqa: ANN401
            every = [part.__dict__[name] for part in parts]
            if isinstance(every[0], Mapping):
                return {key: torch.cat([one[key] for one in every]) for key in every[0]}
            return torch.cat(every) if isinstance(every[0], Tensor) else every[0]

        names = [name for name in PARTS if all(name in part.__dict__ for part in parts)]
        return Evidence(**{name: joined(name) for name in names})


def _changed(part: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
    if isinstance(part, Mapping):
        return {key: change(tensor) for key, tensor in part.items()}
    return change(part) if isinstance(part, Tensor) else part
