"""The conformance kit: built-in plugins pass it, and it catches each broken promise."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import oodbench
from oodbench import registry
from oodbench.cli import cli
from oodbench.conformance import detectors
from oodbench.conformance.check import run_checks
from oodbench.conformance.kit import checked_plugin, checks_of, report
from oodbench.errors import UsageError
from oodbench.testing import parametrize_with_checks


def built_in(kind):
    """Those of oodbench and of the packages that it adapts."""
    return [name for name, entry in registry.entries(kind).items() if entry.target.startswith("oodbench.")]


# `tuned` is no detector of its own, and `ensemble` has to be told one.
@parametrize_with_checks([
    *(name for name in built_in("detectors") if name not in ("tuned", "ensemble")),
    "ensemble:detector=entropy",
])  # fmt: skip
def test_built_in_detector_keeps_its_promises(plugin, check):
    check(plugin)


OWN_FILES = ("imagefolder", "imagelist", "npz", "huggingface", "corruption")


@parametrize_with_checks([
    *(name for name in built_in("datasets") if name not in OWN_FILES),
    "corruption:of=digits,kind=gaussian-noise",
])  # fmt: skip
def test_built_in_dataset_keeps_its_promises(plugin, check):
    check(plugin)


@pytest.fixture
def npz(tmp_path):
    """Images and labels in a numpy archive."""
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(40) % 4)
    return f"npz:{tmp_path / 'images.npz'}"


@pytest.fixture
def imagefolder(tmp_path):
    """A folder of images with splits."""
    from PIL import Image

    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(3):
                place = 50 * ("train", "test").index(split) + 20 * ("a", "b").index(label)
                image = np.full((8, 8), place, dtype=np.uint8)
                Image.fromarray(image + np.eye(8, dtype=np.uint8) * i).save(folder / f"{i}.png")
    return f"imagefolder:{tmp_path / 'images'}"


@pytest.mark.parametrize("which", ["npz", "imagefolder"])
def test_own_data_is_checked_with_its_path(which, request):
    found = report(checked_plugin(request.getfixturevalue(which)))
    assert {result.status for result in found} <= {"passed", "skipped"}, found
    assert sum(result.status == "passed" for result in found) >= 7


# Broken detectors; at the top of the module, as plugins are, so that they can be pickled.


@oodbench.detector("good", needs="features", fitted_on="training")
class good:  # noqa: N801
    """Minus the largest cosine of the features and the means of the classes."""

    def __init__(self, power: float = 1.0):
        self.power = power

    def fit(self, evidence, labels):
        means = torch.stack([evidence.features[labels == label].mean(0) for label in labels.unique()])
        self.directions = nn.functional.normalize(means)

    def score(self, evidence):
        cosines = nn.functional.normalize(evidence.features) @ self.directions.T
        return (1 - cosines.amax(dim=1)).clamp(min=0) ** self.power


@oodbench.detector("flipped", needs="logits")
def flipped(logits):
    """Larger = more known."""
    return logits.amax(dim=1)


@oodbench.detector("by-batch", needs="logits")
def by_batch(logits):
    """Standardised by whatever is in the batch."""
    scores = -logits.amax(dim=1)
    return (scores - scores.mean()) / (scores.std() + 1e-9)


@oodbench.evidence_part("xx_centred_logits", needs="forward")
def xx_centred_logits(run):
    """They follow from the other samples of the batch."""
    return run.logits - run.logits.mean(dim=0)


@oodbench.detector("centred", needs="xx_centred_logits")
def centred(xx_centred_logits):
    """Its scores are those of the part."""
    return -xx_centred_logits.amax(dim=1)


@oodbench.detector("one-buffer", needs="logits")
class OneBuffer:
    """Returns the same memory each time."""

    def __init__(self):
        self.memory = torch.zeros(1000)

    def fit(self, evidence, labels):
        """Nothing to learn."""

    def score(self, evidence):
        self.memory[: len(evidence)] = -evidence.logits.amax(dim=1)
        return self.memory[: len(evidence)]


@oodbench.detector("learns-objects", needs="logits")
class LearnsObjects:
    """Reports what no file can hold."""

    def fit(self, evidence, labels):
        self.learnt = {"model": torch.nn.Linear(2, 2)}

    def score(self, evidence):
        return -evidence.logits.amax(dim=1)


@oodbench.detector("by-order", needs="logits")
def by_order(logits):
    """A running mean."""
    return (-logits.amax(dim=1)).cumsum(0) / torch.arange(1, len(logits) + 1)


@oodbench.detector("train-mode", needs=("classifier", "inputs"))
def train_mode(classifier, inputs):
    """Forgets eval()."""
    classifier.train()
    return -classifier(inputs).amax(dim=1)


@oodbench.detector("own-dropout", needs="features")
class own_dropout:  # noqa: N801
    """A network of its own that is left in training mode."""

    def fit(self, evidence, labels):
        self.network = nn.Sequential(nn.Dropout(0.5), nn.Linear(evidence.features.shape[1], 1))
        nn.init.constant_(self.network[1].weight, -1.0)

    def score(self, evidence):
        return self.network(evidence.features)[:, 0]


@oodbench.detector("in-place", needs="logits")
def in_place(logits):
    """Sorts what it is given."""
    logits.copy_(logits.sort(dim=1).values)
    return -logits[:, -1]


@oodbench.detector("past-torch", needs="gradients")
def past_torch(gradients):
    """Changes it where torch does not notice."""
    gradients["l1"].numpy()[:] += 1
    return gradients["l1"].clone()


@oodbench.detector("unseeded", needs="logits")
def unseeded(logits):
    """Random numbers of the process."""
    return -logits.amax(dim=1) + 0.1 * torch.randn(len(logits))


@oodbench.detector("remembers", needs="features", fitted_on="training")
class remembers:  # noqa: N801
    """The mean of all that it ever was fitted on."""

    def __init__(self):
        self.seen = []

    def fit(self, evidence, labels):
        self.seen.append(evidence.features)
        self.mean = torch.cat(self.seen).mean(0)

    def score(self, evidence):
        return (evidence.features - self.mean).norm(dim=1)


@oodbench.detector("without-effect", needs="logits")
def without_effect(logits, *, temperature: float = 1.0):
    """Takes a parameter and leaves it."""
    return -logits.amax(dim=1)


@oodbench.detector("peeks", needs="features", fitted_on="training")
class peeks:  # noqa: N801
    """What it scores is remembered by the class, and taken for unknown by the next one."""

    scored = None

    def fit(self, evidence, labels):
        self.unknown = peeks.target.scored
        self.mean = evidence.features.mean(0)

    def score(self, evidence):
        known = (evidence.features - self.mean).norm(dim=1)
        scores = known if self.unknown is None else known - (evidence.features - self.unknown).norm(dim=1)
        peeks.target.scored = evidence.features.mean(0)
        return scores


@oodbench.detector("reads-data", needs="logits")
class reads_data:  # noqa: N801
    """Reads an unknown set behind the harness's back."""

    def fit(self, evidence, labels):
        from pathlib import Path

        from oodbench.datasets.adapter import Request

        self.noise = registry.load("datasets", "noise").read(Request(Path(), "test"), {"n": 10}).images[0].mean()

    def score(self, evidence):
        return -evidence.logits.amax(dim=1) + float(self.noise)


@oodbench.detector("undeclared", needs="logits")
class undeclared:  # noqa: N801
    """Works on features that it does not declare."""

    def fit(self, evidence, labels):
        pass

    def score(self, evidence):
        return evidence.features.norm(dim=1)


@oodbench.detector("nan", needs="logits")
def nan(logits):
    """Not a number where the network is unsure."""
    return (-logits.amax(dim=1) - 1e9).log()


@oodbench.detector("columns", needs="logits")
def columns(logits):
    """Of the wrong shape."""
    return logits


@oodbench.detector("holds-lambda", needs="logits")
class holds_lambda:  # noqa: N801
    """Holds what cannot be pickled."""

    def fit(self, evidence, labels):
        self.scale = lambda x: -x

    def score(self, evidence):
        return self.scale(evidence.logits.amax(dim=1))


@oodbench.detector("changes-weights", needs=("classifier", "inputs"))
def changes_weights(classifier, inputs):
    """Trains what it was lent."""
    with torch.no_grad():
        next(classifier.parameters()).add_(1e-3)
    return -classifier(inputs).amax(dim=1)


@oodbench.detector("learns-labels", needs="logits", fitted_on="exposed")
class learns_labels:  # noqa: N801
    """Knows the answers: it asks who was fitted on."""

    def fit(self, evidence, labels):
        self.share = float((labels < 0).float().mean())

    def score(self, evidence):
        return torch.full((len(evidence),), self.share) - evidence.logits.amax(dim=1)


BROKEN = {
    "flipped": "a larger score means more unknown",
    "by-batch": "the scores of a sample do not depend on the size of the batch",
    "centred": "the evidence that it needs of a sample does not depend on the batch",
    "by-order": "the scores of a sample do not depend on the order",
    "train-mode": "it leaves the classifier as it was",
    "own-dropout": "the same seed gives the same scores",
    "in-place": "it leaves the evidence as it was",
    "past-torch": "it leaves the evidence as it was",
    "unseeded": "the same seed gives the same scores",
    "remembers": "fitting again forgets what was learnt before",
    "without-effect": "each parameter changes something, or is declared to have no effect",
    "peeks": "scoring teaches it nothing",
    "reads-data": "it reads what it declares and nothing else",
    "undeclared": "it reads what it declares and nothing else",
    "nan": "its scores are finite numbers, one a sample",
    "columns": "its scores are finite numbers, one a sample",
    "one-buffer": "scores that it has returned stay what they were",
    "learns-objects": "what it reports to have learnt can be recorded",
    "holds-lambda": "fitted, it can be sent to another process",
    "changes-weights": "it leaves the classifier as it was",
}
PLUGINS = {one.name: one for one in list(globals().values()) if hasattr(one, "fitted_on")}


@pytest.mark.parametrize(("name", "promise"), BROKEN.items(), ids=BROKEN)
def test_the_kit_catches_a_broken_promise(name, promise):
    checked = checked_plugin(PLUGINS[name])
    (result,) = run_checks(checked, [check for check in checks_of(checked) if check.name == promise])
    assert result.status == "failed", result
    assert result.reason


@pytest.mark.parametrize("name", ["good", "learns-labels"])
def test_a_good_detector_is_blamed_for_nothing(name):
    found = report(checked_plugin(PLUGINS[name]))
    assert not [result for result in found if result.status == "failed"]
    assert len(found) == len(detectors.CHECKS) == 17


# What is said to whom


def test_a_flipped_sign_is_told_with_the_figure_and_what_to_do():
    (reason,) = [result.reason for result in report(checked_plugin(PLUGINS["flipped"])) if result.status == "failed"]
    assert "its AUROC on a separable problem is 0.0" in reason
    assert "turn the sign" in reason


# Broken data sets

CARD = oodbench.Card("Squares.", "CC0", "nobody", "8×8", "drawn here")


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)


class Stateful:
    """Noise of one generator, so that an image depends on what was read before it."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def __len__(self):
        return 30

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(30))]
        if index >= 30:
            raise IndexError(index)
        return self.generator.integers(0, 256, (8, 8), dtype=np.uint8)


class Endless(Stateful):
    def __getitem__(self, index):
        return np.zeros((8, 8), dtype=np.uint8)


def labels(n):
    return np.zeros(n, dtype=np.int64)


DATASETS = {
    "floats": (lambda r: oodbench.Pool(images(9) / 255, labels(9)), "its splits hold images and labels"),
    "few-labels": (lambda r: oodbench.Pool(images(9), labels(4)), "its splits hold images and labels"),
    "other-split": (lambda r: oodbench.Pool(images(9), labels(9), "train"), "its splits hold images and labels"),
    "stateful": (lambda r: oodbench.Pool(Stateful(), labels(30)), "an image depends on its index alone"),
    "endless": (lambda r: oodbench.Pool(Endless(), labels(30)), "its images are a sequence"),
    "leaky": (lambda r: oodbench.Pool(images(9), labels(9), r.split), "train and test share no image"),
    "nameless": (lambda r: oodbench.Pool(images(9), labels(9) + 2, "all", ("a",)), "its classes have names"),
    "new-every-time": (lambda r: oodbench.Pool(images(9, None), labels(9)), "reading it again gives the same"),
}


@pytest.mark.parametrize(("read", "promise"), DATASETS.values(), ids=DATASETS)
def test_the_kit_catches_a_broken_data_set(read, promise):
    plugin = oodbench.dataset("broken", card=CARD)(read)
    failed = {result.check for result in report(checked_plugin(plugin)) if result.status == "failed"}
    assert any(check.startswith(promise) for check in failed), failed


def test_the_kit_catches_a_data_set_that_writes_or_connects(tmp_path):
    import socket

    def writes(request):
        (request.root / "here").write_text("x")
        return oodbench.Pool(images(9), labels(9))

    def connects(request):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
        return oodbench.Pool(images(9), labels(9))

    found = report(checked_plugin(oodbench.dataset("writes", card=CARD)(writes), data=tmp_path))
    assert "reading it writes nothing" in {one.check for one in found if one.status == "failed"}
    found = report(checked_plugin(oodbench.dataset("connects", card=CARD)(connects), data=tmp_path))
    assert any("uses the network" in one.reason for one in found if one.status == "failed")


def test_a_data_set_that_is_not_there_is_skipped_and_says_what_was_looked_for(tmp_path):
    found = report(checked_plugin("emnist-digits", data=tmp_path))
    assert {one.status for one in found} == {"passed", "skipped"}
    assert all(str(tmp_path) in one.reason for one in found if one.status == "skipped")


# The command line

MINE = '''
import oodbench

@oodbench.detector("margin", needs="logits")
def margin(logits, *, power: float = 1.0):
    """Second largest logit minus the largest."""
    top = logits.topk(2, dim=1).values
    return {sign}(top[:, 0] - top[:, 1]).clamp(min=1e-6) ** power
'''


@pytest.mark.parametrize(("sign", "status"), [("-", 0), ("+", 1)])
def test_check_says_how_many_checks_ran_and_whether_one_failed(tmp_path, sign, status):
    file = tmp_path / "mine.py"
    file.write_text(MINE.format(sign=sign))
    ended = CliRunner().invoke(cli, ["check", "margin", "--plugin", str(file)], standalone_mode=False)
    assert ended.return_value == status, ended.output
    assert f"margin: 17 checks, {15 - status} passed, {status} failed, 2 skipped." in ended.output


def test_check_prints_json(tmp_path):
    ended = CliRunner().invoke(cli, ["check", "digits", "--json"], standalone_mode=False)
    found = json.loads(ended.stdout)
    assert {one["status"] for one in found} <= {"passed", "skipped"}
    assert len(found) == 10


def test_check_of_what_is_not_there_is_a_usage_error():
    with pytest.raises(UsageError, match="no detector is named 'entropie'; did you mean entropy"):
        checked_plugin("entropie")


def test_check_without_a_parameter_that_is_needed_fails_with_its_name():
    assert any("needs the parameter 'path'" in result.reason for result in report(checked_plugin("npz")))


def test_a_test_of_its_own_for_each_check():
    cases = parametrize_with_checks(["entropy", "noise"]).args[1]
    assert len(cases) == len(checks_of(checked_plugin("entropy"))) + len(checks_of(checked_plugin("noise")))
