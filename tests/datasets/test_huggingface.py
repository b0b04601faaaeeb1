"""The adapter of Hugging Face data sets, on small ones that `datasets` itself writes."""

import io
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow

import oodbench
from oodbench import registry
from oodbench.datasets import huggingface
from oodbench.datasets.adapter import DataMissingError, Decoding, NoSuchSplitError, Request, UnreadableImageError
from oodbench.datasets.inspection import inspect_pool, source_digest
from oodbench.datasets.kept_digests import DigestStore
from oodbench.datasets.preparation import Preprocessing
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.suites.reading import read_suite
from oodbench.suites.schema import Input


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def pictures(n, seed=0, shape=(9, 9)):
    random = np.random.default_rng(seed)
    return [Pillow.fromarray(random.integers(0, 256, shape).astype(np.uint8)) for _ in range(n)]


def rows(n, seed=0, shape=(9, 9), names=("cat", "dog")):
    features = Features({"id": Value("int64"), "img": Image(), "animal": ClassLabel(names=list(names))})
    table = {"id": range(n), "img": pictures(n, seed, shape), "animal": [i % len(names) for i in range(n)]}
    return Dataset.from_dict(table, features=features)


def read(path, split="test", root="nowhere", download=False, chosen=None, decoding=None, **parameters):
    request = Request(Path(root), split, download=download, chosen=chosen, decoding=decoding or Decoding())
    return registry.load("datasets", "huggingface").read(request, {"path": str(path), **parameters})


# What it reads


def test_splits_labels_and_names_of_the_classes_are_read(tmp_path):
    DatasetDict({"train": rows(6), "test": rows(4, 1), "validation": rows(2, 2)}).save_to_disk(tmp_path / "pets")
    for split, n, seed in (("train", 6, 0), ("test", 4, 1)):
        pool = read(tmp_path / "pets", split)
        assert (pool.split, pool.classes, len(pool.images)) == (split, ("cat", "dog"), n)
        assert pool.labels.tolist() == [0, 1] * (n // 2)
        assert pool.labels.dtype == np.int64
        for image, picture in zip(pool.images, pictures(n, seed), strict=True):
            np.testing.assert_array_equal(image, np.asarray(picture))


SPLITS = [
    # The splits there are, the request, the one chosen; the name and the number of the split that is read.
    (["test", "train"], "test", None, "test", 0),
    (["train", "Test"], "test", None, "test", 1),
    (["train", "validation"], "test", None, "validation", 1),
    (["train", "valid"], "test", None, "validation", 1),
    (["validation"], "test", None, "validation", 0),
    (["test"], "test", None, "test", 0),
    (["train"], "test", None, "train", 0),
    (["train"], "train", None, "train", 0),
    (["everything"], "test", None, "all", 0),
    (["everything"], "train", None, "all", 0),
    (["everything"], "test", "everything", "everything", 0),
    (["fold1", "fold2"], "test", "fold2", "fold2", 1),
    (["train", "test", "val"], "test", "validation", "validation", 2),
    (["train", "test", "val"], "test", "train", "train", 0),
    (["train", "test", "val"], "test", "val", "validation", 2),
    (["train", "test", "val"], "train", "val", "train", 0),
    (["train", "val", "valid"], "test", "valid", "validation", 2),
    (["Test", "test"], "test", None, "test", 1),
    (["dev-v1.1", "train"], "test", "dev-v1.1", "dev-v1.1", 0),
]


def save(folder, splits):
    """A data set of as many rows in each split as its position + 1."""
    DatasetDict({name: rows(position + 1) for position, name in enumerate(splits)}).save_to_disk(folder)


@pytest.mark.parametrize(("splits", "split", "chosen", "name", "position"), SPLITS)
def test_the_split_that_is_read(tmp_path, splits, split, chosen, name, position):
    save(tmp_path / "pets", splits)
    pool = read(tmp_path / "pets", split, chosen=chosen)
    assert (pool.split, len(pool.images)) == (name, position + 1)


@pytest.mark.parametrize("chosen", [None, "test", "fold1"])
def test_a_data_set_without_splits_is_the_whole(tmp_path, chosen):
    rows(4).save_to_disk(tmp_path / "pets")
    for split in ("train", "test"):
        pool = read(tmp_path / "pets", split, chosen=chosen)
        assert (pool.split, len(pool.images)) == ("all", 4)
    assert list(pool.names) == ["row 0", "row 1", "row 2", "row 3"]


NO_SPLIT = [
    (["train", "validation"], "test", "test", "pets has no split test; it has: train, validation"),
    (["train", "test"], "test", "fold1", "pets has no split fold1; it has: train, test"),
    (["everything"], "test", "test", "pets has no split test; it has: everything"),
    (["test", "validation"], "train", None, "pets has no split train; it has: test, validation"),
    (["fold1", "fold2"], "train", None, "pets has no split train; it has: fold1, fold2"),
]


@pytest.mark.parametrize(("splits", "split", "chosen", "message"), NO_SPLIT)
def test_a_split_that_is_not_there_is_refused(tmp_path, splits, split, chosen, message):
    save(tmp_path / "pets", splits)
    with pytest.raises(NoSuchSplitError, match=message):
        read(tmp_path / "pets", split, chosen=chosen)


@pytest.mark.parametrize("splits", [["fold1", "fold2"], ["train", "extra"], ["a", "b", "train"]])
def test_several_splits_that_may_be_held_out_have_to_be_named(tmp_path, splits):
    save(tmp_path / "pets", splits)
    with pytest.raises(UsageError, match=f'pets has the splits {", ".join(splits)}, none of .* by split = "NAME"'):
        read(tmp_path / "pets")


def test_two_names_of_one_split_have_to_be_told_apart(tmp_path):
    save(tmp_path / "pets", ["train", "val", "valid"])
    with pytest.raises(UsageError, match="pets has the splits val and valid, which both mean validation; say which by"):
        read(tmp_path / "pets")


def test_colours_and_depths_are_those_of_the_images(tmp_path):
    wide = Pillow.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16))
    made = [*pictures(1, shape=(5, 4, 3)), Pillow.new("LA", (2, 2)), wide, Pillow.new("1", (2, 2), 1)]
    Dataset.from_dict({"image": made}, features=Features({"image": Image()})).save_to_disk(tmp_path / "some")
    found = list(read(tmp_path / "some", decoding=Decoding(ground="black")).images)
    colour, alpha, deep, binary = (decoded.pixels for decoded in found)
    np.testing.assert_array_equal(colour, np.asarray(made[0]))
    assert alpha.tolist() == [[0, 0], [0, 0]]
    assert deep.tolist() == [[0, 0, 1, 255]]
    assert binary.tolist() == [[255, 255], [255, 255]]
    assert {image.dtype for image in (colour, alpha, deep, binary)} == {np.dtype(np.uint8)}
    assert [len(decoded.remarks) for decoded in found] == [0, 1, 1, 0]


def test_pictures_are_turned_only_if_it_is_asked_for(tmp_path):
    exif, file = Pillow.Exif(), io.BytesIO()
    exif[0x0112] = 6
    (picture,) = pictures(1, shape=(3, 2))
    picture.save(file, "PNG", exif=exif)
    made = {"image": [{"bytes": file.getvalue(), "path": None}]}
    Dataset.from_dict(made, features=Features({"image": Image()})).save_to_disk(tmp_path / "photos")
    for way, expected in (("stored", np.asarray(picture)), ("exif", np.rot90(picture, -1))):
        decoded = read(tmp_path / "photos", decoding=Decoding(orientation=way)).images[0]
        np.testing.assert_array_equal(decoded.pixels, expected)
        assert len(decoded.remarks) == 1


def test_images_that_lie_beside_the_table_are_read_from_their_files(tmp_path, monkeypatch):
    (picture,) = pictures(1)
    picture.save(tmp_path / "1.png")
    files = [str(tmp_path / name) for name in ("1.png", "2.png")]
    beside = Dataset.from_dict({"image": files}, features=Features({"image": Image()}))
    monkeypatch.setattr(
        datasets, "load_from_disk", lambda folder: beside
    )  # save_to_disk now copies them into the table
    pool = read(tmp_path)
    np.testing.assert_array_equal(pool.images[0].pixels, np.asarray(picture))
    with pytest.raises(UnreadableImageError, match=r"the image 1 of .* cannot be read: No such file or directory;"):
        pool.images[1]


def test_a_row_without_image_is_named(tmp_path):
    made = Dataset.from_dict({"image": [*pictures(1), None]}, features=Features({"image": Image()}))
    made.save_to_disk(tmp_path / "holes")
    with pytest.raises(UnreadableImageError, match=r"the image 1 of .*holes cannot be read: the row has no image;"):
        read(tmp_path / "holes").images[1]


def test_images_are_read_when_they_are_asked_for(tmp_path):
    made = [{"bytes": b"no image", "path": None}] * 2
    Dataset.from_dict({"image": made}, features=Features({"image": Image()})).save_to_disk(tmp_path / "broken")
    pool = read(tmp_path / "broken")
    assert len(pool.images) == 2
    with pytest.raises(UnreadableImageError, match=r"the image 1 of .*broken cannot be read: .*identify"):
        pool.images[1]


def test_columns_can_be_named(tmp_path):
    table = {"a": pictures(2), "b": pictures(2, 1), "fine": [5, 3], "coarse": [1, 0], "text": ["x", "y"]}
    classes = ClassLabel(names=list("abcdef"))
    kinds = {"a": Image(), "b": Image(), "fine": classes, "coarse": classes, "text": Value("string")}
    Dataset.from_dict(table, features=Features(kinds)).save_to_disk(tmp_path / "two")
    pool = read(tmp_path / "two", image="b", label="fine")
    np.testing.assert_array_equal(pool.images[0], np.asarray(table["b"][0]))
    assert pool.labels.tolist() == [5, 3]
    for given, message in {
        "": "has 2 columns of type Image, a, b; say which by the parameter image",
        "image=a": "has 2 columns of type ClassLabel, fine, coarse; say which by the parameter label",
        "image=c": r"has no column 'c' to be the image; it has the columns a \(Image\), ",
        "image=text,label=fine": "has a column text, which is not of type Image",
        "image=a,label=text": "the column text of .* holds no classes by number",
    }.items():
        parameters = dict(pair.split("=") for pair in given.split(",") if pair)
        with pytest.raises(UsageError, match=message):
            read(tmp_path / "two", **parameters)


def test_an_unknown_set_needs_no_labels_and_plain_numbers_are_labels(tmp_path):
    kinds = Features({"image": Image(), "number": Value("int32")})
    made = Dataset.from_dict({"image": pictures(3), "number": [7, 2, 7]}, features=kinds)
    made.save_to_disk(tmp_path / "plain")
    assert read(tmp_path / "plain").labels.tolist() == [0, 0, 0]
    pool = read(tmp_path / "plain", label="number")
    assert (pool.labels.tolist(), pool.classes) == ([7, 2, 7], ())


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match=r"photos cannot be read as a data set of Hugging Face: .*save_to_disk wrote"):
        read(tmp_path / "photos")
    Dataset.from_dict({"text": ["x"]}).save_to_disk(tmp_path / "words")
    with pytest.raises(UsageError, match=r"no column of type Image; it has the columns text \(Value\)"):
        read(tmp_path / "words")


# What is not there


def test_without_download_the_network_is_left_alone(tmp_path):
    with pytest.raises(DataMissingError) as error:
        read("ylecun/mnist", root=tmp_path, config="plain")
    assert error.value.downloadable
    kept = tmp_path / "huggingface" / "ylecun--mnist--plain"
    assert error.value.looked_for == (
        f"the folder ylecun/mnist, and the folder {kept} with ylecun/mnist from the Hugging Face Hub"
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataMissingError) as error:
        read(tmp_path / "no" / "folder", root=tmp_path)
    assert (error.value.looked_for, error.value.downloadable) == (f"the folder {tmp_path}/no/folder", False)


def test_a_download_is_kept_in_the_data_folder_and_no_cache_elsewhere(tmp_path, monkeypatch):
    """What comes from a folder of files takes the same way as what comes from the Hub, but for the network."""
    for place in ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(place, str(tmp_path / "elsewhere"))
    (tmp_path / "files").mkdir()
    rows(4).to_parquet(tmp_path / "files" / "train.parquet")
    rows(2, 1).to_parquet(tmp_path / "files" / "test.parquet")
    kept = tmp_path / "data" / "huggingface" / "my--pets"
    huggingface._download(str(tmp_path / "files"), None, kept)
    assert not (tmp_path / "elsewhere").exists()
    assert os.listdir(kept.parent) == ["my--pets"]
    pool = read("my/pets", root=tmp_path / "data")
    assert (pool.split, len(pool.images), pool.classes) == ("test", 2, ("cat", "dog"))


def test_a_download_that_fails_leaves_nothing_and_says_why(tmp_path):
    with pytest.raises(
        MissingPrerequisiteError, match=r"the download of .*files from the Hugging Face Hub failed: \w+"
    ):
        huggingface._download(str(tmp_path / "files"), None, tmp_path / "data" / "kept")
    assert not list((tmp_path / "data").iterdir())


def test_missing_package_is_a_missing_prerequisite(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPrerequisiteError, match=r"needs the package datasets; .* 'oodbench\[hub\]'"):
        read(tmp_path)


# In a suite


def test_a_run_on_saved_data_sets_with_paths_from_the_suite_file(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    DatasetDict({"train": rows(60), "test": rows(80, 1)}).save_to_disk(tmp_path / "mine" / "pets")
    rows(40, 2, names=("car",)).save_to_disk(tmp_path / "mine" / "cars")
    (tmp_path / "mine" / "mine.toml").write_text(
        'name = "mine"\nversion = 1\nknown = "huggingface:pets"\nseeds = [0]\n[unknown]\n'
        'cars = { adapter = "huggingface", path = "cars", image = "img", group = "near" }\n'
        "[input]\nsize = 8\n[training]\nepochs = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    suite = str(Path("mine") / "mine.toml")
    (record,) = oodbench.run(suite, "entropy", "unknown-unknowns", out=tmp_path / "out", data=tmp_path / "data")
    assert record.status == "ok"
    assert record.datasets["huggingface"].n == 40
    assert record.datasets["cars"].n == 20
    assert record.datasets["cars"].adapter == "huggingface:image=img"


@pytest.mark.parametrize("name", ["mnist", "ylecun/mnist"])
def test_a_name_on_the_hub_stays_one_in_a_suite_file(tmp_path, name):
    file = tmp_path / "mine.toml"
    table = f'{{ adapter = "huggingface", path = "{name}", config = "plain" }}'
    file.write_text(f'name = "mine"\nversion = 1\nknown = "huggingface:{name}"\n[unknown]\nother = {table}\n')
    sources = read_suite(str(file)).suite.sources()
    assert sources["huggingface"].parameters == {"path": name}
    assert sources["other"].parameters == {"path": name, "config": "plain"}
    with pytest.raises(DataMissingError, match=f"huggingface: the folder {name}, and .* `oodbench data fetch"):
        oodbench.run(str(file), "entropy", out=tmp_path / "out", data=tmp_path / "data")


def test_the_digests_of_saved_rows_are_kept_until_their_files_change(tmp_path, monkeypatch):
    monkeypatch.setattr("oodbench.datasets.kept_digests.SETTLED_S", -1e9)
    looked_at = []

    def digests():
        pool = read(tmp_path / "pets")
        original = pool.images.make
        images = replace(pool.images, make=lambda index: looked_at.append(index) or original(index))
        pool, store = replace(pool, images=images), DigestStore(tmp_path / "digests")
        return list(inspect_pool(pool, Preprocessing(Input(size=8)), "source", "pets", store).digests)

    rows(4).save_to_disk(tmp_path / "pets")
    first = digests()
    assert digests() == first == [source_digest(np.asarray(picture)) for picture in pictures(4)]
    assert looked_at == [0, 1, 2, 3]
    shutil.rmtree(tmp_path / "pets")
    rows(4, seed=1).save_to_disk(tmp_path / "pets")
    assert digests() == [source_digest(np.asarray(picture)) for picture in pictures(4, seed=1)]
    assert read(tmp_path / "pets").images.made_of
    rows(4, seed=2).save_to_disk(tmp_path / "other")
    shutil.rmtree(tmp_path / "pets")
    (tmp_path / "pets").symlink_to(tmp_path / "other")
    assert digests() == [source_digest(np.asarray(picture)) for picture in pictures(4, seed=2)]
    DatasetDict({"test": rows(4, seed=3)}).save_to_disk(tmp_path / "third")
    (tmp_path / "fourth").mkdir()
    shutil.copy(tmp_path / "third" / "dataset_dict.json", tmp_path / "fourth")
    (tmp_path / "fourth" / "test").symlink_to(tmp_path / "other")
    (tmp_path / "pets").unlink()
    (tmp_path / "pets").symlink_to(tmp_path / "fourth")
    assert digests() == [source_digest(np.asarray(picture)) for picture in pictures(4, seed=2)]
    (tmp_path / "fourth" / "test").unlink()
    (tmp_path / "fourth" / "test").symlink_to(tmp_path / "third" / "test")
    assert digests() == [source_digest(np.asarray(picture)) for picture in pictures(4, seed=3)]
    monkeypatch.setattr("oodbench.datasets.kept_digests.SETTLED_S", 1e9)
    assert not read(tmp_path / "pets").images.made_of, "the files may change again without another time"
