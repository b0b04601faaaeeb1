"""How far two classifiers rank detectors alike: Kendall's τ-b of the detectors' figures, over test samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodbench.comparison.estimates import Estimate
from oodbench.evaluation.interval import LEVEL, Interval

DRAWS = 2000
_SAMPLES_AT_ONCE = 4096
_NOTHING = 1e-9
"""Figures that differ by less are the same, and errors that are smaller are rounding."""


@dataclass(frozen=True)
class _Pairs:
    """All pairs of the detectors of one classifier (P).

    Attributes:
        signs: Which of the two is better: 1, -1, or 0 for neither.
        drawn: The same in each draw, int8 (DRAWS, P).
        errors: Standard error of their difference.
        strange: How many standard errors each draw is off (DRAWS,), that of the pair that is furthest off.
        differences: Their differences.
    """

    signs: NDArray[np.int8]
    drawn: NDArray[np.int8]
    errors: NDArray[np.float64]
    strange: NDArray[np.float64]
    differences: NDArray[np.float64]

    @property
    def distinct(self) -> NDArray[np.bool_]:
        """Whether the two are different figures, and not the same for any samples."""
        distinct: NDArray[np.bool_] = (self.signs != 0) | (self.errors > _NOTHING)
        return distinct


def agreements(by_classifier: Sequence[Sequence[Estimate]]) -> dict[tuple[int, int], Interval]:
    """Kendall's τ-b with its 95 % interval over test samples, for each pair of classifiers that are taken as they are.

    Figures are drawn from the normal distribution that their influences give, with all covariances, since all
    detectors and classifiers have the same test samples. Errors pull a rank correlation towards 0, that of draws once
    more than that of the estimates. The end towards 0 is therefore the percentile of the draws, which is on the safe
    side; at the other end all pairs of detectors that are not separated, simultaneously in both classifiers, are as
    they agree (or disagree) most.

    Args:
        by_classifier: The figures of the same detectors, at least two, for each classifier.
    """
    noise = _noise([estimate for figures in by_classifier for estimate in figures])
    count = len(by_classifier[0])
    pairs = [
        _pairs(figures, noise[:, place * count : (place + 1) * count]) for place, figures in enumerate(by_classifier)
    ]
    return {
        (one, other): _agreement(pairs[one], pairs[other])
        for one in range(len(pairs))
        for other in range(one + 1, len(pairs))
    }


def _noise(estimates: Sequence[Estimate]) -> NDArray[np.float64]:
    """Errors that other test samples would make (DRAWS, estimates); always the same ones."""
    generator = np.random.default_rng(0)
    influences = np.array([estimate.influence for estimate in estimates])
    influences = influences[:, influences.any(axis=0)]
    noise = generator.standard_normal((DRAWS, len(estimates))) * np.sqrt([estimate.unseen for estimate in estimates])
    for start in range(0, influences.shape[1], _SAMPLES_AT_ONCE):
        part = influences[:, start : start + _SAMPLES_AT_ONCE]
        noise += generator.standard_normal((DRAWS, part.shape[1])) @ part.T
    return noise


def _pairs(figures: Sequence[Estimate], noise: NDArray[np.float64]) -> _Pairs:
    first, second = np.triu_indices(len(figures), 1)
    values = np.array([figure.value for figure in figures])
    influences = np.array([figure.influence for figure in figures])
    covariance = influences @ influences.T + np.diag([figure.unseen for figure in figures])
    variances = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    errors = np.sqrt(np.maximum(variances, 0))
    differences, off = values[first] - values[second], noise[:, first] - noise[:, second]
    strange = np.max(np.abs(off) / np.where(errors > _NOTHING, errors, np.inf), axis=1)
    return _Pairs(_signs(differences), _signs(differences + off), errors, strange, differences)


def _signs(differences: NDArray[np.float64]) -> NDArray[np.int8]:
    return np.where(np.abs(differences) < _NOTHING, 0, np.sign(differences)).astype(np.int8)


def _agreement(one: _Pairs, other: _Pairs) -> Interval:
    tau = float(_tau(one.signs, other.signs))
    drawn = _tau(one.drawn, other.drawn)
    limit = np.quantile(np.maximum(one.strange, other.strange), LEVEL)
    open_pairs = np.zeros(len(one.signs), dtype=bool)
    for pairs in (one, other):
        open_pairs |= (np.abs(pairs.differences) <= limit * pairs.errors) & pairs.distinct
    possible = one.distinct & other.distinct
    size = np.sqrt(float(one.distinct.sum()) * float(other.distinct.sum())) or 1.0
    settled = float((one.signs * other.signs)[~open_pairs].sum())
    most = float((open_pairs & possible).sum())
    tail = (1 - LEVEL) / 2
    if tau > 0:
        low, high = float(np.quantile(drawn, tail)), min(1.0, (settled + most) / size)
    else:
        low, high = max(-1.0, (settled - most) / size), float(np.quantile(drawn, 1 - tail))
    return Interval(tau, min(low, tau), max(high, tau))


def _tau(one: NDArray[np.int8], other: NDArray[np.int8]) -> NDArray[np.float64]:
    """Kendall's τ-b from the signs of all pairs, the last axis; 0 where one of both has ties only."""
    alike = (one * other).sum(axis=-1, dtype=float)
    size = np.sqrt((one != 0).sum(axis=-1, dtype=float) * (other != 0).sum(axis=-1, dtype=float))
    tau: NDArray[np.float64] = alike / np.where(size > 0, size, 1.0)
    return tau
