"""A sweep over sorted samples that computes the metrics of many resamples at once, in NumPy."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Number of samples in a tile, so that their counts in ``_LANES`` resamples fit a processor's second-level cache.
_TILE = 256


def sweep(
    of_positives: NDArray[np.uint8],
    of_negatives: NDArray[np.uint8],
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
    ends: NDArray[np.int64],
    lanes: slice,
) -> NDArray[np.float64]:
    """The metrics of some resamples.

    Args:
        of_positives: How often each positive is drawn in each resample, (P, B).
        of_negatives: How often each negative is drawn in each resample, (M, B).
        rows: For each sample, from the largest score down, its row in the counts of its class, (N,).
        truth: Whether each of these samples is a positive, (N,).
        ends: End (exclusive) of each group of equal scores.
        lanes: The resamples to compute.

    Returns:
        float64 (6, B'), rows as in ``oodbench.evaluation.bootstrap.RESAMPLED``.
    """
    positives, negatives = np.ascontiguousarray(of_positives[:, lanes]), np.ascontiguousarray(of_negatives[:, lanes])
    m, n = positives.sum(axis=0, dtype=np.float32), negatives.sum(axis=0, dtype=np.float32)
    needed_positives, needed_negatives = np.ceil(95 * m / 100), np.ceil(95 * n / 100)
    width = positives.shape[1]
    tp, fp = np.zeros(width, dtype=np.float32), np.zeros(width, dtype=np.float32)
    sums = np.zeros((6, width))
    for start, groups in _tiles(ends):
        inside = slice(start, groups[-1])
        starts = np.concatenate([[start], groups[:-1]]) - start
        p = _of_groups(positives, rows[inside], truth[inside], starts)
        q = _of_groups(negatives, rows[inside], ~truth[inside], starts)
        above = np.cumsum(p, axis=0) + tp
        wrongly = np.cumsum(q, axis=0) + fp
        # From the smallest score up to and with this group.
        below, missed = n - wrongly + q, m - above + p
        precision = below / np.maximum(below + missed, 1)
        sums[0] += _dot(p, above / np.maximum(above + wrongly, 1))
        of_negatives_alone = _dot(q, precision)
        sums[1] += of_negatives_alone
        sums[2] += _drawn_before(q, above - p, needed_positives, tp, above[-1])
        sums[3] += _drawn_before(p, below - q, needed_negatives, n - wrongly[-1], n - fp)
        sums[4] += of_negatives_alone + _dot(p, precision)
        sums[5] += _dot(p + q, missed - p / 2)
        tp, fp = above[-1], wrongly[-1]
    return averaged(sums, m.astype(np.float64), n.astype(np.float64))


def averaged(sums: NDArray[np.float64], m: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn the sums of a sweep into metrics; NaN where a resample lacks a class.

    Args:
        sums: (6, B').
        m: Number of positives in each resample, (B',).
        n: Number of negatives in each resample, (B',).
    """
    both = np.where((m > 0) & (n > 0), m + n, np.nan)
    averages: NDArray[np.float64] = sums / np.stack([m, n, n, m, both, both**2]).clip(min=1) * (both / both)
    averages[4] = 1 - averages[4]
    return averages


def _tiles(ends: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Cut the samples into tiles of whole groups: the start of each tile and the ends of its groups."""
    start = first = 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + _TILE, "right")))
        yield start, ends[first:last]
        start, first = int(ends[last - 1]), last


def _of_groups(
    counts: NDArray[np.uint8], rows: NDArray[np.int64], members: NDArray[np.bool_], starts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Sum the counts of the members in each group, (G, B'); zero for a group without members."""
    drawn = np.zeros((len(rows), counts.shape[1]), dtype=np.float32)
    drawn[members] = counts[rows[members]]
    if len(starts) == len(rows):
        return drawn
    sums: NDArray[np.float32] = np.add.reduceat(drawn, starts, axis=0)
    return sums


def _drawn_before(
    drawn: NDArray[np.float32],
    passed: NDArray[np.float32],
    needed: NDArray[np.float32],
    least: NDArray[np.float32],
    most: NDArray[np.float32],
) -> NDArray[np.float64]:
    """For each resample, the number of draws in the groups that come before 95 % of the other class has passed.

    Args:
        drawn: Number of draws in each group and resample, (G, B').
        passed: Number of draws of the other class before each group, (G, B').
        needed: 95 % of the draws of the other class in each resample, (B',).
        least: Lower bound of ``passed`` in each resample.
        most: Upper bound of ``passed``. The bounds are a shortcut: most tiles are entirely before or after.
    """
    if (least >= needed).all():
        return np.zeros(drawn.shape[1])
    if (most < needed).all():
        sums: NDArray[np.float64] = drawn.sum(axis=0, dtype=np.float64)
        return sums
    return _dot(drawn, passed < needed)


def _dot(weights: NDArray[np.float32], values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Sum of weight × value over the groups, for each resample."""
    sums: NDArray[np.float64] = np.einsum("gb,gb->b", weights, values, dtype=np.float64, casting="unsafe")
    return sums
