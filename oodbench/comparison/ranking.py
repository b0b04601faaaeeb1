"""Which detectors are tied with the best, and between which ranks each of them may stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from oodbench.comparison.estimates import Estimate, difference, holm
from oodbench.evaluation.interval import LEVEL


@dataclass(frozen=True)
class Rank:
    """A place among detectors, 1 being the best.

    Attributes:
        place: The place by the estimates.
        low: Best place that the data leave possible.
        high: Worst place that they leave possible.
        tied: Whether it is one of several detectors that may be the best.
    """

    place: int
    low: int
    high: int
    tied: bool


def ranks(estimates: Sequence[Estimate]) -> list[Rank]:
    """The rank of each estimate with an interval, larger being better.

    All pairs are tested with Holm's adjustment. A detector ranks behind all that are significantly better and before
    all that are significantly worse, which gives simultaneous confidence intervals of the ranks (Mogstad,
    Romano, Shaikh, Wilhelm 2024, Review of Economic Studies 91).
    """
    order = sorted(range(len(estimates)), key=lambda i: -estimates[i].value)
    place = {index: position + 1 for position, index in enumerate(order)}
    pairs = list(combinations(order, 2))
    adjusted = holm([difference(estimates[better], estimates[worse]).p for better, worse in pairs])
    apart = {pair for pair, p in zip(pairs, adjusted, strict=True) if p < 1 - LEVEL}
    ranked = []
    for index in range(len(estimates)):
        better = sum(worse == index for _, worse in apart)
        worse = sum(first == index for first, _ in apart)
        ranked.append(Rank(place[index], 1 + better, len(estimates) - worse, tied=better == 0))
    several = sum(rank.tied for rank in ranked) > 1
    return [replace(rank, tied=rank.tied and several) for rank in ranked]


def tied_with_best(estimates: Sequence[Estimate]) -> list[bool]:
    """Whether each estimate cannot be separated from the largest one, by Holm's adjustment over these comparisons."""
    if not estimates:
        return []
    best = max(range(len(estimates)), key=lambda i: estimates[i].value)
    others = [index for index in range(len(estimates)) if index != best]
    adjusted = holm([difference(estimates[best], estimates[index]).p for index in others])
    apart = {index for index, p in zip(others, adjusted, strict=True) if p < 1 - LEVEL}
    return [index not in apart for index in range(len(estimates))]
