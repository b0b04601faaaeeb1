"""Detectors of the family of gradient uncertainty: what they make of the evidence, against formulas and autograd."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from oodbench.conformance.problem import UNKNOWN, problem
from oodbench.detectors.grood import Grood
from oodbench.detectors.norms import Purview
from oodbench.detectors.selection import select
from oodbench.errors import CellSkippedError, UsageError
from oodbench.evaluation.metrics import auroc
from oodbench.evidence import Evidence
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


def part(trial, split, name):
    return getattr(trial.collector.evidence(split, [name]), name)


# Norms


def test_confounding_at_other_numbers_of_ones_is_minus_the_sum_of_the_sets(trial, scorer):
    unknown = trial.unknown[UNKNOWN]
    for n in (0, 2, 4):
        found = sheet(scorer, f"confounding:n={n}").of(unknown).scores
        expected = -sum(values.double().numpy() for values in part(trial, unknown, f"set_norms:ones={n}").values())
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("n", [1, -1])
def test_a_label_of_a_single_one_is_none(n):
    with pytest.raises(UsageError, match=f"n is {n}; expected 0, or 2 and more"):
        select([f"confounding:n={n}"])


def test_purview_learns_from_the_norms_of_all_parameters(trial, scorer):
    evidence = trial.collector.evidence(trial.test, ["set_norms"])
    inputs = Purview().inputs(evidence)
    assert inputs.shape == (len(trial.test.labels), 10), "weights and biases of five layers"
    found = sheet(scorer, "purview", (UNKNOWN,))
    known, unknown = found.of(trial.test).scores, found.of(trial.unknown[UNKNOWN]).scores
    assert auroc(np.append(known, unknown), np.arange(400) >= 200) > 0.95, "as unknown samples are exposed"


@pytest.mark.parametrize(
    ("spec", "columns"), [("gran-style", 5), ("gran-style:sigma=0.5", 5), ("git-style", 25), ("purview", 10)]
)
def test_supervised_ones_have_a_column_for_each_layer_and_transform(trial, spec, columns):
    (selected,) = select([spec])
    evidence = trial.collector.evidence(trial.test, selected.plugin.needs)
    assert selected.plugin.build(selected.parameters(0)).inputs(evidence).shape == (200, columns)


def test_another_smoothing_is_another_part(trial, scorer):
    first, second = (
        sheet(scorer, f"gran-style:sigma={sigma}", (UNKNOWN,)).of(trial.test).scores for sigma in (0.5, 2.0)
    )
    assert not np.allclose(first, second)


# Attributions


def test_gaia_a_and_blood_score_by_their_parts(trial, scorer):
    unknown = trial.unknown[UNKNOWN]
    np.testing.assert_array_equal(sheet(scorer, "gaia-a").of(unknown).scores, part(trial, unknown, "gaia_a"))
    of_steps = part(trial, unknown, "blood:n=10").numpy()
    np.testing.assert_allclose(sheet(scorer, "blood").of(unknown).scores, of_steps.mean(axis=1))
    np.testing.assert_allclose(sheet(scorer, "blood:reduce=last").of(unknown).scores, of_steps[:, -1])


def test_gaia_z_without_zeros_is_skipped_and_not_a_tie(scorer):
    """The leaky ReLU of the network passes a gradient everywhere, and pooling passes it at one of four positions."""
    (selected,) = select(["gaia-z"])
    found = scorer.sheet(selected, ())
    scores = list(found.scores.values())
    assert {of_split.status for of_split in scores} == {"skipped"}
    assert (
        "samples have the same density of attributions that are not zero (0.03384), as without ReLU" in scores[0].error
    )


# GROOD


def grood_evidence(seed, n=40, width=3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    inputs = torch.randn(n, 1, 4, 4, generator=generator) + labels[:, None, None, None]
    weight = torch.randn(16, width, generator=generator)

    class Encoder(torch.nn.Module):
        def forward(self, x):
            return torch.tanh(x.flatten(1) @ weight)

    encoder = Encoder()
    return Evidence(torch.zeros(n, 3), encoder(inputs), inputs=inputs, encoder=encoder), labels


@pytest.mark.parametrize("unknown", ["mixup", "noise"])
@pytest.mark.parametrize("label", [0, 2])
def test_grood_is_the_distance_of_gradients_by_the_unknown_prototype(unknown, label):
    known, labels = grood_evidence(0)
    test, _ = grood_evidence(1)
    detector = Grood(unknown, k=2)
    detector.fit(known, labels)
    means = torch.stack([known.features[labels == c].double().mean(dim=0) for c in range(3)])
    prototype = detector._prototypes[-1]
    assert torch.allclose(detector._prototypes[:-1], means)

    def gradient(feature):
        leaf = prototype.clone().requires_grad_()
        distances = torch.stack([(feature.double() - p).norm() for p in [*means, leaf]])
        (found,) = torch.autograd.grad(F.cross_entropy(-distances[None], torch.tensor([label])), leaf)
        return found.numpy()

    of_known = np.stack([gradient(feature) for feature in known.features])
    for feature, score in zip(test.features, detector.score(test), strict=True):
        distances = np.linalg.norm(of_known - gradient(feature), axis=1)
        assert float(score) == pytest.approx(np.sort(distances)[1], abs=1e-9), "whatever the label"


def test_the_unknown_prototype_is_between_classes_or_that_of_noise():
    known, labels = grood_evidence(0, n=600)
    mixed, noise = Grood("mixup"), Grood("noise")
    mixed.fit(known, labels)
    noise.fit(known, labels)
    made = mixed._made(known.inputs, labels, torch.Generator().manual_seed(0))
    first = torch.randperm(600, generator=torch.Generator().manual_seed(0))[:512]
    # The mean of two inputs of different classes is no input of its own class, and half of it is the first one.
    others = 2 * made - known.inputs[first]
    matches = [(known.inputs == other).flatten(1).all(dim=1).nonzero().flatten() for other in others[:20]]
    close = [torch.cdist(other.flatten()[None], known.inputs.flatten(1)).argmin() for other in others[:20]]
    assert all(labels[i] != labels[j] for i, j in zip(first, close, strict=False)), matches
    assert not torch.allclose(mixed._prototypes[-1], noise._prototypes[-1])
    again = Grood("mixup")
    again.fit(known, labels)
    assert torch.equal(again._prototypes, mixed._prototypes)


def test_grood_needs_two_classes_and_enough_samples():
    known, labels = grood_evidence(0)
    with pytest.raises(CellSkippedError, match="two classes"):
        Grood().fit(known, torch.zeros_like(labels))
    with pytest.raises(CellSkippedError, match="k is 41, and there are 40 known samples"):
        Grood(k=41).fit(known, labels)
