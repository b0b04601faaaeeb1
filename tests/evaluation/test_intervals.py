"""Intervals against closed forms, brute force, published figures and simulation."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from oodbench.comparison.estimates import Estimate, difference
from oodbench.evaluation import bootstrap, fused_sweep, sweep
from oodbench.evaluation.influence import auroc_influence, balanced_accuracy_influence
from oodbench.evaluation.interval import mean_of_shares, on_logit_scale, wilson
from oodbench.evaluation.metrics import balanced_accuracy, metrics
from oodbench.evaluation.results import Samples, results
from oodbench.evaluation.risk import augrc, aurc

PROC = Path(__file__).parent / "oracles" / "proc_asah.json"
PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=25).filter(
    lambda pairs: len({truth for _, truth in pairs}) == 2
)


def arrays(pairs):
    return np.array([score for score, _ in pairs], dtype=float), np.array([truth for _, truth in pairs])


def mann_whitney(scores, positive):
    """Every pair, one after the other."""
    wins = [[1.0 if a > b else 0.5 if a == b else 0.0 for b in scores[~positive]] for a in scores[positive]]
    return np.array(wins)


def delong_by_hand(scores, positive):
    """DeLong, DeLong, Clarke-Pearson 1988, equations 4 to 6, from all pairs."""
    wins = mann_whitney(scores, positive)
    return wins.mean(axis=1).var(ddof=1) / len(wins) + wins.mean(axis=0).var(ddof=1) / len(wins[0])


@given(PAIRS)
def test_auroc_and_its_variance_are_those_of_all_pairs(pairs):
    scores, positive = arrays(pairs)
    found = auroc_influence(scores, positive)
    assert found.value == pytest.approx(mann_whitney(scores, positive).mean())
    if min(positive.sum(), (~positive).sum()) > 1 and 0 < found.value < 1:
        assert found.variance == pytest.approx(delong_by_hand(scores, positive), abs=1e-15)


@given(PAIRS)
def test_auroc_is_that_of_any_monotone_map_and_turns_round_with_the_sign(pairs):
    scores, positive = arrays(pairs)
    found, mapped = auroc_influence(scores, positive), auroc_influence(np.exp(3 * scores) - 7, positive)
    assert mapped.value == pytest.approx(found.value, abs=1e-14)
    assert mapped.variance == pytest.approx(found.variance, abs=1e-14)
    assert auroc_influence(-scores, positive).value == pytest.approx(1 - found.value, abs=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_extreme_scores_change_nothing(scale):
    random = np.random.default_rng(0)
    positive = np.arange(60) < 20
    scores = random.normal(size=60) + positive
    assert auroc_influence(scores * scale, positive).variance == auroc_influence(scores, positive).variance
    scaled, plain = (bootstrap.replicates(values, positive, 50) for values in (scores * scale, scores))
    np.testing.assert_array_equal(scaled, plain)


@given(PAIRS, st.floats(-3, 3))
@settings(deadline=None, max_examples=40)
def test_every_interval_holds_its_metric_and_stays_between_0_and_1(pairs, threshold):
    """Ties, constant scores, one sample in a class, two samples: all of them."""
    scores, wrong = arrays(pairs)
    known = [("known", "-", Samples(scores, wrong))]
    unknown = [("other", "near", Samples(scores[wrong] + 1, wrong[wrong]))]
    for result in results(known, [], threshold, {}, log_odds=True) + results(known, unknown, threshold, {}):
        for name, metric in result.metrics.items():
            assert 0 <= metric.ci_low <= metric.value <= metric.ci_high <= 1, (name, metric)


def test_a_class_of_one_sample_or_none_that_overlaps_is_no_certainty():
    """DeLong's variance is zero there, and an interval without width would be a lie."""
    perfect = results(
        [("known", "-", Samples(np.arange(20.0), np.arange(20) >= 15))], [], 14.5, {}
    )[0].metrics  # fmt: skip
    assert perfect["failure_auroc"].value == 1.0
    assert perfect["failure_auroc"].ci_low == pytest.approx(5 / (5 + 1.959964**2), abs=1e-6)
    assert perfect["failure_fpr95_unknown_positive"].ci_high > 0.15
    assert perfect["failure_meta_accuracy"].ci_low < 0.9
    single = results([("known", "-", Samples(np.arange(20.0), np.arange(20) == 17))], [], 14.5, {})[0].metrics
    assert single["failure_auroc"].ci_low < 0.3


def test_a_constant_score_has_an_auroc_of_one_half_for_certain():
    found = auroc_influence(np.zeros(30), np.arange(30) < 9)
    assert (found.value, found.variance) == (0.5, 0.0)
    interval = on_logit_scale(found.value, found.variance, 9)
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_delong_is_that_of_proc():
    """Figures of the R package pROC on its data set aSAH, those of its documentation among them, and on ties."""
    proc = json.loads(PROC.read_text(encoding="utf-8"))
    outcome = np.array(proc["outcome"], dtype=bool)
    named = [(proc[reference["score"]], outcome, reference) for reference in proc["reference"]]
    small = [(case["score"], np.array(case["outcome"], dtype=bool), case) for case in proc["small"]]
    assert len(named) == 3
    for scores, truth, expected in [*named, *small]:
        found = auroc_influence(np.array(scores, dtype=float), truth)
        assert found.value == pytest.approx(expected["auc"], abs=1e-12)
        assert found.variance == pytest.approx(expected["variance"], rel=1e-9)
        # pROC's interval is on the scale of the AUROC itself.
        half = 1.959964 * np.sqrt(found.variance)
        assert max(found.value - half, 0) == pytest.approx(expected["ci_low"], abs=1e-6)
        assert min(found.value + half, 1) == pytest.approx(expected["ci_high"], abs=1e-6)


def test_the_paired_test_of_delong_is_that_of_proc():
    """z = −2.209 and p = 0.02718 of s100b against wfns are also in pROC's documentation."""
    proc = json.loads(PROC.read_text(encoding="utf-8"))
    outcome = np.array(proc["outcome"], dtype=bool)
    assert len(proc["paired"]) == 3
    for expected in proc["paired"]:
        one, other = (auroc_influence(np.array(proc[expected[key]], dtype=float), outcome) for key in ("one", "other"))
        assert one.influence @ other.influence == pytest.approx(expected["covariance"], rel=1e-9)
        pair = [Estimate((found.value,), found.influence, 0.0, 41) for found in (one, other)]
        found = difference(*pair)
        assert found.p == pytest.approx(expected["p"], rel=1e-9)
        assert np.sign(found.value) == np.sign(expected["z"])


def test_the_figures_that_proc_itself_is_tested_against():
    proc = json.loads(PROC.read_text(encoding="utf-8"))
    outcome = np.array(proc["outcome"], dtype=bool)
    found = {name: auroc_influence(np.array(proc[name], dtype=float), outcome) for name in ("s100b", "ndka", "wfns")}
    checked = set()
    for figure in proc["published"]:
        what, value = figure["what"], figure["value"]
        if what == "auc":
            assert found[figure["score"]].value == pytest.approx(value, abs=1e-12)
        elif what == "variance":
            assert found[figure["score"]].variance == pytest.approx(value, rel=1e-9)
        elif what == "covariance":
            covariance = found[figure["one"]].influence @ found[figure["other"]].influence
            assert covariance == pytest.approx(value, rel=1e-9)
        else:
            continue
        checked.add(what)
    assert checked == {"auc", "variance", "covariance"}


def test_paired_tests_with_ties_are_those_of_proc():
    """Where a score separates perfectly, pROC has no variance, and ours has the one of Wilson's interval."""
    proc = json.loads(PROC.read_text(encoding="utf-8"))
    compared = 0
    for case in proc["ties"]:
        outcome = np.array(case["outcome"], dtype=bool)
        pair = [auroc_influence(np.array(case[key], dtype=float), outcome) for key in ("one", "other")]
        for key, one in zip(("one", "other"), pair, strict=True):
            assert one.value == pytest.approx(case["auc"][key]["auc"])
            assert one.influence @ one.influence == pytest.approx(case["auc"][key]["variance"], abs=1e-14)
        assert pair[0].influence @ pair[1].influence == pytest.approx(case["covariance"], abs=1e-14)
        if not any(one.unseen for one in pair) and isinstance(case["p"], float):
            estimates = [Estimate((one.value,), one.influence, 0.0, 2) for one in pair]
            assert difference(*estimates).p == pytest.approx(case["p"], rel=1e-6)
            compared += 1
    assert compared >= 3


def test_covariances_of_influences_give_the_error_of_a_paired_difference():
    """Against an ordinary bootstrap of the pair, and against what leaving the pairing out would give."""
    random = np.random.default_rng(0)
    positive = np.arange(900) < 300
    latent = random.normal(size=900) + positive
    one, other = latent + random.normal(size=900) / 3, latent + random.normal(size=900) / 3
    first, second = auroc_influence(one, positive), auroc_influence(other, positive)
    paired = np.sqrt(((first.influence - second.influence) ** 2).sum())
    differences = []
    for _ in range(2000):
        drawn = np.concatenate([random.integers(0, 300, 300), random.integers(300, 900, 600)])
        differences.append(roc_auc_score(positive[drawn], one[drawn]) - roc_auc_score(positive[drawn], other[drawn]))
    assert paired == pytest.approx(np.std(differences), rel=0.08)
    assert np.sqrt(first.variance + second.variance) > 1.8 * paired


def test_balanced_accuracy_has_the_variance_of_two_shares():
    random = np.random.default_rng(0)
    positive = np.arange(500) < 200
    scores = random.normal(size=500) + positive
    found = balanced_accuracy_influence(scores, positive, 0.5)
    assert found.value == balanced_accuracy(scores, positive, 0.5)
    hits, rejections = (scores[positive] >= 0.5).mean(), (scores[~positive] < 0.5).mean()
    expected = (hits * (1 - hits) / 199 + rejections * (1 - rejections) / 299) / 4
    assert found.variance == pytest.approx(expected)


@given(st.integers(1, 200), st.data())
def test_wilson_is_that_of_scipy(n, data):
    hits = data.draw(st.integers(0, n))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    found = wilson(hits / n, n)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


def resampled_by_hand(scores, positive, draws):
    """Metrics of explicit resamples, by scikit-learn where it has them."""
    found = metrics(scores[draws], positive[draws], None)
    assert found["aupr_unknown"] == pytest.approx(average_precision_score(positive[draws], scores[draws]))
    areas = [area(scores[draws], positive[draws]) for area in (aurc, augrc)]
    return [found[name] for name in bootstrap.RESAMPLED[:4]] + areas


@pytest.mark.parametrize("stratified", [True, False], ids=["stratified", "together"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("way", [sweep.sweep, fused_sweep.sweep], ids=["numpy", "numba"])
def test_replicates_are_the_metrics_of_the_resamples(ties, way, stratified, monkeypatch):
    """The counted way of computing them against samples that are really drawn."""
    random = np.random.default_rng(0)
    positive = random.random(700) < 0.3
    scores = random.normal(size=700) + 2 * positive
    scores = np.round(scores) if ties else scores
    monkeypatch.setattr(bootstrap, "_sweep", lambda: way)
    found = bootstrap.replicates(scores, positive, 30, stratified=stratified)
    counts = np.empty((700, 30), dtype=int)
    counts[positive], counts[~positive] = bootstrap._drawn(positive, 30, stratified=stratified)
    assert (counts.sum(axis=0) == 700).all()
    assert (counts[positive].sum(axis=0) == positive.sum()).all() == stratified
    for resample in range(30):
        draws = np.repeat(np.arange(700), counts[:, resample])
        expected = resampled_by_hand(scores, positive, draws)
        np.testing.assert_allclose(found[:, resample], expected, rtol=1e-5)


def test_resamples_are_drawn_evenly_and_differ_between_classes():
    counts = bootstrap._counts(400, bootstrap._POSITIVE, 2000).astype(float)
    # Each sample's count is Poisson-like: mean 1, variance 1 − 1/n.
    assert abs(counts.mean(axis=1) - 1).max() < 5 * np.sqrt(1 / 2000)
    assert counts.var() == pytest.approx(1 - 1 / 400, rel=0.02)
    assert (counts != bootstrap._counts(400, bootstrap._NEGATIVE, 2000)).any()
    correlation = np.corrcoef(counts[:50])
    assert abs(correlation - np.eye(50)).max() < 0.12


def test_all_detectors_on_the_same_samples_see_the_same_resamples():
    """A monotone map of a score has the same replicates, so that their difference is exactly zero."""
    random = np.random.default_rng(0)
    positive = np.arange(300) < 80
    scores = random.normal(size=300) + positive
    np.testing.assert_array_equal(
        bootstrap.replicates(scores, positive), bootstrap.replicates(np.exp(scores), positive)
    )


def covered(simulate, truth, repeats):
    return np.mean([low <= truth <= high for low, high in (simulate(seed) for seed in range(repeats))])


@pytest.mark.parametrize("shift", [0.5, 1.2, 2.3], ids=["auroc .64", "auroc .80", "auroc .95"])
def test_the_auroc_interval_covers_the_truth_in_95_of_100_cases(shift):
    """Normal scores, whose AUROC is Φ(shift / √2)."""
    from scipy.stats import norm

    positive = np.arange(330) < 110

    def simulate(seed):
        scores = np.random.default_rng(seed).normal(size=330) + shift * positive
        found = auroc_influence(scores, positive)
        interval = on_logit_scale(found.value, found.variance, 110)
        return interval.low, interval.high

    assert 0.93 <= covered(simulate, norm.cdf(shift / np.sqrt(2)), 2000) <= 0.97


def test_the_balanced_accuracy_interval_covers_the_truth_in_95_of_100_cases():
    def simulate(seed):
        random = np.random.default_rng(seed)
        interval = mean_of_shares(random.binomial(60, 0.93) / 60, 60, random.binomial(300, 0.8) / 300, 300)
        return interval.low, interval.high

    assert 0.93 <= covered(simulate, (0.93 + 0.8) / 2, 4000) <= 0.97


@pytest.mark.parametrize("wrong", [5, 10, 40])
def test_the_error_of_a_meta_accuracy_is_not_made_small_by_a_small_class(wrong):
    """By influences, as tables and comparisons have it: with few errors the samples show too little of the variance."""
    positive = np.arange(300 + wrong) < wrong

    def simulate(seed):
        random = np.random.default_rng(seed)
        decided = np.where(positive, random.random(300 + wrong) < 0.9, random.random(300 + wrong) < 0.2)
        found = balanced_accuracy_influence(decided.astype(float), positive, 0.5)
        half = 1.959964 * np.sqrt(found.variance)
        return found.value - half, found.value + half

    assert 0.92 <= covered(simulate, 0.85, 2000) <= 0.995


@pytest.mark.parametrize("metric", bootstrap.RESAMPLED)
def test_bootstrap_intervals_cover_the_truth_in_95_of_100_cases(metric):
    """The truth is the metric of a very large sample with the same shares of both classes."""

    def draw(seed, times):
        positive = np.arange(600 * times) < 200 * times
        return np.random.default_rng(seed).normal(size=600 * times) + 1.5 * positive, positive

    row = bootstrap.RESAMPLED.index(metric)
    scores, positive = draw(10**6, 2000)
    areas = {"aurc": aurc(scores, positive), "augrc": augrc(scores, positive)}
    truth = {**metrics(scores, positive, None), **areas}[metric]

    def simulate(seed):
        scores, positive = draw(seed, 1)
        return np.quantile(bootstrap.replicates(scores, positive, 500)[row], [0.025, 0.975])

    assert 0.93 <= covered(simulate, truth, 600) <= 0.97


@pytest.mark.parametrize("metric", ["aurc", "augrc", "failure_aupr_unknown", "failure_aupr_known", "failure_auroc"])
def test_intervals_on_known_data_cover_the_truth_though_the_number_of_errors_is_a_sample(metric):
    def draw(seed, n):
        random = np.random.default_rng(seed)
        wrong = random.random(n) < 0.08
        return random.normal(size=n) + 1.8 * wrong, wrong

    scores, wrong = draw(10**6, 10**6)
    plain = metric.removeprefix("failure_")
    areas = {"aurc": aurc(scores, wrong), "augrc": augrc(scores, wrong)}
    truth = {**metrics(scores, wrong, None), **areas}[plain]

    def simulate(seed):
        scores, wrong = draw(seed, 550)
        found = results([("known", "-", Samples(scores, wrong))], [], None, {})[0].metrics[metric]
        return found.ci_low, found.ci_high

    # With some 44 errors, percentiles of these two skewed metrics cover somewhat less.
    least = 0.86 if metric in ("aurc", "failure_aupr_known") else 0.92
    assert least <= covered(simulate, truth, 400) <= 0.985


def test_a_resample_without_errors_counts_for_nothing():
    positive = np.arange(40) == 3
    draws = bootstrap.replicates(np.arange(40.0), positive, 200, stratified=False)
    lacking = bootstrap._drawn(positive, 200, stratified=False)[0].sum(axis=0) == 0
    assert 40 < lacking.sum() < 110
    assert (np.isnan(draws) == lacking).all()


def test_wider_samples_give_narrower_intervals():
    widths = []
    for n in (100, 400, 1600):
        positive = np.arange(n) < n // 4
        scores = np.random.default_rng(0).normal(size=n) + positive
        found = auroc_influence(scores, positive)
        interval = on_logit_scale(found.value, found.variance, n // 4)
        widths.append(interval.high - interval.low)
    assert all(wide / narrow == pytest.approx(2, rel=0.25) for wide, narrow in pairwise(widths))
