"""Detectors whose score is a statistic of a weight gradient."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from oodbench.detectors.plugin import detector
from oodbench.errors import CellSkippedError, UsageError
from oodbench.evidence import Evidence

Gradients = Mapping[str, Tensor]


def column(gradients: Gradients, metric: str, layer: str | None) -> Tensor:
    """A gradient metric over all weights, or over the weights of a layer.

    Raises:
        UsageError: The classifier has no such layer.
    """
    name = metric if layer is None else f"{metric}@{layer}"
    if name not in gradients:
        layers = ", ".join(key.partition("@")[2] for key in gradients if key.startswith(f"{metric}@"))
        raise UsageError(f"the classifier has no layer {layer!r} with weights; expected one of: {layers}.")
    return gradients[name]


@detector("grad-l1", needs="gradients")
def grad_l1(gradients: Gradients, *, layer: str | None = None) -> Tensor:
    """L1 norm of the gradient at the predicted label; over all weights or one layer's."""
    return column(gradients, "l1", layer)


@detector("grad-l2", needs="gradients")
def grad_l2(gradients: Gradients, *, layer: str | None = None) -> Tensor:
    """L2 norm of the gradient at the predicted label; over all weights or one layer's."""
    return column(gradients, "l2", layer)


@detector("grad-min", needs="gradients")
def grad_min(gradients: Gradients, *, layer: str | None = None) -> Tensor:
    """Minus the least entry of the gradient at the predicted label, which falls with uncertainty."""
    return -column(gradients, "min", layer)


@detector("grad-max", needs="gradients")
def grad_max(gradients: Gradients, *, layer: str | None = None) -> Tensor:
    """Largest entry of the gradient at the predicted label; over all weights or one layer's."""
    return column(gradients, "max", layer)


@detector("grad-std", needs="gradients")
def grad_std(gradients: Gradients, *, layer: str | None = None) -> Tensor:
    """Population standard deviation of the gradient at the predicted label; over all weights or one layer's."""
    return column(gradients, "std", layer)


class _Oriented:
    """A gradient metric whose direction is learnt from wrong and right known samples."""

    metric: str

    def __init__(self, layer: str | None = None) -> None:
        self.layer = layer
        self.learnt: dict[str, float] = {}

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Learn on the known samples whether the metric is larger or smaller for wrong predictions."""
        from oodbench.evaluation.metrics import auroc

        known = labels >= 0
        wrong = evidence.wrong(labels)[known]
        area = auroc(column(evidence.gradients, self.metric, self.layer)[known].numpy(), wrong.numpy())
        if area is None:
            raise CellSkippedError(
                f"its direction is learnt from wrong and right known samples, and {int(wrong.sum())} of the "
                f"{len(wrong)} in the fitting split are wrong"
            )
        self.learnt = {"direction": -1.0 if area < 0.5 else 1.0}

    def score(self, evidence: Evidence) -> Tensor:
        """The metric in the learnt direction."""
        return column(evidence.gradients, self.metric, self.layer) * self.learnt["direction"]


@detector("grad-mean", needs="gradients")
class grad_mean(_Oriented):  # noqa: N801 - the name of the plugin
    """Mean of the gradient at the predicted label, in the direction learnt on known samples."""

    metric = "mean"


@detector("grad-skewness", needs="gradients")
class grad_skewness(_Oriented):  # noqa: N801 - the name of the plugin
    """Skewness of the gradient at the predicted label, in the direction learnt on known samples."""

    metric = "skewness"


@detector("gradnorm", needs=("logits", "features"))
def gradnorm(logits: Tensor, features: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Minus the L1 norm of the last layer's gradient at the uniform label (Huang, Geng, Li 2021, arXiv 2110.00218).

    In closed form (1/T) ‖h‖₁ Σ|p − 1/C|, without the bias as in the paper; it is larger on known samples there.
    """
    p = (logits.double() / temperature).softmax(dim=1)
    return -features.double().abs().sum(dim=1) * (p - 1 / logits.shape[1]).abs().sum(dim=1) / temperature


@detector("exgrad", needs=("logits", "features"))
def exgrad(logits: Tensor, features: Tensor) -> Tensor:
    """Expected L1 norm of the last layer's gradient, the label drawn from the softmax (Igoe et al. 2022, 2205.10439).

    In closed form 2 ‖h‖₁ Σ p(1 − p).
    """
    p = logits.double().softmax(dim=1)
    return 2 * features.double().abs().sum(dim=1) * (p * (1 - p)).sum(dim=1)


def _at_ones(parameters: Mapping[str, Any]) -> str:
    """The part that ``confounding`` works on.

    Raises:
        UsageError: The label would be that of a class.
    """
    ones = parameters["n"]
    if ones is not None and (ones == 1 or ones < 0):
        raise UsageError(f"n is {ones}; expected 0, or 2 and more: a single one is the label of a class.")
    return "confounding" if ones is None else f"set_norms:ones={ones}"


@detector("confounding", needs=lambda parameters: (_at_ones(parameters),))
def confounding(squared_norms: Tensor | Mapping[str, Tensor], *, n: int | None = None) -> Tensor:
    """Minus the squared L2 norm of the gradient at a confounding label (after Lee, AlRegib 2020, arXiv 2008.08030).

    By default that of the cross-entropy with the all-ones label: the gradient by the logits is C p − 1, which is
    largest for confident predictions; hence the sign. With ``n``, that of the binary cross-entropy with a label of
    ones at the n most probable classes (2021, arXiv 2206.08229). The papers train a classifier on the norms of the
    parameters instead, which is `purview`.
    """
    if isinstance(squared_norms, Mapping):
        return -torch.stack(list(squared_norms.values())).sum(dim=0)
    return -squared_norms
