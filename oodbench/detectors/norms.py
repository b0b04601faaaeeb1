"""Supervised detectors on norms of the gradients of parameters or layers, at other labels or of other inputs."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.detectors.meta import LogisticMeta, Supervised
from oodbench.detectors.plugin import detector
from oodbench.detectors.supervised import Named, classifier_named
from oodbench.evidence import Evidence

PURVIEW = "set_norms"
GIT = (
    "transformed_norms",
    "transformed_norms:transform=flip",
    "transformed_norms:transform=blur,strength=1.0",
    "transformed_norms:transform=noise,strength=0.1",
    "transformed_norms:transform=rotation,strength=15.0",
)


@detector("purview", needs=PURVIEW, fitted_on="exposed", no_effect_on_scores=("seed",))
class Purview(Supervised):
    """A classifier on the squared L2 norms of the gradient by each parameter at the all-ones label.

    Lee, AlRegib 2021, arXiv 2206.08229; Purview: Lee, Lehman, Prabhushankar, AlRegib 2023, arXiv 2304.02834. The loss
    is the binary cross-entropy of the logits. As in the paper, the classifier is a network with one hidden layer.
    """

    log_odds = True

    def __init__(self, classifier: Named | str = "mlp", seed: int = 0) -> None:
        """Choose the classifier.

        Args:
            classifier: As of `meta`.
            seed: Its seed.
        """
        super().__init__()
        self._make = classifier_named(classifier)
        self._seed = seed % 2**32

    def inputs(self, evidence: Evidence) -> NDArray[np.float64]:
        """The norms."""
        return _columns(evidence, [PURVIEW])

    def _learn(self, inputs: NDArray[np.float64], target: NDArray[np.bool_]) -> None:
        self._model = self._make(inputs, target, self._seed)
        self.log_odds = self._model.states_log_odds

    def score(self, evidence: Evidence) -> Tensor:
        """Log-odds of being wrong or unknown if the classifier states probabilities, else its decision function."""
        return torch.from_numpy(self._model.decision(self.inputs(evidence))).float()


def _smoothed(parameters: Mapping[str, object]) -> tuple[str, ...]:
    return (f"transformed_norms:transform=blur,strength={parameters['sigma']}",)


@detector("gran-style", needs=_smoothed, fitted_on="exposed")
class GranStyle(LogisticMeta):
    """Logistic regression on the L1 norms of each layer's gradient of a smoothed input, at the predicted label.

    After Lust, Condurache 2020 (GraN, arXiv 2004.09179), of which only the abstract could be read: how strongly it
    smooths, and its regression, are ours.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        """Choose the smoothing.

        Args:
            sigma: Standard deviation of the Gaussian, in pixels.
        """
        super().__init__()
        self._parts = _smoothed({"sigma": sigma})

    def inputs(self, evidence: Evidence) -> NDArray[np.float64]:
        """The norms."""
        return _columns(evidence, self._parts)


@detector("git-style", needs=GIT, fitted_on="exposed")
class GitStyle(LogisticMeta):
    """Logistic regression on the L1 norms of each layer's gradient of transformed inputs, at the predicted label.

    After Lust, Condurache 2023 (GIT, arXiv 2307.02672), of which only the idea could be read. Our transforms: none,
    mirrored, blurred (a standard deviation of one pixel), with noise (a tenth of the network's units), and turned by
    15 degrees.
    """

    def inputs(self, evidence: Evidence) -> NDArray[np.float64]:
        """The norms of all transforms."""
        return _columns(evidence, GIT)


def _columns(evidence: Evidence, parts: Sequence[str]) -> NDArray[np.float64]:
    """All values of some parts, (N, K)."""
    values = [values for part in parts for values in getattr(evidence, part).values()]
    return np.stack([column.double().numpy() for column in values], axis=1)
