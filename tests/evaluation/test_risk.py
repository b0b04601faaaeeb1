"""Risk and calibration against loops, closed forms and the figures of torch-uncertainty and torchmetrics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodbench.evaluation.metrics import auroc
from oodbench.evaluation.risk import augrc, aurc, expected_calibration_error, risk_coverage

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=25)


def arrays(pairs):
    return np.array([score for score, _ in pairs], dtype=float), np.array([wrong for _, wrong in pairs])


@given(PAIRS)
def test_aurc_is_the_mean_of_the_risks_at_all_samples(pairs):
    scores, wrong = arrays(pairs)
    risks = [wrong[scores <= score].mean() for score in scores]
    assert aurc(scores, wrong) == pytest.approx(np.mean(risks))


@given(PAIRS)
def test_augrc_is_its_closed_form(pairs):
    scores, wrong = arrays(pairs)
    accuracy, area = 1 - wrong.mean(), auroc(scores, wrong)
    expected = (1 - accuracy) ** 2 / 2 + (0 if area is None else (1 - area) * accuracy * (1 - accuracy))
    assert augrc(scores, wrong) == pytest.approx(expected)


@given(PAIRS)
def test_augrc_is_the_mean_over_all_orders_of_ties(pairs):
    """Against areas with ties broken at random."""
    scores, wrong = arrays(pairs)
    random = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        order = np.lexsort((random.random(len(scores)), scores))
        joint = np.append(0, np.cumsum(wrong[order])) / len(scores)
        areas.append(((joint[1:] + joint[:-1]) / 2).mean())
    assert augrc(scores, wrong) == pytest.approx(np.mean(areas), abs=4 * np.std(areas) / 300**0.5 + 1e-12)


@given(PAIRS)
def test_areas_do_not_depend_on_the_scale_of_scores(pairs):
    scores, wrong = arrays(pairs)
    for area in (aurc, augrc):
        assert area(np.exp(scores) * 1e-300, wrong) == pytest.approx(area(scores, wrong), abs=1e-15)


def test_the_best_order_has_the_least_area_and_the_inverse_the_largest():
    wrong = np.array([False] * 6 + [True] * 3)
    best = np.arange(9.0)
    assert aurc(best, wrong) == pytest.approx((1 / 7 + 2 / 8 + 3 / 9) / 9)
    assert augrc(best, wrong) == pytest.approx((3 / 9) ** 2 / 2)
    for area in (aurc, augrc):
        assert area(best, wrong) < area(np.zeros(9), wrong) < area(-best, wrong)
    assert aurc(np.zeros(9), wrong) == pytest.approx(3 / 9)


def test_the_curve_ends_at_the_error_rate():
    random = np.random.default_rng(0)
    wrong = random.random(200) < 0.1
    coverage, risk = risk_coverage(random.normal(size=200).round(1), wrong)
    assert (np.diff(coverage) > 0).all()
    assert (coverage[-1], risk[-1]) == (1.0, wrong.mean())


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(1, 20))
def test_calibration_is_that_of_a_loop_over_bins(pairs, bins):
    probability, wrong = arrays(pairs)
    error = 0.0
    for b in range(bins):
        inside = [i for i, p in enumerate(probability) if min(int(p * bins), bins - 1) == b]
        if inside:
            gap = abs(np.mean([probability[i] for i in inside]) - np.mean([wrong[i] for i in inside]))
            error += len(inside) / len(wrong) * gap
    assert expected_calibration_error(probability, wrong, bins) == pytest.approx(error)


def test_a_perfectly_calibrated_statement_has_no_error():
    probability = np.repeat([0.1, 0.5], 10)
    wrong = np.array([True] + [False] * 9 + [True, False] * 5)
    assert expected_calibration_error(probability, wrong) == pytest.approx(0)
    assert expected_calibration_error(1 - probability, wrong) == pytest.approx(0.4)


def test_one_wrong_sample_costs_what_is_accepted_after_it():
    for place in range(8):
        wrong = np.arange(8) == place
        assert aurc(np.arange(8.0), wrong) == pytest.approx(sum(1 / accepted for accepted in range(place + 1, 9)) / 8)
        assert augrc(np.arange(8.0), wrong) == pytest.approx((8 - place - 0.5) / 64)


@pytest.mark.parametrize("wrong", [np.zeros(5, dtype=bool), np.ones(5, dtype=bool)])
def test_areas_are_defined_where_all_are_right_or_wrong(wrong):
    scores = np.array([1.0, 2, 2, 3, 4])
    assert aurc(scores, wrong) == pytest.approx(wrong.mean())
    assert augrc(scores, wrong) == pytest.approx(wrong.mean() / 2)


@pytest.mark.parametrize(
    ("turned", "their_aurc", "their_augrc"),
    [(False, 0.2733569460842188, 0.17803030303030304), (True, 0.7266430539157812, 0.3636363636363637)],
)
def test_areas_are_those_of_torch_uncertainty_but_for_its_ends(turned, their_aurc, their_augrc):
    """Figures of AURC and AUGRC in torch-uncertainty 0.13.0, in float64, for the confidences 1 − score / 100.

    It integrates from coverage 1/N by trapezoids and divides by 1 − 1/N.
    """
    scores = np.array([0.31, 2.7, 1.9, 14.2, 9.6, 0.8, 6.5, 5.1, 35.0, 8.4, 3.3, 21.0])
    wrong = np.array([False, False, True, True, False, False, True, False, False, True, False, True]) ^ turned
    n = len(scores)
    first, last = wrong[np.argmin(scores)], wrong.mean()
    assert aurc(scores, wrong) == pytest.approx(their_aurc * (n - 1) / n + (first + last) / (2 * n), abs=1e-12)
    assert augrc(scores, wrong) == pytest.approx(their_augrc * (n - 1) / n + first / (2 * n * n), abs=1e-12)


@pytest.mark.parametrize(("bins", "theirs"), [(5, 0.16625), (10, 0.2525), (15, 0.32625)])
def test_calibration_is_that_of_torchmetrics(bins, theirs):
    """Figures of BinaryCalibrationError(norm="l1") in torchmetrics 1.9.0, in float64."""
    probability = [0.03, 0.11, 0.17, 0.24, 0.29, 0.38, 0.45, 0.52, 0.58, 0.66, 0.74, 0.86, 0.91, 0.97, 0.99, 0.0]
    wrong = np.array([0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1, 0], dtype=bool)
    assert expected_calibration_error(np.array(probability), wrong, bins) == pytest.approx(theirs)


@pytest.mark.parametrize(("bins", "theirs"), [(4, 0.26666666666666666), (8, 0.29444444444444445)])
def test_statements_on_edges_are_in_the_bins_of_torchmetrics(bins, theirs):
    probability = np.array([0.0, 0.125, 0.25, 0.3, 0.375, 0.5, 0.6, 0.75, 0.9])
    wrong = np.array([1, 0, 1, 0, 1, 0, 1, 1, 1], dtype=bool)
    assert expected_calibration_error(probability, wrong, bins) == pytest.approx(theirs)


def test_a_statement_of_one_is_in_the_last_bin():
    """Torchmetrics 1.9.0 has a bin more for it, and would find 0.55."""
    found = expected_calibration_error(np.array([0.9, 1.0]), np.array([True, False]), 4)
    assert found == pytest.approx(abs(1.9 - 1) / 2)
