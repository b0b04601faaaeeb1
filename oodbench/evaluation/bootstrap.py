"""Bootstrap intervals of metrics for which there is no closed form.

Where the suite fixes the number of samples of each class, positives and negatives are resampled separately. Where the
number of errors is random, as on known data alone, all samples are resampled together. The draws depend only on the
numbers of samples, so that all detectors get the same resamples of the same samples, and their differences are paired.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from oodbench.evaluation.interval import Interval, at_an_end, containing, wilson
from oodbench.evaluation.metrics import Scores, Target
from oodbench.evaluation.risk import JOINT, bins_of, expected_calibration_error, joint_areas

RESAMPLES = 2000
# Of the joint task, whose sweep is slower; the first of all.
JOINT_RESAMPLES = 500
BINS = 15
RESAMPLED = ("aupr_unknown", "aupr_known", "fpr95_unknown_positive", "fpr95_known_positive", "aurc", "augrc")
"""The metrics of a resample, in the order of the rows of :func:`replicates`."""

_POSITIVE, _NEGATIVE, _TOGETHER = 1, 2, 3
# Number of resamples that are processed together, so that their running counts fit a processor's first-level cache.
_LANES = 250


def intervals(
    values: Mapping[str, float], draws: NDArray[np.float64], positives: int, negatives: int
) -> dict[str, Interval]:
    """Percentile intervals of metrics.

    Where all replicates are 0 or all are 1, or a class has a single sample, the replicates say nothing. Then the
    interval is Wilson's, of a share among the samples that the metric counts.

    Args:
        values: The metrics on the samples themselves.
        draws: Bootstrap replicates of the metrics, (6, B).
        positives: Number of positives.
        negatives: Number of negatives.
    """
    smallest = min(positives, negatives)
    counted = (positives, negatives, negatives, positives, positives + negatives, positives + negatives)
    by_metric = {}
    for name, of_metric, n in zip(RESAMPLED, draws, counted, strict=True):
        low, high = np.nanquantile(of_metric, [0.025, 0.975])
        if smallest < 2 or (low == high and at_an_end(values[name])):
            by_metric[name] = wilson(values[name], smallest if smallest < 2 else n)
        else:
            by_metric[name] = containing(values[name], float(low), float(high))
    return by_metric


def replicates(
    scores: Scores, positive: Target, resamples: int = RESAMPLES, *, stratified: bool = True
) -> NDArray[np.float64]:
    """The metrics of :data:`RESAMPLED` on each resample.

    Args:
        scores: (N,), finite.
        positive: (N,), with both classes.
        resamples: Number of resamples B.
        stratified: Whether positives and negatives are resampled separately.

    Returns:
        float64 (6, B). For ``aurc`` and ``augrc``, positives are the errors. NaN for a resample that lacks a class.
    """
    order = np.argsort(-scores, kind="stable")
    truth = positive[order]
    # The row of each sample's counts, among the positives' or the negatives'.
    rows = np.where(positive, np.cumsum(positive), np.cumsum(~positive))[order] - 1
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) + 1
    sweep_lanes = partial(_sweep(), *_drawn(positive, resamples, stratified=stratified), rows, truth, ends)
    return np.concatenate(list(_workers().map(sweep_lanes, _lanes(resamples))), axis=1)


def joint_intervals(scores: Scores, wrong: Target, unknown: Target, values: NDArray[np.float64]) -> dict[str, Interval]:
    """Percentile intervals of the areas of the joint task; known and unknown samples are resampled separately.

    Args:
        scores: (N,), finite.
        wrong: (N,), whether the prediction is wrong, or the sample unknown.
        unknown: (N,).
        values: The areas on the samples themselves, (3,).
    """
    drawn = np.empty((len(scores), JOINT_RESAMPLES), dtype=np.uint8)
    of_unknown, of_known = _drawn(unknown, RESAMPLES, stratified=True)
    drawn[unknown], drawn[~unknown] = of_unknown[:, :JOINT_RESAMPLES], of_known[:, :JOINT_RESAMPLES]
    lanes = [drawn[:, some].astype(np.float64) for some in _lanes(JOINT_RESAMPLES)]
    areas = np.concatenate(list(_workers().map(partial(joint_areas, scores, wrong, unknown), lanes)), axis=1)
    ends = np.quantile(areas, [0.025, 0.975], axis=1)
    return {
        name: containing(float(value), float(low), float(high))
        for name, value, low, high in zip(JOINT, values, *ends, strict=True)
    }


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())


def _drawn(positive: Target, resamples: int, *, stratified: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """How often each positive (P, B) and each negative (M, B) is drawn."""
    if stratified:
        positives = int(positive.sum())
        return _counts(positives, _POSITIVE, resamples), _counts(len(positive) - positives, _NEGATIVE, resamples)
    together = _counts(len(positive), _TOGETHER, resamples)
    return together[positive], together[~positive]


@cache
def _sweep() -> Callable[..., NDArray[np.float64]]:
    """The numba kernel if the extra ``fast`` is installed, else NumPy; they agree to float32 accuracy."""
    try:
        from oodbench.evaluation.fused_sweep import sweep as fused
    except ImportError:
        from oodbench.evaluation.sweep import sweep

        return sweep
    return fused


def _lanes(resamples: int) -> list[slice]:
    return [slice(low, min(low + _LANES, resamples)) for low in range(0, resamples, _LANES)]


# Enough for a suite of four unknown sets with both targets.
@lru_cache(maxsize=8)
def _counts(n: int, stream: int, resamples: int) -> NDArray[np.uint8]:
    """How often each of n samples is drawn in each resample, (n, B); each column sums to n.

    Raw bits are used because they are the same in every version of NumPy, unlike the methods of a generator. The
    probability that a sample is drawn more than 255 times is below 1e-500.
    """
    bits = np.random.Philox(key=stream)
    counts = np.empty((resamples, n), dtype=np.uint8)
    for row in counts:
        drawn = bits.random_raw((n + 1) // 2).view(np.uint32)[:n].astype(np.uint64)
        row[:] = np.bincount((drawn * np.uint64(n) >> np.uint64(32)).astype(np.int64), minlength=n)
    return np.ascontiguousarray(counts.T)


def calibration_interval(probability: NDArray[np.floating], wrong: Target) -> Interval:
    """Expected calibration error with its percentile interval, from resampling all samples together.

    Args:
        probability: (N,), stated probability of being wrong.
        wrong: (N,), with both classes.
    """
    value = expected_calibration_error(probability, wrong, bins=BINS)
    bins = bins_of(probability, BINS)
    order = np.argsort(bins, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(bins[order]) != 0))
    drawn = np.empty((len(wrong), RESAMPLES), dtype=np.float32)
    drawn[wrong], drawn[~wrong] = _drawn(wrong, RESAMPLES, stratified=False)
    drawn = drawn[order]
    observed = np.add.reduceat(drawn * wrong[order, None], starts, axis=0)
    stated = np.add.reduceat(drawn * probability[order, None].astype(np.float32), starts, axis=0)
    errors = np.abs(observed - stated).sum(axis=0) / len(wrong)
    low, high = np.quantile(errors, [0.025, 0.975])
    return containing(value, float(low), float(high))
