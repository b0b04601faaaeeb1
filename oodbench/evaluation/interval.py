"""Intervals of 95 % for figures between 0 and 1."""

import math
from dataclasses import dataclass

from scipy.special import expit, logit, ndtri

LEVEL = 0.95
Z = float(ndtri(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its 95 % interval, which holds the figure."""

    value: float
    low: float
    high: float


def on_logit_scale(value: float, variance: float, smallest: int) -> Interval:
    """A normal interval on the logit scale, which stays between 0 and 1 (Pepe 2003, §5.2).

    Args:
        value: The figure.
        variance: Its variance.
        smallest: Size of the smaller class: where the samples show no variance, at 0 and 1 or with one sample in a
            class, Wilson's interval of a share among so many takes the place.
    """
    if smallest < 2 or at_an_end(value):
        return wilson(value, smallest)
    half = Z * math.sqrt(variance) / (value * (1 - value))
    centre = float(logit(value))
    return containing(value, float(expit(centre - half)), float(expit(centre + half)))


def at_an_end(value: float) -> bool:
    """Whether a figure is 0 or 1, but for the rounding of a mean."""
    return min(value, 1 - value) < 1e-12


def wilson(share: float, n: int) -> Interval:
    """The score interval of a share among n samples (Wilson 1927)."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return containing(share, centre - half, centre + half)


def mean_of_shares(first: float, n: int, second: float, m: int) -> Interval:
    """The mean of two independent shares, from their Wilson intervals (Newcombe 1998, method 10; MOVER)."""
    one, other = wilson(first, n), wilson(second, m)
    value = (first + second) / 2
    below = math.hypot(first - one.low, second - other.low) / 2
    above = math.hypot(one.high - first, other.high - second) / 2
    return containing(value, value - below, value + above)


def containing(value: float, low: float, high: float) -> Interval:
    """The ends, moved where rounding or a skewed resampling put the figure itself outside, or they left 0 to 1."""
    return Interval(value, max(0.0, min(low, value)), min(1.0, max(high, value)))
