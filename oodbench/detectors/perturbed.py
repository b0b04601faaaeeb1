"""Detectors that change the input a little, and look at what the classifier then says."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from oodbench.detectors.grids import OPENOOD, PERCENTILES
from oodbench.detectors.plugin import detector
from oodbench.errors import UsageError
from oodbench.evidence import Evidence
from oodbench.evidence.batches import BATCH


@detector(
    "iodin",
    needs=("inputs", "classifier"),
    search_space=OPENOOD["iodin"],
    only_in_scoring=("temperature", "eps", "norm_std"),
)
class Iodin:
    """ODIN that changes one value of the input alone: that of the largest gradient (as in OpenOOD, after Liang 2018).

    Minus the largest softmax probability at a temperature, after a step that raises it. A gradient of 0 counts as
    positive.
    """

    def __init__(self, temperature: float = 1000.0, eps: float = 0.0014, norm_std: list[float] | None = None) -> None:
        """Choose the step.

        Args:
            temperature: Logits are divided by it.
            eps: Size of the step.
            norm_std: Standard deviation of each channel that the step is divided by; None does not divide.
        """
        self.temperature, self.eps, self.norm_std = temperature, eps, norm_std

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Nothing to learn."""
        self.network = evidence.classifier

    def score(self, evidence: Evidence) -> Tensor:
        """Score a batch."""
        with torch.enable_grad():
            inputs = evidence.inputs[:].detach().requires_grad_()
            logits = self.network(inputs) / self.temperature
            loss = F.cross_entropy(logits, logits.argmax(dim=1), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, inputs)
        largest = gradient.flatten(1).abs().argmax(dim=1, keepdim=True)
        only = torch.zeros_like(gradient.flatten(1)).scatter_(1, largest, 1).view_as(gradient)
        step = only * torch.where(gradient >= 0, 1.0, -1.0)
        if self.norm_std is not None:
            if len(self.norm_std) != gradient.shape[1]:
                raise UsageError(
                    f"norm_std has {len(self.norm_std)} numbers; expected {gradient.shape[1]}, one for each channel"
                )
            step = step / step.new_tensor(self.norm_std).view(1, -1, *[1] * (gradient.dim() - 2))
        logits = self.network(inputs.detach() - self.eps * step) / self.temperature
        largest_probability: Tensor = logits.softmax(dim=1).amax(dim=1)
        return -largest_probability


class _AdaScale:
    """Energy after a scaling whose strength follows from how far a small change moves the features.

    Known samples have large activations that hardly move, so that more of their activations are pruned in the scale.
    The shares k1, k2 and o, and percentiles, are named and given in per cent or shares as in OpenOOD.
    """

    scaled: Literal["features", "logits"]

    def __init__(
        self,
        percentile: tuple[float, float] = (75.0, 85.0),
        k1: float = 5.0,
        k2: float = 1.0,
        lmbda: float = 10.0,
        o: float = 0.05,
        step: float = 0.5,
    ) -> None:
        """Choose the scaling.

        Args:
            percentile: The lowest and the highest per cent of activations that are pruned in the scale.
            k1: Per cent of the activations, the largest, that are summed after the change.
            k2: Per cent of the activations, the largest, whose movement is summed.
            lmbda: Weight of the movement.
            o: Share of the input's values that are changed, those of the smallest gradients.
            step: Size of the change, in units of the classifier's input.

        Raises:
            UsageError: Something is out of range.
        """
        low, high = percentile
        if not 0 < low <= high < 100 or not 0 < o <= 1 or not (0 < k1 <= 100 and 0 < k2 <= 100):
            raise UsageError(
                f"percentile = {low:g} and {high:g}, k1 = {k1:g}, k2 = {k2:g} and o = {o:g}; expected percentiles "
                "between 0 and 100 in order, k1 and k2 above 0 and up to 100, and o above 0 and up to 1."
            )
        self.percentile, self.k1, self.k2, self.lmbda, self.o, self.step = percentile, k1, k2, lmbda, o, step

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Find how the movement of known samples is distributed."""
        self.encoder, self.last_layer = evidence.encoder, evidence.last_layer
        starts = range(0, len(evidence), BATCH)
        movements = [self._features_and_movement(evidence.inputs[start : start + BATCH])[1] for start in starts]
        self.movements = torch.cat(movements).sort().values

    def score(self, evidence: Evidence) -> Tensor:
        """Minus the log-sum-exp of the logits."""
        features, movement = self._features_and_movement(evidence.inputs[:])
        rank = torch.searchsorted(self.movements, movement, right=True).double() / len(self.movements)
        low, high = self.percentile
        scale = _scale(features.relu(), low + (1 - rank) * (high - low))
        logits: Tensor = (
            self.last_layer(features * scale.exp()[:, None])
            if self.scaled == "features"
            else self.last_layer(features) * scale.square()[:, None]
        )
        return -logits.logsumexp(dim=1)

    def _features_and_movement(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The features (N, D), and the corrected movement Q′ (N,)."""
        with torch.enable_grad():
            inputs = batch.detach().requires_grad_()
            features = self.encoder(inputs)
            (gradient,) = torch.autograd.grad(self.last_layer(features).amax(dim=1).sum(), inputs)
        with torch.no_grad():
            features, size = features.detach(), gradient[0].numel()
            smallest = gradient.flatten(1).abs().topk(int(size * self.o), dim=1, largest=False).indices
            changed = torch.zeros_like(gradient.flatten(1)).scatter_(1, smallest, 1).view_as(gradient)
            moved = self.encoder(inputs.detach() + self.step * changed * gradient.sign())
            width = features.shape[1]
            order = features.topk(max(1, math.floor(width * max(self.k1, self.k2) / 100)), dim=1).indices
            first, second = (order[:, : math.floor(width * share / 100)] for share in (self.k1, self.k2))
            activations = moved.relu().gather(1, first).sum(dim=1)
            movement = (features - moved).abs().gather(1, second).sum(dim=1)
            return features, activations + self.lmbda * movement


def _scale(activations: Tensor, percentiles: Tensor) -> Tensor:
    """Sum of all activations over the sum of those that are kept, (N,); others are pruned in each sample.

    Args:
        activations: (N, D), not negative.
        percentiles: Per cent of activations that are pruned, (N,).
    """
    n = activations.shape[1]
    kept = n - (n * percentiles / 100).round().long()
    largest = activations.topk(int(kept.max()), dim=1).values
    is_kept = torch.arange(largest.shape[1], device=largest.device) < kept[:, None]
    return activations.sum(dim=1) / (largest * is_kept).sum(dim=1)


@detector(
    "adascale-a",
    needs=("inputs", "encoder", "last_layer"),
    search_space=PERCENTILES,
    only_in_scoring=("percentile",),
)
class AdaScaleA(_AdaScale):
    """AdaScale-A (Regmi 2025, arXiv 2503.08023): energy after a scaling of the features that adapts to the sample."""

    scaled = "features"


@detector(
    "adascale-l",
    needs=("inputs", "encoder", "last_layer"),
    search_space=PERCENTILES,
    only_in_scoring=("percentile",),
)
class AdaScaleL(_AdaScale):
    """AdaScale-L (Regmi 2025, arXiv 2503.08023): energy after a scaling of the logits that adapts to the sample."""

    scaled = "logits"
