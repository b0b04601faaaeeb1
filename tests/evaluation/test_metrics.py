"""Metrics against scikit-learn, pytorch-ood and counting pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score, roc_curve

from oodbench.evaluation.metrics import auroc, balanced_accuracy, best_threshold, metrics


def samples(seed, n=400, ties=False):
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.3
    scores = random.normal(size=n) + positive
    return (np.round(scores * 3) if ties else scores), positive


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_agrees_with_scikit_learn(seed, ties):
    scores, positive = samples(seed, ties=ties)
    found = metrics(scores, positive, threshold=0.5)
    assert found["auroc"] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert found["aupr_unknown"] == pytest.approx(average_precision_score(positive, scores), abs=1e-12)
    assert found["aupr_known"] == pytest.approx(average_precision_score(~positive, -scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert found["fpr95_unknown_positive"] == pytest.approx(fpr[tpr >= 0.95].min())
    fpr, tpr, _ = roc_curve(~positive, -scores, drop_intermediate=False)
    assert found["fpr95_known_positive"] == pytest.approx(fpr[tpr >= 0.95].min())
    assert found["meta_accuracy"] == pytest.approx(balanced_accuracy_score(positive, scores >= 0.5))


ADVERSARIAL = {
    "constant": (np.zeros(9), np.arange(9) < 4),
    "ties": (np.array([0, 0, 1, 1, 1, 2, 2, 2, 3.0]), np.array([0, 1, 0, 1, 1, 0, 1, 1, 1], dtype=bool)),
    "one positive": (np.arange(8.0), np.arange(8) == 5),
    "one negative": (np.arange(8.0), np.arange(8) != 5),
    "two samples": (np.array([0.0, 1.0]), np.array([False, True])),
    "two samples, wrong way": (np.array([1.0, 0.0]), np.array([False, True])),
    "tiny and huge": (np.array([1e-300, 2e-300, -1e300, 1e300, 0, 3e-300]), np.array([0, 1, 0, 1, 1, 0], dtype=bool)),
}


@pytest.mark.parametrize("case", ADVERSARIAL)
def test_agrees_with_scikit_learn_and_pytorch_ood_on_adversarial_scores(case):
    from pytorch_ood.metrics import OODMetrics

    scores, positive = ADVERSARIAL[case]
    found = metrics(scores, positive, None)
    assert found["auroc"] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert found["aupr_unknown"] == pytest.approx(average_precision_score(positive, scores), abs=1e-12)
    assert found["aupr_known"] == pytest.approx(average_precision_score(~positive, -scores), abs=1e-12)
    # pytorch-ood computes in float32, where the extremes would be zero and infinite: it gets their ranks.
    ranks = np.unique(scores, return_inverse=True)[1].astype(float)
    theirs = OODMetrics()
    theirs.update(torch.from_numpy(ranks), torch.from_numpy(np.where(positive, -1, 1)))
    values = theirs.compute()
    assert found["auroc"] == pytest.approx(values["AUROC"], abs=1e-6)
    assert found["fpr95_unknown_positive"] == pytest.approx(values["FPR95TPR"], abs=1e-6)


def test_agrees_with_pytorch_ood():
    from pytorch_ood.metrics import OODMetrics

    scores, positive = samples(7)
    theirs = OODMetrics()
    theirs.update(torch.from_numpy(scores), torch.from_numpy(np.where(positive, -1, 1)))
    values = theirs.compute()
    found = metrics(scores, positive, None)
    assert found["auroc"] == pytest.approx(values["AUROC"], abs=1e-6)
    assert found["fpr95_unknown_positive"] == pytest.approx(values["FPR95TPR"], abs=1e-6)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_auroc_counts_pairs_and_half_of_ties(pairs):
    scores = np.array([score for score, _ in pairs], dtype=float)
    positive = np.array([truth for _, truth in pairs])
    if positive.all() or not positive.any():
        assert auroc(scores, positive) is None
        return
    differences = scores[positive][:, None] - scores[~positive][None]
    assert auroc(scores, positive) == pytest.approx(((differences > 0) + (differences == 0) / 2).mean())
    assert auroc(-scores, positive) == pytest.approx(1 - auroc(scores, positive))


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_auroc_does_not_depend_on_the_scale_of_scores(scale):
    scores, positive = samples(3)
    assert auroc(scores * scale, positive) == auroc(scores, positive)


def test_an_auroc_below_one_half_stays_there():
    scores, positive = samples(0)
    assert auroc(-scores, positive) < 0.5


def test_the_two_meanings_of_fpr95_differ_where_a_tenth_of_the_unknown_overlaps():
    random = np.random.default_rng(0)
    known, unknown = random.normal(size=4000), np.append(random.normal(6, 1, 3600), random.normal(0, 1, 400))
    found = metrics(np.append(known, unknown), np.arange(8000) >= 4000, None)
    assert found["fpr95_unknown_positive"] > 0.4
    assert found["fpr95_known_positive"] < 0.2


def test_a_missing_class_gives_no_figures():
    assert set(metrics(np.zeros(3), np.zeros(3, dtype=bool), 0.0).values()) == {None}
    assert best_threshold(np.zeros(3), np.ones(3, dtype=bool)) is None


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_no_threshold_is_better_than_the_best_one(pairs):
    scores = np.array([score for score, _ in pairs], dtype=float)
    positive = np.array([truth for _, truth in pairs])
    threshold = best_threshold(scores, positive)
    if threshold is None:
        return
    best = balanced_accuracy(scores, positive, threshold)
    assert all(balanced_accuracy(scores, positive, other) <= best + 1e-12 for other in np.arange(-4, 5, 0.5))


def test_the_best_threshold_separates_neighbouring_floats():
    scores = np.array([1.0, np.nextafter(1.0, 2.0)])
    threshold = best_threshold(scores, np.array([False, True]))
    assert balanced_accuracy(scores, np.array([False, True]), threshold) == 1.0


@given(st.integers(0, 40), st.integers(0, 2**31))
def test_the_threshold_separates_neighbouring_float32_scores(steps, seed):
    """Their middle is no float32, and would be rounded to one of them."""
    low = np.float32(-1) if seed % 2 else np.float32(seed / 2**31)
    for _ in range(steps):
        low = np.nextafter(low, np.float32(1))
    scores = np.array([low, np.nextafter(low, np.float32(2))], dtype=np.float32)
    positive = np.array([False, True])
    assert balanced_accuracy(scores, positive, best_threshold(scores, positive)) == 1.0
