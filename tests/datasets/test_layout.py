"""Folders of images as they lie on disks: links, litter, splits, classes; and the adapter that reads them."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from oodbench import registry
from oodbench.datasets.adapter import DataMissingError, Decoding, NoSuchSplitError, Request, UnreadableImageError
from oodbench.datasets.layout import (
    NO_IMAGES,
    OUTSIDE,
    Tree,
    arrange,
    image_endings,
    pick_split,
    scan,
    split_folders,
    standard_split,
)
from oodbench.errors import UsageError, listed

PICTURE = Pillow.fromarray(np.full((2, 2), 7, dtype=np.uint8))


def fill(folder, *names):
    """Write images, and text where the ending says so."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() in (".png", ".jpg", ".tif"):
            PICTURE.save(file, {".jpg": "JPEG", ".tif": "TIFF"}.get(file.suffix.lower(), "PNG"))
        else:
            file.write_text("not an image")


def read(path, split="test", chosen=None, decoding=None, **parameters):
    request = Request(Path("nowhere"), split, chosen=chosen, decoding=decoding or Decoding())
    return registry.load("datasets", "imagefolder").read(request, {"path": str(path), **parameters})


def tree(*images, folders=None, others=(), problems=()):
    """A tree as `scan` gives it."""
    found = sorted({name.partition("/")[0] for name in images if "/" in name} | set(folders or ()))
    return Tree(Path("/data"), tuple(found), tuple(sorted(images, key=lambda n: n.split("/"))), others, problems)


# What is listed


NAMES = st.lists(st.sampled_from(["a", "a-b", "a.b", "A", "Z", "b c", "ü", "z1", "z10", "z2"]), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=12))
def test_images_are_listed_part_by_part_as_paths_are_sorted(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("tree")
    written = {Path(*parts[:-1], f"{parts[-1]}.png") for parts in names}
    for file in written:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    found = scan(folder)
    assert list(found.images) == [file.as_posix() for file in sorted(written)]
    assert list(found.folders) == sorted({parts[0] for parts in names if len(parts) > 1})
    assert (found.others, found.problems) == ((), ())


LITTER = [
    ".DS_Store",
    ".hidden.png",
    "._1.jpg",
    "Thumbs.db",
    "desktop.ini",
    "__MACOSX/a/._1.png",
    "__MACOSX/a/1.png",
    "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
    ".ipynb_checkpoints/1-checkpoint.png",
    ".git/1.png",
    "lost+found/1.png",
]


@pytest.mark.parametrize("litter", LITTER)
@pytest.mark.parametrize("where", ["", "test", "test/a"])
def test_litter_is_ignored_wherever_it_lies(tmp_path, litter, where):
    fill(tmp_path, "train/a/1.png", "test/a/1.png", f"{where}/{litter}".lstrip("/"))
    pool = read(tmp_path)
    assert (pool.split, pool.names, pool.classes, pool.left_out) == ("test", ("test/a/1.png",), ("a",), {})


def test_files_that_are_no_images_are_left_out_and_counted(tmp_path):
    fill(tmp_path, "a/1.png", "a/1.PNG", "a/2.TIF", "b/1.jpg", "notes.txt", "b/labels.csv", "b/LICENSE", "b/x.mp4")
    fill(tmp_path, "b/data.h5")
    pool = read(tmp_path)
    assert pool.names == ("a/1.PNG", "a/1.png", "a/2.TIF", "b/1.jpg")
    assert pool.left_out == {NO_IMAGES: 5}
    assert len(list(pool.images)) == 4


def test_only_the_files_of_the_split_are_counted(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/a/1.txt", "test/a/1.png", "README.txt", "classes.txt")
    assert read(tmp_path).left_out == {}
    assert read(tmp_path, "train").left_out == {NO_IMAGES: 1}


def test_a_pipe_is_no_image(tmp_path):
    fill(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    pool = read(tmp_path)
    assert (pool.names, pool.left_out) == (("a/1.png",), {NO_IMAGES: 1})


def test_every_ending_that_pillow_saves_and_opens_is_an_image(tmp_path):
    for ending in (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tiff", ".webp", ".ppm", ".pgm"):
        PICTURE.save(tmp_path / f"1{ending}")
        assert ending in image_endings()
    assert len(list(read(tmp_path).images)) == 9
    assert not image_endings() & {".pdf", ".mpg", ".h5", ".txt", ""}


@pytest.mark.parametrize("content", [["notes.txt"], ["a/notes.txt", "a/b.csv"]])
def test_a_folder_without_images_says_what_it_has(tmp_path, content):
    fill(tmp_path, *content)
    with pytest.raises(DataMissingError, match=rf"which has {len(content)} files, none of them an image"):
        read(tmp_path)


# Links


def test_links_to_folders_and_files_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", "cats/1.png", "cats/deep/2.png", "dog.png")
    fill(tmp_path / "data", "bird/1.png", "dog/0.png")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "data" / "dog" / "1.png").symlink_to("../../elsewhere/dog.png")
    pool = read(tmp_path / "data")
    assert pool.names == ("bird/1.png", "cat/1.png", "cat/deep/2.png", "dog/0.png", "dog/1.png")
    assert (pool.classes, pool.labels.tolist()) == (("bird", "cat", "dog"), [0, 1, 1, 2, 2])
    assert len(list(pool.images)) == 5


def test_splits_and_the_folder_itself_may_be_links(tmp_path):
    fill(tmp_path / "real", "a/1.png", "b/1.png")
    (tmp_path / "data").mkdir()
    for name in ("train", "val"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    pool = read(tmp_path / "link")
    assert (pool.split, pool.names) == ("validation", ("val/a/1.png", "val/b/1.png"))


@pytest.mark.parametrize("target", [".", "..", "../..", "../../b", "../../..", "../../../data"])
def test_a_link_to_a_folder_above_is_not_followed(tmp_path, target):
    fill(tmp_path, "beside.png", "data/a/x/1.png", "data/b/2.png")
    (tmp_path / "data" / "a" / "x" / "loop").symlink_to(target)
    (tmp_path / "data" / "b" / "to-a").symlink_to("../a")
    found = scan(tmp_path / "data")
    once = ["a/x/1.png", "b/2.png", "b/to-a/x/1.png"]
    through_b = ["a/x/loop/2.png"] if target == "../../b" else []
    assert sorted(found.images) == sorted(once + through_b)
    assert found.problems == ()


def test_two_links_to_one_folder_are_two_classes(tmp_path):
    fill(tmp_path, "real/1.png")
    for name in ("a", "b"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(tmp_path / "real")
    assert read(tmp_path / "data").names == ("a/1.png", "b/1.png")


def test_links_that_lead_nowhere_are_all_named_at_once(tmp_path):
    fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "2.png").symlink_to("/nowhere/2.png")
    (tmp_path / "b" / "round.png").symlink_to("round.png")
    (tmp_path / "c").symlink_to("/nowhere/c")
    with pytest.raises(UsageError) as error:
        read(tmp_path)
    assert str(error.value) == (
        f"the folder {tmp_path} cannot be used as it lies: "
        "a/2.png is a link to /nowhere/2.png, which cannot be followed (No such file or directory); "
        "b/round.png is a link to round.png, which cannot be followed (Too many levels of symbolic links); "
        "c is a link to /nowhere/c, which cannot be followed (No such file or directory); "
        "mend, move or remove what is named."
    )


def test_the_first_ten_faults_are_named_and_the_rest_counted(tmp_path):
    fill(tmp_path, "a/1.png")
    for index in range(1234):
        (tmp_path / "a" / f"{index:04}.png").symlink_to("/nowhere")
    with pytest.raises(UsageError) as error:
        read(tmp_path)
    assert str(error.value).count("is a link to /nowhere") == 10
    assert "a/0009.png is a link" in str(error.value)
    assert "; and 1,224 more; mend" in str(error.value)


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "b/1.png")
    really = os.scandir

    def scandir(place):
        if place == str(tmp_path / "b"):
            raise PermissionError(13, "Permission denied")
        return really(place)

    monkeypatch.setattr(os, "scandir", scandir)  # permissions do not hold for root, who runs tests in containers
    with pytest.raises(UsageError, match=r"as it lies: b/ cannot be listed \(Permission denied\); mend"):
        read(tmp_path)


@pytest.mark.parametrize("n", [0, 1, 10, 11, 2000])
def test_ten_are_named(n):
    items = [str(index) for index in range(n)]
    text = listed(items)
    named, _, more = text.partition(", and ")
    assert (named.split(", ") if named else []) == items[:10]
    assert more == ("" if n <= 10 else f"{n - 10:,} more")


# Splits or classes


SPLIT_NAMES = {
    "train": "train",
    "Train": "train",
    "TRAINING": "train",
    "test": "test",
    "TEST": "test",
    "Testing": "test",
    "val": "validation",
    "Valid": "validation",
    "validation": "validation",
}


@pytest.mark.parametrize(("name", "split"), SPLIT_NAMES.items())
def test_the_names_of_splits_are_known_in_any_case(name, split):
    assert standard_split(name) == split
    assert split_folders(tree(f"{name}/a/1.png"), None) == {split: name}


@pytest.mark.parametrize("name", ["trains", "train2017", "tests", "eval", "all", ""])
def test_other_names_are_no_splits(name):
    assert standard_split(name) is None
    assert split_folders(tree(f"{name}x/1.png"), None) == {}


@pytest.mark.parametrize("name", ["train", "Test", "val"])
def test_a_class_with_the_name_of_a_split_is_a_class_among_others(name):
    found = tree(f"{name}/1.png", f"{name}/deep/2.png", "bus/1.png", "cat/1.png")
    assert split_folders(found, None) == {}
    assert arrange(found).classes == tuple(sorted([name, "bus", "cat"]))


AMBIGUOUS = {
    "both and others": ("train/1.png", "test/1.png", "bus/1.png"),
    "with class folders": ("train/a/1.png", "train/b/1.png", "extra/1.png"),
    "test with class folders": ("test/a/1.png", "cars/a/1.png"),
    "train and val and others": ("train/a/1.png", "val/a/1.png", "unlabelled/1.png"),
}


@pytest.mark.parametrize("images", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_can_be_splits_or_classes_needs_a_layout(images):
    found = tree(*images)
    with pytest.raises(UsageError, match=r'^/data has the folders .* beside others .* by layout = "splits".*"classes"'):
        arrange(found)
    assert set(arrange(found, "classes").splits) == {"all"}
    assert arrange(found, "classes").classes == found.folders
    splits = arrange(found, "splits").splits
    named = {standard_split(name): name for name in found.folders if standard_split(name)}
    assert splits.keys() == named.keys()
    outside = sum(not standard_split(image.partition("/")[0]) for image in images)
    for split, contents in splits.items():
        assert contents.images == tuple(image for image in images if image.startswith(f"{named[split]}/"))
        assert contents.left_out == {OUTSIDE: outside}


def test_folders_without_images_decide_nothing():
    assert split_folders(tree("train/a/1.png", "test/a/1.png", folders=["docs"]), None).keys() == {"train", "test"}
    assert split_folders(tree("cat/1.png", "dog/1.png", folders=["train", "test"]), None) == {}


@pytest.mark.parametrize(("first", "second"), [("val", "valid"), ("Train", "train"), ("Test", "testing")])
def test_two_folders_that_mean_one_split_are_refused(first, second):
    found = tree(f"{first}/a/1.png", f"{second}/a/1.png")
    with pytest.raises(UsageError, match=f"has the folders {first} and {second}, which both mean the split "):
        arrange(found)
    assert arrange(found, "classes").classes == (first, second)


def test_images_beside_the_splits_are_in_none_of_them():
    found = tree("1.png", "2.png", "train/a/1.png", "test/a/1.png")
    with pytest.raises(UsageError, match=r'2 images lie directly in /data, such as 1.png, beside .* layout = "splits"'):
        arrange(found)
    assert arrange(found, "splits").splits["test"].left_out == {OUTSIDE: 2}


def test_splits_that_are_not_there_are_not_to_be_had():
    with pytest.raises(UsageError, match=r'/data has no folder train, test or val, but layout = "splits".*: a, b\.'):
        arrange(tree("a/1.png", "b/1.png"), "splits")
    with pytest.raises(UsageError, match=r"it has: no folders\."):
        arrange(tree("1.png"), "splits")


MIXED = {
    "of a set": (("1.png", "a/1.png"), r"1 image lies directly in it, .* such as 1\.png;"),
    "of a split": (("train/1.png", "train/2.png", "train/a/1.png"), "2 images lie directly in train, .* train/1.png;"),
}


@pytest.mark.parametrize(("images", "message"), MIXED.values(), ids=MIXED)
def test_images_beside_class_folders_are_of_no_class(images, message):
    with pytest.raises(UsageError, match=message):
        arrange(tree(*images))


def test_every_fault_is_named():
    found = tree("train/1.png", "train/a/1.png", "test/1.png", "test/a/1.png", problems=("x is a link",))
    with pytest.raises(UsageError, match=r"as it lies: x is a link; .* in test, .*; .* in train, .*; mend"):
        arrange(found)


def test_splits_inside_of_classes_are_refused():
    found = tree("cable/train/good/1.png", "cable/test/bad/1.png", "grid/train/good/1.png")
    with pytest.raises(UsageError, match=r"^/data/cable has the folders test and train in it; .* /data/test/cable,"):
        arrange(found)
    assert arrange(found, "classes").classes == ("cable", "grid")
    assert arrange(tree("cable/train/1.png", "cable/red/1.png", "grid/1.png")).classes == ("cable", "grid")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["train", "test", "val"]), st.sets(st.sampled_from("abcd"), min_size=1), min_size=1)
)
def test_classes_of_all_splits_are_numbered_together(classes):
    found = tree(*(f"{split}/{name}/{n}.png" for split, names in classes.items() for name in names for n in "12"))
    arranged = arrange(found)
    assert arranged.classes == tuple(sorted(set().union(*classes.values())))
    for split, names in classes.items():
        contents = arranged.splits[standard_split(split)]
        assert [arranged.classes[label] for label in contents.labels] == sorted([*names, *names])
        assert contents.folder == Path("/data", split)


# Which split is read


PICKED = [
    # The splits there are, the request, the one chosen, the split that is read; None for a refusal.
    ({"train", "test", "validation"}, "test", None, "test"),
    ({"train", "validation"}, "test", None, "validation"),
    ({"train"}, "test", None, "train"),
    ({"test"}, "test", None, "test"),
    ({"all"}, "test", None, "all"),
    ({"all"}, "train", None, "all"),
    ({"all"}, "test", "test", "all"),
    ({"train", "test"}, "train", None, "train"),
    ({"test"}, "train", None, None),
    ({"train", "test", "validation"}, "test", "val", "validation"),
    ({"train", "test"}, "test", "TRAIN", "train"),
    ({"train", "test"}, "train", "test", "train"),
    ({"train", "test"}, "test", "Valid", None),
    ({"train", "fold1"}, "test", "fold1", "fold1"),
    ({"train", "test"}, "test", "fold1", None),
]


@pytest.mark.parametrize(("splits", "split", "chosen", "picked"), PICKED)
def test_the_split_that_a_request_asks_for(splits, split, chosen, picked):
    request = Request(Path(), split, chosen=chosen)
    if picked is not None:
        assert pick_split(request, splits, "it") == picked
        return
    with pytest.raises(NoSuchSplitError, match=r"^it has no split ") as error:
        pick_split(request, splits, "it")
    assert all(name in str(error.value) for name in splits)


@pytest.mark.parametrize(
    ("folders", "chosen", "split", "names"),
    [
        (["train", "val"], None, "validation", ("val/a/1.png",)),
        (["Train", "TEST"], None, "test", ("TEST/a/1.png",)),
        (["train", "test", "valid"], "validation", "validation", ("valid/a/1.png",)),
        (["train", "test"], "training", "train", ("train/a/1.png",)),
        (["val"], None, "validation", ("val/a/1.png",)),
        (["train"], None, "train", ("train/a/1.png",)),
        (["cats"], None, "all", ("cats/a/1.png",)),
        (["cats"], "test", "all", ("cats/a/1.png",)),
    ],
)
def test_held_out_images_of_a_folder(tmp_path, folders, chosen, split, names):
    fill(tmp_path, *(f"{folder}/a/1.png" for folder in folders))
    pool = read(tmp_path, chosen=chosen)
    assert (pool.split, pool.names) == (split, names)


def test_training_images_of_a_folder(tmp_path):
    fill(tmp_path / "both", "Training/a/1.png", "val/a/2.png")
    assert read(tmp_path / "both", "train").names == ("Training/a/1.png",)
    fill(tmp_path / "one", "a/1.png", "b/1.png")
    assert read(tmp_path / "one", "train").split == "all"
    fill(tmp_path / "held", "val/a/2.png", "test/a/1.png")
    with pytest.raises(NoSuchSplitError, match="held has no split train; it has: test, validation"):
        read(tmp_path / "held", "train")
    with pytest.raises(NoSuchSplitError, match="both has no split test; it has: train, validation"):
        read(tmp_path / "both", chosen="test")


def test_an_empty_split_is_missing_and_no_other_is_taken_for_it(tmp_path):
    fill(tmp_path, "train/a/1.png")
    (tmp_path / "test" / "a").mkdir(parents=True)
    with pytest.raises(DataMissingError, match=rf"images in {tmp_path}/test, which is empty"):
        read(tmp_path)


def test_an_empty_class_is_none(tmp_path):
    fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").mkdir()
    assert read(tmp_path).classes == ("a", "b")


# The adapter


def test_the_layout_can_be_typed(tmp_path):
    fill(tmp_path, "train/1.png", "test/1.png", "val/1.png")
    assert read(tmp_path).names == ("test/1.png",)
    pool = read(tmp_path, layout="classes")
    assert (pool.split, pool.classes, pool.labels.tolist()) == ("all", ("test", "train", "val"), [0, 1, 2])
    with pytest.raises(UsageError, match="layout"):
        read(tmp_path, layout="sideways")


def test_the_rule_of_the_request_decodes(tmp_path):
    Pillow.new("LA", (1, 1), 0).save(tmp_path / "1.png")
    on_white, on_black = (read(tmp_path, decoding=Decoding(ground=ground)).images[0] for ground in ("white", "black"))
    assert (on_white.pixels.tolist(), on_black.pixels.tolist()) == ([[255]], [[0]])
    assert "composited on white" in on_white.remarks[0]
    assert np.asarray(read(tmp_path, invert=True).images[0]).tolist() == [[0]]


def test_a_broken_image_can_be_told_from_a_broken_layout(tmp_path):
    fill(tmp_path, "a/1.png")
    (tmp_path / "a" / "2.png").write_bytes(b"")
    pool = read(tmp_path)
    assert len(pool.images) == 2
    with pytest.raises(UnreadableImageError, match=r"a/2\.png cannot be read"):
        pool.images[1]


def test_cifar_100_has_a_class_called_train(real_data):
    pool = read(real_data / "cifar" / "cifar100" / "test")
    assert (pool.split, len(pool.images), len(pool.classes)) == ("all", 10_000, 100)
    assert "train" in pool.classes
    assert np.bincount(pool.labels).tolist() == [100] * 100
    outer = read(real_data / "cifar" / "cifar100")
    assert (outer.split, outer.classes) == ("test", pool.classes)
    np.testing.assert_array_equal(outer.labels, pool.labels)
    assert outer.names[0] == f"test/{pool.names[0]}"
    with pytest.raises(UsageError, match="cifar10 has the folders test and train in it"):
        read(real_data / "cifar")
