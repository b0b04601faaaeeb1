"""Detectors of pytorch-ood give what pytorch-ood gives, on the same evidence, fitted on the training split."""

import inspect
from importlib.metadata import version

import numpy as np
import pytest
import pytorch_ood.detector as theirs
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from oodbench import registry
from oodbench.conformance.problem import CLASSES, UNKNOWN, problem
from oodbench.detectors.selection import BrokenDetector, select
from oodbench.evidence.batches import BATCH
from oodbench.registry.isolation import Failure
from oodbench.runs.score_sheet import DetectorScorer

NAMES = [
    entry.qualified for entry in registry.entries("detectors").values() if entry.distribution == "pytorch-ood"
]  # fmt: skip


class Parts:
    """The problem's network taken apart by hand, and its images."""

    def __init__(self):
        self.trial = problem()
        self.scorer = DetectorScorer(self.trial)
        self.network = self.trial.collector.classifier.network
        self.train = torch.from_numpy(self.trial.train.images).float() / 255
        self.labels = torch.from_numpy(self.trial.train.labels)
        self.inputs = torch.from_numpy(self.trial.unknown[UNKNOWN].images).float() / 255

    def encoder(self, x):
        return self._dense(self.backbone(x))

    def _dense(self, maps):
        network = self.network
        return network.activation(network.fc1(torch.flatten(network.pool(maps), 1)))

    def backbone(self, x):
        network = self.network
        for convolution in (network.conv1, network.conv2, network.conv3):
            x = network.activation(convolution(x))
            if convolution is not network.conv3:
                x = network.pool(x)
        return x

    def head(self, maps):
        return self.network.fc2(self._dense(maps))

    def squares(self, x):
        """The penultimate features as feature maps of one pixel."""
        return self.encoder(x)[:, :, None, None]

    def on_features(self, squares):
        return self.network.fc2(torch.flatten(squares, 1))

    @property
    def loader(self):
        return DataLoader(TensorDataset(self.train, self.labels), batch_size=BATCH)


@pytest.fixture(scope="module")
def parts():
    return Parts()


# What pytorch-ood's own call looks like: a detector, whether it is fitted, by how it was asked for.
CALLS = {
    "energy-based:t=2": lambda p: theirs.EnergyBased(p.network, t=2.0),
    "pytorch-ood/entropy": lambda p: theirs.Entropy(p.network),
    "gen:gamma=0.5,M=2": lambda p: theirs.GEN(p.network, gamma=0.5, M=2),
    "kl-matching": lambda p: theirs.KLMatching(p.network),
    "pytorch-ood/max-logit": lambda p: theirs.MaxLogit(p.network),
    "pytorch-ood/max-softmax:t=3": lambda p: theirs.MaxSoftmax(p.network, t=3.0),
    "temperature-scaling": lambda p: theirs.TemperatureScaling(p.network),
    "dice:p=0.5": lambda p: theirs.DICE(p.encoder, p.network.fc2.weight, p.network.fc2.bias, 0.5),
    "fdbd": lambda p: theirs.fDBD(p.encoder, p.network.fc2),
    "gmm": lambda p: theirs.GMM(p.encoder),
    "knn:k=5,normalize=false": lambda p: theirs.KNN(p.encoder, k=5, normalize=False),
    "lts:p=0.1": lambda p: theirs.LTS(p.encoder, p.network.fc2, p=0.1),
    "mahalanobis": lambda p: theirs.Mahalanobis(p.encoder),
    "nci:alpha=0.01": lambda p: theirs.NCI(p.encoder, p.network.fc2, alpha=0.01),
    "nn-guide:k=4": lambda p: theirs.NNGuide(p.encoder, p.network.fc2, k=4),
    "pnml": lambda p: theirs.PNML(p.encoder, p.network.fc2),
    "rmd": lambda p: theirs.RMD(p.encoder),
    "she": lambda p: theirs.SHE(p.encoder, p.network.fc2),
    "vim:d=20": lambda p: theirs.ViM(p.encoder, 20, p.network.fc2.weight, p.network.fc2.bias),
    "vim": lambda p: theirs.ViM(p.encoder, 64, p.network.fc2.weight, p.network.fc2.bias),
    "ash:variant=ash-b,percentile=0.8": lambda p: theirs.ASH(p.backbone, p.head, variant="ash-b", percentile=0.8),
    "rank-feat": lambda p: theirs.RankFeat(p.backbone, p.head),
    "react:percentile=0.8": lambda p: theirs.ReAct(p.backbone, p.head, percentile=0.8),
    "scale": lambda p: theirs.SCALE(p.backbone, p.head),
    "vra": lambda p: theirs.VRA(p.backbone, p.head),
    "ash:at=features": lambda p: theirs.ASH(p.squares, p.on_features),
    "react:at=features,percentile=0.8": lambda p: theirs.ReAct(p.squares, p.on_features, percentile=0.8),
    "scale:at=features": lambda p: theirs.SCALE(p.squares, p.on_features),
    "vra:at=features": lambda p: theirs.VRA(p.squares, p.on_features),
    "odin:eps=0.01,norm_std=0.5": lambda p: theirs.ODIN(p.network, eps=0.01, norm_std=[0.5]),
    "grad-norm:temperature=2": lambda p: theirs.GradNorm(p.network, temperature=2.0),
    "grad-uncertainty": lambda p: theirs.GradUncertainty(p.network),
    "odin:eps=0.01": lambda p: theirs.ODIN(p.network, eps=0.01),
    "mahalanobis-odin:eps=0.01": lambda p: theirs.MahalanobisODIN(Encoder(p), eps=0.01),
}


class Encoder(nn.Module):
    """Their ODIN wants a module."""

    def __init__(self, parts):
        super().__init__()
        self.network, self.parts = parts.network, [parts]

    def forward(self, x):
        return self.parts[0].encoder(x)


def ours(spec, parts, seed=0):
    (selected,) = select([spec])
    sheet = parts.scorer.sheet(selected, ())
    assert not isinstance(sheet, Failure), sheet
    return sheet.of(parts.trial.unknown[UNKNOWN]).scores


@pytest.mark.parametrize(("spec", "make"), CALLS.items(), ids=CALLS)
def test_scores_are_those_of_pytorch_oods_own_call(parts, spec, make):
    detector = make(parts).to("cpu")
    detector.fit(parts.loader)
    expected = detector.predict(parts.inputs).detach().numpy()
    found = ours(spec, parts)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.ptp(expected))
    assert np.ptp(found) > 0


def test_limits_for_all_activations_are_quantiles_of_all_of_them(parts):
    with torch.no_grad():
        known, unknown = parts.encoder(parts.train).numpy(), parts.encoder(parts.inputs)
        low, high = np.quantile(known, [0.3, 0.8])
        logits = parts.network.fc2(unknown.clip(low, high))
    found = ours("vra:at=features,over=all,lower_percentile=0.3,upper_percentile=0.8", parts)
    np.testing.assert_allclose(found, -torch.logsumexp(logits, 1), rtol=1e-5)


def test_gen_of_all_probabilities_is_the_papers_formula(parts):
    with torch.no_grad():
        p = parts.network(parts.inputs).double().softmax(1).sort(1, descending=True).values[:, :3]
    expected = (p**0.5 * (1 - p) ** 0.5).sum(1)
    np.testing.assert_allclose(ours("gen:gamma=0.5,M=3,cut=false", parts), expected, rtol=1e-4)


def test_what_a_detector_is_fitted_on_can_be_chosen(parts):
    meta = parts.trial.meta
    loader = DataLoader(TensorDataset(torch.from_numpy(meta.images).float() / 255, torch.from_numpy(meta.labels)))
    expected = theirs.ReAct(parts.backbone, parts.head).to("cpu").fit(loader).predict(parts.inputs)
    found = ours("react:fitted_on=meta", parts)
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert not np.allclose(found, ours("react", parts))
    np.testing.assert_array_equal(ours("react:fitted_on=training", parts), ours("react", parts))


def test_chance_is_seeded(parts):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = theirs.MCD(parts.network, samples=10).predict(parts.inputs)
    np.testing.assert_allclose(ours("mcd:samples=10", parts), expected, rtol=1e-4, atol=1e-8)
    assert not parts.network.training


def test_detectors_of_several_layers_are_given_the_stages(parts):
    """The last activation of each resolution: 12, 6 and 3 pixels."""
    network = parts.network

    class Block(nn.Module):
        def __init__(self, convolution, pools):
            super().__init__()
            self.convolution, self.pools = convolution, pools

        def forward(self, x):
            return network.activation(self.convolution(network.pool(x) if self.pools else x))

    blocks = [Block(network.conv1, False), Block(network.conv2, True), Block(network.conv3, True)]
    detector = theirs.MultiMahalanobis(blocks).to("cpu").fit(parts.loader)
    np.testing.assert_allclose(
        ours("multi-mahalanobis", parts), detector.predict(parts.inputs).detach(), rtol=1e-3, atol=1e-3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = type("Head", (nn.Module,), {"forward": lambda self, x: parts.head(x)})()
        gram = theirs.Gram(head, blocks, CLASSES).to("cpu").fit(parts.loader)
    np.testing.assert_allclose(ours("gram", parts), gram.predict(parts.inputs), rtol=1e-3)
    whole = nn.Sequential(*blocks, head)
    nac = theirs.NACUE(whole, blocks).fit(parts.loader)
    np.testing.assert_allclose(ours("nacue", parts), nac.predict(parts.inputs), rtol=1e-3)


def test_open_max_is_theirs_on_a_batch_with_every_class(parts):
    """pytorch-ood 0.4 leaves out distances to classes that no sample of the batch is predicted to be."""
    train, tested = (parts.network(x).detach() for x in (parts.train, parts.inputs))
    detector = theirs.OpenMax(None).fit_logits(train, parts.labels)
    together = detector.predict_logits(torch.cat([tested, train]))[: len(tested)]
    np.testing.assert_allclose(ours("open-max", parts), together, rtol=1e-4, atol=1e-7)


# All of them


def test_all_of_pytorch_ood_are_there_under_kebab_case_names():
    classes = {name for name in theirs.__all__ if inspect.isclass(getattr(theirs, name))}
    adapted = {registry.load("detectors", name).target.theirs.__name__ for name in NAMES}
    assert adapted == classes
    assert len(NAMES) == len(classes) == 35
    for name in NAMES:
        entry = registry.get("detectors", name)
        assert entry.version == version("pytorch-ood")
        assert entry.name == entry.name.lower()


@pytest.mark.parametrize(
    "name", ["ReAct", "openmax", "KLMatching", "nnguide", "ViM", "EnergyBased", "MultiMahalanobis"]
)
def test_class_names_are_understood(name):
    entry = registry.get("detectors", name)
    assert entry.distribution == "pytorch-ood"
    assert registry.load("detectors", name).target.theirs.__name__.lower() == name.lower()


def test_ours_and_theirs_of_one_name_stand_side_by_side():
    ours_, theirs_ = select(["entropy", "pytorch-ood/entropy"])
    assert (ours_.name, ours_.provider.distribution) == ("entropy", "oodbench")
    assert (theirs_.name, theirs_.provider.distribution) == ("pytorch-ood/entropy", "pytorch-ood")
    assert len(select(["pytorch-ood/*"])) == 35
    assert not any("/" in one.name for one in select(["*"]))


@pytest.mark.parametrize(("name", "reason"), [("mcm", "text embeddings"), ("weighted-ebo", "learnt in training")])
def test_what_no_suite_can_run_is_skipped_and_says_why(parts, name, reason):
    (selected,) = select([name])
    assert not isinstance(selected, BrokenDetector)
    sheet = parts.scorer.sheet(selected, ())
    assert isinstance(sheet, Failure)
    assert sheet.status == "skipped"
    assert reason in sheet.error


def test_what_the_training_split_is_too_small_for_is_skipped(parts):
    (selected,) = select(["knn:k=100000"])
    sheet = parts.scorer.sheet(selected, ())
    assert (sheet.status, "exceeds the number of ID samples" in sheet.error) == ("skipped", True)
