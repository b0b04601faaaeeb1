"""How far two classifiers rank detectors alike, and how sure that is."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from oodbench.comparison.agreement import agreements
from oodbench.comparison.estimates import Estimate
from oodbench.evaluation.influence import auroc_influence


def figures(values, influences=None):
    """Estimates of one seed; without influences they have no error."""
    rows = np.zeros((len(values), 1)) if influences is None else influences
    return [
        Estimate((float(value),), np.array(row, dtype=float), 0.0, 100) for value, row in zip(values, rows, strict=True)
    ]


def agreement(one, other):
    return agreements([one, other])[0, 1]


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_rank_correlation_is_that_of_scipy_with_ties_and_without(levels):
    random = np.random.default_rng(levels)
    for _ in range(20):
        one, other = random.integers(0, levels, (2, 9)) / 1000
        found = agreement(figures(one), figures(other))
        expected = pytest.approx(kendalltau(one, other, variant="b").statistic)
        assert (found.value, found.low, found.high) == (expected, expected, expected), "no error, no interval"


def test_every_pair_of_classifiers_is_compared():
    found = agreements([figures([0.1, 0.2, 0.3]), figures([0.3, 0.2, 0.1]), figures([0.1, 0.3, 0.2])])
    assert {pair: one.value for pair, one in found.items()} == pytest.approx(
        {(0, 1): -1, (0, 2): 1 / 3, (1, 2): -1 / 3}
    )


def test_figures_that_are_all_the_same_say_nothing():
    found = agreement(figures([0.5, 0.5]), figures([0.4, 0.6]))
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_an_error_that_all_detectors_share_moves_no_rank():
    shared = np.full((3, 50), 0.01)
    found = agreement(figures([0.7, 0.71, 0.72], shared), figures([0.71, 0.7, 0.72], shared))
    assert (found.value, found.low, found.high) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_what_detectors_share_separates_them_beside_another_with_an_error_of_its_own():
    shared = np.zeros((4, 5))
    shared[:3, 0], shared[3, 1], shared[:3, 2:] = 0.05, 0.05, 0.0005 * np.eye(3)
    found = agreement(figures([0.7, 0.71, 0.72, 0.2], shared), figures([0.71, 0.7, 0.72, 0.2], shared))
    assert (found.value, found.low, found.high) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_detectors_that_are_not_separated_may_agree_or_not():
    """Three detectors: the last is far from the others, which only chance orders, so that τ is 1/3 or 1."""
    errors = 0.01 * np.eye(6)
    differing = agreement(figures([0.700, 0.701, 0.95], errors[:3]), figures([0.701, 0.700, 0.95], errors[3:]))
    assert (differing.value, differing.low, differing.high) == pytest.approx((1 / 3, 1 / 3, 1))
    alike = agreement(figures([0.700, 0.701, 0.95], errors[:3]), figures([0.700, 0.701, 0.95], errors[3:]))
    assert (alike.value, alike.low, alike.high) == pytest.approx((1, 1 / 3, 1))
    opposite = agreement(figures([0.700, 0.701, 0.95], errors[:3]), figures([0.951, 0.95, 0.70], errors[3:]))
    assert (opposite.value, opposite.low, opposite.high) == pytest.approx((-1 / 3, -1, -1 / 3)) or (
        (opposite.value, opposite.low, opposite.high) == pytest.approx((-1, -1, -1 / 3))
    )


def test_the_same_figures_give_the_same_intervals():
    random = np.random.default_rng(0)
    several = [figures(random.uniform(0.6, 0.9, 20), random.normal(0, 0.01, (20, 30))) for _ in range(5)]
    assert agreements(several) == agreements(several)


@pytest.mark.parametrize("shared", [1.0, 0.7, 0.0], ids=["alike", "in part", "unrelated"])
def test_the_interval_covers_the_true_rank_correlation_in_95_of_100_cases(shared):
    """Errors of twelve detectors as large as the distance of their neighbours."""
    count, repeats, hits, width = 12, 100, 0, []
    errors = 0.02 * np.eye(2 * count)
    random = np.random.default_rng(7)
    for _ in range(repeats):
        first = random.uniform(0.7, 0.95, count)
        second = shared * first + (1 - shared) * random.uniform(0.7, 0.95, count)
        noise = 0.02 * random.normal(size=(2, count))
        found = agreement(figures(first + noise[0], errors[:count]), figures(second + noise[1], errors[count:]))
        truth = kendalltau(first, second).statistic
        hits += found.low - 1e-9 <= truth <= found.high + 1e-9
        width.append(found.high - found.low)
    assert hits >= 0.93 * repeats
    assert np.mean(width) < 1.1, "and it is no empty statement"


def test_the_end_towards_0_is_that_of_resampled_test_samples():
    """Eight detectors with two classifiers on the same samples, which are drawn again with replacement."""
    random = np.random.default_rng(3)
    known, unknown, count = 150, 100, 8
    positive = np.arange(known + unknown) >= known
    latent = random.normal(size=known + unknown)
    strengths = np.linspace(0.3, 2.0, count)
    scores = [
        [latent + random.normal(size=known + unknown) + strength * positive for strength in strengths] for _ in range(2)
    ]

    def aurocs(of_classifier, chosen):
        return [auroc_influence(of_detector[chosen], positive[chosen]).value for of_detector in of_classifier]

    estimated = [
        figures(
            aurocs(of_classifier, np.arange(known + unknown)),
            [auroc_influence(of_detector, positive).influence for of_detector in of_classifier],
        )
        for of_classifier in scores
    ]
    found = agreement(*estimated)
    drawn = []
    for _ in range(600):
        chosen = np.append(random.integers(0, known, known), random.integers(known, known + unknown, unknown))
        drawn.append(kendalltau(*(aurocs(of_classifier, chosen) for of_classifier in scores)).statistic)
    assert found.value > 0
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=1.5 * 2 / 28), "a pair or two of 28"
    assert found.low < found.value < found.high
