"""Splits of a suite: disjoint by content, repeatable, and refused with a sentence where they would not be honest."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from drawing import draw
from PIL import Image as Pillow

from oodbench.datasets.adapter import DataMissingError
from oodbench.datasets.drawing import refuse_shared_samples
from oodbench.datasets.opening import read_pool
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.sources import resolve_source
from oodbench.errors import LeakError, UsageError
from oodbench.suites.reading import LoadedSuite, read_suite
from oodbench.suites.schema import Suite

NOWHERE = Path("no such folder")
NOISE = {"noise": {"group": "far", "n": 40}}


def make_suite(known, unknown=NOISE, sizes=None):
    table = {"name": "mine", "version": 1, "known": known, "unknown": unknown, "input": {"size": 8}}
    suite = Suite.model_validate(table | {"sizes": sizes or {}})
    return LoadedSuite(suite, "mine.toml", Path("mine.toml"), "")


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)


def write_npz(file, pixels, labels=None):
    """An archive; without labels, of the two classes 5 and 7."""
    np.savez(file, images=pixels, labels=5 + 2 * (np.arange(len(pixels)) % 2) if labels is None else labels)
    return f"npz:{file}"


def write_folder(folder, pixels):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(pixels):
        Pillow.fromarray(image).save(folder / f"{index:03}.png")


def splits_of(splits):
    return [splits.train, splits.meta, splits.test, *splits.exposed.values(), *splits.unknown.values()]


def contents(*splits):
    return [image.tobytes() for split in splits for image in split.images]


@pytest.fixture(scope="module")
def digits():
    return draw(read_suite("digits"), NOWHERE)


def test_splits_of_the_digits_suite_are_disjoint_by_content(digits):
    everything = contents(*splits_of(digits))
    assert len(everything) == len(set(everything))


def test_splits_of_the_digits_suite_have_the_sizes_it_asks_for(digits):
    sizes = read_suite("digits").suite.sizes
    assert len(digits.train.labels) == sizes.train
    assert len(digits.meta.labels) == sizes.meta
    assert len(digits.test.labels) == sizes.test
    for name in ("rendered-letters", "noise"):
        assert len(digits.exposed[name].labels) == sizes.exposed
        assert len(digits.unknown[name].labels) == sizes.unknown
    assert list(digits.unknown) == list(digits.exposed) == ["digits-7-9", "rendered-letters", "patches", "noise"]


def test_halves_shrink_in_proportion_where_there_is_too_little(digits):
    exposed, unknown = digits.exposed["digits-7-9"], digits.unknown["digits-7-9"]
    assert exposed.available == unknown.available == 533  # of 500 + 500 that the suite asks for
    assert len(exposed.labels) == len(unknown.labels) == 266


def test_known_labels_count_from_zero_and_unknown_ones_are_minus_one(digits):
    assert digits.classes == ("0", "1", "2", "3", "4", "5", "6")
    for split in (digits.train, digits.meta, digits.test):
        assert np.unique(split.labels).tolist() == [0, 1, 2, 3, 4, 5, 6]
    for split in (*digits.exposed.values(), *digits.unknown.values()):
        assert np.unique(split.labels).tolist() == [-1]
    assert {split.labels.dtype for split in splits_of(digits)} == {np.dtype(np.int64)}


def test_splits_are_the_samples_that_their_indices_say(digits):
    suite = read_suite("digits").suite
    preprocessing = Preprocessing(suite.input)
    for split in splits_of(digits):
        pool = read_pool(resolve_source(split.dataset, suite.sources()[split.dataset]), NOWHERE, preprocessing, "test")
        assert np.array_equal(split.images, preprocessing.prepare([pool.images[i] for i in split.indices]))
        assert all(one < other for one, other in pairwise(split.indices))
        if split.use in ("train", "meta", "test"):
            assert np.array_equal(split.labels, pool.labels[split.indices])


def test_splits_are_the_same_when_drawn_again(digits):
    again = draw(read_suite("digits"), NOWHERE)
    for one, other in zip(splits_of(digits), splits_of(again), strict=True):
        assert one.sha256 == other.sha256
        assert np.array_equal(one.indices, other.indices)
        assert np.array_equal(one.images, other.images)


def test_hash_of_a_split_depends_on_its_images_labels_and_order(digits):
    test = digits.test
    relabelled = replace(test, labels=np.roll(test.labels, 1))
    turned = replace(test, digests=test.digests[::-1], labels=test.labels[::-1])
    assert len({split.sha256 for split in (test, digits.meta, relabelled, turned, test.first(10))}) == 5
    assert replace(test, dataset="another name").sha256 == test.sha256


def test_limit_keeps_the_samples_that_come_first_by_their_hash_but_trains_on_all(digits):
    limited = draw(read_suite("digits"), NOWHERE, limit=30)
    assert limited.train.sha256 == digits.train.sha256
    assert limited.classes == digits.classes
    for one, whole in list(zip(splits_of(limited), splits_of(digits), strict=True))[1:]:
        assert len(one.labels) == 30
        assert one.sha256 == whole.first(30).sha256
        chosen = np.isin(whole.digests, np.sort(whole.digests)[:30])
        assert np.array_equal(one.images, whole.images[chosen])


def test_labels_of_a_users_own_numbering_become_contiguous(tmp_path):
    suite = make_suite(write_npz(tmp_path / "a.npz", images(60)))
    splits = draw(suite, NOWHERE)
    assert splits.classes == ("5", "7")
    for split in (splits.train, splits.meta, splits.test):
        assert np.array_equal(split.labels, split.indices % 2)


def test_without_sizes_everything_is_used_and_training_gets_half(tmp_path):
    splits = draw(make_suite(write_npz(tmp_path / "a.npz", images(60))), NOWHERE)
    assert [len(split.labels) for split in splits_of(splits)] == [30, 15, 15, 20, 20]


def test_sizes_shrink_in_proportion(tmp_path):
    sizes = {"train": 40, "meta": 20, "test": 20, "exposed": 90, "unknown": 30}
    splits = draw(make_suite(write_npz(tmp_path / "a.npz", images(40)), sizes=sizes), NOWHERE)
    assert [len(split.labels) for split in splits_of(splits)] == [20, 10, 10, 30, 10]


def test_repeated_images_of_a_set_are_drawn_once(tmp_path):
    known = write_npz(tmp_path / "known.npz", np.repeat(images(40), 3, axis=0), labels=np.arange(120) // 3 % 2)
    unknown = write_npz(tmp_path / "unknown.npz", np.tile(images(20, seed=1), (4, 1, 1)))
    splits = draw(make_suite(known, {"own": {"adapter": unknown}}), NOWHERE)
    assert splits.train.available == 120
    assert splits.unknown["own"].available == 80
    assert sorted(contents(splits.train, splits.meta, splits.test)) == sorted(contents_of(images(40)))
    assert sorted(contents(splits.exposed["own"], splits.unknown["own"])) == sorted(contents_of(images(20, seed=1)))
    assert np.array_equal(splits.train.indices % 3, np.zeros(len(splits.train.labels))), "the first of each is kept"


def contents_of(pixels):
    return [image.tobytes() for image in pixels]


# Leaks


def test_unknown_set_that_is_the_known_one_is_a_leak():
    suite = make_suite("digits", {"impostor": {"adapter": "digits"}})
    with pytest.raises(LeakError, match=r"^\d+ of the \d+ images of digits .* of impostor ") as error:
        draw(suite, NOWHERE)
    assert error.value.exit_status == 2


def test_single_image_in_two_sets_is_a_leak(tmp_path):
    known = write_npz(tmp_path / "known.npz", images(40))
    unknown = write_npz(tmp_path / "unknown.npz", np.concatenate([images(20, seed=1), images(40)[17:18]]))
    with pytest.raises(LeakError, match=r"^1 of the \d+ images of npz .* of own "):
        draw(make_suite(known, {"own": {"adapter": unknown}}), NOWHERE)


def test_two_unknown_sets_that_share_images_are_a_leak(tmp_path):
    one = write_npz(tmp_path / "one.npz", images(20))
    other = write_npz(tmp_path / "other.npz", images(30))
    suite = make_suite("digits", {"one": {"adapter": one}, "other": {"adapter": other}})
    with pytest.raises(LeakError, match=r"images of one .* of other "):
        draw(suite, NOWHERE)


def test_leak_counts_the_shared_images(digits):
    other = replace(digits.meta.first(30), dataset="other")
    with pytest.raises(LeakError, match=r"^30 of the 550 images of digits-0-6 \(meta\) .* the 30 of other \(meta\)"):
        refuse_shared_samples([digits.meta, other])
    refuse_shared_samples(splits_of(digits))


# Known sets that come with train and test


@pytest.fixture
def train_and_test(tmp_path):
    pixels = images(80)
    for part, some in (("train", pixels[:40]), ("test", pixels[40:])):
        write_folder(tmp_path / part / "a", some[:20])
        write_folder(tmp_path / part / "b", some[20:])
    return tmp_path, contents_of(pixels[:40]), contents_of(pixels[40:])


def test_known_set_with_train_and_test_is_trained_on_train_only(train_and_test):
    folder, train, test = train_and_test
    splits = draw(make_suite(f"imagefolder:{folder}"), NOWHERE)
    assert sorted(contents(splits.train)) == sorted(train)
    assert sorted(contents(splits.meta, splits.test)) == sorted(test)
    assert [split.origin for split in splits_of(splits)] == ["train", "test", "test", "all", "all"]
    assert (len(splits.meta.labels), len(splits.test.labels)) == (20, 20)
    for split in (splits.train, splits.meta, splits.test):
        assert np.array_equal(split.labels, split.indices // 20)


def test_test_images_that_were_trained_on_are_dropped(train_and_test):
    folder, train, test = train_and_test
    write_folder(folder / "test" / "a" / "copies", images(80)[:10])
    splits = draw(make_suite(f"imagefolder:{folder}"), NOWHERE)
    assert sorted(contents(splits.train)) == sorted(train)
    assert sorted(contents(splits.meta, splits.test)) == sorted(test)
    assert splits.test.available == 50


def test_class_that_is_only_in_test_is_refused(train_and_test):
    folder, *_ = train_and_test
    write_folder(folder / "test" / "c", images(20, seed=1))
    with pytest.raises(UsageError, match=r"imagefolder has test images of classes without training images \(c\)"):
        draw(make_suite(f"imagefolder:{folder}"), NOWHERE)


def test_class_that_is_only_in_test_is_refused_also_where_another_is_only_in_train(train_and_test):
    folder, *_ = train_and_test
    (folder / "test" / "b").rename(folder / "test" / "c")
    with pytest.raises(UsageError, match=r"imagefolder has test images of classes without training images \(c\)"):
        draw(make_suite(f"imagefolder:{folder}"), NOWHERE)


# Duplicates


def test_duplicates_are_left_out_or_kept_together_and_counted(tmp_path):
    pixels = np.repeat(images(30), [1] * 20 + [4] * 10, axis=0)
    unknown = {"own": {"adapter": write_npz(tmp_path / "a.npz", pixels)}}
    dropped = draw(make_suite("digits", unknown), NOWHERE)
    assert dropped.unknown["own"].left_out == {"duplicates": 30}
    for exposed in range(1, 12):
        suite = make_suite("digits", unknown, {"exposed": exposed})
        splits = draw(replace(suite, suite=suite.suite.model_copy(update={"duplicates": "keep"})), NOWHERE)
        held_back, tested = splits.exposed["own"], splits.unknown["own"]
        assert sorted([*held_back.indices, *tested.indices]) == list(range(60))
        assert exposed <= len(held_back.indices) < exposed + 4
        assert tested.left_out == {}
        assert tested.remarks == {"duplicates that are kept": 30}
        assert not set(held_back.digests) & set(tested.digests)


# Sets that are too small


def test_known_set_of_one_class_is_refused(tmp_path):
    known = write_npz(tmp_path / "a.npz", images(40), labels=np.full(40, 3))
    with pytest.raises(UsageError, match="npz has one class only"):
        draw(make_suite(known), NOWHERE)


def test_known_set_of_two_images_is_refused(tmp_path):
    with pytest.raises(UsageError, match="npz has 2 samples"):
        draw(make_suite(write_npz(tmp_path / "a.npz", images(2))), NOWHERE)


def test_unknown_set_of_one_image_is_refused(tmp_path):
    unknown = write_npz(tmp_path / "a.npz", np.repeat(images(1), 9, axis=0))
    with pytest.raises(UsageError, match=r"unknown set own has 1 sample \(of 9 images, 8 duplicates\)"):
        draw(make_suite("digits", {"own": {"adapter": unknown}}), NOWHERE)


def test_unknown_set_that_the_sizes_leave_nothing_to_expose_is_refused_with_them(tmp_path):
    suite = make_suite("digits", {"own": {"adapter": write_npz(tmp_path / "a.npz", images(9))}},
                       {"exposed": 1, "unknown": 500})  # fmt: skip
    with pytest.raises(UsageError, match=r"own has 9 samples; .* sizes.exposed = 1 and sizes.unknown = 500"):
        draw(suite, NOWHERE)


def test_training_size_that_leaves_one_class_is_named(tmp_path):
    known = write_npz(tmp_path / "a.npz", images(40))
    with pytest.raises(UsageError, match=r"training samples .* of one class only.* raise sizes.train, which is 1\.$"):
        draw(make_suite(known, sizes={"train": 1}), NOWHERE)


# Sets that are not there


def test_missing_sets_are_named_with_place_command_and_way_out(tmp_path):
    suite = make_suite("digits", NOISE | {"emnist-letters": {}, "omniglot": {}})
    with pytest.raises(DataMissingError) as error:
        draw(suite, tmp_path)
    told = str(error.value)
    assert "lacks emnist-letters and omniglot" in told
    assert str(tmp_path / "EMNIST" / "raw") in told
    assert str(tmp_path / "omniglot-py") in told
    assert f"--data {tmp_path}" in told
    assert "oodbench data fetch" in told
    assert "--set" in told
    assert "--skip-missing" in told
    assert error.value.exit_status == 3


@pytest.mark.parametrize("file", [None, "mine.toml"])
def test_command_that_gets_the_data_names_a_suite_that_can_be_read(tmp_path, file):
    if file is not None:
        file = tmp_path / file
        file.write_text('name = "mine"\nversion = 1\nclassifier = "cnn"\nknown = "emnist-digits"\nseeds = [0]\n'
                        '[unknown]\nnoise = { group = "far" }\n')  # fmt: skip
    suite = read_suite(str(file or "emnist"))
    with pytest.raises(DataMissingError) as error:
        draw(suite, tmp_path)
    named = re.search(r"`oodbench data fetch (\S+) --data", str(error.value)).group(1)
    assert read_suite(named) == suite


def test_missing_sets_of_the_users_own_cannot_be_fetched(tmp_path):
    suite = make_suite("digits", NOISE | {"own": {"adapter": f"npz:{tmp_path / 'a.npz'}"}})
    with pytest.raises(DataMissingError) as error:
        draw(suite, NOWHERE)
    assert str(tmp_path / "a.npz") in str(error.value)
    assert "fetch" not in str(error.value)


def test_missing_unknown_sets_can_be_skipped(tmp_path):
    suite = make_suite("digits", NOISE | {"emnist-letters": {}, "omniglot": {}})
    splits = draw(suite, tmp_path, skip_missing=True)
    assert list(splits.unknown) == list(splits.exposed) == ["noise"]
    assert list(splits.missing) == ["emnist-letters", "omniglot"]
    assert str(tmp_path / "omniglot-py") in splits.missing["omniglot"]


@pytest.mark.parametrize("skip_missing", [False, True])
@pytest.mark.parametrize(
    ("known", "unknown"), [("emnist-digits", NOISE), ("digits", {"omniglot": {}})], ids=["known", "all-unknown"]
)
def test_neither_the_known_set_nor_all_unknown_ones_can_be_skipped(tmp_path, known, unknown, skip_missing):
    with pytest.raises(DataMissingError) as error:
        draw(make_suite(known, unknown), tmp_path, skip_missing=skip_missing)
    assert "--skip-missing" not in str(error.value)


def test_known_set_without_its_train_split_is_missing(tmp_path):
    for part in ("train", "test"):
        write_folder(tmp_path / part / "a", images(3) if part == "test" else [])
    with pytest.raises(DataMissingError, match=re.escape(str(tmp_path / "train"))):
        draw(make_suite(f"imagefolder:{tmp_path}"), NOWHERE)


def test_unknown_set_needs_its_test_split_only_and_the_known_one_needs_both(tmp_path):
    write_folder(tmp_path / "test" / "a", images(8))
    folder = f"imagefolder:{tmp_path}"
    splits = draw(make_suite("digits", {"own": {"adapter": folder}}), NOWHERE)
    assert splits.unknown["own"].origin == "test"
    with pytest.raises(
        UsageError,
        match=r"has no training split .* it has: test\.\), and the suite names",
    ):
        draw(make_suite(folder), NOWHERE)


def test_limit_takes_samples_of_all_classes(tmp_path):
    labels = np.repeat([0, 1, 2], 200)
    known = write_npz(tmp_path / "sorted.npz", images(600), labels=labels)
    splits = draw(make_suite(known), NOWHERE, limit=40)
    for split in (splits.meta, splits.test):
        assert set(split.labels) == {0, 1, 2}
        assert (np.diff(split.indices) > 0).all()
