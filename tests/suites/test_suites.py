"""Suite files: what is read from them, and the sentence that says what is wrong with one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from oodbench import registry
from oodbench.datasets.opening import read_pool
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.sources import resolve_source, resolve_sources
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.suites.reading import read_suite
from oodbench.suites.schema import Input, Sizes, Source, Training

FIXED_KEYS = """\
name = "mine"
version = 1
classifier = "cnn"
known = "digits"
seeds = [0, 1]

[unknown]
emnist-letters = { group = "near" }
noise = { group = "far", kind = "uniform" }
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text=FIXED_KEYS, name="mine.toml"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return str(file)

    return to_file


def changed(old, new):
    assert FIXED_KEYS.count(old) == 1
    return FIXED_KEYS.replace(old, new)


# Built-in suites


@pytest.mark.parametrize("name", ["digits", "emnist"])
def test_built_in_suite_names_plugins_that_there_are(name):
    suite = read_suite(name).suite
    assert suite.name == name
    assert suite.classifier in registry.entries("classifiers")
    assert suite.seeds == [0, 1, 2]
    for source in suite.sources().values():
        assert source.adapter in registry.entries("datasets")
    assert {source.group for source in suite.sources().values()} == {"-", "near", "far"}


def test_emnist_has_the_sets_of_the_paper():
    groups = {name: source.group for name, source in read_suite("emnist").suite.sources().items()}
    assert groups == {"emnist-digits": "-", "emnist-letters": "near", "omniglot": "near", "cifar10": "far",
                      "noise": "far"}  # fmt: skip


def test_digits_keeps_the_classes_of_known_and_near_unknown_apart():
    sources = read_suite("digits").suite.sources()
    assert list(sources)[0] == "digits-0-6"  # noqa: RUF015
    assert sources["digits-0-6"].parameters["classes"] == [0, 1, 2, 3, 4, 5, 6]
    assert sources["digits-7-9"].parameters["classes"] == [7, 8, 9]


def test_unknown_suite_is_told_with_close_names():
    with pytest.raises(UsageError, match=r"'digit'.*digits"):
        read_suite("digit")


# A user's file


def test_fixed_keys_are_enough(write):
    suite = read_suite(write()).suite
    assert (suite.name, suite.version, suite.classifier, suite.seeds) == ("mine", 1, "cnn", [0, 1])
    assert suite.sources() == {
        "digits": Source(adapter="digits", group="-"),
        "emnist-letters": Source(adapter="emnist-letters", group="near"),
        "noise": Source(adapter="noise", group="far", parameters={"kind": "uniform"}),
    }
    assert (suite.input, suite.sizes, suite.training) == (Input(), Sizes(), Training())


def test_every_other_key_is_read(write, tmp_path):
    suite = read_suite(
        write(
            changed("seeds", 'penultimate = "fc"\nweights = "a/b.pt"\nseeds').replace("[0, 1]", "[3]")
            + "[input]\nchannels = 3\nsize = 32\nresolution = 16\nlevels = 9\nmean = [0, 0.5, 1]\nstd = [1, 0.5, 0.1]\n"
            "[sizes]\ntrain = 9\ntest = 8\n[training]\nepochs = 2\nlearning_rate = 0.1\n"
        )
    ).suite
    assert suite.input == Input(channels=3, size=32, resolution=16, levels=9, mean=[0, 0.5, 1], std=[1, 0.5, 0.1])
    assert suite.input.normalisation == ((0, 0.5, 1), (1, 0.5, 0.1))
    assert (suite.penultimate, suite.weights) == ("fc", str(tmp_path / "a" / "b.pt"))
    assert suite.sizes == Sizes(train=9, test=8)
    assert suite.training == Training(epochs=2, learning_rate=0.1)


def test_known_set_can_have_a_name_and_parameters(write):
    known = '{ adapter = "digits", name = "even", classes = [0, 2, 4] }'
    sources = read_suite(write(changed('"digits"', known))).suite.sources()
    assert sources["even"] == Source(adapter="digits", group="-", parameters={"classes": [0, 2, 4]})
    assert "digits" not in sources


def test_unknown_set_can_have_a_name_of_its_own(write):
    text = changed('noise = { group = "far", kind = "uniform" }', 'fog = { adapter = "noise:kind=gaussian" }')
    assert read_suite(write(text)).suite.sources()["fog"] == Source(
        adapter="noise", group="-", parameters={"kind": "gaussian"}
    )


# What is wrong with it: the line that it is on, the key, and what was expected

NOT_TOML = {
    "no closing bracket": (changed("seeds = [0, 1]", "seeds = [0, 1"), r"line 7.*key seeds"),
    "no closing quote": (changed('"cnn"', '"cnn'), r"line 3.*key classifier"),
    "no value": (changed("version = 1", "version ="), r"line 2.*key version"),
    "twice": (changed("[unknown]", "version = 2\n\n[unknown]"), r"line 7.*key version"),
}


@pytest.mark.parametrize(("text", "message"), NOT_TOML.values(), ids=NOT_TOML)
def test_broken_syntax_is_told_with_line_and_key(write, text, message):
    file = write(text)
    with pytest.raises(UsageError, match=message) as error:
        read_suite(file)
    assert file in str(error.value)
    assert "not TOML" in str(error.value)


WRONG = {
    "version is a word": (changed("version = 1", 'version = "one"'), r"line 2, key version: .*integer"),
    "version 0": (changed("version = 1", "version = 0"), r"line 2, key version: .*greater than or equal to 1"),
    "seeds are a number": (changed("[0, 1]", "3"), r"line 5, key seeds: .*list"),
    "a seed is negative": (
        changed("[0, 1]", "[0, -1]"),
        r"line 5, key seeds.1: it is -1; .*greater than or equal to 0",
    ),
    "a seed is too large": (
        changed("[0, 1]", f"[0, {2**63}]"),
        r"line 5, key seeds.1: .*less than or equal to 9223372036854775807",
    ),
    "known is a number": (changed('"digits"', "5"), r"line 4, key known: it is 5; expected an adapter's name"),
    "a seed is a word": (changed("[0, 1]", '[0, "one"]'), r"line 5, key seeds.1: .*integer"),
    "no seeds": (changed("[0, 1]", "[]"), r"line 5, key seeds: it is empty; expected at least one\.$"),
    "name with a slash": (changed('"mine"', '"my/suite"'), r"line 1, key name: "),
    "unknown key": (
        changed("seeds = [0, 1]", "colour = 1\nseeds = [0]"),
        r"line 5, key colour: .*expected one of: name, version, ",
    ),
    "unknown key in a table": (
        FIXED_KEYS + "[input]\nsise = 28\n",
        r"line 11, key input.sise: .*one of: preset, channels, size, ",
    ),
    "value out of range": (FIXED_KEYS + "[input]\nchannels = 2\n", r"line 11, key input.channels: .*1 or 3"),
    "set is a word": (
        changed('{ group = "near" }', '"near"'),
        r"line 8, key unknown.emnist-letters: it is 'near'; expected a table",
    ),
    "key that is also a table": (FIXED_KEYS + "[sizes]\nunknown = 0\n", r"line 11, key sizes.unknown: "),
    "bad group": (changed('"near"', '"middle"'), r"line 8, key unknown.emnist-letters.*'middle'.*near"),
    "known is also unknown": (changed("noise = ", "digits = "), r"line 9, key unknown.digits: .*both"),
    "mean alone": (FIXED_KEYS + "[input]\nmean = [0.5]\n", r"line 11, key input.mean: there is no std to go with it"),
    "std alone": (FIXED_KEYS + "[input]\nstd = [0.5]\n", r"line 11, key input.std: there is no mean to go with it"),
    "mean of one channel": (
        FIXED_KEYS + "[input]\nchannels = 3\nmean = [0.5]\nstd = [1, 1, 1]\n",
        r"line 12, key input.mean: it has 1 number; expected 3 numbers, one for each channel",
    ),
    "std from 0 to 255": (
        FIXED_KEYS + "[input]\nmean = [0.5]\nstd = [58.4]\n",
        r"line 12, key input.std.0: it is 58.4; expected a number less than or equal to 1",
    ),
    "one file of weights": (
        changed("seeds", 'weights = "a.pt"\nseeds'),
        r"line 6, key seeds: the weights a.pt are those of one training, and there are 2 seeds; write \{seed\} where",
    ),
    "known without adapter": (changed('"digits"', "{ classes = [0, 1] }"), r"line 4, key known.*adapter"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_wrong_content_is_told_with_line_and_key(write, text, message):
    file = write(text)
    with pytest.raises(UsageError, match=message) as error:
        read_suite(file)
    assert file in str(error.value)


@pytest.mark.parametrize("key", ["name", "version", "known"])
def test_missing_key_is_named(write, key):
    text = "".join(line for line in FIXED_KEYS.splitlines(True) if not line.startswith(f"{key} "))
    with pytest.raises(UsageError, match=f"key {key}: it is missing"):
        read_suite(write(text))


def test_suite_without_unknown_sets_is_refused(write):
    with pytest.raises(UsageError, match="key unknown"):
        read_suite(write(FIXED_KEYS.partition("emnist-letters")[0]))


WRONG_ADAPTERS = {
    "adapter of the known set": (
        changed('"digits"', '"digit"'),
        r"line 4, key known: no dataset .* mean digits or .*\?$",
    ),
    "adapter": (changed("noise = {", 'fog = { adapter = "noize",'), r"line 9, key unknown.fog: no .*'noize'"),
    "parameter": (changed("kind =", "kynd ="), r"line 9, key unknown.noise: .*no parameter 'kynd'.*: kind, n, seed"),
    "value": (changed('"uniform"', '"thick"'), r"line 9, key unknown.noise: .*'kind' of 'noise' is 'thick'"),
    "path with =": (changed('"digits"', '"imagefolder:a=b"'), r"line 4, key known: .*written imagefolder:path=a=b"),
}


@pytest.mark.parametrize(("text", "message"), WRONG_ADAPTERS.values(), ids=WRONG_ADAPTERS)
def test_wrong_adapter_is_told_with_file_line_and_key(write, text, message):
    file = write(text)
    with pytest.raises(UsageError, match=message) as error:
        resolve_sources(read_suite(file))
    assert file in str(error.value)


def test_wrong_replacement_is_not_blamed_on_the_file(write):
    file = write(changed("noise = {", 'fog = { adapter = "noize",'))
    with pytest.raises(UsageError, match=r"^the replacement of fog: no dataset is named 'npx'"):
        resolve_sources(read_suite(file).replacing({"fog": "npx:a.npz"}))
    resolve_sources(read_suite(file).replacing({"fog": "npz:a.npz"}))


def test_missing_file_is_a_missing_prerequisite(tmp_path):
    with pytest.raises(MissingPrerequisiteError) as error:
        read_suite(str(tmp_path / "mine.toml"))
    assert str(tmp_path / "mine.toml") in str(error.value)
    assert error.value.exit_status == 3


def test_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(UsageError, match=r"mine\.toml.*UTF-8"):
        read_suite(str(tmp_path / "mine.toml"))


# Paths in it

KNOWN_IN_A_FOLDER = {
    "path": '"imagefolder:images/known"',
    "from above": '"imagefolder:../suites/images/known"',
    "table": '{ name = "own", adapter = "imagefolder:images/known" }',
    "path as a key": '{ adapter = "imagefolder", path = "images/known" }',
    "path among parameters": '"imagefolder:path=images/known,invert=true"',
}


@pytest.mark.parametrize("known", KNOWN_IN_A_FOLDER.values(), ids=KNOWN_IN_A_FOLDER)
def test_paths_start_at_the_suite_file(write, tmp_path, monkeypatch, known):
    monkeypatch.chdir("/")
    (tmp_path / "suites" / "images" / "known").mkdir(parents=True)
    Pillow.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(tmp_path / "suites" / "images" / "known" / "1.png")
    suite = read_suite(write(changed('"digits"', known), "suites/mine.toml")).suite
    source = resolve_source(suite.known_name, suite.sources()[suite.known_name])
    assert len(read_pool(source, Path("data"), Preprocessing(suite.input), "test").images) == 1


@pytest.mark.parametrize("folder", ["plain", "with space", "with,comma", "with:colon", "seed=0"])
def test_paths_start_at_the_suite_file_whatever_its_folder_is_called(write, tmp_path, folder):
    text = changed('noise = { group = "far", kind = "uniform" }', 'own = { adapter = "npz:own.npz" }')
    suite = read_suite(write(text, f"{folder}/mine.toml")).suite
    assert suite.sources()["own"].parameters == {"path": str(tmp_path / folder / "own.npz")}


def test_absolute_paths_and_other_parameters_stay_as_they_are(write):
    text = changed('"digits"', '"imagefolder:/my/images"').replace("noise = {", 'fog = { adapter = "noise:n=3,seed=1",')
    sources = read_suite(write(text)).suite.sources()
    assert sources["imagefolder"].parameters == {"path": "/my/images"}
    assert sources["fog"].parameters == {"n": "3", "seed": "1", "kind": "uniform"}


# Other adapters


def test_replacing_keeps_name_and_group_and_drops_the_old_parameters():
    suite = read_suite("digits")
    other = suite.replacing({"digits-7-9": "imagefolder:my images", "digits-0-6": "npz:own.npz"})
    sources = other.suite.sources()
    assert list(sources) == list(suite.suite.sources())
    assert sources["digits-7-9"] == Source(adapter="imagefolder", group="near", parameters={"path": "my images"})
    assert sources["digits-0-6"] == Source(adapter="npz", group="-", parameters={"path": "own.npz"})
    assert sources["noise"] == suite.suite.sources()["noise"]
    assert suite == read_suite("digits"), "the suite itself stays as it was"


def test_replacing_nothing_changes_nothing():
    assert read_suite("emnist").replacing({}) == read_suite("emnist")


def test_replacing_a_set_that_is_not_there_names_those_that_are():
    with pytest.raises(UsageError, match=r"digits has no data set 'cifar10'.*digits-0-6, digits-7-9"):
        read_suite("digits").replacing({"cifar10": "imagefolder:images"})
