"""Confidence intervals of 95 % for figures between 0 and 1."""

import math
from dataclasses import dataclass

from scipy.special import expit, logit, ndtri

LEVEL = 0.95
Z = float(ndtri(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its 95 % confidence interval, which contains it."""

    value: float
    low: float
    high: float


def on_logit_scale(value: float, variance: float, smallest: int) -> Interval:
    """A normal interval on the logit scale, which stays between 0 and 1 (Pepe 2003, §5.2).

    Args:
        value: The figure.
        variance: Its variance.
        smallest: Number of samples of the smaller class. At 0 and 1, or with a single sample in a class, the interval
            is Wilson's, of a share among this many samples.
    """
    if smallest < 2 or at_an_end(value):
        return wilson(value, smallest)
    half = Z * math.sqrt(variance) / (value * (1 - value))
    centre = float(logit(value))
    return containing(value, float(expit(centre - half)), float(expit(centre + half)))


def at_an_end(value: float) -> bool:
    """Whether a figure is 0 or 1, up to rounding."""
    return min(value, 1 - value) < 1e-12


def wilson(share: float, n: int) -> Interval:
    """The score interval for a share of n samples (Wilson 1927)."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return containing(share, centre - half, centre + half)


def mean_of_shares(first: float, n: int, second: float, m: int) -> Interval:
    """Interval of the mean of two independent shares, from their Wilson intervals (Newcombe 1998, method 10; MOVER).

    Args:
        first: A share of n samples.
        n: Their number.
        second: A share of m samples.
        m: Their number.
    """
    of_first, of_second = wilson(first, n), wilson(second, m)
    value = (first + second) / 2
    below = math.hypot(first - of_first.low, second - of_second.low) / 2
    above = math.hypot(of_first.high - first, of_second.high - second) / 2
    return containing(value, value - below, value + above)


def containing(value: float, low: float, high: float) -> Interval:
    """The interval from low to high, clipped to 0 and 1, and extended to contain the figure where it does not."""
    return Interval(value, max(0.0, min(low, value)), min(1.0, max(high, value)))
