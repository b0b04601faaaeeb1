"""Given networks: what may be tested on, what their outputs give away, and objects instead of files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import command_line
from PIL import Image
from torch import nn
from torch.nn.utils import prune

import oodbench
from oodbench.conformance.problem import problem
from oodbench.errors import UsageError
from oodbench.runs.model_checks import find_strange

SIZE, CLASSES = 8, 12
CODE = """
import torch
from torch import nn


class Template(nn.Module):
    '''Right by construction: class k has a bright pixel k, of images with mean 0.5 and deviation 0.25.'''

    def __init__(self, classes, end=None, order=None, bias=0.0):
        super().__init__()
        self.head = nn.Linear(64, classes)
        rows = order if order is not None else range(classes)
        self.head.weight.data = 4 * torch.eye(64)[list(rows)]
        self.head.bias.data.fill_(bias)
        self.end = end

    def forward(self, x):
        logits = self.head(x.flatten(1))
        return self.end(logits) if self.end else logits


def build(classes):
    return Template(classes)


def softmax(classes):
    return Template(classes, nn.Softmax(dim=1))


def log_softmax(classes):
    return Template(classes, nn.LogSoftmax(dim=1))


def constant(classes):
    return Template(classes, lambda logits: 0 * logits)


def natural(classes):
    return Template(classes, order=sorted(range(classes), key=str))


def strange(classes):
    torch.manual_seed(0)
    net = Template(classes)
    net.head.weight.data.normal_()
    return net
"""
SUITE = """
name = "given"
version = 1
classifier = "nets.py:{factory}"
weights = "{factory}.pt"
known = {{ adapter = "imagefolder", path = "known", name = "known", split = "test" }}
{keys}
[unknown]
noise = {{ n = 40, group = "far" }}
[input]
size = 8
mean = [0.5]
std = [0.25]
[sizes]
exposed = 0
"""


def picture(label, random):
    image = random.integers(90, 160, (SIZE, SIZE))
    image.ravel()[label] = 255
    return image.astype(np.uint8)


def write_known(folder, classes=CLASSES, each=12, names=str):
    for label in range(classes):
        random = np.random.default_rng(label)
        (folder / names(label)).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(picture(label, random)).save(folder / names(label) / f"{i}.png")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def namespace():
    names = {}
    exec(CODE, names)
    return names


def write_suite(folder, factory="build", classes=CLASSES, keys="", text=SUITE):
    torch.save(namespace()[factory](classes).state_dict(), folder / f"{factory}.pt")
    (folder / "given.toml").write_text(text.format(factory=factory, keys=keys))


def run(folder, **options):
    return oodbench.run("given.toml", ["entropy"], ["known", "unknown-unknowns"], out=folder / "out", **options)


# What the outputs give away


def test_a_network_that_is_right_is_taken_as_it_is(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder)
    for record in run(folder):
        assert (record.classifier.accuracy, record.classifier.trusted) == (1, [])


@pytest.mark.parametrize(
    ("factory", "sentence"),
    {
        "softmax": r"are probabilities: .*take off the softmax at its end\. To go on all the same, use --trust-model",
        "log_softmax": "are log-probabilities: .*take off the log-softmax",
        "constant": "has the same outputs for all of 144 known samples",
        "strange": "which is near chance .* although its weights are given",
    }.items(),
)
def test_what_is_strange_stops_the_run_unless_it_is_trusted(folder, factory, sentence):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder, factory)
    with pytest.raises(UsageError, match=sentence):
        run(folder)
    record, _ = run(folder, trust_model=True)
    assert record.status == "ok"
    assert len(record.classifier.trusted) == 1


def test_outputs_in_natural_order_of_folders_in_another_are_found_and_named(folder):
    write_known(folder / "known")  # 0, 1, 10, 11, 2, … in sorted order
    write_suite(folder)
    with pytest.raises(
        UsageError,
        match=r"right on 16\.7 % .* 100\.0 % in another order \(output 2 for 2 instead of 10,",
    ):
        run(folder)
    write_suite(folder, keys=f"classes = {json.dumps([str(label) for label in range(CLASSES)])}")
    assert run(folder)[0].classifier.accuracy == 1


def test_a_normalisation_that_is_left_out_is_found_and_named(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    text = SUITE.replace("mean = [0.5]\nstd = [0.25]\n", "")
    # Upside down unless it is normalised.
    turned = "x = x.flatten(1)\n        x = torch.where(x.mean(dim=1, keepdim=True) < 0.2, x, x.flip(1))\n        "
    (folder / "nets.py").write_text(CODE.replace("logits = self.head(x.flatten(1))", f"{turned}logits = self.head(x)"))
    write_suite(folder, text=text)
    with pytest.raises(UsageError, match=r"without normalisation, and on 100\.0 % with that .*give mean = \["):
        run(folder)


def test_batches_that_do_not_end_where_the_look_at_the_normalisation_ends(folder, monkeypatch):
    monkeypatch.setattr("oodbench.evidence.batches.BATCH", 100)
    write_known(folder / "known", each=60, names=lambda label: f"{label:02}")
    write_suite(folder, text=SUITE.replace("mean = [0.5]\nstd = [0.25]\n", ""), keys="seeds = [0]")
    assert run(folder)[0].classifier.trusted == []


@pytest.mark.parametrize(("classes", "each"), [(2, 4), (2, 40), (12, 2), (64, 1)])
def test_small_and_large_sets_of_honest_networks_raise_no_alarm(folder, classes, each):
    write_known(folder / "known", classes, each, names=lambda label: f"{label:02}")
    write_suite(folder, classes=classes)
    assert run(folder)[0].classifier.trusted == []


def test_a_weak_network_of_two_classes_raises_no_alarm(folder):
    write_known(folder / "known", 2, 100)
    random = np.random.default_rng(0)
    for file in sorted((folder / "known").rglob("*.png"))[::3]:
        Image.fromarray(picture(random.integers(2), random)).save(file)
    write_suite(folder, classes=2)
    (record, *_) = run(folder)
    assert 0.7 < record.classifier.accuracy < 0.95
    assert record.classifier.trusted == []


# What may be tested on


def splits_of_records(folder):
    record = next(record for record in run(folder) if record.protocol == "known")
    return {name: (of_set.split, of_set.n) for name, of_set in record.datasets.items()}


@pytest.mark.parametrize("held_out", ["test", "val", "Validation"])
def test_given_weights_are_tested_on_held_out_images_only(folder, held_out):
    write_known(folder / "known" / "train", each=10, names=lambda label: f"{label:02}")
    write_known(folder / "more", each=16, names=lambda label: f"{label:02}")
    for file in (folder / "more").rglob("*.png"):  # the first ten are those of the training split
        target = folder / "known" / held_out / file.relative_to(folder / "more")
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    write_suite(folder, text=SUITE.replace(', split = "test"', ""))
    found = splits_of_records(folder)
    assert sum(found[name][1] for name in ("known", "known (meta)")) == 6 * CLASSES
    assert {split for split, _ in found.values()} == {"train", "test" if held_out == "test" else "validation"}


def test_a_single_split_has_to_be_said_to_be_held_out(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder, text=SUITE.replace(', split = "test"', ""))
    with pytest.raises(UsageError, match=r"has one split only, and the classifier's weights are given, so they may"):
        run(folder)
    write_suite(folder, text=SUITE.replace('split = "test"', 'split = "train"'))
    with pytest.raises(UsageError, match="has no split but train, and the classifier's weights are given"):
        run(folder)


def test_a_test_split_alone_is_enough_and_what_learns_from_training_is_skipped(folder):
    write_known(folder / "known" / "test", names=lambda label: f"{label:02}")
    write_suite(folder, text=SUITE.replace(', split = "test"', ""))
    knn, entropy = oodbench.run("given.toml", ["knn", "entropy"], ["unknown-unknowns"], out=folder / "out")
    assert (knn.status, entropy.status) == ("skipped", "ok")
    assert (
        "it is fitted on the samples that the classifier was trained on, and known has no training split" in knn.error
    )


# What is said


def test_what_is_left_out_and_held_back_is_counted_in_the_output_and_the_records(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    (folder / "known" / "00" / "notes.txt").write_text("no image")
    (folder / "known" / "00" / "broken.png").write_bytes(b"no image either")
    (folder / "known" / "00" / "again.png").write_bytes((folder / "known" / "00" / "1.png").read_bytes())
    (folder / "others").mkdir()
    random = np.random.default_rng(99)
    for i in range(10):
        Image.fromarray(picture(i, random)).save(folder / "others" / f"{i}.png")
    (folder / "others" / "shared.png").write_bytes((folder / "known" / "01" / "1.png").read_bytes())
    text = SUITE.replace("[unknown]\n", "[unknown]\nothers = {{ adapter = 'imagefolder', path = 'others' }}\n")
    write_suite(folder, text=text.replace("exposed = 0", "exposed = 4"))
    asked = ("run", "-s", "given.toml", "-d", "entropy", "-p", "unknown-unknowns", "--out", "out")
    refused = command_line(*asked, cwd=folder)
    assert refused.returncode == 2
    assert "1 image cannot be read (known: " in refused.stderr
    assert "broken.png" in refused.stderr
    refused = command_line(*asked, "--skip-unreadable", cwd=folder)
    assert refused.returncode == 2
    assert "01/1.png and shared.png; the sets of a suite must not share samples" in refused.stderr
    done = command_line(*asked, "--skip-unreadable", "--drop-shared", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "1 files that are no images, 1 images that cannot be read, 1 duplicates" in done.stdout
    assert "1 images that are in known, too" in done.stdout
    assert "4 of others, 4 of noise" in done.stdout
    assert "Tested on 72 known samples, and unknown ones: 6 of others, 36 of noise." in done.stdout
    (file,) = Path("out", "records").iterdir()
    datasets = json.loads(file.read_text())["datasets"]
    assert datasets["others"]["left_out"] == {"images that are in known, too": 1}
    assert (datasets["others"]["held_back"], datasets["others"]["n"]) == (4, 6)


def test_nothing_is_held_back_where_the_suite_says_so(folder, caplog):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(
        folder, text=SUITE.replace("[input]", "more = {{ adapter = 'noise', kind = 'gaussian', n = 30 }}\n[input]")
    )
    records = oodbench.run("given.toml", ["entropy"], out=folder / "out")
    assert {record.protocol for record in records} == {"known", "unknown-unknowns"}
    (record,) = (record for record in records if record.protocol != "known")
    assert {result.dataset: result.n_unknown for result in record.results} == {"noise": 40, "more": 30}
    assert caplog.text.count("is left out: it has nothing to expose") == 2


# Objects


def test_a_module_a_state_dict_and_a_transform_are_taken_as_they_are(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder)
    by_name, _ = run(folder)
    template = namespace()["Template"]
    module = template(CLASSES).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    record, _ = run(folder, classifier=module)
    assert record.classifier.accuracy == 1
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert run(folder, classifier=template(CLASSES, order=range(20, 32)), weights=before)[0].classifier.accuracy == 1
    assert run(folder, classifier=template, weights=before)[0].classifier.accuracy == 1

    def transform(picture):
        values = torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float32) / 255)
        return (values[None] - 0.5) / 0.25

    transformed, _ = run(folder, classifier=module, transform=transform)
    assert transformed.classifier.accuracy == 1
    assert transformed.results[0].metrics == by_name.results[0].metrics
    assert transformed.datasets["known"].sha256 == by_name.datasets["known"].sha256


def test_modules_of_one_class_that_differ_in_an_attribute_are_two(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder)
    module = namespace()["Template"](CLASSES)
    plain, _ = run(folder, classifier=module)
    module.end = torch.nn.functional.relu
    clipped, _ = run(folder, classifier=module)
    assert clipped.cell_id != plain.cell_id
    module.end = None
    assert run(folder, classifier=module)[0] == plain


def test_compiled_pruned_half_and_parallel_modules_work(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder)
    for change in (
        torch.compile,
        nn.DataParallel,
        lambda module: module.half(),
        lambda module: prune.l1_unstructured(module.head, "weight", amount=0.3) and module,
    ):
        record, _ = run(folder, classifier=change(namespace()["Template"](CLASSES)))
        assert (record.status, record.classifier.accuracy) == ("ok", 1)


def test_what_cannot_be_taken_is_told_in_one_sentence(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder)
    with pytest.raises(UsageError, match=r"classifier is a list; expected the name .*, a torch\.nn\.Module"):
        run(folder, classifier=[1])
    with pytest.raises(UsageError, match="weights is a int; expected a file, or a state dict"):
        run(folder, weights=3)
    with pytest.raises(UsageError, match="the classifier is an object that this process alone has; write it to a file"):
        run(folder, classifier=namespace()["Template"](CLASSES), executor="dask")
    with pytest.raises(UsageError, match=r"the weights given .*are not those of this classifier"):
        run(folder, weights={"body.weight": torch.zeros(3)})


def test_a_suite_may_be_a_path(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder)
    assert oodbench.run(folder / "given.toml", ["entropy"], ["known"], out=folder / "out")[0].status == "ok"


def test_a_transform_with_chance_in_it_is_refused(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder)

    def transform(picture):
        return torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float32))[None] + torch.rand(1, 8, 8)

    with pytest.raises(UsageError, match="gives other values for the same picture when it is applied again"):
        run(folder, transform=transform)


def test_records_of_a_trusted_network_are_not_taken_without_trust(folder):
    write_known(folder / "known", names=lambda label: f"{label:02}")
    write_suite(folder, "softmax")
    run(folder, trust_model=True)
    with pytest.raises(UsageError, match="are probabilities"):
        run(folder)


def test_sets_that_nothing_is_left_of_are_one_sentence(folder):
    write_known(folder / "known" / "test", names=lambda label: f"{label:02}")
    write_known(folder / "known" / "train", names=lambda label: f"{label:02}")
    write_suite(folder, text=SUITE.replace(', split = "test"', ""))
    with pytest.raises(UsageError, match=r"has 144 samples.*too few for"):
        run(folder)


def test_wrong_labels_of_one_split_alone_are_noticed(trial_of_given):
    """The labels of the test list are those of other images; those of the meta split are right."""
    collector, meta, test, classes = trial_of_given
    assert find_strange(collector, meta, test, classes, is_given=True) == []
    shifted = replace(test, labels=(test.labels + 1) % len(classes))
    (sentence,) = find_strange(collector, meta, shifted, classes, is_given=True)
    assert "samples of bars (test), which is near chance" in sentence
    assert "the labels" in sentence


@pytest.fixture
def trial_of_given():
    trial = problem()
    return trial.collector, trial.meta, trial.test, trial.classes
