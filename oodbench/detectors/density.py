"""Label-free densities of the gradient metrics of known samples, and rules that join them with other scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.detectors.logits import energy, entropy
from oodbench.detectors.meta import grad_combo
from oodbench.detectors.plugin import detector
from oodbench.detectors.supervised import FOLDS
from oodbench.errors import CellSkippedError
from oodbench.evidence import Evidence

Values = NDArray[np.float64]
Classes = NDArray[np.int64]
Model = Literal["knn", "gaussian", "class-gaussian", "gmm"]
Loss = Literal["predicted", "uniform", "confounding", "logsumexp", "norms"]
Beside = Literal["entropy", "energy"]

PARTS: dict[Loss, str] = {
    "predicted": "gradients",
    "uniform": "loss_gradients:loss=uniform",
    "confounding": "loss_gradients:loss=confounding",
    "logsumexp": "loss_gradients:loss=logsumexp",
    "norms": "set_norms",
}
# Neighbours are looked for among so many known samples of each class at most.
NEIGHBOURS = 2000
# Beyond this quantile of the known samples, the tail of their scores is taken for exponential.
BODY = 0.95
STEPS = 200


class KnownTail:
    """Minus the logarithm of the share of known samples with a larger score, as a function of the score.

    Up to a quantile the share is the empirical one. Beyond, the excess is taken for exponential (the limit of Pickands
    1975 with shape 0), so that scores that no known sample reaches are still told apart.

    Args:
        scores: Scores of known samples, (N,).
    """

    def __init__(self, scores: Values) -> None:
        levels = np.linspace(0, BODY, STEPS)
        self._quantiles, first = np.unique(np.quantile(scores, levels), return_index=True)
        self._surprises = -np.log1p(-levels[first])
        excess = scores[scores > self._quantiles[-1]] - self._quantiles[-1]
        self._mean_excess = float(excess.mean()) if len(excess) else 1.0

    def __call__(self, scores: Values) -> Values:
        """The surprise of scores, (N,); it rises with the score."""
        body: Values = np.interp(scores, self._quantiles, self._surprises)
        surprises: Values = body + np.maximum(scores - self._quantiles[-1], 0) / self._mean_excess
        return surprises


class MonotoneInputs:
    """Gradient metrics on a signed logarithm, standardised by known samples; constant ones are dropped.

    Args:
        values: (N, K), of known samples.
    """

    def __init__(self, values: Values) -> None:
        # A thousandth of the usual size, so that tiny values are near 0 and all others on a logarithm.
        self._unit = np.median(np.abs(values), axis=0) * 1e-3 + np.finfo(np.float64).tiny
        logarithms = self._logarithms(values)
        spread = logarithms.std(axis=0)
        self._kept = spread > 1e-9
        self._mean, self._spread = logarithms[:, self._kept].mean(axis=0), spread[self._kept]

    @property
    def columns(self) -> int:
        """Number of columns that are left."""
        return int(self._kept.sum())

    def __call__(self, values: Values) -> Values:
        """Standardised columns, (N, columns)."""
        standardised: Values = (self._logarithms(values)[:, self._kept] - self._mean) / self._spread
        return standardised

    def _logarithms(self, values: Values) -> Values:
        logarithms: Values = np.sign(values) * np.log1p(np.abs(values) / self._unit)
        return logarithms


class MetricDensity:
    """How far a sample's gradient metrics are from those of known samples, without unknown ones.

    Args:
        values: Metrics of known samples, (N, K).
        classes: Their predicted classes, (N,).
        model: The density; see ``GradDensity``.
        k: For ``knn``, which neighbour counts.
    """

    def __init__(self, values: Values, classes: Classes, model: Model, k: int) -> None:
        self._inputs = MonotoneInputs(values)
        if not self._inputs.columns:
            raise CellSkippedError("all gradient metrics are constant on the known samples")
        self._density = DENSITIES[model](self._inputs(values), classes, k)

    def __call__(self, values: Values, classes: Classes) -> Values:
        """The distance of each sample, (N,)."""
        return self._density(self._inputs(values), classes)


class Neighbours:
    """Distance to the k-th nearest known sample of the predicted class; of any, where the class has too few."""

    def __init__(self, inputs: Values, classes: Classes, k: int) -> None:
        from sklearn.neighbors import NearestNeighbors

        if len(inputs) < k:
            raise CellSkippedError(f"k is {k}, and there are {len(inputs)} known samples to be near to")
        groups = {int(label): inputs[classes == label][:NEIGHBOURS] for label in np.unique(classes)}
        self._of_class = {
            label: NearestNeighbors(n_neighbors=k).fit(group) for label, group in groups.items() if len(group) >= k
        }
        self._of_all = NearestNeighbors(n_neighbors=k).fit(inputs[:NEIGHBOURS])

    def __call__(self, inputs: Values, classes: Classes) -> Values:
        """The distance of each sample, (N,)."""
        distances = np.empty(len(inputs))
        for label in np.unique(classes):
            chosen = classes == label
            nearest = self._of_class.get(int(label), self._of_all)
            distances[chosen] = nearest.kneighbors(inputs[chosen])[0][:, -1]
        return distances


class Gaussian:
    """Squared Mahalanobis distance to the mean, with a shrunk covariance (Ledoit, Wolf 2004)."""

    def __init__(self, inputs: Values, classes: Classes, k: int) -> None:
        from sklearn.covariance import LedoitWolf

        self._fitted = LedoitWolf().fit(inputs)

    def __call__(self, inputs: Values, classes: Classes) -> Values:
        """The distance of each sample, (N,)."""
        return np.asarray(self._fitted.mahalanobis(inputs), dtype=np.float64)


class ClassGaussians:
    """Minus twice the log-density of the Gaussian of the predicted class, up to a constant; each has its covariance."""

    def __init__(self, inputs: Values, classes: Classes, k: int) -> None:
        from sklearn.covariance import LedoitWolf

        labels, counts = np.unique(classes, return_counts=True)
        self._of_class = {int(label): LedoitWolf().fit(inputs[classes == label]) for label in labels[counts > 1]}
        self._of_all = LedoitWolf().fit(inputs)

    def __call__(self, inputs: Values, classes: Classes) -> Values:
        """The distance of each sample, (N,)."""
        distances = np.empty(len(inputs))
        for label in np.unique(classes):
            chosen, own = classes == label, self._of_class.get(int(label), self._of_all)
            distances[chosen] = own.mahalanobis(inputs[chosen]) - np.linalg.slogdet(own.precision_)[1]
        return distances


class Mixture:
    """Minus the log-density of a mixture of Gaussians with diagonal covariances, as many as there are classes."""

    def __init__(self, inputs: Values, classes: Classes, k: int) -> None:
        from sklearn.mixture import GaussianMixture

        many = min(len(np.unique(classes)), len(inputs))
        mixture = GaussianMixture(many, covariance_type="diag", reg_covar=1e-3, random_state=0)
        self._fitted = mixture.fit(inputs)

    def __call__(self, inputs: Values, classes: Classes) -> Values:
        """The distance of each sample, (N,)."""
        return np.asarray(-self._fitted.score_samples(inputs), dtype=np.float64)


DENSITIES: Mapping[Model, Callable[[Values, Classes, int], Callable[[Values, Classes], Values]]] = {
    "knn": Neighbours,
    "gaussian": Gaussian,
    "class-gaussian": ClassGaussians,
    "gmm": Mixture,
}
"""Each from inputs (N, K) and predicted classes (N,) of known samples, and k."""


def _parts(parameters: Mapping[str, object]) -> tuple[str, ...]:
    losses = parameters["losses"]
    assert isinstance(losses, tuple)
    return ("logits", *(PARTS[loss] for loss in losses))


@detector("grad-density", needs=_parts, fitted_on="meta")
class GradDensity:
    """How surprising a sample's gradient metrics are among known ones, with the surprise of entropy and energy beside.

    No label of an unknown sample is used: a density of the metrics of correctly classified known samples at losses
    that do not depend on the prediction's being right, and the tails of entropy and energy of known samples. Each
    becomes minus the logarithm of the share of known samples beyond it, and these are added (Fisher 1932). At the
    predicted label, all metrics carry the factor 1 − p, so that they say again what the entropy says; hence the others.
    """

    def __init__(
        self,
        model: Model = "knn",
        losses: tuple[Loss, ...] = ("uniform",),
        beside: tuple[Beside, ...] = ("entropy", "energy"),
        k: int = 10,
    ) -> None:
        """Choose the density.

        Args:
            model: ``knn``: distance to the k-th nearest known sample of the predicted class. ``gaussian`` and
                ``class-gaussian``: with shrunk covariances. ``gmm``: a mixture.
            losses: The losses whose gradient metrics it is of; ``norms`` are the squared norms of each parameter's
                gradient at the all-ones label.
            beside: What is joined with it.
            k: Which neighbour counts.
        """
        self.model, self.losses, self.beside, self.k = model, losses, beside, k

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Fit the density and all tails on known samples."""
        known = evidence[labels >= 0]
        right = ~known.wrong(labels[labels >= 0]).numpy()
        if right.sum() < 2 * FOLDS:
            raise CellSkippedError(f"{int(right.sum())} known samples are classified right; expected {2 * FOLDS}")
        values, classes = self._values(known), known.predictions.numpy()
        self._density = MetricDensity(values[right], classes[right], self.model, self.k)
        # Scores of samples that a density was not fitted on, as it will be with all others.
        folds = np.arange(len(values)) % FOLDS
        held_out = np.empty(len(values))
        for fold in range(FOLDS):
            rest, own = right & (folds != fold), folds == fold
            held_out[own] = MetricDensity(values[rest], classes[rest], self.model, self.k)(values[own], classes[own])
        self._tail = KnownTail(held_out)
        self._tails = {name: KnownTail(_beside(known, name)) for name in self.beside}

    def score(self, evidence: Evidence) -> Tensor:
        """The sum of all surprises."""
        total = self._tail(self._density(self._values(evidence), evidence.predictions.numpy()))
        for name, tail in self._tails.items():
            total = total + tail(_beside(evidence, name))
        return torch.from_numpy(total)

    def _values(self, evidence: Evidence) -> Values:
        parts = [getattr(evidence, PARTS[loss]) for loss in self.losses]
        return np.stack([column.double().numpy() for part in parts for column in part.values()], axis=1)


def _beside(evidence: Evidence, name: Beside) -> Values:
    values: Values = {"entropy": entropy, "energy": energy}[name](evidence.logits).double().numpy()
    return values


@detector("grad-duo", needs=lambda parameters: (*_parts(parameters), "gradients"), fitted_on="exposed")
class GradDuo:
    """`grad-combo`, which learns from errors, joined with `grad-density`, which knows what known samples are like.

    What errors of known samples teach says little of far concepts, and a density little of errors. Both scores become
    surprises among known samples, and these are added. The rule is fitted on known samples alone; exposed ones, if a
    protocol gives any, teach `grad-combo` only.
    """

    def __init__(
        self,
        model: Model = "knn",
        losses: tuple[Loss, ...] = ("uniform",),
        beside: tuple[Beside, ...] = ("energy",),
        k: int = 10,
    ) -> None:
        """Choose the density; see `grad-density`."""
        self._density = GradDensity(model, losses, beside, k)

    def fit(self, evidence: Evidence, labels: Tensor) -> None:
        """Fit both, and the tail of the supervised score on known samples that it was not fitted on."""
        self._density.fit(evidence, labels)
        self._combo = grad_combo()
        self._combo.fit(evidence, labels)
        known, folds = labels >= 0, torch.arange(len(labels)) % FOLDS
        held_out: Sequence[Values] = []
        for fold in range(FOLDS):
            part = grad_combo()
            part.fit(evidence[folds != fold], labels[folds != fold])
            held_out = [*held_out, part.score(evidence[known & (folds == fold)]).double().numpy()]
        self._tail = KnownTail(np.concatenate(held_out))

    def score(self, evidence: Evidence) -> Tensor:
        """The sum of both surprises."""
        of_combo = self._tail(self._combo.score(evidence).double().numpy())
        return self._density.score(evidence) + torch.from_numpy(of_combo)
