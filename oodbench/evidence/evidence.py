"""The evidence of samples, as plain data in named parts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.cache.tensor_files import changeable
from oodbench.errors import OodbenchError
from oodbench.evidence.inputs import Inputs
from oodbench.evidence.parts import is_part, part_names


class UndeclaredPartError(OodbenchError, AttributeError):
    """A detector reads a part of the evidence that it did not declare in ``needs``."""


class Evidence:
    """The evidence of N samples, and the classifier's modules. Only parts that the detector declares are there.

    Plugins add parts by ``@oodbench.evidence_part``. All tensors are on the processor, unless the detector goes through
    the network (see ``device``).

    Attributes:
        logits: float32 (N, C).
        features: float32 (N, D), the penultimate features: the input of the last Linear layer.
        gradients: The metrics of ``oodbench.gradients.gradient_metrics`` at the predicted label, float32 (N,) each:
            ``l1``, …, ``skewness`` over all weights, and ``l1@conv1``, … for each layer.
        confounding: float64 (N,), squared L2 norm of the weight gradient at the confounding (all-ones) label.
        feature_maps: float32 (N, K, H, W), the output of the last stage.
        inputs: float32 (N, C, H, W), the classifier's input: a tensor of a batch in ``score``; in ``fit``, an object
            of which ``inputs[a:b]`` is a tensor, since samples are read when they are asked for.
        scores: The scores of other detectors by name, (N,) each, for meta classifiers.
        member_logits: float32 (N, C) by seed, the logits of the networks of all seeds of the suite, for ensembles.
        classifier: The trained network in eval mode: inputs to logits.
        encoder: Module from inputs to features.
        last_layer: Module from features to logits.
        stages: Modules that are applied in turn, from inputs to feature maps; the resolution changes between them.
        head: Module from feature maps to logits.
    """

    logits: Tensor
    features: Tensor
    gradients: Mapping[str, Tensor]
    confounding: Tensor
    feature_maps: Tensor
    inputs: Tensor | Inputs
    scores: Mapping[str, Tensor]
    member_logits: Mapping[str, Tensor]
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
        **further_parts: Any,  # noqa: ANN401
    ) -> None:
        parts = {
            "logits": logits,
            "features": features,
            "gradients": gradients,
            "confounding": confounding,
        } | further_parts
        strange = [name for name in parts if not is_part(name)]
        if strange:
            raise TypeError(f"{strange[0]!r} is no part of the evidence; expected some of: {part_names()}")
        self.__dict__.update((name, part) for name, part in parts.items() if part is not None)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__") or not is_part(name):
            raise AttributeError(f"evidence has no part {name!r}; expected one of: {part_names()}")
        raise UndeclaredPartError(f"it reads {name!r}, which it does not declare: add it to `needs` of its decorator")

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def parts(self) -> dict[str, Any]:
        """The available parts, by name."""
        return dict(self.__dict__)

    @property
    def predictions(self) -> Tensor:
        """The predicted classes, int64 (N,)."""
        return self.logits.argmax(dim=1)

    def wrong(self, labels: Tensor) -> Tensor:
        """Whether each prediction is wrong, bool (N,); always so for unknown samples, whose label is −1."""
        return self.predictions != labels

    def __getitem__(self, samples: Any) -> "Evidence":  # noqa: ANN401
        """The evidence of some samples, given by a slice, a mask or positions."""
        return self._map_values(lambda values: values[samples])

    @property
    def device(self) -> torch.device:
        """Where the tensors are: where the classifier is, for a detector that goes through it; else the processor."""
        return self.logits.device

    def copy(self, device: torch.device | None = None) -> "Evidence":
        """A copy of the evidence; the classifier's modules are shared.

        Args:
            device: Where the copy is; by default where the evidence is.
        """
        target = device or self.device
        return self._map_values(lambda values: _copied(values) if values.device == target else values.to(target))

    def _map_values(self, change: Callable[[Any], Tensor | Inputs]) -> "Evidence":
        return Evidence(**{name: _map_part(part, change) for name, part in self.parts.items()})

    @staticmethod
    def concatenate(chunks: Sequence["Evidence"]) -> "Evidence":
        """Concatenate the samples of several evidences, with the parts that all of them have."""
        if len(chunks) == 1:
            return chunks[0]

        def joined(name: str) -> Any:  # noqa: ANN401
            values = [chunk.__dict__[name] for chunk in chunks]
            if isinstance(values[0], Mapping):
                return {key: torch.cat([value[key] for value in values]) for key in values[0]}
            if isinstance(values[0], Inputs):
                return Inputs.concatenate(values)
            return torch.cat(values) if isinstance(values[0], Tensor) else values[0]

        names = [name for name in chunks[0].parts if all(name in chunk.__dict__ for chunk in chunks)]
        return Evidence(**{name: joined(name) for name in names})


def _copied(values: Tensor | Inputs) -> Tensor | Inputs:
    return changeable(values) if isinstance(values, Tensor) else values.clone()


def _map_part(part: Any, change: Callable[[Any], Tensor | Inputs]) -> Any:  # noqa: ANN401
    if isinstance(part, Mapping):
        return {key: change(tensor) for key, tensor in part.items()}
    return change(part) if isinstance(part, Tensor | Inputs) else part
