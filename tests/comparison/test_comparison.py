"""How sure a difference is: paired, over seeds, adjusted for the size of the table."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import command_line
from scipy.stats import norm, ttest_1samp
from sklearn.metrics import roc_auc_score

import oodbench
from oodbench.comparison.claims import METRICS, claims
from oodbench.comparison.compared import ComparedDetector
from oodbench.comparison.estimates import Estimate, against_zero, difference, holm, mean_of
from oodbench.comparison.estimator import Estimator
from oodbench.comparison.pairs import compare
from oodbench.comparison.ranking import ranks, tied_with_best
from oodbench.errors import UsageError
from oodbench.records.scored import ScoredRecord
from oodbench.records.verification import read_verified


def figure(by_seed, influence=(0.0,), unseen=0.0):
    return Estimate(tuple(by_seed), np.array(influence, dtype=float), unseen, 100)


def test_holm_is_that_of_its_paper():
    """The step-down procedure by hand: 0.01·4, 0.02·3, 0.03·2, 0.04·1, each at least the one before."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_the_raw_value_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    for raw, found in zip(p_values, adjusted, strict=True):
        assert raw <= found <= min(1, raw * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_seeds_alone_give_the_t_test_and_samples_alone_the_z_test():
    by_seed = [0.01, 0.03, 0.02, 0.05, -0.01]
    of_seeds = against_zero(figure(by_seed))
    expected = ttest_1samp(by_seed, 0)
    assert of_seeds.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (of_seeds.low, of_seeds.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    of_samples = against_zero(figure([0.02], [0.006, 0.008]))
    assert of_samples.p == pytest.approx(2 * norm.sf(2.0))
    both = against_zero(figure(by_seed, [0.006, 0.008]))
    assert both.high - both.low > max(of_seeds.high - of_seeds.low, of_samples.high - of_samples.low) * 0.9
    assert both.high - both.low > of_samples.high - of_samples.low


def test_nothing_differs_from_itself():
    one = figure([0.9, 0.8], [0.1, 0.2])
    assert difference(one, one).p == 1.0
    assert difference(figure([1.0]), figure([0.5])).p == 0.0


def test_the_interval_of_a_difference_covers_the_truth_in_95_of_100_cases_over_seeds_and_samples():
    """Five seeds whose classifiers differ, all tested on the same samples."""
    positive, hits, repeats = np.arange(240) < 80, 0, 600
    for repeat in range(repeats):
        random = np.random.default_rng(repeat)
        latent = random.normal(size=240)
        cells = {}
        for name in ("one", "other"):
            aurocs, influences = [], []
            for _ in range(5):
                shift = 1.2 + 0.15 * random.normal()
                scores = latent + random.normal(size=240) * 0.7 + shift * positive
                from oodbench.evaluation.influence import auroc_influence

                found = auroc_influence(scores, positive)
                aurocs.append(found.value)
                influences.append(found.influence)
            cells[name] = Estimate(tuple(aurocs), np.mean(influences, axis=0), 0.0, 80)
        found = difference(cells["one"], cells["other"])
        hits += found.low <= 0 <= found.high
    assert 0.93 <= hits / repeats <= 0.985


def test_a_mean_over_data_sets_counts_the_known_samples_that_they_share_once():
    """Against a bootstrap of the mean of two AUROCs with the same known samples."""
    random = np.random.default_rng(0)
    known, near, far = random.normal(size=400), random.normal(1, 1, 150), random.normal(2, 1, 100)
    from oodbench.evaluation.influence import auroc_influence

    parts = []
    for name, unknown in (("near", near), ("far", far)):
        found = auroc_influence(np.append(known, unknown), np.arange(400 + len(unknown)) >= 400)
        everywhere = np.zeros(650)
        everywhere[:400] = found.influence[:400]
        place = slice(400, 550) if name == "near" else slice(550, 650)
        everywhere[place] = found.influence[400:]
        parts.append(Estimate((found.value,), everywhere, 0.0, len(unknown)))
    error = np.sqrt(mean_of(parts).sampling_variance)
    means = []
    for _ in range(1500):
        k, n, f = (random.choice(values, len(values)) for values in (known, near, far))
        of_sets = [roc_auc_score(np.arange(len(k) + len(u)) >= len(k), np.append(k, u)) for u in (n, f)]
        means.append(np.mean(of_sets))
    assert error == pytest.approx(np.std(means), rel=0.08)


def test_ranks_overlap_where_detectors_cannot_be_separated():
    errors = 0.01 * np.eye(3)
    found = ranks([figure([value], error) for value, error in zip([0.90, 0.91, 0.50], errors, strict=True)])
    assert [(one.place, one.low, one.high, one.tied) for one in found] == [
        (2, 1, 2, True), (1, 1, 2, True), (3, 3, 3, False)
    ]  # fmt: skip
    single = ranks([figure([0.9])])
    assert (single[0].place, single[0].tied) == (1, False)


def test_detectors_that_are_the_same_are_tied_with_the_best():
    best = figure([0.9, 0.91], [0.001, 0.0])
    assert tied_with_best([best, best, figure([0.5, 0.5], [0.0, 0.001])]) == [True, True, False]
    assert tied_with_best([]) == []


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    # Those that the claims are about, without what else is named grad-….
    names = ["entropy", "entropy-meta", "grad-combo", *(f"grad-{name}" for name in METRICS), "random", "constant"]
    oodbench.run("digits", names, seeds=[0, 1], out=folder)
    return folder


@pytest.fixture(scope="module")
def cells(out):
    scored, rejected = read_verified([out], resample=False)
    assert not rejected
    return scored


def test_a_difference_is_that_of_the_aurocs_with_an_error_by_bootstrap(cells):
    """Against a bootstrap over shared samples, of the mean over both seeds."""
    (pair,) = [p for p in compare(cells, "grad-l1", "random") if
               (p.protocol, p.dataset) == ("unknown-unknowns", "patches")]  # fmt: skip
    chosen = {
        name: [c for c in cells if (c.record.protocol, c.record.detector.name) == ("unknown-unknowns", name)]
        for name in ("grad-l1", "random")
    }
    assert all(len(found) == 2 for found in chosen.values())

    def mean_auroc(name, known, unknown):
        return np.mean([
            roc_auc_score(
                np.arange(len(known) + len(unknown)) >= len(known),
                np.append(c.samples["digits-0-6"].scores[known], c.samples["patches"].scores[unknown]),
            )
            for c in chosen[name]
        ])  # fmt: skip

    everyone = np.arange(550), np.arange(477)
    assert pair.difference.value == pytest.approx(mean_auroc("grad-l1", *everyone) - mean_auroc("random", *everyone))
    random = np.random.default_rng(0)
    resamples = [(random.integers(0, 550, 550), random.integers(0, 477, 477)) for _ in range(400)]
    spread = np.std([mean_auroc("grad-l1", *d) - mean_auroc("random", *d) for d in resamples])
    estimator = Estimator(cells)
    compared = [
        ComparedDetector(name, (), {c.record.seed: {"patches": c} for c in found}) for name, found in chosen.items()
    ]
    one, other = (estimator.estimate(e, "auroc", ["patches"], [0, 1]) for e in compared)
    error = np.sqrt(((one.influence - other.influence) ** 2).sum())
    assert error == pytest.approx(spread, rel=0.15)


def test_outcomes_are_those_of_the_first_detector_and_turn_round(cells):
    ahead, behind = compare(cells, "entropy", "random"), compare(cells, "random", "entropy")
    turned = {"better": "worse", "worse": "better", "not separable": "not separable"}
    assert [turned[pair.outcome] for pair in ahead] == [pair.outcome for pair in behind]
    assert sum(pair.outcome == "better" for pair in ahead) > 10
    assert all(p.p >= p.difference.p for p in ahead)
    same = compare(cells, "entropy", "entropy-meta")
    assert {pair.outcome for pair in same} == {"not separable"}, "a monotone map changes no AUROC"
    assert all(pair.difference.value == pytest.approx(0, abs=1e-12) for pair in same)


@pytest.mark.parametrize("metric", ["aupr_unknown", "fpr95_known_positive", "aurc", "meta_accuracy"])
def test_every_metric_can_be_compared_and_smaller_is_better_where_it_is(cells, metric):
    unexposed = [one for one in cells if one.record.protocol in ("known", "unknown-unknowns")]
    pairs = [pair for pair in compare(unexposed, "entropy", "random", metric) if pair.outcome != "not comparable"]
    outcomes = [pair.outcome for pair in pairs]
    assert outcomes.count("better") >= 2 or metric == "aurc", "with two seeds some are not separable"
    assert "better" in outcomes
    assert "worse" not in outcomes
    assert all((pair.difference.value < 0) == (metric in ("fpr95_known_positive", "aurc")) for pair in pairs)


def test_what_cannot_be_compared_says_why(cells, tmp_path):
    def of(detector, **update):
        return [
            ScoredRecord(one.record.model_copy(update=update), one.file, one.samples, one.known)
            for one in cells
            if one.record.detector.name == detector and one.record.protocol == "unknown-unknowns"
        ]

    def reasons(other):
        found = compare([*of("entropy"), *other], "entropy", "grad-l1")
        return {pair.reason for pair in found if pair.outcome == "not comparable"}, found

    suite = cells[0].record.suite.model_copy(update={"version": 2})
    assert "other suite version: entropy is of digits 1, grad-l1 of digits 2" in reasons(of("grad-l1", suite=suite))[0]
    assert "other exposure: entropy saw nothing, grad-l1 saw noise" in reasons(of("grad-l1", exposed=["noise"]))[0]
    assert "other seeds: entropy has 0, 1, grad-l1 has 7" in reasons(of("grad-l1", seed=7))[0]
    assert "grad-l1 was not run on it under unknown-unknowns" in reasons(of("grad-l1", protocol="mine"))[0]
    parts = dict(cells[0].record.datasets)
    changed = [
        ScoredRecord(
            one.record.model_copy(update={"datasets": one.record.datasets | {
                "digits-0-6 (meta)": parts["digits-0-6 (meta)"].model_copy(update={"sha256": "0" * 64})}}),
            one.file, one.samples, one.known,
        )
        for one in of("grad-l1")
    ]  # fmt: skip
    found, pairs = reasons(changed)
    assert found == {"other data: they have other samples of digits-0-6 (meta)"}
    assert all(pair.difference is None and pair.p is None for pair in pairs)


def test_names_that_do_not_exist_are_refused(cells):
    with pytest.raises(UsageError, match="no record is of 'nobody'; there are: constant, entropy"):
        compare(cells, "entropy", "nobody")
    with pytest.raises(UsageError, match="no metric 'f1' to compare; expected one of: auroc"):
        compare(cells, "entropy", "random", "f1")


def test_the_claims_are_decided_by_their_figures(cells):
    found = {claim.number: claim for claim in claims(cells)}
    assert list(found) == [1, 2, 3, 4]
    for claim in found.values():
        assert claim.low <= claim.figure <= claim.high
        assert claim.outcome in ("held", "did not hold", "not separable")

    def mean_auroc(detector, protocol, dataset, exposed=()):
        return np.mean([
            r.metrics["auroc"].value for c in cells for r in c.record.results
            if (c.record.detector.name, c.record.protocol, r.dataset) == (detector, protocol, dataset)
            and (not exposed or set(c.record.exposed) == set(exposed))
        ])  # fmt: skip

    sets = ["digits-7-9", "rendered-letters", "patches", "noise"]
    gains = [
        mean_auroc("grad-combo", "unknown-unknowns", one) - mean_auroc("entropy-meta", "unknown-unknowns", one)
        for one in sets
    ]
    assert found[2].figure == pytest.approx(np.mean(gains))
    levels = [mean_auroc("grad-combo", "unknown-unknowns", one) for one in sets]
    assert found[3].figure == pytest.approx(max(levels) - min(levels))
    remote = [
        mean_auroc("grad-combo", "known-unknowns", one, sets) - mean_auroc("grad-combo", "unknown-unknowns", one)
        for one in ("patches", "noise")
    ]
    assert found[4].figure == pytest.approx(np.mean(remote))


def test_a_claim_whose_cells_are_missing_is_not_made(cells):
    lacking = [one for one in cells if (one.record.detector.name, one.record.seed) != ("grad-l1", 1)]
    assert [claim.number for claim in claims(lacking)] == [2, 3, 4]
    assert claims([one for one in cells if one.record.detector.name == "random"]) == []


def test_the_command_prints_the_table_and_json(out):
    done = command_line("compare", "entropy", "random", out, "-p", "unknown-unknowns")
    assert done.returncode == 0, done.stderr
    assert "entropy against random" in done.stdout
    assert done.stdout.count("better") == 4
    done = command_line("compare", "entropy", "random", out, "-p", "unknown-unknowns", "--json")
    pairs = json.loads(done.stdout)
    assert [pair["outcome"] for pair in pairs] == ["better"] * 4
    assert all(pair["difference"]["low"] > 0 for pair in pairs)
    done = command_line("compare", "entropy", "nobody", out)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = command_line("compare", "entropy", "random", out, "-p", "none")
    assert done.returncode == 2
    assert "no record is under none; there are: known, known-unknowns" in done.stderr
