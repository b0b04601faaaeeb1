"""Metrics of scores against a binary target: larger scores mean positive, and ties are treated exactly."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.floating]
Target = NDArray[np.bool_]

SMALLER_IS_BETTER = (
    "fpr95_unknown_positive",
    "fpr95_known_positive",
    "aurc",
    "augrc",
    "ece",
    "joint_aurc",
    "joint_aurc_wrong",
    "joint_aurc_unknown",
)
"""Metrics of which a smaller value is better; of all others a larger one is."""


def metrics(scores: Scores, positive: Target, threshold: float | None) -> dict[str, float | None]:
    """All metrics of scores for a target; None where a class is missing.

    Args:
        scores: (N,), finite.
        positive: (N,), whether each sample is unknown, or wrong or unknown.
        threshold: Threshold from the fitting split, for ``meta_accuracy``; None if there is none.

    Returns:
        ``auroc``; ``aupr_unknown`` and ``aupr_known``, average precision for detecting the positive and the negative
        class; ``fpr95_unknown_positive``, the share of negatives above the threshold that lets 95 % of the positives
        through; ``fpr95_known_positive``, the share of positives below the threshold that lets 95 % of the negatives
        through; ``meta_accuracy``, balanced: the mean of both classes' rates of right decisions at the
        threshold.
    """
    negative = ~positive
    if not positive.any() or not negative.any():
        names = ("auroc", "aupr_unknown", "aupr_known", "fpr95_unknown_positive", "fpr95_known_positive")
        return dict.fromkeys((*names, "meta_accuracy"))
    above = cumulated(scores, positive)
    below = _from_below(*above)
    return {
        "auroc": _area(*above),
        "aupr_unknown": _average_precision(*above),
        "aupr_known": _average_precision(*below),
        "fpr95_unknown_positive": _fpr95(*above),
        "fpr95_known_positive": _fpr95(*below),
        "meta_accuracy": None if threshold is None else balanced_accuracy(scores, positive, threshold),
    }


def auroc(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Area under the ROC curve, ties counting half; None where a class is missing."""
    truth = np.asarray(positive, dtype=bool)
    if truth.all() or not truth.any():
        return None
    return _area(*cumulated(np.asarray(scores), truth))


def cumulated(scores: Scores, positive: Target) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each distinct score, from the largest down: the numbers of positives and negatives with at least it."""
    order = np.argsort(-scores, kind="stable")
    ordered, truth = scores[order], positive[order]
    last_of_ties = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    positives = np.cumsum(truth, dtype=np.int64)[last_of_ties]
    return positives, last_of_ties + 1 - positives


def balanced_accuracy(scores: Scores, positive: Target, threshold: float) -> float:
    """Mean of the share of positives at or above the threshold and the share of negatives below it."""
    decided = flagged(scores, threshold)
    return float((decided[positive].mean() + (~decided[~positive]).mean()) / 2)


def flagged(scores: Scores, threshold: float) -> Target:
    """Whether each score is at or above a threshold, bool (N,); compared in float64, so as not to round it."""
    decided: Target = scores.astype(np.float64) >= threshold
    return decided


def best_threshold(scores: Scores, positive: Target) -> float | None:
    """The threshold with the largest balanced accuracy, half-way to the next score below; None if a class is missing.

    To be used on the fitting split only.
    """
    if positive.all() or not positive.any():
        return None
    positives, negatives = cumulated(scores, positive)
    best = int(np.argmax(positives / positives[-1] - negatives / negatives[-1]))
    distinct = np.unique(scores)[::-1].astype(np.float64)
    if best + 1 == len(distinct):
        return float(distinct[best])
    # Not below the next score: the mean of two neighbouring floats may be rounded to it.
    middle = distinct[best + 1] / 2 + distinct[best] / 2
    return float(middle if middle > distinct[best + 1] else distinct[best])


def _from_below(
    positives: NDArray[np.int64], negatives: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each distinct score, from the smallest up: the numbers of negatives and positives with at most it."""
    below = negatives[-1] - np.append(0, negatives[:-1]), positives[-1] - np.append(0, positives[:-1])
    return below[0][::-1], below[1][::-1]


def _area(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    """Area under the ROC curve by trapezoids, in integers until the last division."""
    wins = np.diff(negatives, prepend=0) * (positives + np.append(0, positives[:-1]))
    return float(wins.sum() / (2 * positives[-1] * negatives[-1]))


def _average_precision(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    """Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ over distinct scores, with recall R and precision P."""
    precision = positives / (positives + negatives)
    return float((np.diff(positives, prepend=0) * precision).sum() / positives[-1])


def _fpr95(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    """Least false positive rate at a true positive rate of 95 % or more."""
    needed = -(-95 * positives[-1] // 100)
    return float(negatives[np.searchsorted(positives, needed)] / negatives[-1])
