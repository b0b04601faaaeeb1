"""Detectors that compare the penultimate features of a sample with those of known samples."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from oodbench.detectors.grids import OPENOOD
from oodbench.detectors.plugin import detector
from oodbench.errors import CellSkippedError, UsageError
from oodbench.evidence import Evidence

# Pairs of samples whose relation is computed at once.
PAIRS = 2**22


@detector(
    "residual",
    needs=("features", "last_layer"),
    fitted_on="training",
    search_space={"dim": [16, 32, 64, 128, 256, 512]},
)
class Residual:
    """Norm of the features in the subspace that known samples hardly use (Wang et al. 2022, arXiv 2203.10807).

    The origin is where all logits are equal to 0 up to what the weights cannot reach: −W⁺b. OpenOOD fits it on the
    validation split (``fitted_on=meta``).
    """

    def __init__(self, dim: int | None = None) -> None:
        """Choose the subspace.

        Args:
            dim: Number of principal dimensions D′ that are left out; None takes half of those of the features.

        Raises:
            UsageError: It is negative.
        """
        if dim is not None and dim < 0:
            raise UsageError(f"dim is {dim}; expected 0 or more.")
        self.dim = dim

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Take the principal dimensions of the known features away."""
        features, width = evidence.features.double(), evidence.features.shape[1]
        dim = width // 2 if self.dim is None else self.dim
        if dim >= width:
            raise CellSkippedError(f"dim = {dim} leaves no dimension of the {width} of the features; expected fewer")
        weight, bias = evidence.last_layer.weight.detach().double(), evidence.last_layer.bias
        offset = weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
        self.origin = -(torch.linalg.pinv(weight) @ offset)
        centred = features - self.origin
        # Eigenvalues ascend.
        _, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        self.rest = directions[:, : width - dim]

    def score(self, evidence: Evidence) -> Tensor:
        """Norm of what is left."""
        rest: Tensor = (evidence.features.double() - self.origin) @ self.rest
        return rest.square().sum(dim=1).sqrt()


@detector(
    "relation",
    needs=("features", "logits"),
    fitted_on="training",
    search_space=OPENOOD["relation"],
    only_in_scoring=("pow", "threshold"),
)
class Relation:
    """Minus the sum of the relations to known samples (Kim et al. 2023, arXiv 2301.12321).

    The relation of two samples is the cosine of their features, at least 0, times the product of their probabilities;
    relations up to the threshold do not count.
    """

    def __init__(self, pow: float = 1.0, threshold: float = 0.03) -> None:
        self.pow, self.threshold = pow, threshold

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Keep the features and probabilities of known samples."""
        self.known = _directions(evidence), evidence.logits.softmax(dim=1)

    def score(self, evidence: Evidence) -> Tensor:
        """Sum over the known samples, for some samples at a time."""
        step = max(1, PAIRS // len(self.known[0]))
        directions, probabilities = _directions(evidence), evidence.logits.softmax(dim=1)
        parts = zip(torch.split(directions, step), torch.split(probabilities, step), strict=True)
        return torch.cat([self._of(*part) for part in parts])

    def _of(self, directions: Tensor, probabilities: Tensor) -> Tensor:
        relation = (directions @ self.known[0].T).clamp(min=0) * (probabilities @ self.known[1].T)
        counted = torch.where(relation > self.threshold, relation, 0).double()
        return -counted.pow(self.pow).sum(dim=1)


def _directions(evidence: Evidence) -> Tensor:
    """Features of length 1, float32 (N, D); those of length 0 stay."""
    return evidence.features / (evidence.features.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()


@detector(
    "cfood",
    needs="features",
    fitted_on="training",
    search_space={"alpha": [0.1, 0.5, 1.0], "k": [0.001, 0.005, 0.01, 0.05]},
    only_in_scoring=("k",),
)
class Cfood:
    """Concentration-free outlier factor of the features (after Angiulli 2020, ACM TKDD 14; as in OpenOOD).

    The smallest share κ of neighbours for which a share k of the known samples has the sample among the nearest κ of
    all known ones. Features are divided by their length, and κ is one of a grid of up to 230 values.
    """

    def __init__(self, alpha: float = 0.1, k: float = 0.01, seed: int = 0) -> None:
        """Choose the known samples and the share.

        Args:
            alpha: Share of the known samples that are used, drawn at random; above 0, up to 1.
            k: Share of these that must have the sample among their neighbours; above 0, below 1.
            seed: Seed of the draw.

        Raises:
            UsageError: A share is out of range.
        """
        if not 0 < alpha <= 1 or not 0 < k < 1:
            raise UsageError(f"alpha = {alpha} and k = {k}; expected shares above 0, alpha up to 1 and k below 1.")
        self.alpha, self.k, self.seed = alpha, k, seed

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Find how far the neighbours of each known sample are."""
        n = len(evidence.features)
        count = int(self.alpha * n)
        if count < 2:
            raise CellSkippedError(f"alpha = {self.alpha} of {n} samples are {count}; expected two or more")
        chosen = torch.arange(n)
        if self.alpha < 1:
            chosen = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[:count]
        self.known = F.normalize(evidence.features[chosen].double(), dim=1)
        shares = np.concatenate([
            np.linspace(0.001, 0.1, 100), np.linspace(0.105, 0.5, 81), np.linspace(0.51, 0.99, 49)
        ])  # fmt: skip
        ranks = (shares * count - 1).astype(int)
        differ = np.append(True, ranks[1:] > ranks[:-1])
        self.shares = torch.from_numpy(np.append(shares[differ], 1.0))
        distances = torch.cdist(self.known, self.known, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1).values
        # Behind the sample itself.
        self.reach = distances[:, torch.from_numpy(ranks[differ]) + 1].contiguous()

    def score(self, evidence: Evidence) -> Tensor:
        """The smallest share, for some samples at a time."""
        features = F.normalize(evidence.features.double(), dim=1)
        step = max(1, PAIRS // len(self.known))
        return torch.cat([self._of(some) for some in torch.split(features, step)])

    def _of(self, features: Tensor) -> Tensor:
        # For each known sample, the first share whose neighbours reach as far as the sample.
        first = torch.searchsorted(self.reach, torch.cdist(self.known, features).contiguous())
        needed = max(1, int(np.ceil(self.k * len(self.known))))
        return self.shares[first.kthvalue(needed, dim=0).values]
