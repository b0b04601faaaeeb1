"""Lists of images: what a line can look like, labels of several lists, missing files, and the splits they give."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from oodbench import registry
from oodbench.datasets import imagelist
from oodbench.datasets.adapter import DataMissingError, Decoding, NoSuchSplitError, Request
from oodbench.datasets.imagelist import ImageList, number_labels, parse
from oodbench.errors import UsageError


def read(split="test", chosen=None, decoding=None, **parameters):
    request = Request(Path("nowhere"), split, chosen=chosen, decoding=decoding or Decoding())
    return registry.load("datasets", "imagelist").read(request, parameters)


def write_images(folder, *names):
    """Grey images; the value of each is its position."""
    for value, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("L", (2, 2), value).save(folder / name, "PNG")


def lines(text, *, needs_labels=False):
    found = parse(Path("list.txt"), text, needs_labels=needs_labels)
    return list(zip(found.paths, found.labels, strict=True))


# What a line can look like


LINES = {
    "plain": ("a/1.png 3", "a/1.png", "3"),
    "unknown": ("a/1.png -1", "a/1.png", "-1"),
    "several spaces": ("a/1.png    3", "a/1.png", "3"),
    "spaces around": ("   a/1.png 3  ", "a/1.png", "3"),
    "spaces in the path": ("my holidays/at sea.png 3", "my holidays/at sea.png", "3"),
    "tab": ("a/1.png\t3", "a/1.png", "3"),
    "tab and spaces": ("my holidays/at sea.png\tpolar bear", "my holidays/at sea.png", "polar bear"),
    "comma": ("a/1.png,3", "a/1.png", "3"),
    "comma and space": ("a/1.png, 3", "a/1.png", "3"),
    "comma, spaces in the path": ("my holidays/at sea.png,3", "my holidays/at sea.png", "3"),
    "comma in the path": ("cats, dogs/1.png 3", "cats, dogs/1.png", "3"),
    "quoted path": ('"my holidays/at sea.png" 3', "my holidays/at sea.png", "3"),
    "quoted path and comma": ('"a, b.png",3', "a, b.png", "3"),
    "quoted path and tab": ('"a b.png"\tpolar bear', "a b.png", "polar bear"),
    "single quotes": ("'a \"b\".png' 3", 'a "b".png', "3"),
    "escaped quotes": ('"a \\"b\\" \\\\.png" 3', 'a "b" \\.png', "3"),
    "quoted label": ('a/1.png "polar bear"', "a/1.png", "polar bear"),
    "both quoted": ("'a b.png' 'polar bear'", "a b.png", "polar bear"),
    "both quoted, comma": ('"a b.png", "polar bear"', "a b.png", "polar bear"),
    "apostrophe": ("men's/1.png 3", "men's/1.png", "3"),
    "apostrophe in the label": ("a/1.png 'x", "a/1.png", "'x"),
    "number sign": ("#1/a.png 3", None, None),
    "number sign later": ("a/#1.png 3", "a/#1.png", "3"),
    "name": ("n01440764/1.JPEG n01440764", "n01440764/1.JPEG", "n01440764"),
    "name with a dot": ("a/1.png no.5", "a/1.png", "no.5"),
    "no ending": ("images/0001 3", "images/0001", "3"),
    "absolute": ("/data/1.png 3", "/data/1.png", "3"),
    "no label": ("a/1.png", "a/1.png", "-1"),
    "no label, spaces": ("my holidays/at sea.JPG", "my holidays/at sea.JPG", "-1"),
    "no label, comma": ("cats, dogs.png", "cats, dogs.png", "-1"),
    "no label, comma at the end": ("cats.png,", "cats.png", "-1"),
    "no label, quoted": ('"my holidays/at sea"', "my holidays/at sea", "-1"),
    "no label, no ending": ("0001", "0001", "-1"),
    "unicode": ("bär/größe 1.png Eisbär", "bär/größe 1.png", "Eisbär"),
}


@pytest.mark.parametrize(("line", "path", "label"), LINES.values(), ids=LINES)
def test_path_and_label_of_a_line(line, path, label):
    assert lines(f"x.png 1\n{line}\n") == [("x.png", "1"), *([] if path is None else [(path, label)])]


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(blacklist_categories=["C", "Z"], blacklist_characters="\"'#,\\"), min_size=1),
    st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1, max_size=3),
    st.sampled_from([" ", "  ", "\t", ",", ", "]),
)
def test_any_path_of_words_comes_back(first, more, separator):
    path = f"{first} {' '.join(more)}.png"
    assert lines(f"{path}{separator}17") == [(path, "17")]


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(blacklist_categories=["C", "Zl", "Zp"]), min_size=1),
    st.text(st.characters(blacklist_categories=["C", "Zl", "Zp"]), min_size=1),
    st.sampled_from([" ", "\t", ",", " , "]),
)
def test_anything_can_be_quoted(path, label, separator):
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert lines(f"{quoted(path)}{separator}a{label}b") == [(path, f"a{label}b")] or label.strip() != label
    assert imagelist._fields(f"{quoted(path)}{separator}{quoted(label)}", frozenset()) == (path, label)


@pytest.mark.parametrize("text", ["a 1\r\nb 2\r\n", "a 1\rb 2", "\n# all\n\na 1\n \nb 2"])
def test_lines_end_as_on_any_system_and_some_are_skipped(text):
    assert lines(text) == [("a", "1"), ("b", "2")]


def test_the_mark_at_the_beginning_of_a_file_is_no_part_of_a_path(tmp_path):
    write_images(tmp_path, "1.png")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf1.png 0\r\n")
    assert read(path=tmp_path / "list.txt").names == ("1.png",)


@pytest.mark.parametrize("line", ['"a.png 3', "'a.png 3", 'a.png" 3"x"', '"a.png"3', '"a" "b" "c"', '"a b" \'x'])
def test_quotes_that_enclose_nothing_are_refused_with_their_line(line):
    with pytest.raises(UsageError, match=r"the list list\.txt has lines other than .*: line 2 \(.*\) has quotes"):
        lines(f"x.png 1\n{line}")


def test_the_first_ten_mistakes_are_named_with_their_lines():
    text = "# list\n" + "a.png 1\nb.png\n" * 1200
    assert len(lines(text)) == 2400
    with pytest.raises(UsageError) as error:
        lines(text, needs_labels=True)
    assert "line 3 (b.png) has no label; line 5 (b.png) has no label; " in str(error.value)
    assert str(error.value).endswith("line 21 (b.png) has no label; and 1,190 more.")


@pytest.mark.parametrize("label", ["3.0", "0.5", ".5", "-1.", "3.0e2"])
def test_a_fraction_is_no_class(label):
    with pytest.raises(UsageError, match=f"line 1 has the label {label}, which is no whole number"):
        lines(f"a.png {label}")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_list_without_images_is_refused(text):
    with pytest.raises(UsageError, match=r"list\.txt names no image; expected lines of `path label`\."):
        lines(text)


# Labels


def labelled(*labels):
    return ImageList(Path("a.txt"), tuple(f"{i}.png" for i in range(len(labels))), labels)


def test_numbers_stay_numbers():
    numbers, classes = number_labels([labelled("10", "2", "-1"), labelled("007", "+3")])
    assert numbers == {"10": 10, "2": 2, "-1": -1, "007": 7, "+3": 3}
    assert classes == ()


def test_names_are_numbered_in_the_order_of_all_lists_together():
    numbers, classes = number_labels([labelled("dog", "-1"), labelled("ant", "zebra"), labelled("cat")])
    assert classes == ("ant", "cat", "dog", "zebra")
    assert numbers == {"-1": -1, "ant": 0, "cat": 1, "dog": 2, "zebra": 3}


def test_numbers_and_names_are_not_mixed():
    with pytest.raises(UsageError, match=r"numbers, such as 3, and labels that are names, such as cat; expected one"):
        number_labels([labelled("3", "-1"), labelled("cat")])


def test_a_list_of_unknown_labels_alone():
    assert number_labels([labelled("-1", "-1")]) == ({"-1": -1}, ())


# One list


def test_one_list_is_the_whole(tmp_path):
    write_images(tmp_path / "images", "b.png", "a/1.png", "c.png")
    file = tmp_path / "lists" / "all.txt"
    file.parent.mkdir()
    file.write_text("c.png cat\nb.png\na/1.png ant\nb.png -1\n")
    for split in ("test", "train"):
        pool = read(split, path=file, root=tmp_path / "images")
        assert (pool.split, pool.classes, pool.validation) == ("all", ("ant", "cat"), None)
        assert pool.labels.tolist() == [1, -1, 0, -1]
        assert pool.labels.dtype == np.int64
        assert pool.names == ("c.png", "b.png", "a/1.png", "b.png"), "as in the list, repeated ones too"
        assert [np.asarray(image)[0, 0] for image in pool.images] == [2, 0, 1, 0]
    assert read(chosen="test", path=file, root=tmp_path / "images").split == "all"


def test_paths_are_relative_to_the_list_or_absolute(tmp_path):
    write_images(tmp_path, "lists/1.png", "images/2.png")
    file = tmp_path / "lists" / "all.txt"
    file.write_text(f"1.png 4\n../images/2.png 5\n{tmp_path}/images/2.png 6\n")
    pool = read(path=file)
    assert [np.asarray(image)[0, 0] for image in pool.images] == [0, 1, 1]
    assert (pool.labels.tolist(), pool.classes) == ([4, 5, 6], ())


def test_the_rule_of_the_request_and_invert_apply(tmp_path):
    Pillow.new("LA", (1, 1), 0).save(tmp_path / "1.png")
    (tmp_path / "list.txt").write_text("1.png\n")
    pool = read(path=tmp_path / "list.txt", decoding=Decoding(ground="black"))
    assert pool.images[0].pixels.tolist() == [[0]]
    assert "composited on black" in pool.images[0].remarks[0]
    assert read(path=tmp_path / "list.txt", invert="true").images[0].pixels.tolist() == [[0]]


def test_a_link_and_an_ending_of_any_kind_are_read(tmp_path):
    write_images(tmp_path, "real.png")
    (tmp_path / "link.dat").symlink_to("real.png")
    (tmp_path / "list.txt").write_text("link.dat 1\n")
    assert np.asarray(read(path=tmp_path / "list.txt").images[0]).shape == (2, 2)


# A list for each split


@pytest.fixture
def three(tmp_path):
    """Three lists of a set with names as labels, of which no two have the same."""
    write_images(tmp_path, "0.png", "1.png", "2.png", "3.png")
    (tmp_path / "train.txt").write_text("0.png dog\n1.png bee\n")
    (tmp_path / "val.txt").write_text("2.png cat\n")
    (tmp_path / "test.txt").write_text("3.png bee\n1.png dog\n")
    return {"train": tmp_path / "train.txt", "validation": tmp_path / "val.txt", "test": tmp_path / "test.txt"}


def test_the_validation_list_comes_with_the_test_list(three):
    pool = read(**three)
    assert (pool.split, pool.names, pool.labels.tolist()) == ("test", ("3.png", "1.png"), [0, 2])
    assert pool.classes == ("bee", "cat", "dog")
    assert (pool.validation.split, pool.validation.names) == ("validation", ("2.png",))
    assert (pool.validation.labels.tolist(), pool.validation.classes) == ([1], pool.classes)
    assert np.asarray(pool.validation.images[0])[0, 0] == 2
    train = read("train", **three)
    assert (train.split, train.labels.tolist(), train.classes) == ("train", [2, 0], pool.classes)
    assert train.validation is None


@pytest.mark.parametrize(
    ("lists", "split", "chosen", "found"),
    [
        (["train", "test"], "test", None, "test"),
        (["train", "validation"], "test", None, "validation"),
        (["train"], "test", None, "train"),
        (["test"], "train", None, None),
        (["train", "validation", "test"], "test", "val", "validation"),
        (["train", "validation", "test"], "test", "Train", "train"),
        (["train", "test"], "test", "validation", None),
        (["train", "test"], "test", "fold1", None),
    ],
)
def test_the_list_that_a_request_asks_for(three, lists, split, chosen, found):
    given = {name: three[name] for name in lists}
    if found is None:
        with pytest.raises(NoSuchSplitError, match=rf"imagelist with .* has no split .*; it has: {', '.join(lists)}\."):
            read(split, chosen, **given)
    else:
        pool = read(split, chosen, **given)
        assert (pool.split, pool.validation) == (found, None)


def test_lines_of_splits_need_labels(three):
    three["test"].write_text("3.png bee\n1.png\n")
    with pytest.raises(UsageError, match=r"test\.txt has lines other than .*: line 2 \(1\.png\) has no label\."):
        read("train", **three)


def test_either_a_list_or_lists_of_splits(three):
    with pytest.raises(UsageError, match="imagelist has no list; expected either path, or some of train"):
        read()
    with pytest.raises(UsageError, match="imagelist has both path and train, validation, test; expected either"):
        read(path=three["test"], **three)


# What the official lists have


def test_the_official_number_of_lines_is_said_and_changes_nothing(three):
    pool = read(path=three["test"], official=7)
    assert (pool.official, pool.names) == (7, ("3.png", "1.png"))
    assert read(path=three["test"]).official is None
    numbers = {"train": 5, "test": 9}
    pool = read(**three, official=numbers)
    assert (pool.official, pool.validation.official, read("train", **three, official=numbers).official) == (9, None, 5)


@pytest.mark.parametrize(
    ("lists", "official", "message"),
    [
        (["train", "test"], 9, "has 9; expected a table with a number for each of train, test"),
        (["train", "test"], {"validation": 9}, "has numbers for validation; expected a table with a number for each"),
        ([], {"test": 9}, "has numbers for test; expected one number"),
    ],
)
def test_official_numbers_are_of_lists_that_are_given(three, lists, official, message):
    given = {name: three[name] for name in lists} or {"path": three["test"]}
    with pytest.raises(UsageError, match=f"the parameter official of imagelist {message}"):
        read(**given, official=official)


def test_it_is_said_if_another_list_than_the_official_one_is_used(three):
    file = three["test"]
    ours = hashlib.sha256(file.read_bytes()).hexdigest()
    assert read(path=file, official=2, sha256=ours.upper()).remarks == {}
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert read(path=file, official=2, sha256=ours).remarks == {}, "only its lines end in another way"
    file.write_text("3.png bee\n0.png dog\n")
    assert read(path=file, official=2, sha256=ours).remarks == {"are in another list than the official one": 2}
    assert read(path=file, sha256=ours).remarks == {"are in another list than the official one": 2}
    assert read(path=file, official=1).remarks == {"are in another list than the official one": 2}
    assert read(path=file, official=3, sha256=ours).remarks == {}, "it is shorter, which is said"
    with pytest.raises(UsageError, match="has the parameter sha256 without path; expected it for a single list only"):
        read(**three, sha256=ours)


# What is missing or no list


def test_all_missing_images_are_counted_before_one_is_decoded(tmp_path):
    write_images(tmp_path, "0.png")
    (tmp_path / "0.png").write_bytes(b"broken")
    file = tmp_path / "list.txt"
    file.write_text("0.png 1\n" + "".join(f"gone {i}.png 1\n" for i in range(1, 1235)))
    with pytest.raises(DataMissingError) as error:
        read(path=file)
    assert not error.value.downloadable
    assert error.value.looked_for == (
        f"1,234 of the 1,235 images of {file}, in {tmp_path}: "
        + ", ".join(f"gone {i}.png" for i in range(1, 11))
        + ", and 1,224 more"
    )


def test_missing_images_of_both_lists_are_named_at_once_but_not_those_of_training(three):
    for name in ("0.png", "2.png", "3.png"):
        (three["test"].parent / name).unlink()
    with pytest.raises(DataMissingError, match=r"2 of the 3 images of .*test\.txt and .*val\.txt, in .*: 3\.png, 2"):
        read(**three)
    with pytest.raises(DataMissingError, match=r"1 of the 2 images of .*train\.txt, in .*: 0\.png$"):
        read("train", **three)


def test_a_folder_is_no_image(tmp_path):
    (tmp_path / "a.png").mkdir()
    (tmp_path / "list.txt").write_text("a.png 1\n")
    with pytest.raises(DataMissingError, match=r": a\.png$"):
        read(path=tmp_path / "list.txt")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_list_is_missing_data(three, split):
    three["validation"].unlink()
    with pytest.raises(DataMissingError) as error:
        read(split, **three)
    assert (error.value.looked_for, error.value.downloadable) == (f"the list {three['validation']}", False)


NO_LISTS = {
    "utf-16": ("a.png 1\n".encode("utf-16"), "is not UTF-8 text"),
    "latin-1": ("bär.png 1\n".encode("latin-1"), "is not UTF-8 text"),
    "zeros": (b"a.png\0 1\n", "is no text"),
}


@pytest.mark.parametrize(("content", "message"), NO_LISTS.values(), ids=NO_LISTS)
def test_what_is_no_text_is_no_list(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UsageError, match=rf"the list .*list\.txt {message}; expected lines of `path label`\."):
        read(path=tmp_path / "list.txt")


def test_a_folder_or_a_huge_file_is_no_list(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"the list .* cannot be read: .*\."):
        read(path=tmp_path)
    monkeypatch.setattr(imagelist, "LARGEST", 1 << 20)
    (tmp_path / "list.txt").write_text("a.png 1\n" * (1 << 17) + "\n")
    with pytest.raises(UsageError, match=r"list\.txt is larger than 1 MiB; expected lines of `path label`\."):
        read(path=tmp_path / "list.txt")


# Speed, and real lists


def test_fifty_thousand_lines_take_well_below_a_second():
    text = "".join(f"ILSVRC2012/val/ILSVRC2012_val_{i:08}.JPEG {i % 1000}\n" for i in range(50_000))
    started = time.process_time()
    found = parse(Path("list.txt"), text, needs_labels=True)
    number_labels([found])
    assert time.process_time() - started < 0.5
    assert len(found.paths) == 50_000


def test_openoods_lists_are_read(real_data):
    cifar = real_data / "cifar"
    lists = {
        split: cifar / "lists" / f"{split[:5] if split != 'validation' else 'val'}_cifar10.txt"
        for split in ("train", "validation", "test")
    }
    pool = read(root=cifar, **lists)
    assert (len(pool.images), len(pool.validation.images)) == (9000, 1000)
    assert np.bincount(pool.labels).tolist() == [900] * 10
    assert np.bincount(pool.validation.labels).tolist() == [100] * 10
    assert len(read("train", root=cifar, **lists).images) == 10_000
    folders = registry.load("datasets", "imagefolder").read(
        Request(real_data, "test"), {"path": str(cifar / "cifar10")}
    )
    labels = dict(zip(folders.names, folders.labels, strict=True))
    assert all(
        labels[name.removeprefix("cifar10/")] == label for name, label in zip(pool.names, pool.labels, strict=True)
    )
    for name, n in {"tin": 7793, "val_tin": 1000, "texture": 300, "notmnist": 10_000, "cifar100": 10_000}.items():
        unknown = read(path=cifar / "lists" / f"{name}.txt", root=cifar)
        assert (unknown.split, len(unknown.images), set(unknown.labels)) == ("all", n, {-1})
        assert unknown.images[n // 2].pixels.dtype == np.uint8
