"""Detectors against closed forms, torch's own autograd and pytorch-ood."""

import math

import numpy as np
import pytest
import torch
from collecting import collect
from torch import nn
from torch.nn import functional as F

from oodbench import registry
from oodbench.detectors.plugin import detector
from oodbench.detectors.selection import select
from oodbench.detectors.signed_log import SignedLog
from oodbench.errors import CellSkippedError, UsageError
from oodbench.evidence import Evidence


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * 36, 5)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).flatten(1))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, size=(60, 1, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def evidence(network, images):
    return collect(network, images)


@pytest.fixture(scope="module")
def labels(evidence):
    """Two thirds right, a third wrong."""
    predicted = evidence.predictions
    return torch.where(torch.arange(len(predicted)) % 3 == 0, (predicted + 1) % 5, predicted)


def scores_of(spec, evidence, labels, seed=0):
    (selected,) = select([spec])
    built = selected.plugin.build(selected.parameters(seed))
    built.fit(evidence, labels)
    return built.score(evidence)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("grad-combo:fitted_on=training", "is fitted on exposed by definition"),
        ("energy:fitted_on=meta", "is fitted on nothing by definition"),
        ("knn:fitted_on=test", "'knn' is 'test'; expected training or meta"),
    ],
)
def test_what_a_detector_is_fitted_on_is_chosen_among_known_splits(spec, message):
    with pytest.raises(UsageError, match=message):
        select([spec])


def test_no_parameter_has_the_name_of_the_choice():
    with pytest.raises(UsageError, match="has a parameter 'fitted_on', which every detector has"):

        @detector("mine", needs="logits")
        def mine(logits, *, fitted_on="meta"):
            return logits[:, 0]


def test_evidence_holds_what_the_network_says(network, images, evidence):
    inputs = torch.from_numpy(images).float() / 255
    torch.testing.assert_close(evidence.logits, network(inputs).detach())
    torch.testing.assert_close(evidence.features, torch.relu(network.conv(inputs)).flatten(1).detach())
    torch.testing.assert_close(network.head(evidence.features), evidence.logits)


def test_evidence_does_not_depend_on_the_number_of_processors(network, images, evidence, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    many = np.tile(images, (20, 1, 1, 1))
    one = collect(network, many)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    three = collect(network, many)
    assert torch.equal(one.logits, three.logits)
    assert all(torch.equal(one.gradients[key], three.gradients[key]) for key in one.gradients)
    torch.testing.assert_close(one.logits[:60], evidence.logits, rtol=0, atol=1e-6)


def test_scores_of_the_logits_equal_torch(evidence, labels):
    z = evidence.logits.double()
    p = z.softmax(1)
    expected = {
        "entropy": torch.distributions.Categorical(probs=p).entropy() / math.log(5),
        "max-softmax": 1 - p.amax(1),
        "max-logit": -z.amax(1),
        "energy": -z.exp().sum(1).log(),
        "energy:temperature=2": -2 * (z / 2).exp().sum(1).log(),
    }
    for spec, values in expected.items():
        torch.testing.assert_close(scores_of(spec, evidence, labels).double(), values, rtol=1e-5, atol=1e-6)


def test_gradnorm_equals_the_gradient_of_the_last_layer(network, evidence, labels):
    """Huang, Geng, Li 2021, eq. 4, by autograd in float64; and larger = more unknown, so with a minus."""
    weight = network.head.weight.detach().double().requires_grad_()
    expected = []
    for h in evidence.features.double():
        z = weight @ h + network.head.bias.double().detach()
        (gradient,) = torch.autograd.grad(-z.log_softmax(0).mean(), weight)
        expected.append(-gradient.abs().sum())
    torch.testing.assert_close(scores_of("gradnorm", evidence, labels), torch.stack(expected), rtol=1e-5, atol=1e-8)


def test_exgrad_is_the_expectation_over_classes(network, evidence, labels):
    weight = network.head.weight.detach().double().requires_grad_()
    expected = []
    for h in evidence.features[:10].double():
        z = weight @ h + network.head.bias.double().detach()
        p = z.softmax(0).detach()
        norms = [torch.autograd.grad(-z.log_softmax(0)[k], weight, retain_graph=True)[0].abs().sum() for k in range(5)]
        expected.append(sum(p[k] * norms[k] for k in range(5)))
    torch.testing.assert_close(scores_of("exgrad", evidence, labels)[:10], torch.stack(expected), rtol=1e-5, atol=1e-8)


def test_confounding_equals_pytorch_ood(network, images, evidence, labels):
    from pytorch_ood.detector import GradUncertainty

    theirs = GradUncertainty(network).predict(torch.from_numpy(images).float() / 255).detach().double()
    torch.testing.assert_close(scores_of("confounding", evidence, labels), theirs, rtol=1e-3, atol=1e-6)


def test_gradient_metrics_are_oriented_by_definition(evidence, labels):
    for metric in ("l1", "l2", "max", "std"):
        assert torch.equal(scores_of(f"grad-{metric}", evidence, labels), evidence.gradients[metric])
    assert torch.equal(scores_of("grad-min", evidence, labels), -evidence.gradients["min"])
    assert torch.equal(scores_of("grad-l2:layer=conv", evidence, labels), evidence.gradients["l2@conv"])


@pytest.mark.parametrize("direction", [1, -1])
def test_the_skewness_learns_its_direction_from_known_samples_only(evidence, direction):
    gradients = dict(evidence.gradients) | {"skewness": direction * torch.arange(60.0)}
    turned = Evidence(evidence.logits, evidence.features, gradients, evidence.confounding)
    predicted = evidence.predictions
    labels = torch.where(torch.arange(60) >= 30, (predicted + 1) % 5, predicted)  # wrong where larger
    labels[:20] = -1  # exposed unknown samples with the smallest values must not turn it
    scores = scores_of("grad-skewness", turned, labels)
    assert torch.equal(scores, torch.arange(60.0))


def test_a_direction_or_a_meta_classifier_needs_mistakes(evidence):
    for spec in ("grad-mean", "grad-skewness", "grad-combo", "entropy-meta"):
        with pytest.raises(CellSkippedError, match="0 of the 60"):
            scores_of(spec, evidence, evidence.predictions)


def test_an_unknown_layer_is_named_with_those_there_are(evidence, labels):
    with pytest.raises(UsageError, match="no layer 'conv9' with weights; expected one of: conv, head"):
        scores_of("grad-l1:layer=conv9", evidence, labels)


def test_entropy_meta_ranks_as_entropy_does(evidence, labels):
    """It is monotone in the entropy: the paper's entropy thresholding."""
    entropy, meta = (scores_of(name, evidence, labels).argsort() for name in ("entropy", "entropy-meta"))
    assert torch.equal(entropy, meta) or torch.equal(entropy, meta.flip(0))


def test_meta_classifiers_do_not_look_at_the_samples_they_score(evidence, labels):
    (selected,) = select(["grad-combo"])
    built = selected.plugin.build({})
    built.fit(evidence, labels)
    alone = built.score(Evidence.concatenate([evidence, evidence]))[:60]
    torch.testing.assert_close(alone, built.score(evidence))
    assert built.learnt["C"] in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def test_meta_classifiers_drop_constant_columns(evidence, labels):
    (selected,) = select(["grad-all"])
    built = selected.plugin.build({})
    built.fit(evidence, labels)
    assert (evidence.gradients["mean@head"] == 0).all()
    kept = built._model[0].get_support()
    assert not kept[list(evidence.gradients).index("mean@head")]
    assert kept.sum() == len(evidence.gradients) - 1


def test_random_scores_do_not_depend_on_order_or_batch_and_change_with_the_seed(evidence, labels):
    scores = scores_of("random", evidence, labels, seed=3)
    backwards = Evidence(evidence.logits.flip(0), evidence.features, evidence.gradients, evidence.confounding)
    assert torch.equal(scores_of("random", backwards, labels, seed=3), scores.flip(0))
    assert not torch.equal(scores_of("random", evidence, labels, seed=4), scores)
    assert ((scores >= 0) & (scores < 1)).all()
    assert len(scores.unique()) == 60


def test_random_scores_are_uniform():
    from scipy import stats

    logits = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    scores = registry.load("detectors", "random")(logits).numpy()
    assert stats.kstest(scores, "uniform").pvalue > 0.01


def test_constant_and_feature_norm(evidence, labels):
    assert len(scores_of("constant", evidence, labels).unique()) == 1
    for norm, order in (("l1", 1), ("l2", 2), ("max", float("inf"))):
        expected = -torch.linalg.vector_norm(evidence.features, ord=order, dim=1)
        found = scores_of(f"feature-norm:norm={norm}", evidence, labels).float()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_signed_logarithm_keeps_the_order_and_the_sign_beyond_the_fitting_split():
    x = np.array([[-1e6], [-1.0], [0.0], [1e-9], [1.0], [5.0], [1e9]])
    transform = SignedLog().fit(x[1:6])
    found = transform.transform(x)
    assert (np.diff(found[:, 0]) > 0).all()
    assert found[2, 0] == 0
    assert (np.sign(found) == np.sign(x)).all()


def test_all_seven_metrics_of_every_layer_are_inputs_of_grad_all(evidence):
    grad_all = registry.load("detectors", "grad-all")()
    assert grad_all.inputs(evidence).shape == (60, 7 * 3)
    assert registry.load("detectors", "grad-combo")().inputs(evidence).shape == (60, 7 * 3 + 1)


def test_a_decorated_function_is_still_a_function():
    logits = torch.randn(3, 4)
    energy = registry.load("detectors", "energy")
    torch.testing.assert_close(energy(logits), -logits.double().logsumexp(1))


@pytest.mark.parametrize(
    ("needs", "target", "sentence"),
    [
        ("pixels", lambda x: x, "needs 'pixels'; expected some of"),
        ((), lambda x: x, "says not what it needs"),
        ((), type("Half", (), {"fit": None}), "needs methods fit and score"),
    ],
)
def test_a_wrong_declaration_is_refused(needs, target, sentence):
    with pytest.raises(UsageError, match=sentence):
        detector("wrong", needs=needs)(target)


def test_a_decorated_class_can_be_subclassed_and_decorated_again(evidence, labels):
    @detector("parent", needs="logits")
    class Parent:
        def __init__(self, scale: float = 2.0):
            self.scale = scale

        def fit(self, evidence, labels):
            self.n = len(labels)

        def score(self, evidence):
            return self.scale * evidence.logits.sum(dim=1)

    @detector("child", needs=("logits", "features"))
    class Child(Parent):
        def __init__(self, scale: float = 3.0, shift: float = 1.0):
            super().__init__(scale)
            self.shift = shift

        def score(self, evidence):
            return super().score(evidence) + self.shift

    for spec, expected in (("child", 3.0), ("child:scale=5", 5.0)):
        found = scores_of(spec, evidence, labels)
        torch.testing.assert_close(found, expected * evidence.logits.sum(dim=1) + 1)
    torch.testing.assert_close(scores_of("parent", evidence, labels), 2 * evidence.logits.sum(dim=1))
    child = Child()
    assert isinstance(child, Parent)
    assert isinstance(child, Child)
    assert not isinstance(Parent(), Child)
    assert issubclass(Child.target, Parent)
    assert Child.needs == ("logits", "features")


def test_a_decorated_function_cannot_be_subclassed():
    with pytest.raises(UsageError, match="the detector 'energy' is made of a function, which has no subclasses"):

        class Mine(registry.load("detectors", "energy")):
            pass


def test_the_earlier_names_of_keywords_mean_the_same():
    class Noisy:
        def __init__(self, batch_size=8, seed=0):
            self.batch_size, self.seed = batch_size, seed

        def fit(self, evidence, labels):
            pass

        def score(self, evidence):
            return evidence.logits.sum(dim=1)

    now = detector("noisy", no_effect_on_scores=("batch_size",), stochastic=True)(Noisy)
    earlier = detector("noisy", inert=("batch_size",), by_chance=True)(Noisy)
    assert earlier == now
    assert (earlier.no_effect_on_scores, earlier.stochastic) == (("batch_size",), True)
    neither = detector("noisy")(Noisy)
    assert (neither.no_effect_on_scores, neither.stochastic) == ((), False)


def test_cross_entropy_with_ones_is_what_confounding_means(network, images):
    from oodbench.gradients.losses import logit_gradient

    z = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(F.cross_entropy(z, torch.ones(6, 5, dtype=torch.float64), reduction="sum"), z)
    torch.testing.assert_close(logit_gradient("confounding", z), expected)
