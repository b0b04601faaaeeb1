"""The joint task of selective classification with unknowns."""

import numpy as np
import pytest

from oodbench.evaluation.bootstrap import joint_intervals
from oodbench.evaluation.results import Samples, results
from oodbench.evaluation.risk import JOINT, aurc, joint_areas


def sample(n_known=60, n_unknown=40, *, ties=False, seed=0):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=n_known + n_unknown)
    unknown = np.arange(len(scores)) >= n_known
    scores[unknown] += 1
    wrong = unknown | (generator.random(len(scores)) < 0.2)
    return (scores.round(1) if ties else scores), wrong, unknown


def by_definition(scores, wrong, unknown, cost):
    """The mean, over all samples by their weight, of the cost of an accepted sample at their own score."""
    weight = np.where(unknown, 0.5 / unknown.sum(), 0.5 / (~unknown).sum())
    losses = np.where(unknown, cost, wrong.astype(float))
    area = 0.0
    for i in range(len(scores)):
        accepted = scores <= scores[i]
        area += weight[i] * (weight * losses)[accepted].sum() / weight[accepted].sum()
    return area


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("cost", [0.0, 0.5, 1.0, 5.0])
def test_the_area_of_any_cost_follows_from_its_two_parts(ties, cost):
    data = sample(ties=ties)
    whole, of_wrong, of_unknown = joint_areas(*data)
    assert whole == pytest.approx(of_wrong + of_unknown)
    assert of_wrong + cost * of_unknown == pytest.approx(by_definition(*data, cost))


def test_with_as_many_unknown_as_known_samples_cost_1_is_the_aurc_of_wrong_or_unknown():
    scores, wrong, unknown = sample(50, 50)
    assert joint_areas(scores, wrong, unknown)[0] == pytest.approx(aurc(scores, wrong))


def test_counts_are_samples_that_are_there_several_times():
    scores, wrong, unknown = sample(12, 8, ties=True)
    # Half of the weight stays with each kind, as resampling within each does not change their numbers.
    counts = np.array([2, 0] * 10)
    (drawn,) = joint_areas(scores, wrong, unknown, counts[:, None].astype(float)).T
    again = [np.repeat(values, counts) for values in (scores, wrong, unknown)]
    assert drawn == pytest.approx(joint_areas(*again))


def test_intervals_cover_the_spread_of_new_samples():
    values = np.array([joint_areas(*sample(300, 200, seed=seed)) for seed in range(200)])
    data = sample(300, 200, seed=1000)
    intervals = joint_intervals(*data, joint_areas(*data))
    for i, name in enumerate(JOINT):
        width = intervals[name].high - intervals[name].low
        assert width == pytest.approx(2 * 1.96 * values[:, i].std(), rel=0.35), name
        assert intervals[name].low <= intervals[name].value <= intervals[name].high


def test_the_metrics_are_there_where_shifted_samples_are_and_nowhere_else():
    scores, wrong, unknown = sample()
    known, shifted = (Samples(scores[some], wrong[some]) for some in (slice(0, 30), slice(30, 60)))
    novel = ("novel", "near", Samples(scores[unknown], wrong[unknown]))
    (alone,) = results([("known", "-", known)], [novel], None, {}, resample=False)
    (together,) = results([("known", "-", known), ("shifted", "covariate", shifted)], [novel], None, {}, resample=False)
    assert not set(JOINT) & alone.metrics.keys()
    assert [together.metrics[name].value for name in JOINT] == pytest.approx(list(joint_areas(scores, wrong, unknown)))
    assert (together.n_known, alone.n_known) == (60, 30)
