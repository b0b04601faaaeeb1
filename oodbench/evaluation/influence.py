"""Metrics with the influence of each sample on them.

The influence of a sample is scaled so that the sum of its squares over the samples is the variance of the metric, and
the sum of products with another metric's influence on the same samples is their covariance. For the AUROC that is the
estimator of DeLong, DeLong, Clarke-Pearson 1988. Any linear combination of metrics has the same combination of
influences, so that the interval of a mean over data sets, or of a difference of detectors, is exact about the samples
that they share.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodbench.evaluation.interval import Z, at_an_end, wilson
from oodbench.evaluation.metrics import Scores, Target, flagged


@dataclass(frozen=True)
class Influenced:
    """A metric and the influence of each sample.

    Attributes:
        value: The metric.
        influence: float64 (N,).
        unseen: Variance that the samples cannot show: where they separate perfectly, or where a class has one sample.
    """

    value: float
    influence: NDArray[np.float64]
    unseen: float = 0.0

    @property
    def variance(self) -> float:
        """Sampling variance of the metric."""
        return float(np.square(self.influence).sum()) + self.unseen


def auroc_influence(scores: Scores, positive: Target) -> Influenced:
    """AUROC with its DeLong influences.

    The influence of a positive sample is its share of negatives below it (ties half), less the AUROC; that of a
    negative sample its share of positives above it, less the AUROC.

    Args:
        scores: (N,).
        positive: (N,), with both classes.
    """
    above, below = scores[positive], scores[~positive]
    m, n = len(above), len(below)
    of_positives = _share_below(above, np.sort(below))
    of_negatives = 1 - _share_below(below, np.sort(above))
    value = float(of_positives.mean())
    influence = np.empty(m + n)
    influence[positive] = _scaled(of_positives - value)
    influence[~positive] = _scaled(of_negatives - of_negatives.mean())
    return Influenced(value, influence, unseen(value, m, n))


def balanced_accuracy_influence(scores: Scores, positive: Target, threshold: float) -> Influenced:
    """Balanced accuracy at a fixed threshold: the mean of two independent shares.

    Args:
        scores: (N,).
        positive: (N,), with both classes.
        threshold: From the fitting split.
    """
    decided = flagged(scores, threshold) == positive
    value = float((decided[positive].mean() + decided[~positive].mean()) / 2)
    influence, unseen_of_both = np.empty(len(scores)), 0.0
    for members in (positive, ~positive):
        of_class = decided[members]
        influence[members] = _scaled(of_class - of_class.mean()) / 2
        # Few samples show too little of the variance of a share; Wilson's interval says how much is missing.
        interval = wilson(float(of_class.mean()), len(of_class))
        seen = float(np.square(influence[members]).sum())
        unseen_of_both += max(0.0, ((interval.high - interval.low) / (2 * Z)) ** 2 / 4 - seen)
    return Influenced(value, influence, unseen_of_both)


def _share_below(values: Scores, ordered: Scores) -> NDArray[np.float64]:
    """Of each value: the share of the ordered ones below it, ties counting half."""
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    share: NDArray[np.float64] = (low + high) / (2 * len(ordered))
    return share


def _scaled(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations whose squares sum to the variance of their mean."""
    n = len(deviations)
    return deviations / math.sqrt(n * (n - 1)) if n > 1 else np.zeros(n)


def unseen(value: float, m: int, n: int) -> float:
    """The variance that Wilson's interval has where the samples show none: at 0 and 1, and with one in a class."""
    if min(m, n) > 1 and not at_an_end(value):
        return 0.0
    interval = wilson(value, min(m, n))
    return (max(interval.high - value, value - interval.low) / Z) ** 2
