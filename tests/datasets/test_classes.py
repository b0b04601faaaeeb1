"""Which output is which class: lists in all their forms, data with fewer classes than outputs, and mistakes."""

import numpy as np
import pytest
from drawing import draw
from PIL import Image as Pillow

from oodbench.datasets.adapter import Pool
from oodbench.datasets.classes import class_list, outputs_by_label
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.suites.reading import read_suite

SUITE = """\
name = "mine"
version = 1
classifier = "cnn"
weights = "weights.pt"
{classes}
known = {known}
[unknown]
noise = {{ n = 8 }}
[input]
size = 8
[sizes]
exposed = 0
"""


def pool(labels, *classes):
    return Pool(np.zeros((len(labels), 4, 4), np.uint8), np.array(labels, np.int64), "test", classes)


# Lists


def test_a_list_of_names_names_the_outputs_in_its_order():
    assert class_list(["dog", "cat", "eel"]) == ("dog", "cat", "eel")
    assert class_list(None) is None


@pytest.mark.parametrize(
    "content",
    [b"dog\ncat\neel\n", b"dog\ncat\neel", b"\xef\xbb\xbfdog\r\ncat \r\n eel\r\n\r\n", b"dog\ncat\neel\n\n\n"],
)
def test_a_file_has_a_name_on_each_line(content, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_bytes(content)
    assert class_list(str(file)) == ("dog", "cat", "eel")


def test_names_may_have_spaces_and_all_letters(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("tench, Tinca tinca\nécureuil\n3\n", encoding="utf-8")
    assert class_list(str(file)) == ("tench, Tinca tinca", "écureuil", "3")


def test_the_classes_of_imagenet_are_its_wordnet_ids_in_the_order_of_the_outputs():
    names = class_list("imagenet-1k")
    assert len(names) == 1000
    assert names == tuple(sorted(names))
    assert (names[0], names[207], names[999]) == ("n01440764", "n02099601", "n15075141")  # tench, retriever, tissue


def test_the_classes_of_imagenet_are_those_of_the_public_list(real_data):
    assert class_list("imagenet-1k") == tuple((real_data / "imagenet" / "wnids.txt").read_text().split())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"dog\n\ncat\n", "has no name in place 2; expected the name of a class for each output"),
        (b"  \ndog\ncat\n", "has no name in place 1"),
        (b"dog\ncat\neel\ncat\n", "has the class cat twice; expected a class of its own for each output"),
        (b"dog\n", "has 1 classes; expected at least two"),
        (b"", "has 0 classes; expected at least two"),
        (b"\n\n", "has 0 classes; expected at least two"),
        ("dög\ncat".encode("latin-1"), "is not UTF-8 text; expected a name on each line"),
    ],
)
def test_mistakes_in_a_file(content, sentence, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=f"^the file of classes {file} {sentence}"):
        class_list(str(file))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["dog", "", "cat"], "classes has no name in place 2"),
        (["dog", "cat", "dog"], "classes has the class dog twice"),
        (["dog"], "classes has 1 classes; expected at least two"),
    ],
)
def test_mistakes_in_a_list(names, sentence):
    with pytest.raises(UsageError, match=sentence):
        class_list(names)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingPrerequisiteError, match=f"the file of classes {tmp_path}/none.txt cannot be read: No"):
        class_list(f"{tmp_path}/none.txt")
    with pytest.raises(MissingPrerequisiteError, match="cannot be read: Is a directory"):
        class_list(str(tmp_path))


def test_a_number_of_classes():
    assert class_list(3) == ("0", "1", "2")


# Labels and outputs


OUTPUTS = {  # the known set, the names of the outputs, and the output of each label
    "sorted, without names": (pool([2, 0, 1], "a", "b", "c"), None, {0: 0, 1: 1, 2: 2}),
    "also a class without samples": (pool([2, 0], "a", "b", "c"), None, {0: 0, 1: 1, 2: 2}),
    "numbers with gaps": (pool([7, 3, 3, 90]), None, {3: 0, 7: 1, 90: 2}),
    "another order": (pool([0, 1, 2], "a", "b", "c"), ["c", "a", "b"], {0: 1, 1: 2, 2: 0}),
    "a larger head": (pool([0, 1], "b", "d"), ["e", "d", "c", "b", "a"], {0: 3, 1: 1}),
    "a class without samples need not be there": (pool([0, 2], "b", "x", "d"), ["d", "b"], {0: 1, 2: 0}),
    "numbers are outputs": (pool([4, 1]), ["v", "w", "x", "y", "z"], {1: 1, 4: 4}),
    "numbers are names": (pool([4, 1]), ["4", "3", "2", "1"], {1: 3, 4: 0}),
    "folders called by numbers are names": (pool([0, 1], "1", "10"), ["10", "5", "1"], {0: 2, 1: 0}),
}


@pytest.mark.parametrize(("known", "names", "outputs"), OUTPUTS.values(), ids=OUTPUTS)
def test_the_output_of_each_label(known, names, outputs):
    assert dict(outputs_by_label([known], names, "mine")) == outputs


def test_labels_of_all_pools_count():
    assert outputs_by_label([pool([0], "a", "b"), pool([1], "a", "b")], ["b", "x", "a"], "mine") == {0: 2, 1: 0}


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        (pool([0, 1], "a", "zebra"), r"the known set mine has the class zebra, which is not in .* \(a, b, c, …\)"),
        (pool([0, 1], "x", "y"), "has the class x and y|has the class x, y"),
        (pool([0, 5]), "has samples of the label 5, and the classifier has 3 outputs; expected labels from 0 to 2, so"),
        (pool([-1, 1]), "has samples of the label -1, which stands for unknown ones"),
    ],
)
def test_labels_that_have_no_output(known, sentence):
    with pytest.raises(UsageError, match=sentence):
        outputs_by_label([known], ["a", "b", "c"], "mine")


# In a suite


@pytest.fixture
def suite_with(tmp_path):
    """A suite of grey images by class, whose value is that of the class times 20, with the classes that are asked for.

    The known set is in folders or in a list.
    """

    def make(classes, labels, *, as_list=False):
        lines = []
        for label in labels:
            value = 20 * sum(map(ord, label)) % 200
            for number in range(4):
                file = tmp_path / "images" / "test" / label / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((8, 8), value, np.uint8)
                pixels[0, number] += 1
                Pillow.fromarray(pixels).save(file)
                lines.append(f"{file} {label}\n")
        (tmp_path / "list.txt").write_text("".join(lines))
        listed = '{ adapter = "imagelist", test = "list.txt" }'
        known = listed if as_list else '{ adapter = "imagefolder", path = "images" }'
        file = tmp_path / "mine.toml"
        file.write_text(SUITE.format(classes=f"classes = {classes}", known=known))
        return read_suite(str(file))

    return make


def drawn(suite, tmp_path):
    """The values and outputs of all held-out images, and the names of the outputs."""
    splits = draw(suite, tmp_path, classes=class_list(suite.suite.classes))
    found = {
        (int(image.max()) // 10 * 10, int(label))
        for split in (splits.meta, splits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    return found, splits.classes


def value_of(label):
    return 20 * sum(map(ord, label)) % 200


@pytest.mark.parametrize("as_list", [False, True])
def test_a_subset_of_the_classes_of_a_larger_head(as_list, suite_with, tmp_path):
    (tmp_path / "order.txt").write_text("emu\ndog\ncat\nbat\nant\n")
    suite = suite_with('"order.txt"', ["ant", "dog"], as_list=as_list)
    found, classes = drawn(suite, tmp_path)
    assert found == {(value_of("ant"), 4), (value_of("dog"), 1)}
    assert classes == ("emu", "dog", "cat", "bat", "ant")


def test_numbers_in_a_list_are_the_outputs_of_a_list_of_names(suite_with, tmp_path):
    suite = suite_with('["emu", "dog", "cat", "bat", "ant"]', ["4", "1"], as_list=True)
    assert drawn(suite, tmp_path)[0] == {(value_of("4"), 4), (value_of("1"), 1)}


def test_wordnet_ids_as_folders(suite_with, tmp_path):
    suite = suite_with('"imagenet-1k"', ["n01440764", "n15075141"])
    found, classes = drawn(suite, tmp_path)
    assert {output for _, output in found} == {0, 999}
    assert len(classes) == 1000


def test_a_folder_that_is_no_class_is_named(suite_with, tmp_path):
    suite = suite_with('["ant", "bat"]', ["ant", "bat", "zebra"])
    with pytest.raises(UsageError, match="has the class zebra, which is not in the list of classes"):
        drawn(suite, tmp_path)


@pytest.mark.parametrize("classes", ["[]", "1", "true", "[1, 2]", '["ant"]'])
def test_a_suites_classes_are_a_file_or_at_least_two_names(classes, suite_with):
    with pytest.raises(UsageError, match=r"line 5, key classes: .*expected a file, a number from 2, or a list of"):
        suite_with(classes, ["ant", "bat"])
