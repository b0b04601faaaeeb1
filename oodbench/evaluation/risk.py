"""Selective classification (risk and coverage), and calibration of stated probabilities of error.

A sample is accepted if its score is at most a threshold; coverage is the share of accepted samples.
"""

import numpy as np
from numpy.typing import NDArray

from oodbench.evaluation.metrics import Scores, Target, cumulated


def risk_coverage(scores: Scores, wrong: Target) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The risk–coverage curve (El-Yaniv, Wiener 2010; Geifman, El-Yaniv 2017).

    Args:
        scores: (N,), larger = more likely wrong.
        wrong: (N,).

    Returns:
        Coverage and selective risk (the share of errors among accepted samples) at each of K distinct scores as
        threshold, from the smallest up, float64 (K,) each.
    """
    right, errors = cumulated(-scores, ~wrong)
    accepted = right + errors
    return accepted / len(scores), errors / accepted


def aurc(scores: Scores, wrong: Target) -> float:
    """Area under the risk–coverage curve: the mean over all samples of the selective risk at their own score.

    Without ties that is the definition of Geifman, Uziel, El-Yaniv 2019 (ICLR). Tied samples share the risk
    at their score, so that their order does not matter. Other packages use trapezoids between the same points:
    FD-Shifts from coverage 0 with the first risk, torch-uncertainty from coverage 1/N, divided by
    1 − 1/N, with ties in the order they come in. Without ties both differ from this by terms of 1/N.

    Args:
        scores: (N,), larger = more likely wrong.
        wrong: (N,).
    """
    coverage, risk = risk_coverage(scores, wrong)
    return float((np.diff(coverage, prepend=0.0) * risk).sum())


def augrc(scores: Scores, wrong: Target) -> float:
    """Area under the generalised risk–coverage curve (Traub et al. 2024, arXiv 2407.01032).

    The generalised risk is the share of samples that are accepted and wrong. Straight lines between distinct scores are
    its expectation if tied samples are taken in random order, so that the area is (1 − AUROC)·a·(1 − a) + (1 − a)²/2
    with the accuracy a and the failure AUROC, ties counting half. FD-Shifts, by the authors, has the same, times 1000;
    torch-uncertainty leaves out coverages below 1/N and divides by 1 − 1/N, which the identity does not hold for.

    Args:
        scores: (N,), larger = more likely wrong.
        wrong: (N,).
    """
    coverage, risk = risk_coverage(scores, wrong)
    coverage, joint = np.append(0.0, coverage), np.append(0.0, coverage * risk)
    return float((np.diff(coverage) * (joint[1:] + joint[:-1]) / 2).sum())


def joint_areas(
    scores: Scores, wrong: Target, unknown: Target, counts: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Areas of the joint task: to classify known samples, and to reject unknown ones and wrong predictions.

    An accepted sample costs 1 if it is known and wrong, a cost c if it is unknown, and nothing else; unknown samples
    weigh as much as known ones together (after Xia, Bouganis 2022, arXiv 2207.07506). As for :func:`aurc`, the area is
    the mean over all samples, by their weight, of the cost of what is accepted at their own score. It is linear in c:
    that of cost c is ``joint_aurc_wrong`` + c · ``joint_aurc_unknown``.

    Args:
        scores: (N,), larger = more likely wrong or unknown.
        wrong: (N,), whether the prediction is wrong, or the sample unknown.
        unknown: (N,).
        counts: How often each sample is drawn in each of B resamples, (N, B); None for once.

    Returns:
        The metrics of :data:`JOINT`, float64 (3,) or (3, B).
    """
    order = np.argsort(scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    weight = np.where(unknown, 0.5 / unknown.sum(), 0.5 / (~unknown).sum())[:, None]
    weight = (weight if counts is None else weight * counts)[order]
    accepted = np.cumsum(weight, axis=0)[ends]
    costs = (np.cumsum(weight * of_kind[order, None], axis=0)[ends] for of_kind in (wrong & ~unknown, unknown))
    share = np.diff(accepted, axis=0, prepend=0.0)
    with np.errstate(invalid="ignore"):
        parts = [np.nansum(share * cost / accepted, axis=0) for cost in costs]
    areas = np.stack([parts[0] + parts[1], *parts])
    return areas[:, 0] if counts is None else areas


JOINT = ("joint_aurc", "joint_aurc_wrong", "joint_aurc_unknown")
"""The area of the joint task where an unknown sample costs as much as a wrong prediction, and its two parts."""


def expected_calibration_error(probability: NDArray[np.floating], wrong: Target, bins: int = 15) -> float:
    """Mean distance between the stated and the observed share of errors, in bins of equal width (Guo et al. 2017, §2).

    A probability on an edge between bins is in the upper bin, as in torchmetrics; in the paper it is in the lower. A
    probability of 1 is in the last bin, as in the paper; torchmetrics has a further bin for it.

    Args:
        probability: (N,), stated probability of being wrong, from 0 to 1.
        wrong: (N,).
        bins: Number of bins.
    """
    place = bins_of(probability, bins)
    stated = np.bincount(place, weights=probability, minlength=bins)
    observed = np.bincount(place, weights=wrong, minlength=bins)
    return float(np.abs(stated - observed).sum() / len(wrong))


def bins_of(probability: NDArray[np.floating], bins: int) -> NDArray[np.int64]:
    """The bin of equal width that each probability falls into, (N,); 1 belongs to the last."""
    return np.minimum((probability * bins).astype(np.int64), bins - 1)
