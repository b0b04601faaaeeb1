"""Densities of gradient metrics, the tails that join them with other scores, and what they may not look at."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from oodbench.conformance.problem import UNKNOWN, problem
from oodbench.detectors.density import ClassGaussians, Gaussian, GradDensity, KnownTail, Mixture, Neighbours
from oodbench.detectors.selection import select
from oodbench.errors import CellSkippedError
from oodbench.registry.isolation import Failure
from oodbench.runs.score_sheet import DetectorScorer


@pytest.fixture(scope="module")
def trial():
    return problem()


@pytest.fixture(scope="module")
def scorer(trial):
    return DetectorScorer(trial)


def sheet(scorer, spec, exposed=()):
    (selected,) = select([spec])
    found = scorer.sheet(selected, exposed)
    assert not isinstance(found, Failure), found
    return found


# Tails


def test_the_surprise_is_minus_the_log_of_the_share_beyond():
    known = np.random.default_rng(0).exponential(3.0, 50_000)
    tail = KnownTail(known)
    inside = np.quantile(known, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(tail(inside), -np.log([0.9, 0.5, 0.1]), atol=0.01)
    # Of an exponential the tail is known everywhere: the surprise is the score in units of its mean.
    beyond = np.array([12.0, 30.0, 90.0])
    np.testing.assert_allclose(tail(beyond), beyond / 3, rtol=0.05)


def test_the_surprise_keeps_the_order_and_tells_what_no_known_sample_reaches_apart():
    known = np.random.default_rng(1).standard_t(3, 2000)
    scores = np.sort(np.random.default_rng(2).standard_t(3, 500) * 4)
    surprises = KnownTail(known)(scores)
    assert (np.diff(surprises) >= 0).all()
    above = scores > np.quantile(known, 0.5)
    assert (np.diff(surprises[above]) > 0).all()
    assert np.isfinite(KnownTail(np.zeros(10))(np.array([0.0, 1.0]))).all(), "of constant scores too"


def test_added_surprises_of_independent_scores_are_fishers_test():
    """Minus twice the sum of logarithms of p values is χ² distributed with two degrees of freedom for each."""
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=(2, 20_000))
    total = KnownTail(first[::2])(first[1::2]) + KnownTail(second[::2])(second[1::2])
    assert stats.kstest(2 * total, stats.chi2(4).cdf).statistic < 0.02


# Densities


@pytest.fixture
def inputs():
    generator = np.random.default_rng(0)
    classes = np.arange(600) % 3
    return generator.normal(size=(600, 4)) * [1, 2, 3, 0.5] + classes[:, None], classes


def test_neighbours_are_those_of_the_predicted_class(inputs):
    known, classes = inputs
    density = Neighbours(known, classes, 3)
    test = np.random.default_rng(1).normal(size=(20, 4))
    for label in range(3):
        distances = np.sort(np.linalg.norm(test[:, None] - known[classes == label][None], axis=2), axis=1)
        np.testing.assert_allclose(density(test, np.full(20, label)), distances[:, 2])
    distances = np.sort(np.linalg.norm(test[:, None] - known[None], axis=2), axis=1)
    np.testing.assert_allclose(density(test, np.full(20, 7)), distances[:, 2], err_msg="a class without known samples")


def test_gaussians_are_log_densities_up_to_a_constant(inputs):
    known, classes = inputs
    test = np.random.default_rng(1).normal(size=(20, 4))
    fitted = Gaussian(known, classes, 1)._fitted
    expected = stats.multivariate_normal(fitted.location_, fitted.covariance_).logpdf(test)
    found = Gaussian(known, classes, 1)(test, np.zeros(20, int))
    np.testing.assert_allclose(np.diff(found), np.diff(-2 * expected), rtol=1e-6)
    own = ClassGaussians(known, classes, 1)
    by_class = [own._of_class[label] for label in range(3)]
    expected = [stats.multivariate_normal(one.location_, one.covariance_).logpdf(test[0]) for one in by_class]
    found = [float(own(test[:1], np.array([label]))[0]) for label in range(3)]
    np.testing.assert_allclose(np.diff(found), -2 * np.diff(expected), rtol=1e-6)


def test_the_mixture_is_the_same_each_time(inputs):
    known, classes = inputs
    test = np.random.default_rng(1).normal(size=(20, 4))
    first, second = (Mixture(known, classes, 1)(test, classes[:20]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    far = Mixture(known, classes, 1)(test + 50, classes[:20])
    assert (far > first.max()).all()


# The detectors


@pytest.mark.parametrize("model", ["knn", "gaussian", "class-gaussian", "gmm"])
def test_it_finds_unknown_samples_without_any(trial, scorer, model):
    found = sheet(scorer, f"grad-density:model={model},beside=energy")
    known, unknown = found.of(trial.test).scores, found.of(trial.unknown[UNKNOWN]).scores
    assert roc_auc_score(np.arange(400) >= 200, np.append(known, unknown)) > 0.75
    # Scores of known samples that it has not seen are about as surprising as those that it was fitted on.
    fitted_on = found.of(trial.meta).scores
    assert np.median(known) == pytest.approx(np.median(fitted_on), rel=0.5)


@pytest.mark.parametrize("spec", ["grad-density", "grad-duo"])
def test_no_unknown_sample_teaches_the_density(trial, spec):
    (selected,) = select([spec])
    needs = selected.plugin.needs
    meta, exposed = (trial.evidence(split, needs) for split in (trial.meta, trial.exposed[UNKNOWN]))
    labels = torch.from_numpy(trial.meta.labels)
    both = type(meta).concatenate([meta, exposed])
    all_labels = torch.cat([labels, torch.from_numpy(trial.exposed[UNKNOWN].labels)])
    alone, together = (selected.plugin.build(selected.parameters(0)) for _ in range(2))
    alone.fit(meta, labels)
    together.fit(both, all_labels)
    test = trial.evidence(trial.test, needs)
    density = (lambda one: one) if spec == "grad-density" else (lambda one: one._density)
    assert torch.equal(density(alone).score(test), density(together).score(test))
    if spec == "grad-duo":
        assert not torch.equal(alone.score(test), together.score(test)), "they teach the supervised half"


def test_the_supervised_half_adds_failures(trial, scorer):
    wrong = trial.wrong(trial.test)
    duo, density = (sheet(scorer, spec).of(trial.test).scores for spec in ("grad-duo", "grad-density:beside=energy"))
    assert roc_auc_score(wrong, duo) > roc_auc_score(wrong, density)


def test_too_few_known_samples_are_skipped_with_the_reason(trial):
    (selected,) = select(["grad-density"])
    evidence = trial.evidence(trial.meta, selected.plugin.needs)
    labels = torch.from_numpy(trial.meta.labels)
    with pytest.raises(CellSkippedError, match="0 known samples are classified right; expected 10"):
        GradDensity().fit(evidence, (evidence.predictions + 1) % 4)
    with pytest.raises(CellSkippedError, match=r"k is 100000, and there are \d+ known samples to be near to"):
        GradDensity(k=100_000).fit(evidence, labels)
