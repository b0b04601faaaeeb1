"""GROOD: the gradient by a prototype of unknown samples."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.transforms import functional as TF

from oodbench.detectors.plugin import detector
from oodbench.errors import CellSkippedError
from oodbench.evidence import Evidence
from oodbench.evidence.inputs import Inputs

# Samples that the prototype of unknown ones is made of, and how many of them at once.
MADE, BATCH = 512, 128
# Distances that are computed at once.
PAIRS = 2**24


@detector("grood", needs=("features", "inputs", "encoder"), fitted_on="training", no_effect_on_scores=("seed",))
class Grood:
    """Distance to known samples' gradients by a prototype of unknown ones (ElAraby et al. 2023, arXiv 2312.14427).

    Classes have the mean of their features as a prototype, and unknown samples the mean feature of made ones. The
    gradient of the cross-entropy over the negative distances to all prototypes, by the unknown one, is p_unknown times
    the unit vector from it to the features: whatever the label. By the paper's formula; OpenOOD's file takes a softmax
    over an axis of one entry, so that its p is always 1.
    """

    def __init__(self, unknown: Literal["mixup", "noise"] = "mixup", k: int = 1, seed: int = 0) -> None:
        """Choose the prototype of unknown samples.

        Args:
            unknown: ``mixup``: means of two training inputs of different classes. ``noise``: blurred Gaussian noise of
                the mean and standard deviation of the training inputs, channel by channel.
            k: The distance is that to the k-th nearest.
            seed: Seed of the made inputs.
        """
        self.unknown, self.k, self.seed = unknown, k, seed

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Make the prototypes, and keep the gradients of the known samples."""
        features, classes = evidence.features.double(), torch.unique(labels)
        if len(classes) < 2:
            raise CellSkippedError(f"it needs prototypes of two classes, and the fitting split has {len(classes)}")
        generator = torch.Generator().manual_seed(self.seed)
        made = self._made(evidence.inputs, labels.cpu(), generator)
        encoder = evidence.encoder
        with torch.no_grad():
            of_made = [encoder(chunk.to(evidence.device)).double().mean(dim=0) for chunk in torch.split(made, BATCH)]
        weights = torch.tensor([len(chunk) for chunk in torch.split(made, BATCH)], dtype=torch.float64)
        prototype = (torch.stack(of_made).cpu() * weights[:, None]).sum(dim=0) / weights.sum()
        means = torch.stack([features[labels == label].mean(dim=0) for label in classes])
        self._prototypes = torch.cat([means, prototype.to(means)[None]])
        self._known = self._gradients(features)
        if self.k > len(self._known):
            raise CellSkippedError(f"k is {self.k}, and there are {len(self._known)} known samples")

    def score(self, evidence: Evidence) -> Tensor:
        """Distance to the k-th nearest gradient of a known sample."""
        gradients = self._gradients(evidence.features.double())
        step = max(1, PAIRS // len(self._known))
        distances = [torch.cdist(chunk, self._known) for chunk in torch.split(gradients, step)]
        return torch.cat([of_chunk.kthvalue(self.k, dim=1).values for of_chunk in distances])

    def _gradients(self, features: Tensor) -> Tensor:
        """∂ cross-entropy / ∂ unknown prototype, (N, D)."""
        distances = torch.cdist(features, self._prototypes)
        p = (-distances).softmax(dim=1)[:, -1:]
        return p * nn.functional.normalize(features - self._prototypes[-1], dim=1)

    def _made(self, inputs: Tensor | Inputs, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Inputs that are of no class, (M, C, H, W)."""
        n = min(MADE, len(labels))
        first = torch.randperm(len(labels), generator=generator)[:n]
        chosen = inputs[first].cpu()
        if self.unknown == "noise":
            mean, std = chosen.mean(dim=(0, 2, 3), keepdim=True), chosen.std(dim=(0, 2, 3), keepdim=True)
            noise = mean + std * torch.randn(chosen.shape, generator=generator)
            blurred: Tensor = TF.gaussian_blur(noise, [3, 3], [1.0, 1.0])
            return blurred
        others = torch.stack([_of_another_class(labels, int(label), generator) for label in labels[first]])
        return (chosen + inputs[others].cpu()) / 2


def _of_another_class(labels: Tensor, label: int, generator: torch.Generator) -> Tensor:
    """The position of a random sample of another class."""
    others = (labels != label).nonzero().flatten()
    chosen: Tensor = others[torch.randint(len(others), (), generator=generator)]
    return chosen
