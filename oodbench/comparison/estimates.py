"""Figures over seeds and data sets, with the influence of every test sample.

The test samples are the same for all seeds, and the known ones are shared by all unknown sets. Influences add up over
both, so that the sampling error of a mean, or of a difference of detectors, is that of the samples it really rests on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from oodbench.evaluation.interval import LEVEL, Interval, on_logit_scale


@dataclass(frozen=True)
class Estimate:
    """A figure of one detector, or a linear combination of such figures.

    Attributes:
        by_seed: Its value for each seed.
        influence: Influence of each test sample on the mean over the seeds, float64 (N,).
        unseen: Variance that the samples cannot show (see ``oodbench.evaluation.influence``).
        smallest: Size of the smallest class it rests on.
    """

    by_seed: tuple[float, ...]
    influence: NDArray[np.float64]
    unseen: float
    smallest: int

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return fmean(self.by_seed)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None with one seed."""
        if len(self.by_seed) == 1:
            return None
        value = self.value
        return math.sqrt(math.fsum((of_seed - value) ** 2 for of_seed in self.by_seed) / (len(self.by_seed) - 1))

    @property
    def sampling_variance(self) -> float:
        """Variance of the mean over the seeds if other test samples were drawn, the classifiers being the same."""
        return float(np.square(self.influence).sum()) + self.unseen

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the sampling error, for a figure between 0 and 1."""
        return on_logit_scale(self.value, self.sampling_variance, self.smallest)


@dataclass(frozen=True)
class Difference:
    """A difference with its 95 % interval over test samples and seeds, and the p value of no difference."""

    value: float
    low: float
    high: float
    p: float


def mean_of(figures: Sequence[Estimate]) -> Estimate:
    """The mean of figures of the same seeds over the same samples."""
    return combined([(1 / len(figures), figure) for figure in figures])


def difference(first: Estimate, second: Estimate) -> Difference:
    """The first figure less the second, paired by seed and by sample."""
    return against_zero(combined([(1.0, first), (-1.0, second)]))


def combined(terms: Sequence[tuple[float, Estimate]]) -> Estimate:
    """A linear combination of figures of the same seeds over the same samples."""
    weights = [weight for weight, _ in terms]
    by_seed = zip(*(estimate.by_seed for _, estimate in terms), strict=True)
    return Estimate(
        tuple(math.fsum(w * value for w, value in zip(weights, values, strict=True)) for values in by_seed),
        np.sum([weight * estimate.influence for weight, estimate in terms], axis=0),
        sum(weight**2 * estimate.unseen for weight, estimate in terms),
        min(estimate.smallest for _, estimate in terms),
    )


def against_zero(estimate: Estimate, looked_at: int = 1) -> Difference:
    """Compare a figure with zero, over test samples and seeds together.

    The variance of the mean over S seeds is the sampling variance plus s²/S; the degrees of freedom are Satterthwaite's
    (1946), S − 1 for the second term and infinite for the first. With one seed the classifier is taken as fixed.

    Args:
        estimate: The figure.
        looked_at: How many figures it was chosen from; its interval is widened for that (Bonferroni).
    """
    value, sampling = estimate.value, estimate.sampling_variance
    seeds = len(estimate.by_seed)
    between = (estimate.spread or 0.0) ** 2 / seeds
    return of_error(value, sampling, between, seeds, looked_at)


def of_error(value: float, sampling: float, between: float, seeds: int, looked_at: int = 1) -> Difference:
    """A difference with its interval and p value, from its variances (see :func:`against_zero`).

    Args:
        value: The difference.
        sampling: Its sampling variance.
        between: The variance of the mean over the seeds, from their spread.
        seeds: The number of seeds.
        looked_at: How many values it was chosen from.
    """
    error = math.sqrt(sampling + between)
    if error < 1e-12:
        # A difference that the rounding of a mean explains is none.
        return Difference(value, value, value, 1.0 if abs(value) < 1e-9 else 0.0)
    # Figures are between 0 and 1.
    freedom = (seeds - 1) * ((sampling + between) / between) ** 2 if between > 0 else math.inf
    tail, ratio = (1 - LEVEL) / 2 / looked_at, abs(value) / error
    # Of Student's distribution, or of the normal one; not by scipy.stats, which makes an object each time.
    is_finite = math.isfinite(freedom)
    half = -float(stdtrit(freedom, tail) if is_finite else ndtri(tail)) * error
    p = 2 * float(stdtr(freedom, -ratio) if is_finite else ndtr(-ratio))
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for multiple comparisons (Holm 1979)."""
    count = len(p_values)
    adjusted = [0.0] * count
    largest = 0.0
    for position, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - position) * p_values[index]))
        adjusted[index] = largest
    return adjusted
