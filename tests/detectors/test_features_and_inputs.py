"""Detectors on known features and on changed inputs, against one sample and one definition at a time in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from oodbench.conformance.problem import UNKNOWN, problem
from oodbench.detectors.selection import select
from oodbench.errors import UsageError
from oodbench.registry.isolation import Failure
from oodbench.runs.score_sheet import DetectorScorer


@pytest.fixture(scope="module")
def trial():
    return problem()


@pytest.fixture(scope="module")
def scorer(trial):
    return DetectorScorer(trial)


@pytest.fixture(scope="module")
def network(trial):
    return trial.collector.classifier.network


def scores(scorer, spec):
    (selected,) = select([spec])
    sheet = scorer.sheet(selected, ())
    assert not isinstance(sheet, Failure), sheet
    return sheet.of(scorer.trial.unknown[UNKNOWN]).scores


def evidence(trial, split, part):
    return getattr(trial.collector.evidence(split, [part]), part).double().numpy()


@pytest.mark.parametrize("dim", [0, 5, 100])
def test_residual_is_the_norm_that_principal_components_leave(trial, scorer, network, dim):
    known = evidence(trial, trial.train, "features")
    weight, bias = (tensor.detach().double().numpy() for tensor in (network.fc2.weight, network.fc2.bias))
    origin = -np.linalg.pinv(weight) @ bias
    principal = np.linalg.svd(known - origin)[2][:dim]
    centred = evidence(trial, trial.unknown[UNKNOWN], "features") - origin
    expected = np.linalg.norm(centred - centred @ principal.T @ principal, axis=1)
    np.testing.assert_allclose(scores(scorer, f"residual:dim={dim}"), expected, rtol=1e-4, atol=1e-4)


def test_residual_of_all_dimensions_is_skipped_and_not_zero(scorer):
    (selected,) = select(["residual:dim=512"])
    sheet = scorer.sheet(selected, ())
    assert sheet.status == "skipped"
    assert "dim = 512 leaves no dimension of the" in sheet.error


@pytest.mark.parametrize(("power", "threshold"), [(1, 0.03), (4, 0.2)])
def test_relation_sums_what_two_samples_have_in_common(trial, scorer, power, threshold):
    def parts(split):
        features, logits = evidence(trial, split, "features"), evidence(trial, split, "logits")
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        return features, probabilities / probabilities.sum(axis=1, keepdims=True)

    (known, p_known), (unknown, p_unknown) = parts(trial.train), parts(trial.unknown[UNKNOWN])
    found = scores(scorer, f"relation:pow={power},threshold={threshold}")
    for i in range(0, len(unknown), 7):
        cosines = known @ unknown[i] / np.linalg.norm(known, axis=1) / np.linalg.norm(unknown[i])
        relation = np.maximum(cosines, 0) * (p_known @ p_unknown[i])
        # The threshold cuts, so that rounding can move a single relation across it.
        assert found[i] == pytest.approx(-(relation[relation > threshold] ** power).sum(), abs=2 * threshold**power)


@pytest.mark.parametrize(("alpha", "k"), [(1, 0.01), (1, 0.2), (0.5, 0.05)])
def test_cfood_is_the_smallest_share_of_neighbours_that_has_the_sample(trial, scorer, alpha, k):
    features = F.normalize(torch.from_numpy(evidence(trial, trial.train, "features")), dim=1)
    n = int(alpha * len(features))
    chosen = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:n] if alpha < 1 else slice(None)
    known = features[chosen].numpy()
    unknown = F.normalize(torch.from_numpy(evidence(trial, trial.unknown[UNKNOWN], "features")), dim=1).numpy()
    among = np.sort(np.linalg.norm(known[:, None] - known[None], axis=2), axis=1)
    grid = np.concatenate([np.linspace(0.001, 0.1, 100), np.linspace(0.105, 0.5, 81), np.linspace(0.51, 0.99, 49)])
    found = scores(scorer, f"cfood:alpha={alpha},k={k}")
    for i in range(0, len(unknown), 9):
        distances = np.linalg.norm(known - unknown[i], axis=1)
        expected, before = 1.0, -1
        for share in grid:
            rank = int(share * n - 1)
            if rank > before and (among[:, rank + 1] >= distances).sum() / n >= k:
                expected = share
                break
            before = max(before, rank)
        assert found[i] == pytest.approx(expected)


def inputs_of(trial):
    return torch.from_numpy(trial.unknown[UNKNOWN].images).double() / 255


def gradient_of(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x[None])[0], x)[0]


def test_iodin_moves_the_one_value_of_the_largest_gradient(trial, scorer, network):
    double = network.double()
    try:
        expected = []
        for x in inputs_of(trial)[::5]:
            label = double(x[None]).argmax()
            gradient = gradient_of(lambda x, label=label: -(double(x) / 10).log_softmax(1)[:, label], x)
            changed = x.clone().flatten()
            where = gradient.abs().argmax()
            changed[where] -= 0.2 / 0.5 * (1 if gradient.flatten()[where] >= 0 else -1)
            expected.append(-(double(changed.view_as(x)[None]) / 10).softmax(1).max().item())
    finally:
        network.float()
    found = scores(scorer, "iodin:temperature=10,eps=0.2,norm_std=0.5")[::5]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not np.allclose(found, scores(scorer, "iodin:temperature=10,eps=0")[::5], rtol=1e-4)


@pytest.mark.parametrize("variant", ["a", "l"])
def test_adascale_follows_its_definition(trial, scorer, network, variant):
    double, (low, high, k1, k2, lmbda, o) = network.double(), (60, 90, 20, 10, 3.0, 0.1)
    spec = f"adascale-{variant}:percentile={low}+{high},k1={k1},k2={k2},lmbda={lmbda},o={o}"

    def encoder(x):
        stored = []
        hook = double.fc2.register_forward_pre_hook(lambda _, arguments: stored.append(arguments[0]))
        double(x)
        hook.remove()
        return stored[0]

    def look(x):
        gradient = gradient_of(lambda x: double(x).amax(1), x)
        smallest = gradient.abs().flatten().argsort()[: int(x.numel() * o)]
        changed = x.clone().flatten()
        changed[smallest] += 0.5 * gradient.flatten()[smallest].sign()
        before, after = encoder(x[None])[0], encoder(changed.view_as(x)[None])[0]
        order = before.argsort(descending=True)
        first, second = order[: int(len(before) * k1 / 100)], order[: int(len(before) * k2 / 100)]
        return before, after[first].relu().sum() + lmbda * (before - after)[second].abs().sum()

    try:
        with torch.enable_grad():
            known = torch.from_numpy(trial.meta.images).double() / 255
            movements = np.array([look(x)[1].item() for x in known])
            expected = []
            for x in inputs_of(trial)[::9]:
                features, movement = look(x)
                percentile = low + (movements > movement.item()).mean() * (high - low)
                kept = len(features) - round(len(features) * percentile / 100)
                positive = features.relu()
                scale = positive.sum() / positive.sort(descending=True).values[:kept].sum()
                logits = double.fc2(features * scale.exp()) if variant == "a" else double.fc2(features) * scale**2
                expected.append(-logits.logsumexp(0).item())
    finally:
        network.float()
    found = scores(scorer, spec)[::9]
    # A movement that equals one of the known samples' but for rounding may count as above or below it.
    close = np.isclose(found, expected, rtol=1e-3)
    assert close.mean() > 0.9
    assert np.corrcoef(found, expected)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("residual:dim=-1", "dim is -1; expected 0 or more"),
        ("cfood:alpha=0", "alpha = 0.0 and k = 0.01; expected shares above 0"),
        ("cfood:k=1", "expected shares above 0, alpha up to 1 and k below 1"),
        ("adascale-a:percentile=90+60", "percentile = 90 and 60"),
        ("adascale-l:o=0", "o above 0"),
    ],
)
def test_parameters_out_of_range_are_refused(spec, message):
    with pytest.raises(UsageError, match=message):
        select([spec])
