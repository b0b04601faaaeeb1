"""Metrics with the influence of each sample on them.

Influences are scaled so that the sum of their squares over the samples is the variance of the metric, and the sum of
their products with the influences on another metric is the covariance. For the AUROC that is the estimator of DeLong,
DeLong, Clarke-Pearson 1988. A linear combination of metrics has the same linear combination of influences. So the
variance of a mean over data sets, or of a difference of detectors, accounts for the samples that they share.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodbench.evaluation.interval import Z, at_an_end, wilson
from oodbench.evaluation.metrics import Scores, Target, flagged


@dataclass(frozen=True)
class Influenced:
    """A metric and the influence of each sample on it.

    Attributes:
        value: The metric.
        influence: float64 (N,).
        unseen: Additional variance where the samples show none: with perfect separation, or a single sample in a class.
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
        threshold: Threshold from the fitting split.
    """
    decided = flagged(scores, threshold) == positive
    value = float((decided[positive].mean() + decided[~positive].mean()) / 2)
    influence, unseen_of_both = np.empty(len(scores)), 0.0
    for members in (positive, ~positive):
        of_class = decided[members]
        influence[members] = _scaled(of_class - of_class.mean()) / 2
        # Few samples underestimate the variance of a share; the missing variance is taken from Wilson's interval.
        interval = wilson(float(of_class.mean()), len(of_class))
        seen = float(np.square(influence[members]).sum())
        unseen_of_both += max(0.0, ((interval.high - interval.low) / (2 * Z)) ** 2 / 4 - seen)
    return Influenced(value, influence, unseen_of_both)


def _share_below(values: Scores, ordered: Scores) -> NDArray[np.float64]:
    """For each value, the share of ``ordered`` that is below it, ties counting half."""
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    share: NDArray[np.float64] = (low + high) / (2 * len(ordered))
    return share


def _scaled(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations from the mean, scaled so that their squares sum to the variance of the mean."""
    n = len(deviations)
    return deviations / math.sqrt(n * (n - 1)) if n > 1 else np.zeros(n)


def unseen(value: float, m: int, n: int) -> float:
    """The variance of Wilson's interval where samples show none: at 0 and 1, or with a single sample in a class."""
    if min(m, n) > 1 and not at_an_end(value):
        return 0.0
    interval = wilson(value, min(m, n))
    return (max(interval.high - value, value - interval.low) / Z) ** 2
